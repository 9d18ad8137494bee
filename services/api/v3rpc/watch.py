"""etcdserverpb.Watch: opens streams, asks storage for them and lets the interval of their progress pass."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Final

from quorate.api.callers import Callers
from quorate.api.calling import CallStream
from quorate.api.calls import CallLimits, Context, Responses, StreamDone, StreamRoute
from quorate.api.ring import Ring
from quorate.api.v3rpc.watch_stream import Answered, Stream
from quorate.api.watches import Watches
from quorate.proto.rpc_pb2 import RangeRequest
from quorate.wire import errors
from quorate.wire.errors import CallFailed, Code
from quorate.wire.messages import Op

ASKED_MAX: Final = 4_096  # questions of all streams under way; a fifth of what the ring bears
PROGRESS_SPREAD: Final = 0.1  # of the interval: streams opened together do not all wake at once
ASK_AGAIN_S: Final = 0.1  # after storage could not be asked


class Watch:
    """`progress_interval_s` is --watch-progress-notify-interval."""

    def __init__(
        self,
        ring: Ring,
        watches: Watches,
        limits: CallLimits,
        progress_interval_s: float,
        random: Random,
        callers: Callers,
    ) -> None:
        self._ring = ring
        self._callers = callers
        self._watches = watches
        self._limits = limits
        self._progress_interval_s = progress_interval_s
        self._random = random
        self._asked = 0  # questions under way
        self._unasked: deque[Callable[[], None]] = deque()  # bounded by the places that streams have

    def streams(self) -> dict[str, StreamRoute]:
        return {"/etcdserverpb.Watch/Watch": StreamRoute(self.open, is_lasting=True)}

    def open(self, context: Context, responses: Responses, done: StreamDone) -> CallStream:
        return _Call(self, self._ring, context, responses)

    def stream(self, context: Context, call: _Call) -> Stream:
        return Stream(self._watches, partial(self._ask, context), call, self._limits.request_bytes_max)

    def progress_in(self) -> float:
        """Seconds until the next progress notification of a stream."""
        return self._progress_interval_s * (1 + PROGRESS_SPREAD * self._random.random())

    def _ask(self, context: Context, key: bytes, range_end: bytes, answered: Answered) -> None:
        """Ask when it is the question's turn: however many there are, they leave the ring room for other calls."""

        def told(refusal: str, header: bytes) -> None:
            if self._unasked:
                self._unasked.popleft()()
            else:
                self._asked -= 1
            answered(refusal, header)

        ask = partial(self._put, context, key, range_end, told)
        if self._asked < ASKED_MAX:
            self._asked += 1
            ask()
        else:
            self._unasked.append(ask)

    def _put(self, context: Context, key: bytes, range_end: bytes, answered: Answered) -> None:
        """A count of the range: it is judged as a read of it, and its header is what is wanted."""
        question = RangeRequest(key=key, range_end=range_end, serializable=True, count_only=True)

        def done(code: int, message: str, body: bytes) -> None:
            if code == 0:
                answered("", body[: 2 + body[1]])
            elif code in (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED) or (
                message == errors.AUTH_OLD_REVISION.text and context.epoch != self._callers.epoch
            ):
                again()
            else:
                answered(f"rpc error: code = {Code(code).go_name} desc = {message}", b"")

        def again() -> None:
            self._ring.at(self._ring.now() + ASK_AGAIN_S, self._put, context, key, range_end, answered)

        def identified(code: int, message: str) -> None:
            if code:
                self._ring.soon(done, code, message, b"")
                return
            body = question.SerializeToString()
            try:
                self._ring.add(self._ring.local, Op.RANGE, body, done, identity=context.identity)
            except CallFailed:
                again()

        self._callers.identify(context, identified)


class _Call:
    """One Watch call between its caller and its stream."""

    def __init__(self, service: Watch, ring: Ring, context: Context, responses: Responses) -> None:
        self._service = service
        self._ring = ring
        self._responses = responses
        self._is_paused = False
        self._is_over = False
        self._stream = service.stream(context, self)
        self._next_tick = self._ring.at(self._ring.now() + service.progress_in(), self._tick)

    # --- the caller ------------------------------------------------------------------------------------------

    def send(self, body: bytes) -> None:
        if not self._is_over:
            self._stream.receive(body)

    def half_close(self) -> None:
        """The watchers go on."""

    def cancel(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._next_tick()
            self._stream.close()
            del self._stream  # it knows its client, which is this

    def pause(self) -> None:
        self._is_paused = True

    def resume(self) -> None:
        self._is_paused = False
        self._ring.soon(self._go_on)

    # --- the stream ------------------------------------------------------------------------------------------

    def write(self, messages: bytes) -> bool:
        self._responses.send_framed(messages)
        return not self._is_paused

    def _go_on(self) -> None:
        if not self._is_over and not self._is_paused:
            self._stream.writable()

    def _tick(self) -> None:
        self._stream.tick()
        self._next_tick = self._ring.at(self._ring.now() + self._service.progress_in(), self._tick)
