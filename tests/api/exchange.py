"""Requests to an ASGI application without a socket: whole ones through httpx, streams step by step."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

import httpx

from quorate.api.asgi import App, Message

T = TypeVar("T")
BASE_URL = "http://localhost:2379"
TIMEOUT_S = 10


def request(app: App, method: str, path: str, base_url: str = BASE_URL, **options: Any) -> httpx.Response:
    """The answer to one request."""

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base_url) as client:
            return await client.request(method, path, **options)

    return asyncio.run(ask())


def post(app: App, path: str, **options: Any) -> httpx.Response:
    return request(app, "POST", path, **options)


class Exchange:
    """One POST whose body is sent and whose answer is read piece by piece."""

    def __init__(self, app: App, path: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        self.reading = asyncio.Event()
        self.reading.set()
        scope = {"type": "http", "method": "POST", "path": path, "scheme": "http", "headers": list(headers)}
        self._task = asyncio.ensure_future(app(scope, self._to_app.get, self._take))

    async def _take(self, message: Message) -> None:
        await self.reading.wait()
        await self._from_app.put(message)

    def send(self, body: bytes, more: bool = True) -> None:
        self._to_app.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def disconnect(self) -> None:
        self._to_app.put_nowait({"type": "http.disconnect"})

    async def next(self) -> Message:
        return await within(self._from_app.get())

    async def end(self) -> None:
        await within(self._task)


async def within(what: Awaitable[T]) -> T:
    return await asyncio.wait_for(what, TIMEOUT_S)


async def until(condition: Any) -> None:
    """Return when `condition()` holds; fail after the time limit."""

    async def poll() -> None:
        while not condition():  # noqa: ASYNC110 - any condition, seen once per turn of the loop
            await asyncio.sleep(0)

    await within(poll())
