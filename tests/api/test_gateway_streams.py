"""The JSON gateway's streams: requests one after another, one result a line, errors before and after the first."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable

import pytest

from quorate.api import gateway_streams
from quorate.api.asgi import Disconnected
from quorate.api.gateway import Gateway
from quorate.api.gateway_streams import Nesting
from quorate.proto import rpc_pb2
from tests.api.exchange import Exchange, until
from tests.fakes.calls import FakeCalls, FakeStream

CREATED = rpc_pb2.WatchResponse(created=True, watch_id=3).SerializeToString()
WATCH = "/v3/watch"


def stream(path: str, script: Callable[[Exchange, FakeStream], Awaitable[None]]) -> FakeStream:
    """Open a stream, let `script` drive it, and return it when the application is done with it."""

    async def run() -> FakeStream:
        calls = FakeCalls()
        exchange = Exchange(Gateway(calls, 1000), path, ((b"authorization", b"abc.7"),))
        await until(lambda: calls.streams)
        await script(exchange, calls.streams[0])
        with contextlib.suppress(Disconnected):
            await exchange.end()
        return calls.streams[0]

    return asyncio.run(run())


def test_requests_are_passed_on_as_they_come_and_responses_are_lines() -> None:
    async def script(exchange: Exchange, call: FakeStream) -> None:
        exchange.send(b'{"create_request":{"key":')
        exchange.send(b'"Zm9v"}} {"progress_req')
        await until(lambda: call.requests)
        call.respond(CREATED)
        start = await exchange.next()
        assert (200, True) == (start["status"], (b"content-type", b"application/json") in start["headers"])
        assert (await exchange.next())["body"] == b'{"result":{"watch_id":"3","created":true}}\n'
        exchange.send(b'uest":{}}\n', more=False)
        await until(lambda: call.half_closed)
        call.respond(CREATED)
        assert (await exchange.next())["more_body"]
        call.done(0, "")
        assert await exchange.next() == {"type": "http.response.body", "body": b""}

    call = stream(WATCH, script)
    assert (call.method, call.metadata) == ("/etcdserverpb.Watch/Watch", {"authorization": "abc.7"})
    requests = [rpc_pb2.WatchRequest.FromString(request) for request in call.requests]
    assert requests[0].create_request.key == b"foo"
    assert requests[1].HasField("progress_request")
    assert not call.cancelled


def test_a_client_that_goes_cancels_the_call() -> None:
    async def script(exchange: Exchange, call: FakeStream) -> None:
        exchange.send(b'{"create_request":{}}', more=False)
        await until(lambda: call.half_closed)
        exchange.disconnect()

    assert stream(WATCH, script).cancelled


def test_a_client_that_goes_within_its_body_cancels_the_call() -> None:
    async def script(exchange: Exchange, call: FakeStream) -> None:
        exchange.send(b'{"create_request":{}}')
        await until(lambda: call.requests)
        exchange.disconnect()

    assert stream(WATCH, script).cancelled


def test_an_error_before_the_first_response_has_its_http_status() -> None:
    async def script(exchange: Exchange, call: FakeStream) -> None:
        call.done(14, "etcdserver: no leader")
        assert (await exchange.next())["status"] == 503
        error = json.loads((await exchange.next())["body"])["error"]
        assert (14, "etcdserver: no leader") == (error["code"], error["message"])

    stream(WATCH, script)


def test_an_error_after_a_response_is_one_more_line() -> None:
    async def script(exchange: Exchange, call: FakeStream) -> None:
        call.respond(CREATED)
        call.done(14, "etcdserver: no leader")
        assert (await exchange.next())["status"] == 200
        await exchange.next()
        last = await exchange.next()
        assert "more_body" not in last
        assert json.loads(last["body"])["error"] == {
            "code": 14,
            "message": "etcdserver: no leader",
            "grpc_code": 14,
            "http_code": 503,
            "http_status": "Service Unavailable",
        }

    stream(WATCH, script)


def test_malformed_json_ends_the_stream_after_the_good_requests_before_it() -> None:
    async def script(exchange: Exchange, call: FakeStream) -> None:
        exchange.send(b'{"create_request":{}} {nonsense                    }')
        assert (await exchange.next())["status"] == 400
        assert json.loads((await exchange.next())["body"])["error"]["code"] == 3

    call = stream(WATCH, script)
    assert (1, True) == (len(call.requests), call.cancelled)


def test_a_body_that_ends_within_a_request_is_malformed() -> None:
    async def script(exchange: Exchange, _: FakeStream) -> None:
        exchange.send(b'{"create_request":', more=False)
        assert (await exchange.next())["status"] == 400

    stream(WATCH, script)


def test_a_request_without_end_is_refused() -> None:
    async def script(exchange: Exchange, _: FakeStream) -> None:
        exchange.send(b'{"create_request":{"key":"' + b"A" * 5000)
        assert (await exchange.next())["status"] == 400

    stream(WATCH, script)


def test_a_stream_with_one_request_takes_an_empty_body_as_the_empty_request() -> None:
    async def script(exchange: Exchange, call: FakeStream) -> None:
        exchange.send(b"", more=False)
        await until(lambda: call.half_closed)
        call.respond(rpc_pb2.SnapshotResponse(blob=b"foo").SerializeToString())
        await exchange.next()
        assert (await exchange.next())["body"] == b'{"result":{"blob":"Zm9v"}}\n'
        call.done(0, "")

    assert stream("/v3/maintenance/snapshot", script).requests == [b""]


def test_a_client_that_does_not_read_pauses_the_call() -> None:
    large = rpc_pb2.SnapshotResponse(blob=bytes(gateway_streams.RESPONSES_BYTES_MAX // 2)).SerializeToString()

    async def script(exchange: Exchange, call: FakeStream) -> None:
        exchange.reading.clear()
        exchange.send(b"", more=False)
        await until(lambda: call.half_closed)
        for _ in range(3):
            call.respond(large)
        assert call.paused
        exchange.reading.set()
        await until(lambda: not call.paused)
        call.done(0, "")

    stream("/v3/maintenance/snapshot", script)


def test_a_client_that_does_not_read_is_not_listened_to() -> None:
    """Or it would have an answer to each of its requests kept for it, without end."""
    renewed = rpc_pb2.LeaseKeepAliveResponse(ID=1, TTL=60).SerializeToString()

    async def script(exchange: Exchange, call: FakeStream) -> None:
        exchange.reading.clear()
        call.respond(bytes(0))
        await asyncio.sleep(0)
        for _ in range(gateway_streams.RESPONSES_BYTES_MAX // len(renewed) + 1):
            call.respond(renewed)
        assert call.paused
        for _ in range(10):
            exchange.send(b'{"ID":1}')
            for _ in range(10):
                await asyncio.sleep(0)
        assert len(call.requests) <= 1  # which was waited for already
        exchange.reading.set()
        await until(lambda: len(call.requests) == 10)
        call.done(0, "")

    stream("/v3/lease/keepalive", script)


def test_a_request_that_comes_octet_by_octet_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [
        rb'{"create_request":{"key":"Zm9v","unknown":"}{\"\\"}} ',
        b' {"progress_request":{}}\n',
        b'{"create_request":{}}',
    ]
    tried = 0
    take_complete = gateway_streams.RequestReader._take_complete

    def counted(reader: gateway_streams.RequestReader, more: bool) -> list[bytes]:
        nonlocal tried
        tried += 1
        return take_complete(reader, more)

    monkeypatch.setattr(gateway_streams.RequestReader, "_take_complete", counted)

    async def script(exchange: Exchange, call: FakeStream) -> None:
        for octet in b"".join(texts):
            exchange.send(bytes((octet,)))
        await until(lambda: len(call.requests) == len(texts))
        call.done(0, "")

    call = stream(WATCH, script)
    keys = [rpc_pb2.WatchRequest.FromString(request).create_request.key for request in call.requests]
    assert [b"foo", b"", b""] == keys
    assert tried < 12


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_where_values_end_is_seen_in_pieces_of_any_size(size: int) -> None:
    text = r'{"a":["}","\"}\\",{"]":"\\\\"}]}[] {"":"\\"}'
    nesting = Nesting()
    depths = [nesting.follow(text[at : at + size]) for at in range(0, len(text), size)]
    whole = r'{"a":["}","\"}\\",{"]":"\\\\"}]}'
    assert depths.index(True, 1) == (len(whole) - 1) // size if size < len(whole) else depths[0]
    assert depths[-1]
