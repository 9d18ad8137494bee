"""DNS: what a hostile server answers to the question for SRV records, by way of the library that reads it."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from struct import pack
from typing import Any, Final
from unittest import mock

import dns.message
import dns.query
import dns.resolver

from quorate.discovery import records
from quorate.discovery.failures import DiscoveryFailed
from quorate.node import srv
from quorate.node.config import Config
from quorate.node.srv import NoRecords
from tests.fuzzing.octets import Octets

DOMAIN: Final = "example.com"
ANSWER_AT: Final = 12
SRV, CNAME, A, ANY, OPT = 33, 5, 1, 255, 41
HOSTS: Final = (
    b"\x02m1\x07example\x03com\0", b"\x02m2\0", b"\0", b"\xc0\x0c", b"\xc0\xff", b"\xff\xff", b"\x0ba=http://b:\0",
    b"\x03a,b\0", b"\x01\0\0", b"\x04\xff\xfe\xfd\xfc\0", b"\x02..\0", b"\x3f" + b"x" * 63 + b"\0", b"\x01*\0",
    b"\x09127.0.0.1\0", b"\x03127\x010\x010\x011\0", b"\x03::1\0", b"\x05m1 :1\0", b"\x05xn--a\0",
    b"\x0a" + b"\n" * 10 + b"\0",
)  # fmt: skip
HOST: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
CONFIG: Final = Config(
    name="m1", discovery_srv=DOMAIN, initial_advertise_peer_urls=["http://m1.example.com:2380"], initial_cluster=""
)

_answers: list[bytes] = []


def _asked(query: Any, *_arguments: Any, **_options: Any) -> Any:
    """In place of the network: what the server says, read as it would be."""
    said = _answers[0]
    if len(said) > 1 and said[0] != 0xFF:  # that of our question, but for those that answer another one
        said = pack(">H", query.id) + said[2:]
    response = dns.message.from_wire(said, one_rr_per_rrset=False, ignore_trailing=True)
    if not query.is_response(response):
        raise dns.query.BadResponse
    return response


def _resolved(host: str, port: int, **_options: Any) -> list[Any]:
    """In place of the system's resolver, as strict as that about names."""
    host.encode("idna")
    if "\0" in host:
        raise ValueError("embedded null character")
    if host.startswith("m2"):
        raise OSError(-2, "Name or service not known")
    return [(2, 1, 6, "", (f"10.0.0.{len(host) % 200}" if host != "m1.example.com" else "10.0.0.1", port))]


@contextmanager
def world() -> Iterator[None]:
    """No network, no waiting."""
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    logging.disable()
    with ExitStack() as stack:
        for target, name, value in (
            (dns.query, "udp", _asked),
            (dns.query, "tcp", _asked),
            (time, "sleep", lambda _seconds: None),
            (srv, "LOOKUP_S", 0.02),
            (srv, "_resolver", lambda: resolver),
            (socket, "getaddrinfo", _resolved),
        ):
            stack.enter_context(mock.patch.object(target, name, value))
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def _question(service: str) -> bytes:
    labels = (service, "_tcp", *DOMAIN.split("."))
    return b"".join(bytes((len(label),)) + label.encode() for label in labels) + b"\0" + pack(">HH", SRV, 1)


def _record(kind: int, content: bytes, name: bytes = b"\xc0\x0c") -> bytes:
    return name + pack(">HHIH", kind, 1, 60, len(content)) + content


def _message(answers: list[bytes], flags: int = 0x8180, service: str = "_etcd-server", count: int = -1) -> bytes:
    said = len(answers) if count < 0 else count
    return pack(">HHHHHH", 0, flags, 1, said, 0, 0) + _question(service) + b"".join(answers)


def seeds() -> list[bytes]:
    """Records good and odd, alone and together, loops of names, and octets."""
    good = [_record(SRV, pack(">HHH", 0, 1, 2380) + HOSTS[0]), _record(SRV, pack(">HHH", 1, 0, 1) + HOSTS[1])]
    return [
        bytes((1,)) + _message(good),
        bytes((1,)) + _message(good, service="_etcd-server-ssl"),
        bytes((1,)) + _message([_record(CNAME, b"\xc0\x0c")]),
        bytes((1,)) + _message([*good * 50]),
        bytes((1,)) + _message([], 0x8183),
        bytes((1,)) + _message(good, 0x8382),
        *(bytes((0, 0, 0, host, 0, 1, 9, 0x4C)) for host in range(len(HOSTS))),
        bytes((0, 0)) + bytes(range(120)),
    ]


def run(data: bytes) -> bool:
    """A row of members with names and ports that are some, or a refusal with a sentence."""
    octets = Octets(data)
    said = octets.rest() if octets.number() % 2 else _made(octets)
    _answers[:] = [said]
    count = 0
    for read in (_cluster, _clients):
        try:
            read()
            count += 1
        except (DiscoveryFailed, NoRecords) as refusal:
            if not str(refusal):
                raise AssertionError("a refusal without a sentence") from refusal
    return count > 0


def _made(octets: Octets) -> bytes:
    service = octets.choice(("_etcd-server", "_etcd-server-ssl", "_etcd-client", "_x"))
    flags = octets.choice((0x8180, 0x8180, 0x8380, 0x8183, 0x8182, 0x0100, 0x8185, 0xFFFF))
    answers: list[bytes] = []
    while not octets.is_empty and len(answers) < 60:
        host = octets.choice((*HOSTS, b""))
        if not host:
            label = octets.some()[:63]
            host = bytes((len(label),)) + label + b"\0"
        content = pack(">HHH", octets.number(), octets.number(), octets.number(2)) + host
        kind = octets.choice((SRV, SRV, SRV, SRV, CNAME, A, ANY, OPT))
        name = octets.choice((b"\xc0\x0c", b"\xc0\x0c", host))
        answers.append(_record(kind, host if kind == CNAME else content, name))
    return _message(answers, flags, service)


def _cluster() -> None:
    text = records.initial_cluster(CONFIG)
    for entry in text.split(","):
        name, _, url = entry.partition("=")
        scheme, _, address = url.partition("://")
        host, _, port = address.rpartition(":")
        assert name == "m1" or name.isdigit()
        assert scheme in ("http", "https")
        assert host, "a member without a host"
        assert set(host) <= set(HOST), f"no name of a host: {host!r}"
        assert 0 <= int(port) < 1 << 16
    with suppress(ValueError):  # the same member twice
        _ = Config(name="m1", initial_cluster=text).initial_members


def _clients() -> None:
    for found in srv.clients(DOMAIN):
        assert set(found.host) <= set(HOST), f"no name of a host: {found.host!r}"
        assert found.host
