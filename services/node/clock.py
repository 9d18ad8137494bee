"""Time as the services see it: a monotonic clock for everything that waits, so that tests can move it."""

import time
from typing import Protocol


class Clock(Protocol):
    """A clock that never goes back. Its zero means nothing; only differences do."""

    def monotonic(self) -> float:
        """Seconds."""
        ...


class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        return time.monotonic()
