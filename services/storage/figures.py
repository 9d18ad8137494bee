"""What this process tells Prometheus, under etcd's names, read from the state when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from quorate.storage.apply import Applier


class Figures(Collector):
    """Collects from the applier and its store."""

    def __init__(self, applier: Applier) -> None:
        self._applier = applier
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def render(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Nothing beforehand: registering must not collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Everything there is now."""
        store = self._applier.store
        database = store.database
        for name, text, value in (
            ("etcd_server_quota_backend_bytes", "Size at which writes are refused.", self._applier.quota_bytes or 0),
            ("etcd_mvcc_db_total_size_in_bytes", "Bytes of the database on disk.", database.size_bytes),
            ("etcd_mvcc_db_total_size_in_use_in_bytes", "Bytes that hold data.", database.size_in_use_bytes),
            ("etcd_debugging_mvcc_keys_total", "Keys there are.", len(store.index.live)),
            ("etcd_debugging_mvcc_current_revision", "Revision of the store.", store.revision),
            ("etcd_debugging_mvcc_compact_revision", "Revision of the last compaction.", store.compact_revision),
        ):
            yield GaugeMetricFamily(name, text, value=value)
        for name, count in self._applier.counts.items():
            yield CounterMetricFamily(f"etcd_mvcc_{name}", f"Operations: {name}.", value=count)
