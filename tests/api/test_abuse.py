"""Clients that want the node's memory or patience: each is turned away, and the others go on."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import grpc.aio
import pytest

from quorate.api import asgi, callers, grpc_connection, http1, listener
from quorate.api.gateway import Gateway
from quorate.api.http2 import frames
from quorate.api.v3rpc import watch_stream
from quorate.proto import rpc_pb2
from quorate.wire import errors
from quorate.wire.errors import CallFailed
from tests.api.exchange import Exchange, post
from tests.api.worker import Worker, failure, get, put, run, unary, until, worker
from tests.fakes.calls import FakeCalls
from tests.support import floods
from tests.watch.world import World

POST_PUT = floods.call_head(b"/etcdserverpb.KV/Put")
POST_RANGE = floods.call_head(b"/etcdserverpb.KV/Range")


@contextlib.asynccontextmanager
async def raw(door: Worker) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A socket that says whatever a test wants."""
    host, _, port = door.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()


async def serves_others(door: Worker) -> None:
    """A client that behaves is served."""
    async with door.channel() as channel:
        await put(channel, b"others", b"go on")
        assert (await get(channel, b"others")).kvs[0].value == b"go on"


def test_a_head_that_never_ends_is_cut_off_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "HEAD_TIMEOUT_S", 0.2)

    async def scenario() -> None:
        async with worker() as door, contextlib.AsyncExitStack() as opened:
            readers = []
            for _ in range(200):
                reader, writer = await opened.enter_async_context(raw(door))
                writer.write(b"GET /health HTTP/1.1\r\nHost: here\r\nX-")
                readers.append(reader)
            await serves_others(door)
            for reader in readers:
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
            assert not door.listener.http.connections

    run(scenario)


@pytest.mark.parametrize("head", [b"X-Long: ", b"GET /", b"X-Many: a\r\n"])
def test_a_head_beyond_all_measure_is_refused(head: bytes) -> None:
    async def scenario() -> None:
        async with worker() as door, raw(door) as (reader, writer):
            if not head.startswith(b"GET"):
                writer.write(b"GET /health HTTP/1.1\r\n")
            writer.write(head)
            filler = head if head.endswith(b"\r\n") else b"x" * 1000
            with contextlib.suppress(ConnectionError):
                for _ in range(2_000_000 // len(filler)):
                    writer.write(filler)
                    await writer.drain()
                assert b" 431 " in await reader.readline()
            await until(lambda: not door.listener.http.connections)
            await serves_others(door)

    run(scenario)


def test_a_usual_head_in_pieces_is_served() -> None:
    async def scenario() -> None:
        async with worker() as door, raw(door) as (reader, writer):
            for _ in range(3):
                for piece in (b"GET / HT", b"TP/1.1\r\nHo", b"st: here\r\n", b"\r\n"):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                assert b" 200 " in await reader.readline()
                await reader.readuntil(b"hello")

    run(scenario)


def test_a_body_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "BODY_TIMEOUT_S", 0.05)

    async def scenario() -> None:
        exchange = Exchange(Gateway(FakeCalls(), 1000), "/v3/kv/put")
        exchange.send(b'{"key":')
        start = await exchange.next()
        assert (start["status"], dict(start["headers"])[b"connection"]) == (504, b"close")
        await exchange.end()

    asyncio.run(scenario())


def test_connections_over_the_limit_are_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "CONNECTIONS_MAX", 20)

    async def scenario() -> None:
        async with worker() as door, door.channel() as channel, contextlib.AsyncExitStack() as opened:
            await put(channel, b"k", b"v")
            for _ in range(50):
                await opened.enter_async_context(raw(door))
            await until(lambda: len(door.listener.undecided) == 19)
            assert (await get(channel, b"k")).kvs
            assert door.listener.connections == 20

    run(scenario)


