"""The share of the quota that api judges: a write that cannot fit is refused before it takes a place in the log.

Storage says how much room is left whenever that has changed; only close to the end is a request's cost looked at.
The judgement at apply time stays, for what was under way when the room ran out (contract 5.8).
"""

from __future__ import annotations

from typing import Final

from quorate.api.ring import Ring
from quorate.wire import errors
from quorate.wire.errors import CallFailed
from quorate.wire.messages import SPACE, UNBOUNDED, Kind, Part

NEAR_BYTES: Final = 64 * 1024 * 1024  # far above one request and what a worker may have under way


class Quota:
    """What this worker knows of the room that is left; `is_near` says whether a request has to be looked at."""

    def __init__(self, ring: Ring) -> None:
        self.is_near = False
        self._ring = ring
        self._left_bytes = UNBOUNDED
        ring.on_message(Part.STORAGE, Kind.SPACE, self._learn)

    def check(self, cost_bytes: int) -> None:
        """CallFailed when a change of this cost does not fit; storage then raises the alarm for this member."""
        if cost_bytes and cost_bytes >= self._left_bytes:
            self._ring.storage.send(Kind.SPACE)
            self._ring.flush_soon()
            raise CallFailed(errors.NO_SPACE)

    def _learn(self, body: bytes) -> None:
        (self._left_bytes,) = SPACE.unpack(body)
        self.is_near = self._left_bytes < NEAR_BYTES
