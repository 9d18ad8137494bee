"""What is wrong for a while, in the log: at its beginning, now and then, and when it is over.

A finding that is repeated every second would bury everything else, above all on a full disk. It is told at once, again
after `AGAIN_S` and then after twice as long each time, up to `AGAIN_S_MAX`. It is over when it was seen to be better
and has not come back for `CALM_S`: a disk that has room now and then is still full.
"""

from __future__ import annotations

from typing import Final

from quorate.node.logs import Log

AGAIN_S: Final = 60.0
AGAIN_S_MAX: Final = 3600.0
CALM_S: Final = 5.0


class Lasting:
    """One thing that can be wrong. Times are seconds of one clock that never goes back."""

    def __init__(self, log: Log, over: str) -> None:
        self.is_on = False
        self._log = log
        self._over = over
        self._began = 0.0
        self._found = 0.0  # the last time
        self._again = 0.0
        self._pause_s = AGAIN_S
        self._times = 0
        self._is_better = False

    def found(self, now: float, message: str, **fields: object) -> None:
        """It is wrong, still or again."""
        if not self.is_on:
            self.is_on = True
            self._began = self._again = now
            self._pause_s = AGAIN_S
            self._times = 0
        self._is_better = False
        self._found = now
        self._times += 1
        if now < self._again:
            return
        if self._times > 1:
            fields |= {"times": self._times, "lasting_seconds": round(now - self._began)}
            self._pause_s = min(2 * self._pause_s, AGAIN_S_MAX)
        self._again = now + self._pause_s
        self._log.error(message, **fields)

    def better(self, now: float) -> None:
        """It went well this time."""
        if self.is_on:
            self._is_better = True
            self.look(now)

    def look(self, now: float) -> None:
        """Called now and then while `is_on`. The end is a warning, so that who reads of one reads of both."""
        if self.is_on and self._is_better and now - self._found >= CALM_S:
            self.is_on = False
            self._log.warn(self._over, times=self._times, lasted_seconds=round(now - self._began))