def test_streams_over_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_connection, "STREAMS_MAX", 10)

    async def scenario() -> None:
        async with worker() as door, door.channel() as channel:
            method = channel.stream_stream("/grpc.health.v1.Health/Watch")
            kept = [method(iter([b""])) for _ in range(10)]
            for call in kept:
                assert await call.read() == b"\x08\x01"
            refused = method(iter([b""]))
            assert await refused.code() in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)  # as grpcio reads it
            assert await refused.details() in (
                errors.TOO_MANY_REQUESTS.text,
                "Internal error from Core",
            )  # grpcio's own
            kept.pop().cancel()
            await until(lambda: door.listener.grpc.streams == 9)
            assert await method(iter([b""])).read() == b"\x08\x01"
            await serves_others(door)
        await until(lambda: door.listener.grpc.streams == 0)

    run(scenario)


@pytest.mark.parametrize("name", floods.NAMES)
def test_a_flood_ends_its_own_connection_and_no_other(name: str) -> None:
    async def scenario() -> None:
        async with worker() as door, door.channel() as channel, raw(door) as (reader, writer):
            await put(channel, b"before", b"v")
            with contextlib.suppress(ConnectionError):
                for octets in floods.flood(name):
                    writer.write(octets)
                    await writer.drain()
            with contextlib.suppress(ConnectionError):
                while await reader.read(65_536):
                    pass
            await until(lambda: len(door.listener.grpc.connections) == 1)
            assert (await get(channel, b"before")).kvs

    run(scenario)


def test_connections_that_together_hold_too_much_are_parted_with(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun = frames.PREFACE + frames.settings({}) + frames.frame(frames.HEADERS, 4, 1, POST_PUT)

    async def scenario() -> None:
        async with worker() as door, door.channel() as channel, contextlib.AsyncExitStack() as opened:
            await put(channel, b"before", b"v")
            readers = []
            more = frames.frame(frames.DATA, 0, 1, b"x" * 16_000) * 8
            for number in range(10):
                reader, writer = await opened.enter_async_context(raw(door))
                part = b"\0\0\x10\0\0" + b"x" * (15_000 if number else 16_000)
                writer.write(begun + frames.frame(frames.DATA, 0, 1, part) + more)
                readers.append(reader)
            await until(lambda: len(door.listener.grpc.connections) == 11)
            await until(lambda: sum(one.held_bytes > 140_000 for one in door.listener.grpc.connections) == 10)
            monkeypatch.setattr(grpc_connection, "HELD_BYTES_MAX", 1_000_000)
            door.listener.grpc.tick(asyncio.get_running_loop().time())
            await until(lambda: sum(one.held_bytes for one in door.listener.grpc.connections) <= 1_000_000)
            with contextlib.suppress(ConnectionResetError):
                while await readers[0].read(65_536):
                    pass
            assert len(door.listener.grpc.connections) > 5
            assert (await get(channel, b"before")).kvs

    run(scenario)
    assert "closing the connection that holds most memory" in caplog.text


def test_who_asks_on_and_on_without_reading_is_parted_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_connection, "HOLD_BYTES", 100_000)
    monkeypatch.setattr(grpc_connection, "CALLS_BYTES_MAX", 1_000_000)
    key = rpc_pb2.RangeRequest(key=b"k").SerializeToString()

    async def scenario() -> None:
        async with worker() as door, door.channel() as channel, raw(door) as (reader, writer):
            await put(channel, b"k", b"v" * 70_000)
            writer.write(frames.PREFACE + frames.settings({}))
            with contextlib.suppress(ConnectionError):
                for number in range(10_000):
                    if number == 5:
                        await until(lambda: any(one.queued_bytes > 100_000 for one in door.listener.grpc.connections))
                    writer.write(floods.call(2 * number + 1, POST_RANGE, key))
                    await writer.drain()
                while await reader.read(65_536):
                    pass
            await until(lambda: len(door.listener.grpc.connections) == 1)
            assert (await get(channel, b"k")).kvs

    run(scenario)


def test_watchers_and_requests_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_stream, "PLACES_MAX", 100)
    world = World()
    good, greedy = world.client(), world.client()
    world.run()
    good.create(b"k")
    world.run()

    def create_all() -> None:
        for _ in range(1000):
            greedy.create(b"k")

    with pytest.raises(CallFailed, match=errors.TOO_MANY_REQUESTS.text):
        create_all()
    assert world.watches.places == 100
    greedy.stream.close()
    assert world.watches.places == 1
    world.store.txn([(b"k", b"v")])
    world.run()
    assert [event.kv.key for event in good.events(0)] == [b"k"]
    good.cancel(0)
    world.run()
    assert world.watches.places == 0


