"""The founders of a cluster in the SRV records of a domain: --discovery-srv and --discovery-srv-name."""

from __future__ import annotations

import socket
from typing import Final

from quorate.discovery.failures import DiscoveryFailed
from quorate.node import flags, logs, srv
from quorate.node.config import Config
from quorate.node.srv import NoRecords, Target

log = logs.named("discovery")

Address = tuple[str, int]
BOTH: Final = (True, False)  # records with TLS, and without


def initial_cluster(config: Config) -> str:
    """What the domain says, as --initial-cluster wants it: this member under its name, the others under numbers.

    DiscoveryFailed when there is no record, or none that leads to this member. Blocks.
    """
    own = {_address(flags.host_of(url), flags.port_of(url)): url for url in config.initial_advertise_peer_urls}
    found: list[str] = []
    reasons: list[str] = []
    for secure in BOTH:
        number = 0
        try:
            records = srv.lookup(srv.MEMBERS, config.discovery_srv, secure=secure, suffix=config.discovery_srv_name)
        except NoRecords as reason:
            reasons.append(f"error querying DNS SRV records for _{_service(secure, config)} {reason}")
            continue
        for record in records:
            try:
                url = own.get(_address(record.host, record.port))
            except OSError as error:
                reasons.append(f"{record.host}: {error.strerror}")
                continue
            if url is None:
                found.append(f"{number}={record.url}")
                number += 1
            elif url.partition("://")[0] != record.scheme:
                reasons.append(_mismatch(record, _service(secure, config), url))
            else:
                found.append(f"{config.name}={record.url}")
    if reasons:
        log.warn("failed to resolve during SRV discovery", error="; ".join(reasons))
    if not found:
        raise DiscoveryFailed("; ".join(reasons))
    if not any(entry.startswith(f"{config.name}=") for entry in found):
        raise DiscoveryFailed(f'cannot find local etcd member "{config.name}" in SRV records')
    for entry in found:
        log.info("got bootstrap from DNS for etcd-server", node=entry)
    return ",".join(found)


def _service(secure: bool, config: Config) -> str:
    suffix = f"-{config.discovery_srv_name}" if config.discovery_srv_name else ""
    return f"{srv.MEMBERS}{'-ssl' if secure else ''}{suffix}"


def _mismatch(record: Target, service: str, url: str) -> str:
    return f"bootstrap at {record.url} from DNS for {service} has scheme mismatch with expected peer {url}"


def _address(host: str, port: int) -> Address:
    """Where a name leads, IPv4 first as Go resolves; OSError when it leads nowhere."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return str(min(found, key=lambda entry: entry[0] != socket.AF_INET)[4][0]), port
