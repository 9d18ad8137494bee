"""Endpoints from the SRV records of a domain, `_etcd-client._tcp` and `_etcd-client-ssl._tcp`."""

from collections.abc import Sequence

from dns.exception import DNSException
from dns.resolver import resolve

from quorate.ctl.failures import BAD_CONNECTION, Failure


def discovered(domain: str, service_name: str, insecure: bool) -> Sequence[str]:
    """The client URLs the domain names; those without TLS only when `insecure`. Failure when there are none."""
    suffix = f"-{service_name}" if service_name else ""
    found = _records(f"_etcd-client-ssl{suffix}._tcp.{domain}", "https")
    if insecure:
        found += _records(f"_etcd-client{suffix}._tcp.{domain}", "http")
    if not found:
        raise Failure(f"error querying DNS SRV records for _etcd-client{suffix} {domain}", BAD_CONNECTION)
    return found


def _records(name: str, scheme: str) -> list[str]:
    try:
        answers = resolve(name, "SRV")
    except DNSException:
        return []
    ordered = sorted(answers, key=lambda record: (record.priority, -record.weight))
    return [f"{scheme}://{record.target.to_text(omit_final_dot=True)}:{record.port}" for record in ordered]