@pytest.mark.parametrize("asks", ["progress", "what is refused", "and takes back"])
def test_whoever_asks_and_reads_no_answers_is_refused(monkeypatch: pytest.MonkeyPatch, asks: str) -> None:
    monkeypatch.setattr(watch_stream, "PLACES_MAX", 100)
    world = World()
    good, greedy = world.client(), world.client()
    world.run()
    greedy.create(b"k", watch_id=7)
    good.create(b"k")
    world.run()
    greedy.take(0)

    def ask_for_ever() -> None:
        for number in range(1000):
            if asks == "progress":
                greedy.progress()
            elif asks == "what is refused":
                greedy.create(b"k", watch_id=7)
            else:
                greedy.create(b"k", watch_id=8 + number)
                greedy.cancel(8 + number)
            world.run()

    with pytest.raises(CallFailed, match=errors.TOO_MANY_REQUESTS.text):
        ask_for_ever()
    assert world.watches.places == 100
    greedy.take(1 << 60)
    assert world.watches.places in (2, 3)  # what was refused last may be what takes a watcher back
    greedy.take(0)
    with pytest.raises(CallFailed, match=errors.TOO_MANY_REQUESTS.text):
        ask_for_ever()
    greedy.stream.close()
    assert world.watches.places == 1
    good.progress()
    world.run()
    assert [-1] == [response.watch_id for response in good.responses[1:]]


def nested(depth: int) -> rpc_pb2.TxnRequest:
    """A transaction in a transaction in a transaction."""
    txn = rpc_pb2.TxnRequest(success=[rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"deep"))])
    for _ in range(depth):
        txn = rpc_pb2.TxnRequest(success=[rpc_pb2.RequestOp(request_txn=txn)])
    return txn


def test_transactions_in_transactions_end_at_a_depth() -> None:
    async def scenario() -> None:
        async with worker() as door, door.channel() as channel:
            for body in (floods.nested_txn(200), floods.nested_txn(50_000)):
                code, _ = await failure(unary(channel, "/etcdserverpb.KV/Txn", body))
                assert code in (errors.Code.INTERNAL, errors.Code.INVALID_ARGUMENT, errors.Code.UNKNOWN)
            wide = rpc_pb2.TxnRequest(
                success=[rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"%d" % n)) for n in range(20_000)]
            )
            refused = await failure(unary(channel, "/etcdserverpb.KV/Txn", wide))
            assert refused[1] == errors.TOO_MANY_OPS.text
            await serves_others(door)

    run(scenario)


@pytest.mark.parametrize(
    "body",
    [
        b'{"success":[{"request_txn":' * 30_000,
        b"[" * 500_000,
        b'{"a":' * 100_000,
        b'{"key":"' + b"\\u0041" * 100_000,
        b'{"limit":1' + b"0" * 100_000 + b"}",
    ],
    ids=["nested txn", "arrays", "objects", "escapes", "digits"],
)
def test_hostile_json_is_a_bad_request(body: bytes) -> None:
    answer = post(Gateway(FakeCalls(), 2_000_000), "/v3/kv/txn", content=body)
    assert (answer.status_code, json.loads(answer.content)["code"]) == (400, 3)


def test_calls_with_tokens_nobody_answers_for_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "WAITING_MAX", 10)

    async def scenario() -> None:
        async with worker() as door, door.channel() as channel, door.channel() as other:
            door.fake.say_auth(True, 5)
            await until(lambda: door.calls.callers.state.enabled)
            door.fake.holds = True
            waiting = [asyncio.ensure_future(put(channel, b"k", b"v", metadata=(("token", "a.1"),))) for _ in range(10)]
            await until(lambda: door.fake.held == 1)
            refused = await failure(put(channel, b"k", b"v", metadata=(("token", "b.1"),)))
            assert refused[1] == errors.TOO_MANY_REQUESTS.text
            door.fake.release()
            for call in waiting:
                assert (await failure(call))[0] == grpc.StatusCode.UNAUTHENTICATED.value[0]
            await put(other, b"k", b"v")

    run(scenario)
