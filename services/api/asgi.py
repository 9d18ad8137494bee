"""The ASGI types in use, and the few ways this process reads a request and writes a response with them."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]


class BodyTooLarge(Exception):  # noqa: N818 - it names the finding
    """The client sent more than the limit; `received_bytes` is what had come by then."""

    def __init__(self, received_bytes: int) -> None:
        super().__init__(f"{received_bytes} bytes")
        self.received_bytes = received_bytes


class Disconnected(Exception):  # noqa: N818 - it names the finding
    """The client went away."""


async def read_body(receive: Receive, bytes_max: int) -> bytes:
    """The whole request body; raises BodyTooLarge without reading on, or Disconnected."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        parts = [body]
        received = len(body)
        while message.get("more_body"):
            message = await receive()
            parts.append(message.get("body", b""))
            received += len(parts[-1])
            if received > bytes_max:
                raise BodyTooLarge(received)
        body = b"".join(parts)
    if message["type"] == "http.disconnect":
        raise Disconnected
    if len(body) > bytes_max:
        raise BodyTooLarge(len(body))
    return body


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
