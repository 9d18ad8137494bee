"""The gateway over WebSocket: frames in, frames out, token by subprotocol."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from quorate.api.asgi import Message
from quorate.api.front import Front
from quorate.api.gateway import Gateway
from quorate.proto import rpc_pb2
from tests.api.exchange import until, within
from tests.fakes.calls import FakeCalls


class Socket:
    """One WebSocket to the front door."""

    def __init__(self, calls: FakeCalls, path: str, **scope: Any) -> None:
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        door = Front(Gateway(calls, 1000), pages, host_whitelist=["localhost"])
        full = {"type": "websocket", "path": path, "scheme": "ws", "headers": [(b"host", b"localhost:2379")], **scope}
        self._to_app.put_nowait({"type": "websocket.connect"})
        self._task = asyncio.ensure_future(door(full, self._to_app.get, self._from_app.put))

    def send(self, text: str) -> None:
        self._to_app.put_nowait({"type": "websocket.receive", "text": text})

    def disconnect(self) -> None:
        self._to_app.put_nowait({"type": "websocket.disconnect", "code": 1000})

    async def next(self) -> Message:
        return await within(self._from_app.get())

    async def end(self) -> None:
        await within(self._task)


async def pages(*_: object) -> None:
    raise AssertionError("no page takes a WebSocket")


def drive(script: Callable[[FakeCalls], Awaitable[None]]) -> None:
    async def run() -> None:
        await script(FakeCalls())

    asyncio.run(run())


def test_frames_are_requests_and_lines_are_frames() -> None:
    async def script(calls: FakeCalls) -> None:
        socket = Socket(calls, "/v3/watch", subprotocols=["Bearer", "abc.7"])
        assert await socket.next() == {"type": "websocket.accept", "subprotocol": "Bearer"}
        socket.send('{"create_request":{"key":"Zm9v"}}')
        socket.send('{"progress_request":{}}')
        await until(lambda: calls.streams and len(calls.streams[0].requests) == 2)
        stream = calls.streams[0]
        assert stream.metadata == {"authorization": "Bearer abc.7"}
        stream.respond(rpc_pb2.WatchResponse(created=True).SerializeToString())
        assert await socket.next() == {"type": "websocket.send", "text": '{"result":{"created":true}}'}
        stream.done(14, "etcdserver: no leader")
        assert json.loads((await socket.next())["text"])["error"]["message"] == "etcdserver: no leader"
        assert (await socket.next())["type"] == "websocket.close"
        await socket.end()

    drive(script)


def test_a_unary_call_is_answered_with_one_frame() -> None:
    async def script(calls: FakeCalls) -> None:
        socket = Socket(calls, "/v3beta/kv/put")
        await socket.next()
        socket.send('{"key":"Zm9v","value":"YmFy"}')
        assert json.loads((await socket.next())["text"])["header"]["revision"] == "2"
        assert (await socket.next())["type"] == "websocket.close"
        await socket.end()

    drive(script)


def test_a_bad_frame_is_answered_with_an_error() -> None:
    async def script(calls: FakeCalls) -> None:
        socket = Socket(calls, "/v3/kv/put")
        await socket.next()
        socket.send("nonsense")
        assert json.loads((await socket.next())["text"])["code"] == 3
        await socket.next()
        await socket.end()

    drive(script)


def test_a_client_that_goes_cancels_the_call() -> None:
    async def script(calls: FakeCalls) -> None:
        socket = Socket(calls, "/v3/watch")
        await socket.next()
        await until(lambda: calls.streams)
        socket.disconnect()
        await socket.end()
        assert calls.streams[0].cancelled

    drive(script)


def test_other_paths_and_hosts_are_refused() -> None:
    async def script(calls: FakeCalls) -> None:
        for socket in (
            Socket(calls, "/v1/keys/foo"),
            Socket(calls, "/v3/watch", headers=[(b"host", b"evil.example")]),
        ):
            assert await socket.next() == {"type": "websocket.close"}
            await socket.end()

    drive(script)
