"""How far away the other members are: the kernel's own estimate for each stream, sampled under etcd's name."""

from __future__ import annotations

import asyncio
from typing import Final

from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics

from quorate.consensus.peers import Peers

PERIOD_S: Final = 3.0  # as often as etcd probes
disable_created_metrics()  # type: ignore[no-untyped-call]  # etcd has none

BUCKETS: Final = [0.0001 * 2**step for step in range(16)]


class RoundTrips:
    """One histogram with a label for each member."""

    def __init__(self, peers: Peers, registry: CollectorRegistry) -> None:
        self._peers = peers
        self._histogram = Histogram(
            "etcd_network_peer_round_trip_time_seconds",
            "Round trips between members.",
            ["To"],
            buckets=BUCKETS,
            registry=registry,
        )

    async def watch(self) -> None:
        """Sample until cancelled."""
        while True:
            self.sample()
            await asyncio.sleep(PERIOD_S)

    def sample(self) -> None:
        """One observation for each stream that is connected."""
        for number in self._peers.peers:
            for seconds in self._peers.round_trips_s(number):
                self._histogram.labels(f"{number:x}").observe(seconds)
