"""One follower as the leader sees it: what it has, what is on the way to it, and whether to send more.

probe      where the logs agree is unknown: one Append, then none until it is answered or a tick passed
replicate  it follows: Appends are pipelined within a window, `next_index` runs ahead of `match_index`
snapshot   its next entry is gone from our log: nothing is sent until the host reports how the snapshot went
"""

from __future__ import annotations

from collections import deque
from enum import Enum


class ProgressState(Enum):
    """How Appends are sent to a follower."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Progress:
    """Invariant: 0 <= match_index < next_index."""

    __slots__ = (
        "commit_sent",
        "inflight_bytes",
        "inflights",
        "is_active",
        "is_paused",
        "match_index",
        "next_index",
        "probe_due",
        "read_seq",
        "state",
    )

    def __init__(self, next_index: int):
        self.match_index = 0  # highest entry known to be durable in the follower's log and equal to ours
        self.next_index = next_index  # first entry to send; everything between the two is in flight
        self.state = ProgressState.PROBE
        self.is_paused = False  # probe: one Append is unanswered
        self.is_active = True  # heard of since the last check of the quorum
        self.probe_due = False  # a tick's heartbeat went out; its answer makes us look for lost Appends
        self.commit_sent = 0  # highest commit index the follower was told, as far as nothing was lost
        self.read_seq = 0  # highest read round of this term it confirmed
        self.inflights: deque[tuple[int, int]] = deque()  # (last index, bytes) of unanswered Appends, ascending
        self.inflight_bytes = 0

    def become_probe(self, next_index: int) -> None:
        """Starts looking for the point of agreement at `next_index` - 1; forgets what is in flight."""
        self.state = ProgressState.PROBE
        self.next_index = max(next_index, self.match_index + 1)
        self.is_paused = False
        self._forget_inflights()

    def become_replicate(self) -> None:
        """The logs agree up to `match_index`: stream from there."""
        self.state = ProgressState.REPLICATE
        self.next_index = self.match_index + 1
        self.is_paused = False
        self._forget_inflights()

    def become_snapshot(self) -> None:
        """Waits for a snapshot to be delivered."""
        self.state = ProgressState.SNAPSHOT
        self._forget_inflights()

    def _forget_inflights(self) -> None:
        self.inflights.clear()
        self.inflight_bytes = 0

    def sent(self, last_index: int, size: int) -> None:
        """Notes a pipelined Append that ends at `last_index`."""
        self.next_index = last_index + 1
        self.inflights.append((last_index, size))
        self.inflight_bytes += size

    def free_to(self, index: int) -> None:
        """Takes Appends answered by a match at `index` out of the window."""
        inflights = self.inflights
        while inflights and inflights[0][0] <= index:
            self.inflight_bytes -= inflights.popleft()[1]

    def free_first(self) -> None:
        """Makes room for one Append after answers were lost."""
        if self.inflights:
            self.inflight_bytes -= self.inflights.popleft()[1]

    def maybe_advance(self, match_index: int) -> bool:
        """Notes an acknowledgement; False if it is an old one."""
        if match_index <= self.match_index:
            return False
        self.match_index = match_index
        if match_index >= self.next_index:
            self.next_index = match_index + 1
        return True
