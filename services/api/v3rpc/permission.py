"""Calls that storage does not carry out: it is asked first whether the caller may."""

from __future__ import annotations

from collections.abc import Callable

from quorate.api.calling import Done
from quorate.api.calls import Context
from quorate.api.ring import Ring
from quorate.wire.errors import CallFailed
from quorate.wire.identity import Need
from quorate.wire.messages import Op


class Permission:
    """Asks whether auth is on or not, so that there is no moment at which a worker has not heard of it yet."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring

    def ask(
        self, need: Need, context: Context, done: Done, expires_at: float | None, go_on: Callable[[], object]
    ) -> None:
        """Call `go_on` if the caller may, else `done` with the refusal. `go_on` may raise CallFailed."""

        def judged(code: int, message: str, _answer: bytes) -> None:
            if code:
                done(code, message, b"")
                return
            try:
                go_on()
            except CallFailed as failed:
                done(failed.error.code, failed.error.text, b"")

        self._ring.add(self._ring.local, Op.PERMISSION, bytes((need,)), judged, expires_at, context.identity)
