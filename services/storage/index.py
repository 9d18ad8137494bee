"""The key index: the newest record of every key, and the keys in order with exact counts.

Everything about the present is answered here without the database. A key is *live* while its newest record is a put,
and *dead* while it is a tombstone that compaction has not dropped yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sortedcontainers import SortedList

OPEN_END = b"\0"  # as range_end: every key from `key` on


class KeyIndex:
    """Newest records by key. `newest` is 0-free: a key without a record is not in it."""

    __slots__ = ("dead", "live", "newest")

    def __init__(self, newest: dict[bytes, int]) -> None:
        self.newest = newest
        self.live: SortedList[bytes] = SortedList(newest)
        gone = [key for key, record in newest.items() if record & 1]
        self.dead: SortedList[bytes] = SortedList(gone)
        for key in gone:
            self.live.remove(key)

    def span(self, key: bytes, range_end: bytes) -> tuple[int, int]:
        """Positions in `live` of the interval's first key and of the one behind its last."""
        live = self.live
        first = live.bisect_left(key)
        last = len(live) if range_end == OPEN_END else live.bisect_left(range_end)
        return first, max(first, last)

    def dead_span(self, key: bytes, range_end: bytes) -> int:
        """How many dead keys the interval holds."""
        dead = self.dead
        last = len(dead) if range_end == OPEN_END else dead.bisect_left(range_end)
        return max(0, int(last) - int(dead.bisect_left(key)))

    def live_keys(self, key: bytes, range_end: bytes, behind: bytes | None = None) -> Iterator[bytes]:
        """Live keys of the interval in order, those above `behind` where it is given."""
        return _between(self.live, key, range_end, behind)

    def dead_keys(self, key: bytes, range_end: bytes, behind: bytes | None = None) -> Iterator[bytes]:
        """Dead keys of the interval in order, those above `behind` where it is given."""
        return _between(self.dead, key, range_end, behind)

    def forget(self, keys: Iterable[bytes]) -> None:
        """Drop dead keys whose tombstones compaction has deleted."""
        for key in keys:
            del self.newest[key]
            self.dead.remove(key)


def _between(keys: Any, key: bytes, range_end: bytes, behind: bytes | None) -> Iterator[bytes]:
    low, inclusive = (key, True) if behind is None else (behind, False)
    chosen: Iterator[bytes]
    if range_end == OPEN_END:
        chosen = keys.irange(low, None, (inclusive, True))
    elif range_end <= low:
        chosen = iter(())
    else:
        chosen = keys.irange(low, range_end, (inclusive, False))
    return chosen
