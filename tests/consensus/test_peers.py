"""Connections between members over real sockets: plain, with TLS, and between members that are not there yet."""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvloop

from quorate.consensus.connections import listen
from quorate.consensus.frames import PeerMessage
from quorate.consensus.membership import Member, Membership
from quorate.consensus.peers import Peers, PeerSettings
from quorate.consensus.raft.messages import Append, Entry, EntryKind, Heartbeat
from quorate.consensus.round_trips import RoundTrips
from quorate.node import tls
from quorate.node.certificates import Purpose, Subject
from quorate.node.config import Config
from tests.consensus.fakes import until
from tests.support.authority import DAY, Authority

REFUSED = "rejected connection on peer endpoint"
FAILED = "failed to dial peer"
LOCAL = ("localhost", "127.0.0.1")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "good")


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(scenario, 30)

    uvloop.run(bounded())


@dataclass
class End:
    """One member's connections."""

    peers: Peers
    number: int
    heard: list[PeerMessage] = field(default_factory=list)

    def beat(self, to: int, commit: int = 0) -> None:
        self.peers.send(Heartbeat(self.number, to, 1, commit, 0))
        self.peers.flush()


def files_of(authority: Authority, cert: str, key: str, **settings: Any) -> tls.TlsFiles:
    given: dict[str, Any] = {
        "data_dir": str(authority.directory / "m"),
        "peer_cert_file": cert,
        "peer_key_file": key,
        "peer_trusted_ca_file": str(authority.ca_file),
        "peer_client_cert_auth": True,
        **settings,
    }
    return tls.peer_side(Config(**given))


def good_files(authority: Authority, name: str, **settings: Any) -> tls.TlsFiles:
    cert, key, _ = authority.files(name, Subject(name, LOCAL), Purpose.PEER)
    return files_of(authority, cert, key, **settings)


PLAIN = tls.peer_side(Config(data_dir="unused"))


def bound(url: str = "http://127.0.0.1:0") -> tuple[socket.socket, int]:
    listener = listen(url)[0]
    return listener, listener.getsockname()[1]


@asynccontextmanager
async def connected(*sides: tls.TlsFiles) -> AsyncIterator[list[End]]:
    """Members 1, 2, … with these certificates, each started and dialling the others."""
    loop = asyncio.get_running_loop()
    listeners = [bound() for _ in sides]
    members = {}
    for number, (files, (_, port)) in enumerate(zip(sides, listeners, strict=True), 1):
        scheme = "https" if files.enabled else "http"
        members[number] = Member(number, (f"{scheme}://127.0.0.1:{port}",))
    membership = replace(Membership.founded(list(members.values())), members=members)
    ends = []
    for number, (files, (listener, _)) in enumerate(zip(sides, listeners, strict=True), 1):
        heard: list[PeerMessage] = []
        settings = PeerSettings(
            number,
            2.0,
            5000,
            tls.DialContexts(files).context,
            tls.server_context(files) if files.enabled else None,
            partial(tls.check_peer, files),
        )
        peers = Peers(loop, settings, membership, heard.extend, lambda: None, lambda _c, _h: None)
        ends.append(End(peers, number, heard))
        peers.start([(listener, files.enabled)])
    try:
        yield ends
    finally:
        for end in ends:
            end.peers.close()


def messages_of(caplog: pytest.LogCaptureFixture, message: str) -> list[str]:
    return [record.fields["error"] for record in caplog.records if record.msg == message]  # type: ignore[attr-defined]


async def heard_by(end: End, count: int) -> None:
    await until(lambda: len(end.heard) >= count)


async def active(one: End, other: End) -> None:
    await until(lambda: one.peers.active_since(other.number) is not None)


def test_members_with_certificates_talk_both_ways(authority: Authority) -> None:
    async def scenario() -> None:
        async with connected(good_files(authority, "one"), good_files(authority, "two")) as (one, two):
            await active(one, two)
            await active(two, one)
            one.beat(2)
            two.beat(1)
            entries = [Entry(index, 1, EntryKind.BATCH, b"v" * 1_000_000) for index in range(1, 21)]
            one.peers.send(Append(1, 2, 1, 0, 0, 0, entries))
            one.peers.flush()
            await heard_by(one, 1)
            await heard_by(two, 2)
            appended = next(message for message in two.heard if isinstance(message, Append))
            assert [entry.payload for entry in appended.entries] == [entry.payload for entry in entries]

    run(scenario())


