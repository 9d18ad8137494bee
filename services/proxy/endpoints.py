"""The endpoints a proxy is given, or finds in DNS and, unless told not to, proves to be whom the CA says."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from typing import Final

from quorate.node import logs, srv
from quorate.node.srv import Target

log = logs.named()

PROBE_S: Final = 3.0


class BadEndpoint(Exception):  # noqa: N818 - it names the finding
    """An endpoint that is no host:port, or a domain without endpoints. One sentence."""


def given(words: Sequence[str]) -> list[Target]:
    """Targets of `host:port` and `scheme://host:port`; BadEndpoint for anything else."""
    targets = []
    for word in words:
        scheme, _, rest = word.rpartition("://")
        host, colon, port = rest.rstrip("/").rpartition(":")
        if not colon or not port.isdigit() or not 0 < int(port) < 65536:
            raise BadEndpoint(f"error parsing endpoint {word!r}: address needs a host and a port")
        targets.append(Target(host.strip("[]") or "localhost", int(port), 0, 0, secure=scheme == "https"))
    return targets


def discovered(domain: str, suffix: str, *, insecure: bool, ca_file: str) -> list[Target]:
    """What the domain's SRV records name: unless `insecure` only those that prove with a certificate for the domain,
    of the CA in `ca_file` or of one the system trusts, that they belong to it. BadEndpoint when there is no record.
    """
    try:
        found = srv.clients(domain, suffix)
    except srv.NoRecords as reason:
        raise BadEndpoint(f"failed to discover endpoints of {domain}: {reason}") from None
    log.info("discovered cluster from SRV", **{"srv-server": domain, "endpoints": [target.url for target in found]})
    if insecure:
        return found
    context = ssl.create_default_context(cafile=ca_file or None)
    good = [target for target in found if _proves_itself(target, domain, context)]
    log.info("using validated SRV endpoints", **{"srv-server": domain, "endpoints": [target.url for target in good]})
    return good


def _proves_itself(target: Target, domain: str, context: ssl.SSLContext) -> bool:
    if not target.secure:
        log.warn("endpoint is insecure; ignoring it", endpoint=target.url)
        return False
    try:
        with (
            socket.create_connection((target.host, target.port), PROBE_S) as plain,
            context.wrap_socket(plain, server_hostname=domain),
        ):
            return True
    except OSError as error:
        log.warn("endpoint cannot be verified; ignoring it", endpoint=target.url, error=str(error))
        return False
