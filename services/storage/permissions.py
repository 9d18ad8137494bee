"""Key intervals and the question whether a set of them covers another: pure, in O(log n) per question.

etcd's rule (auth/range_perm_cache.go): the union of what a user's roles allow must cover the WHOLE interval that is
asked for; neighbouring grants merge. So grants are merged once per change and a question is one bisection.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

OPEN_END = b"\0"  # as range_end: every key from the first on


class IntervalSet:
    """Merged half-open key intervals; an end of None is open."""

    __slots__ = ("_begins", "_ends")

    def __init__(self, ranges: Iterable[tuple[bytes, bytes]]) -> None:
        """`ranges` are (key, range_end) pairs as the API writes them."""
        self._begins: list[bytes] = []
        self._ends: list[bytes | None] = []
        for begin, end in sorted((interval(key, range_end) for key, range_end in ranges), key=lambda pair: pair[0]):
            if end is not None and end <= begin:
                continue
            if self._begins and (self._ends[-1] is None or begin <= self._ends[-1]):
                if self._ends[-1] is not None and (end is None or end > self._ends[-1]):
                    self._ends[-1] = end
            else:
                self._begins.append(begin)
                self._ends.append(end)

    def covers(self, key: bytes, range_end: bytes) -> bool:
        """True when every key of the asked interval is inside; an empty interval counts as its first key."""
        position = bisect_right(self._begins, key) - 1
        if position < 0:
            return False
        end = self._ends[position]
        if end is None:
            return True
        if range_end == OPEN_END:
            return False
        if not range_end or range_end <= key:
            return key < end
        return range_end <= end


def interval(key: bytes, range_end: bytes) -> tuple[bytes, bytes | None]:
    """(first key, first key beyond or None) of a (key, range_end) pair of the API."""
    if not range_end:
        return key, key + b"\0"
    if range_end == OPEN_END:
        return key, None
    return key, range_end


def is_valid_grant(key: bytes, range_end: bytes) -> bool:
    """Whether a permission may be granted on this pair (etcd: a key, and an end that is empty, open or behind it)."""
    return bool(key) and (not range_end or range_end == OPEN_END or key < range_end)
