"""Watchers in /metrics, under etcd's names: counted when somebody looks."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from quorate.api.watches import Watches


class WatchFigures(Collector):
    """The watchers of one worker's clients; a collector for Prometheus."""

    def __init__(self, watches: Watches) -> None:
        self._watches = watches

    def collect(self) -> Iterator[Metric]:
        census = self._watches.census()
        of = "etcd_debugging_mvcc"
        yield GaugeMetricFamily(f"{of}_watcher_total", "Watchers.", census.watchers)
        yield GaugeMetricFamily(f"{of}_slow_watcher_total", "Watchers that are not at the present.", census.behind)
        yield GaugeMetricFamily(f"{of}_pending_events_total", "Responses clients do not take yet.", census.pending)
        yield CounterMetricFamily(f"{of}_events", "Events sent to watchers.", self._watches.events_sent)
