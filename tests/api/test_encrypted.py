"""TLS on the client port, seen by grpcio, httpx and bare sockets: who comes in, and what the others are told."""

import asyncio
import contextlib
import logging
import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest

from quorate.api import encrypted
from quorate.api.calling import Done
from quorate.api.calls import Context, Route
from quorate.api.encrypted import TlsPort
from quorate.node import tls
from quorate.node.certificates import Purpose, Subject
from quorate.node.config import Config
from tests.api.worker import Worker, get, put, run, unary, until, worker
from tests.support.authority import DAY, Authority

REFUSED = "rejected connection on client endpoint"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "good")


def make_port(authority: Authority, **settings: Any) -> TlsPort:
    cert, key, _ = authority.files("server", Subject("server", ("localhost", "127.0.0.1")), Purpose.SERVER)
    given: dict[str, Any] = {"data_dir": str(authority.directory / "m"), "cert_file": cert, "key_file": key, **settings}
    return TlsPort(tls.client_side(Config(**given)))


def mutual(authority: Authority, **settings: Any) -> TlsPort:
    return make_port(authority, client_cert_auth=True, trusted_ca_file=str(authority.ca_file), **settings)


def channel(w: Worker, authority: Authority, cert: str = "", key: str = "") -> grpc.aio.Channel:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    return grpc.aio.secure_channel(w.address, authority.credentials(cert, key), options)


def dial(w: Worker, context: ssl.SSLContext) -> ssl.SSLSocket:
    host, _, port = w.address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    try:
        return context.wrap_socket(connection, server_hostname="localhost")
    except BaseException:
        connection.close()
        raise


def refusal_of(w: Worker, context: ssl.SSLContext) -> str:
    """What a client is told that is not let in: in TLS 1.3 at its first read."""
    try:
        with dial(w, context) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            return f"heard {connection.recv(1)!r}"
    except ssl.SSLError as error:
        return str(error)


def causes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.fields["error"] for record in caplog.records if record.msg == REFUSED]  # type: ignore[attr-defined]


def test_grpc_and_http_share_the_port(authority: Authority) -> None:
    async def scenario() -> None:
        async with worker(tls=make_port(authority)) as w, channel(w, authority) as one:
            large = b"v" * 1_000_000
            assert (await put(one, b"foo", large)).header.revision == 2
            assert (await get(one, b"foo")).kvs[0].value == large
            async with httpx.AsyncClient(verify=authority.dialler()) as client:
                for _ in range(2):
                    answer = await client.get(f"https://{w.address}/")
                    assert (answer.text, answer.http_version) == ("hello", "HTTP/1.1")
                    assert answer.headers["scheme"] == "https"

    run(scenario)


def test_alpn_prefers_http_1_and_grpc_gets_h2(authority: Authority) -> None:
    def chosen(w: Worker, offered: list[str]) -> str | None:
        context = authority.dialler()
        context.set_alpn_protocols(offered)
        with dial(w, context) as connection:
            return connection.selected_alpn_protocol()

    async def scenario() -> None:
        async with worker(tls=make_port(authority)) as w:
            for offered, expected in ((["h2"], "h2"), (["h2", "http/1.1"], "http/1.1"), (["http/1.1"], "http/1.1")):
                assert await asyncio.to_thread(chosen, w, offered) == expected

    run(scenario)


@pytest.mark.parametrize(("client_cert_auth", "name"), [(True, "alice"), (False, "")])
def test_calls_know_the_common_name_where_certificates_count(
    authority: Authority, client_cert_auth: bool, name: str
) -> None:
    names: list[str] = []

    def who(body: bytes, context: Context, done: Done, expires_at: float | None) -> None:
        names.append(context.common_name)
        done(0, "", b"")

    async def scenario() -> None:
        cert, key, _ = authority.files("alice", Subject("alice"), Purpose.CLIENT)
        port = mutual(authority) if client_cert_auth else make_port(authority, trusted_ca_file=str(authority.ca_file))
        async with worker(tls=port) as w:
            w.calls.routes["/etcdserverpb.KV/Compact"] = Route(who)
            async with channel(w, authority, cert, key) as one:
                for metadata in ((), (("token", "t"),)):
                    await unary(one, "/etcdserverpb.KV/Compact", b"", metadata=metadata)
        assert names == [name, name]

    run(scenario)


