"""A standard stream of the node that never makes the node wait: what nobody reads is dropped and counted.

A log pipe that is full must not stop the services behind it (etcd #22214 is about a member whose reads hung so). The
owner's loop calls `flush` now and then; until there is room, a bounded number of bytes waits here.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from typing import Final

WAITING_BYTES_MAX: Final = 1024 * 1024
PIECE_BYTES: Final = select.PIPE_BUF  # so many fit wherever `poll` says that there is room
POLL_S: Final = 0.02
DROPPED: Final = b'{"level":"warn","msg":"nobody read the log for a while; lines were dropped","lines":%d}\n'


class Outlet:
    """One descriptor; lines go out whole and in order."""

    def __init__(self, number: int, waiting_bytes_max: int = WAITING_BYTES_MAX) -> None:
        self.dropped_lines = 0  # since the last time it was told
        self._number = number
        self._waiting_bytes_max = waiting_bytes_max
        self._waiting = bytearray()
        self._poll = select.poll()
        self._poll.register(number, select.POLLOUT)

    @property
    def is_waiting(self) -> bool:
        """Something has not been written yet."""
        return bool(self._waiting)

    def pass_on(self, lines: bytes) -> None:
        """Write whole lines now or later, or count them as dropped."""
        if len(self._waiting) + len(lines) > self._waiting_bytes_max:
            self.dropped_lines += lines.count(b"\n")
            self.flush()
            return
        self._waiting += lines
        self.flush()

    def write(self, text: str) -> None:
        """What `logging.StreamHandler` calls."""
        self.pass_on(text.encode(errors="backslashreplace"))

    def flush(self) -> None:
        """Write as much as there is room for."""
        while self._waiting and self._has_room():
            try:
                written = os.write(self._number, self._waiting[:PIECE_BYTES])
            except OSError:  # the reader has gone away, which must not take the node with it
                self._waiting.clear()
                return
            del self._waiting[:written]
            if not self._waiting and self.dropped_lines:
                dropped, self.dropped_lines = self.dropped_lines, 0
                self._waiting += (
                    b'{"level":"warn","msg":"nobody read the log; lines were dropped","lines":%d}\n' % dropped
                )

    def drain(self, within_s: float) -> None:
        """Wait for room for what is left, but no longer than that."""
        deadline = time.monotonic() + within_s
        self.flush()
        while self._waiting and time.monotonic() < deadline:
            time.sleep(POLL_S)
            self.flush()

    def _has_room(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self._poll.poll(0))
        return True
