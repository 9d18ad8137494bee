"""How far away the other members are: the kernel's own estimate for each stream, sampled under etcd's name."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from quorate.consensus.peers import Peers

PERIOD_S: Final = 3.0  # as often as etcd probes
BUCKETS: Final = tuple(0.0001 * 2**step for step in range(16))


class RoundTrips:
    """What was measured, by member, in plain numbers: few nodes without figures need a library for them."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._counts: dict[int, list[int]] = {}
        self._seconds: dict[int, float] = {}

    async def watch(self) -> None:
        """Sample until cancelled."""
        while True:
            self.sample()
            await asyncio.sleep(PERIOD_S)

    def sample(self) -> None:
        """One observation for each stream that is connected."""
        for number in self._peers.peers:
            for seconds in self._peers.round_trips_s(number):
                counts = self._counts.setdefault(number, [0] * (len(BUCKETS) + 1))
                counts[bisect_left(BUCKETS, seconds)] += 1
                self._seconds[number] = self._seconds.get(number, 0.0) + seconds

    def figures(self) -> Iterator[tuple[int, list[int], float]]:
        """Of each member that was ever measured: its id, observations by bucket with a last one for more, seconds."""
        for number, counts in self._counts.items():
            yield number, counts, self._seconds[number]