def test_bad_certificates_are_refused_with_a_reason_and_others_served(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = Authority(tmp_path, "other")
    now = datetime.now(UTC)
    good = authority.files("alice", Subject("alice"), Purpose.CLIENT)
    revoked = authority.files("gone", Subject("gone"), Purpose.CLIENT)
    shown = {
        "it has expired": authority.files("late", Subject("a"), Purpose.CLIENT, DAY, now - 30 * DAY)[:2],
        "it is not yet valid": authority.files("early", Subject("a"), Purpose.CLIENT, DAY, now + 2 * DAY)[:2],
        "signed by unknown authority": stranger.files("mallory", Subject("alice"), Purpose.CLIENT)[:2],
        "incompatible key usage": authority.files("server-only", Subject("a"), Purpose.SERVER)[:2],
        "revoked": revoked[:2],
        "didn't provide a certificate": ("", ""),
    }
    port = mutual(authority, client_crl_file=authority.revoke(tmp_path / "crl.pem", revoked[2]))

    async def scenario() -> None:
        async with worker(tls=port) as w, channel(w, authority, *good[:2]) as one:
            await put(one, b"k", b"v")
            for reason, files in shown.items():
                told = await asyncio.to_thread(refusal_of, w, authority.dialler(*files))
                assert "alert" in told or (reason == "revoked" and told == "heard b''"), (reason, told)
                assert reason in causes(caplog)[-1]
            assert (await get(one, b"k")).kvs[0].value == b"v"
            assert not port.handshakes

    with caplog.at_level(logging.WARNING, "quorate"):
        run(scenario)
    assert len(causes(caplog)) == len(shown)


def test_a_client_refuses_a_server_for_another_host(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    cert, key, _ = authority.files("elsewhere", Subject("x", ("elsewhere.example",)), Purpose.SERVER)
    port = make_port(authority, cert_file=cert, key_file=key)

    async def scenario() -> None:
        async with worker(tls=port) as w:
            with pytest.raises(ssl.SSLCertVerificationError, match=r"mismatch|not valid for"):
                await asyncio.to_thread(dial, w, authority.dialler())
            await until(lambda: bool(causes(caplog)))

    with caplog.at_level(logging.WARNING, "quorate"):
        run(scenario)
    assert causes(caplog) == ["remote error: tls: bad certificate"]


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"GET /health HTTP/1.1\r\n\r\n", encrypted.WRONG_PORT),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b""),
        (b"\x16\x03\x01\x00\x05hello", None),
        (b"\x00\xff garbage", b""),
    ],
)
def test_what_is_not_tls_is_refused_with_one_line(
    authority: Authority, said: bytes, answer: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    def say(w: Worker) -> bytes:
        host, _, port = w.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(said)
            heard = b""
            with contextlib.suppress(ConnectionResetError):
                while data := connection.recv(1000):
                    heard += data
            return heard

    async def scenario() -> None:
        async with worker(tls=make_port(authority)) as w, channel(w, authority) as one:
            for _ in range(3):
                heard = await asyncio.to_thread(say, w)
                assert answer is None or heard == answer
            await put(one, b"k", b"v")

    with caplog.at_level(logging.WARNING, "quorate"):
        run(scenario)
    assert len(causes(caplog)) == 1
    assert causes(caplog)[0].startswith("tls: ")


def test_a_client_that_does_not_shake_hands_is_given_up(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(encrypted, "HANDSHAKE_TIMEOUT_S", 0.05)

    async def scenario() -> None:
        async with worker(tls=make_port(authority)) as w:
            host, _, number = w.address.rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(number))
            assert await reader.read() == b""
            writer.close()

    with caplog.at_level(logging.WARNING, "quorate"):
        run(scenario)
    assert causes(caplog) == ["tls: handshake timeout"]


def test_the_oldest_handshake_makes_room_for_a_client_in_earnest(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encrypted, "HANDSHAKES_MAX", 2)
    port = make_port(authority)

    async def scenario() -> None:
        async with worker(tls=port) as w:
            host, _, number = w.address.rpartition(":")
            silent = []
            for count in (1, 2):
                silent.append(await asyncio.open_connection(host, int(number)))
                await until(lambda count=count: len(port.handshakes) == count)  # type: ignore[misc]
            async with channel(w, authority) as one:
                await put(one, b"k", b"v")
            assert await silent[0][0].read() == b""
            for _, writer in silent:
                writer.close()

    run(scenario)


def test_new_files_serve_new_connections_and_old_ones_stay(authority: Authority) -> None:
    def serial(w: Worker) -> str:
        with dial(w, authority.dialler()) as connection:
            shown = connection.getpeercert()
            assert shown is not None
            return str(shown["serialNumber"])

    async def scenario() -> None:
        async with worker(tls=make_port(authority)) as w, channel(w, authority) as one:
            await put(one, b"k", b"v")
            before = await asyncio.to_thread(serial, w)
            authority.files("server", Subject("server", ("localhost", "127.0.0.1")), Purpose.SERVER)
            assert await asyncio.to_thread(serial, w) != before
            assert (await get(one, b"k")).kvs[0].value == b"v"

    run(scenario)


def test_a_new_ca_judges_the_next_client(authority: Authority, tmp_path: Path) -> None:
    successor = Authority(tmp_path, "new")
    old = authority.files("old", Subject("old"), Purpose.CLIENT)
    new = successor.files("new", Subject("new"), Purpose.CLIENT)

    async def scenario() -> None:
        async with worker(tls=mutual(authority)) as w:
            assert "heard" in await asyncio.to_thread(refusal_of, w, authority.dialler(*old[:2]))
            trusting = authority.dialler(*new[:2])  # of the server's certificate, which stays
            assert "unknown ca" in await asyncio.to_thread(refusal_of, w, trusting)
            authority.ca_file.write_bytes(successor.ca_file.read_bytes())
            assert "heard" in await asyncio.to_thread(refusal_of, w, trusting)

    run(scenario)


def test_a_path_may_have_tls(authority: Authority, tmp_path: Path) -> None:
    def ask(path: str) -> bytes:
        plain = socket.socket(socket.AF_UNIX)
        plain.connect(path)
        with authority.dialler().wrap_socket(plain, server_hostname="localhost") as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            heard = b""
            while data := connection.recv(4096):
                heard += data
            return heard

    async def scenario() -> None:
        path = tmp_path / "s"
        async with worker(url=f"unixs://{path}", tls=make_port(authority)) as w:
            assert w.address == str(path)
            assert (await asyncio.to_thread(ask, w.address)).endswith(b"hello")

    run(scenario)


def test_a_client_that_does_not_read_stops_being_read(authority: Authority) -> None:
    async def scenario() -> None:
        async with worker(tls=make_port(authority)) as w, channel(w, authority) as one:
            await put(one, b"k", b"v" * 1_000_000)
            reading = [asyncio.ensure_future(get(one, b"k")) for _ in range(40)]
            await until(lambda: any(connection.queued_bytes for connection in w.listener.grpc.connections))
            answers = await asyncio.gather(*reading)
            assert all(len(answer.kvs[0].value) == 1_000_000 for answer in answers)

    run(scenario)
