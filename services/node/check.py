"""Whether a node is healthy, for whoever watches over it: `python -m quorate.node.check [--wait SECONDS] [URL]`.

Asks /health of the client URL (default http://127.0.0.1:2379), prints the answer, and exits 0 when it is healthy.
Container images have no curl; this needs nothing but Python's standard library.
"""

import argparse
import ssl
import sys
import time
import urllib.error
import urllib.request
from typing import Final

POLL_S: Final = 0.05
ANSWER_S_MAX: Final = 8.0  # a linearizable read may take etcd's request timeout of 7 s


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m quorate.node.check", description=__doc__)
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="how long it may take to be healthy")
    parser.add_argument("--serializable", action="store_true", help="ask this member only, not for a quorum")
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:2379")
    parser.add_argument("--cacert", metavar="FILE", help="CA of the node's certificate, for an https URL")
    parser.add_argument("--cert", metavar="FILE", help="certificate to show")
    parser.add_argument("--key", metavar="FILE", help="its key")
    options = parser.parse_args()
    context = ssl.create_default_context(cafile=options.cacert) if options.cacert else None
    if context is not None and options.cert:
        context.load_cert_chain(options.cert, options.key)
    address = options.url.rstrip("/") + "/health" + ("?serializable=true" if options.serializable else "")
    deadline = time.monotonic() + options.wait
    healthy, answer = health(address, context)
    while not healthy and time.monotonic() < deadline:
        time.sleep(POLL_S)
        healthy, answer = health(address, context)
    print(answer, file=sys.stdout if healthy else sys.stderr)
    sys.exit(0 if healthy else 1)


def health(address: str, context: ssl.SSLContext | None = None) -> tuple[bool, str]:
    """Whether the node answers that it is healthy, and what it or the network says."""
    try:
        with urllib.request.urlopen(address, timeout=ANSWER_S_MAX, context=context) as answer:  # noqa: S310 - the operator's own URL
            return True, answer.read().decode().strip()
    except urllib.error.HTTPError as error:
        return False, error.read().decode().strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return False, f"{address}: {getattr(reason, 'strerror', None) or reason}"


if __name__ == "__main__":
    main()
