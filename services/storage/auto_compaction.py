"""When to compact without being asked, as etcd decides it (its flags --auto-compaction-mode and -retention). Pure.

`periodic` keeps a time: the revision is noted ten times an interval, an interval is the time to keep but an hour at
most, and once an interval everything older than the time to keep goes. The first time comes when that time has passed
since the start. `revision` keeps a number of revisions and looks every five minutes. Every member notes revisions, so
that a new leader knows what was then; only the leader compacts.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

from quorate.node.flags import duration_ns

HOUR_SECONDS: Final = 3600.0
SAMPLES_PER_INTERVAL: Final = 10
FIRST_REVISION: Final = 1  # of an empty store
LOOK_SECONDS: Final = 300.0  # in mode `revision`


class Policy(Protocol):
    """Asked again and again; says what revision to compact to now, 0 for none."""

    def due(self, now: float, revision: int, compact_revision: int, is_leader: bool) -> int:
        """`now` is monotonic time in seconds; the revisions are the store's."""
        ...


class Never:
    """Automatic compaction is off."""

    def due(self, _now: float, _revision: int, _compact_revision: int, _is_leader: bool) -> int:
        return 0


class Periodic:
    """Keeps `retention_seconds` of history."""

    def __init__(self, retention_seconds: float, now: float) -> None:
        self._retention = retention_seconds
        self._interval = min(retention_seconds, HOUR_SECONDS)
        self._samples: deque[tuple[float, int]] = deque()  # second and revision, the oldest one the last before R ago
        self._next_sample = now
        self._not_before = now

    def due(self, now: float, revision: int, compact_revision: int, is_leader: bool) -> int:
        if now < self._next_sample:
            return 0
        self._next_sample = now + self._interval / SAMPLES_PER_INTERVAL
        samples = self._samples
        samples.append((now, revision))
        while len(samples) > 1 and samples[1][0] <= now - self._retention:
            samples.popleft()
        then, oldest = samples[0]
        is_old = then <= now - self._retention
        if not is_leader or not is_old or now < self._not_before or oldest <= max(FIRST_REVISION, compact_revision):
            return 0
        self._not_before = now + self._interval
        return oldest


class Revisions:
    """Keeps the last `retention` revisions."""

    def __init__(self, retention: int, now: float) -> None:
        self._retention = retention
        self._next_look = now + LOOK_SECONDS

    def due(self, now: float, revision: int, compact_revision: int, is_leader: bool) -> int:
        if now < self._next_look:
            return 0
        self._next_look = now + LOOK_SECONDS
        target = revision - self._retention
        return target if is_leader and target > max(0, compact_revision) else 0


def policy(mode: str, retention: str, now: float) -> Policy:
    """The policy of checked settings: revisions, or hours or a duration; 0 turns it off."""
    if mode == "revision":
        return Revisions(int(retention), now) if int(retention) else Never()
    seconds = int(retention) * HOUR_SECONDS if retention.isdigit() else duration_ns(retention) / 1e9
    return Periodic(seconds, now) if seconds else Never()
