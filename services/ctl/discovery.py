"""Endpoints from the SRV records of a domain, `_etcd-client._tcp` and `_etcd-client-ssl._tcp`."""

from collections.abc import Sequence

from quorate.ctl.failures import BAD_CONNECTION, Failure
from quorate.node import srv


def discovered(domain: str, service_name: str, insecure: bool) -> Sequence[str]:
    """The client URLs the domain names; those without TLS only when `insecure`. Failure when there are none."""
    try:
        return [target.url for target in srv.clients(domain, service_name, insecure=insecure)]
    except srv.NoRecords as reason:
        name = f"{srv.CLIENTS}{f'-{service_name}' if service_name else ''}"
        raise Failure(f"error querying DNS SRV records for _{name}: {reason}", BAD_CONNECTION) from None
