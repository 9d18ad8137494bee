"""The ASGI types in use, and the few ways this process reads a request and writes a response with them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from quorate.api.calling import Failed
from quorate.wire.errors import Code

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]

BODY_TIMEOUT_S = 60.0  # for a body that did not come with its head


class BodyTooLarge(Exception):  # noqa: N818 - it names the finding
    """The client sent more than the limit; `received_bytes` is what had come by then."""

    def __init__(self, received_bytes: int) -> None:
        super().__init__(f"{received_bytes} bytes")
        self.received_bytes = received_bytes


class BodyTooSlow(Failed):
    """The client did not end the body it had begun."""

    def __init__(self) -> None:
        super().__init__(Code.DEADLINE_EXCEEDED, f"the request body did not end within {BODY_TIMEOUT_S:g} s")


class Disconnected(Exception):  # noqa: N818 - it names the finding
    """The client went away."""


async def read_body(receive: Receive, bytes_max: int) -> bytes:
    """The whole request body; raises BodyTooLarge without reading on, BodyTooSlow, or Disconnected."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body, message = await _read_rest(receive, body, bytes_max)
        except TimeoutError:
            raise BodyTooSlow from None
    if message["type"] == "http.disconnect":
        raise Disconnected
    if len(body) > bytes_max:
        raise BodyTooLarge(len(body))
    return body


async def _read_rest(receive: Receive, body: bytes, bytes_max: int) -> tuple[bytes, Message]:
    """The body that begins so, and the last message."""
    parts = [body]
    received = len(body)
    more = True
    message: Message = {}
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        received += len(parts[-1])
        if received > bytes_max:
            raise BodyTooLarge(received)
        more = message.get("more_body", False)
    return b"".join(parts), message


async def until_gone(receive: Receive) -> None:
    """Return when the client is gone; what it still sends is dropped."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def respond(send: Send, status: int, headers: Iterable[Header], body: bytes) -> None:
    """A whole response of known length."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


TEXT: tuple[Header, ...] = (
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"x-content-type-options", b"nosniff"),
)


async def respond_text(send: Send, status: int, text: str, headers: Iterable[Header] = ()) -> None:
    """A line of plain text, as Go's net/http answers errors."""
    await respond(send, status, [*TEXT, *headers], text.encode())
