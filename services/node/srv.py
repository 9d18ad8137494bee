"""DNS SRV records: what a domain says about where its members and their client ports are.

Records without TLS stand under `_NAME._tcp`, those with TLS under `_NAME-ssl._tcp`; a service name, which keeps two
clusters of one domain apart, is appended with a dash (etcd's --discovery-srv and --discovery-srv-name).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

from dns.exception import DNSException
from dns.resolver import Resolver

NAMESERVER_VARIABLE: Final = "QUORATE_NAMESERVER"  # address:port of the server to ask in place of the system's
CLIENTS: Final = "etcd-client"
MEMBERS: Final = "etcd-server"
LOOKUP_S: Final = 10.0
DNS_PORT: Final = 53
_HOST: Final = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*")


class NoRecords(Exception):  # noqa: N818 - it names the finding
    """The domain has no such record, or nobody answers for it. The text says which name was asked for and why not."""


@dataclass(frozen=True, slots=True)
class Target:
    """One record."""

    host: str  # without the final dot
    port: int
    priority: int
    weight: int
    secure: bool

    @property
    def scheme(self) -> str:
        return "https" if self.secure else "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


def lookup(service: str, domain: str, *, secure: bool, suffix: str = "") -> list[Target]:
    """The records of one service, those to be tried first in front; NoRecords when there is none. Blocks."""
    name = f"_{service}{'-ssl' if secure else ''}{f'-{suffix}' if suffix else ''}._tcp.{domain}"
    try:
        answers = _resolver().resolve(name, "SRV", lifetime=LOOKUP_S)
    except (DNSException, ValueError) as error:
        raise NoRecords(f"lookup {name}: {error}") from None
    ordered = sorted(answers, key=lambda record: (record.priority, -record.weight))
    targets = [
        Target(record.target.to_text(omit_final_dot=True), record.port, record.priority, record.weight, secure)
        for record in ordered
    ]
    named = [target for target in targets if _HOST.fullmatch(target.host)]  # as Go leaves out what is no name
    if not named:
        raise NoRecords(f"lookup {name}: no record leads to the name of a host")
    return named


def clients(domain: str, suffix: str = "", *, insecure: bool = True) -> list[Target]:
    """The client ports of a domain, with TLS and, if `insecure`, without; NoRecords when there is none. Blocks."""
    found: list[Target] = []
    reasons = []
    for secure in (True, False) if insecure else (True,):
        try:
            found += lookup(CLIENTS, domain, secure=secure, suffix=suffix)
        except NoRecords as reason:
            reasons.append(str(reason))
    if not found:
        raise NoRecords("; ".join(reasons))
    return found


def _resolver() -> Resolver:
    given = os.environ.get(NAMESERVER_VARIABLE)
    if not given:
        return Resolver()
    host, _, port = given.rpartition(":")
    resolver = Resolver(configure=False)
    resolver.nameservers = [host or given]
    resolver.port = int(port) if host else DNS_PORT
    return resolver
