"""The share of the quota that api judges: a write that cannot fit is refused before it takes a place in the log.

Storage says how much room is left whenever that has changed; only close to the end is a request's cost looked at.
The judgement at apply time stays, for what was under way when the room ran out (contract 5.8).
"""

from __future__ import annotations

from typing import Final

from quorate.api.calling import Done
from quorate.api.ring import Ring
from quorate.wire import errors
from quorate.wire.identity import NODE
from quorate.wire.messages import SPACE, UNBOUNDED, Kind, Op, Part

NEAR_BYTES: Final = 64 * 1024 * 1024  # far above one request and what a worker may have under way


class Quota:
    """What this worker knows of the room that is left; `is_near` says whether a request has to be looked at."""

    def __init__(self, ring: Ring) -> None:
        self.is_near = False
        self._ring = ring
        self._left_bytes = UNBOUNDED
        ring.on_message(Part.STORAGE, Kind.SPACE, self._learn)

    def refuses(self, cost_bytes: int, done: Done, expires_at: float | None) -> bool:
        """Whether a change of this cost does not fit; then `done` is told so when storage has raised the alarm for this
        member, or has tried in vain."""
        if not cost_bytes or cost_bytes < self._left_bytes:
            return False

        def refused(_code: int, _message: str, _response: bytes) -> None:
            done(errors.NO_SPACE.code, errors.NO_SPACE.text, b"")

        self._ring.add(self._ring.local, Op.OUT_OF_SPACE, b"", refused, expires_at, NODE)
        return True

    def _learn(self, body: bytes) -> None:
        (self._left_bytes,) = SPACE.unpack(body)
        self.is_near = self._left_bytes < NEAR_BYTES
