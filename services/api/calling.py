"""What the HTTP side of the front door asks of `calls`: a unary call and a stream, in protobuf bytes.

The gateway, the REST API and the health checks are written against these protocols, so that they say nothing about the
way a call takes through the node.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Protocol

Metadata = Mapping[str, str]  # gRPC metadata, names in lower case
NO_METADATA: Final[Metadata] = {}
Done = Callable[[int, str, bytes], None]  # gRPC code, message (empty when OK), response (empty unless OK)
Cancel = Callable[[], None]  # ends a call whose caller is gone; harmless after the call is done


class UnaryCalls(Protocol):
    """Calls with one request and one response."""

    def unary(
        self, method: str, body: bytes, metadata: Metadata, done: Done, deadline_s: float | None = None
    ) -> Cancel | None:
        """Start a call of `method` ("/etcdserverpb.KV/Put"); `done` is called once, from the event loop.

        `deadline_s` counts from now; after it the answer is DEADLINE_EXCEEDED. Calls that can wait long return how to
        cancel them.
        """


class CallStream(Protocol):
    """The sending half of a stream in progress."""

    def send(self, body: bytes) -> None:
        """One more request."""

    def half_close(self) -> None:
        """No more requests."""

    def cancel(self) -> None:
        """The caller is gone; nothing is delivered any more, `done` is not called."""

    def pause(self) -> None:
        """The caller cannot take more responses for now."""

    def resume(self) -> None:
        """It can again."""


class StreamCalls(Protocol):
    """Calls with many requests or responses."""

    def stream(
        self,
        method: str,
        metadata: Metadata,
        respond: Callable[[bytes], None],
        done: Callable[[int, str], None],
        deadline_s: float | None = None,
    ) -> CallStream:
        """Open a stream. `respond` takes each response; `done` takes the final code and message, once.

        Both are called from the event loop, never from inside this function or a function of the result.
        """


class Calls(UnaryCalls, StreamCalls, Protocol):
    """Everything the front door can call."""


class Failed(Exception):  # noqa: N818 - it names the outcome of a call
    """A call that ended with another code than OK."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def awaited() -> tuple[asyncio.Future[bytes], Done]:
    """A response to wait for, and the `done` that brings it; the future raises Failed, and may be cancelled."""
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def done(code: int, message: str, response: bytes) -> None:
        if answer.done():
            return
        if code:
            answer.set_exception(Failed(code, message))
        else:
            answer.set_result(response)

    return answer, done


async def call(
    calls: UnaryCalls, method: str, body: bytes, metadata: Metadata, deadline_s: float | None = None
) -> bytes:
    """The response of a unary call; raises Failed. A cancelled caller cancels the call."""
    answer, done = awaited()
    cancel = calls.unary(method, body, metadata, done, deadline_s)
    try:
        return await answer
    except asyncio.CancelledError:
        if cancel is not None:
            cancel()
        raise
