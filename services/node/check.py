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
    try:
        context = tls_context(options.cacert, options.cert, options.key)
    except ValueError as error:
        print(f"the files for TLS cannot be used: {error}", file=sys.stderr)
        sys.exit(1)
    address = options.url.rstrip("/") + "/health" + ("?serializable=true" if options.serializable else "")
    deadline = time.monotonic() + options.wait
    healthy, answer = health(address, context)
    while not healthy and time.monotonic() < deadline:
        time.sleep(POLL_S)
        healthy, answer = health(address, context)
    print(answer, file=sys.stdout if healthy else sys.stderr)
    sys.exit(0 if healthy else 1)


def tls_context(cacert: str | None, cert: str | None, key: str | None) -> ssl.SSLContext | None:
    """What the files are for, None when there are none; ValueError with the name of one that is not right."""
    if not cacert and not cert:
        return None
    context = ssl.create_default_context()
    path = cacert
    try:
        if cacert:
            context.load_verify_locations(cacert)
        if path := cert:
            context.load_cert_chain(path, key, "")  # nobody is there to be asked for a passphrase
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    return context


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