def test_round_trips_are_measured_on_plain_and_on_encrypted_connections(authority: Authority) -> None:
    async def scenario() -> None:
        for sides in ((PLAIN, PLAIN), (good_files(authority, "one"), good_files(authority, "two"))):
            async with connected(*sides) as (one, two):
                await active(one, two)
                trips = RoundTrips(one.peers)
                trips.sample()
                [(member, counts, seconds)] = trips.figures()
                assert member == 2
                assert 0 < seconds / sum(counts) < 5

    run(scenario())


def test_members_with_certificates_of_their_own_making_talk_encrypted_both_ways(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def made(name: str) -> tls.TlsFiles:
        return tls.peer_side(Config(data_dir=str(tmp_path / name), peer_auto_tls=True))

    def shown(port: int) -> bytes:
        """The certificate of that port, as somebody sees it who trusts nobody."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(socket.create_connection(("127.0.0.1", port), 10)) as connection:
            return connection.getpeercert(binary_form=True) or b""

    def of_files(files: tls.TlsFiles) -> tuple[bytes, bool]:
        """The certificate that was made, and whether its key is for nobody else to read."""
        is_secret = Path(files.key_file).stat().st_mode & 0o077 == 0
        return ssl.PEM_cert_to_DER_cert(Path(files.cert_file).read_text()), is_secret

    async def scenario() -> None:
        sides = made("one"), made("two")
        async with connected(*sides) as (one, two):
            await active(one, two)
            await active(two, one)
            one.beat(2)
            two.beat(1)
            await heard_by(one, 1)
            await heard_by(two, 1)
            certificates = []
            for number, files in enumerate(sides, 1):
                port = int(one.peers._membership.members[number].peer_urls[0].rpartition(":")[2])
                certificates.append(await asyncio.to_thread(shown, port))
                assert (certificates[-1], True) == of_files(files)
            assert certificates[0] != certificates[1]
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /members HTTP/1.1\r\n\r\n")
            await until(lambda: any("does not look like a TLS" in said for said in messages_of(caplog, REFUSED)))
            writer.close()
        assert made("one") == sides[0]

    with caplog.at_level(logging.WARNING, "quorate"):
        run(scenario())


def test_a_member_without_certificates_is_reached_by_one_that_has_them(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with connected(good_files(authority, "one"), PLAIN) as (one, two):
            await active(one, two)
            await active(two, one)
            two.beat(1, commit=7)
            one.beat(2, commit=8)
            await heard_by(one, 1)
            await heard_by(two, 1)
            assert two.peers.sent_bytes(1) > 0
            await until(lambda: messages_of(caplog, FAILED) != [])

    with caplog.at_level(logging.WARNING, "quorate"):
        run(scenario())
    [complaint] = messages_of(caplog, FAILED)  # once, not for each stream and each attempt
    assert "certificate signed by unknown authority" in complaint


def test_a_new_address_does_not_cut_the_connections_there_are() -> None:
    async def scenario() -> None:
        async with connected(PLAIN, PLAIN) as (one, two):
            await active(one, two)
            moved = one.peers._membership
            members = {**moved.members, 2: Member(2, ("https://127.0.0.1:1",))}
            one.peers.update(replace(moved, members=members))
            one.beat(2)
            await heard_by(two, 1)
            assert one.peers.active_since(2) is not None

    run(scenario())


@pytest.mark.parametrize(
    ("fault", "dialled_says", "dialling_says"),
    [
        ("expired", "it has expired", "remote error: tls: certificate expired"),
        ("not yet valid", "it is not yet valid", "remote error: tls: "),
        ("another CA", "remote error: tls: unknown ca", "signed by unknown authority"),
        ("another host", '"127.0.0.1" does not match', "EOF"),
        ("revoked", "revoked", "EOF"),
        ("another name", "client certificate authentication failed", "EOF"),
    ],
)
def test_a_bad_certificate_keeps_a_member_out_and_nobody_else(
    authority: Authority,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    fault: str,
    dialled_says: str,
    dialling_says: str,
) -> None:
    now = datetime.now(UTC)
    shown = {
        "expired": (authority, LOCAL, now - 30 * DAY),
        "not yet valid": (authority, LOCAL, now + 2 * DAY),
        "another CA": (Authority(tmp_path, "other"), LOCAL, now),
        "another host": (authority, ("10.9.8.7",), now),
        "revoked": (authority, LOCAL, now),
        "another name": (authority, LOCAL, now),
    }
    signer, hosts, at = shown[fault]
    cert, key, issued = signer.files("bad", Subject("bad", hosts), Purpose.PEER, DAY, at)
    rules: dict[str, object] = (
        {"peer_crl_file": authority.revoke(tmp_path / "crl.pem", issued)} if fault == "revoked" else {}
    )
    if fault == "another name":
        rules = {"peer_cert_allowed_cn": ["one", "two"]}

    async def scenario() -> None:
        bad = files_of(signer, cert, key)
        async with connected(good_files(authority, "one", **rules), good_files(authority, "two", **rules), bad) as ends:
            one, two, three = ends
            await active(one, two)
            await active(two, one)
            await until(lambda: any(dialled_says in cause for cause in messages_of(caplog, REFUSED)))
            await until(lambda: any(dialling_says in cause for cause in messages_of(caplog, FAILED)))
            assert one.peers.active_since(3) is None
            two.beat(1)
            await heard_by(one, 1)
            assert not three.heard

    with caplog.at_level(logging.WARNING, "quorate"):
        run(scenario())


def test_plain_text_on_a_tls_port_and_tls_on_a_plain_port_are_named(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = {"tls: first record does not look like a TLS handshake", "a TLS handshake on a port without TLS"}

    async def scenario() -> None:
        async with connected(good_files(authority, "one"), PLAIN) as (one, two):
            for number, said in ((1, b"GET /members HTTP/1.1\r\n\r\n"), (2, b"\x16\x03\x01\x02\x00")):
                port = int(one.peers._membership.members[number].peer_urls[0].rpartition(":")[2])
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(said)
                with contextlib.suppress(ConnectionResetError):
                    await reader.read()
                writer.close()
            await active(two, one)
            # Beside them comes, at its own time, what member 2 says to a member 1 that it does not trust.
            await until(lambda: wanted <= set(messages_of(caplog, REFUSED)))

    with caplog.at_level(logging.WARNING, "quorate"):
        run(scenario())


def test_new_certificates_are_shown_without_a_restart(authority: Authority) -> None:
    def serial(port: int, cert: str, key: str) -> int:
        context = authority.dialler(cert, key)
        plain = socket.create_connection(("127.0.0.1", port), 10)
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            shown = connection.getpeercert()
            assert shown is not None
            return int(str(shown["serialNumber"]), 16)

    async def scenario() -> None:
        async with connected(good_files(authority, "one"), good_files(authority, "two")) as (one, two):
            await active(one, two)
            await active(two, one)
            port = int(one.peers._membership.members[1].peer_urls[0].rpartition(":")[2])
            cert, key, _ = authority.files("asking", Subject("asking", LOCAL), Purpose.PEER)
            before = await asyncio.to_thread(serial, port, cert, key)
            authority.files("one", Subject("one", LOCAL), Purpose.PEER)
            assert await asyncio.to_thread(serial, port, cert, key) != before
            two.beat(1)
            await heard_by(one, 1)

    run(scenario())


def test_a_member_that_was_away_answers_one_that_was_added_meanwhile() -> None:
    async def scenario() -> None:
        async with connected(PLAIN, PLAIN) as (added, away):
            await active(added, away)
            await active(away, added)
            known = away.peers._membership
            old = replace(known, members={2: known.members[2]})
            away.peers.update(old)
            for incoming in list(away.peers._incoming.values()):
                incoming.close("cut")
            await until(lambda: len(away.peers._incoming) == 2)  # it was let in anew
            away.beat(1)
            await heard_by(added, 1)
            away.peers.update(replace(old, removed=frozenset({1})))
            assert not away.peers._incoming

    run(scenario())
