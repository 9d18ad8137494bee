"""Counting durations into buckets: an addition now, a Prometheus histogram when somebody asks."""

from __future__ import annotations

from bisect import bisect_left


class Buckets:
    """A histogram whose bounds start at `first` and grow by `factor`."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, first: float, factor: float, count: int) -> None:
        self.bounds = [first * factor**power for power in range(count)]
        self.counts = [0] * (count + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """One more value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulated(self) -> list[tuple[str, float]]:
        """(upper bound, values up to it) as Prometheus wants them."""
        pairs: list[tuple[str, float]] = []
        below = 0
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.counts, strict=True):
            below += count
            pairs.append((bound, below))
        return pairs
