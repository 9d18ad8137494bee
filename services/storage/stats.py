"""What this process tells Prometheus, under etcd's names: plain counters, read when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from quorate.proto import rpc_pb2
from quorate.storage.apply import Applier
from quorate.storage.buckets import Buckets
from quorate.storage.compaction import Compaction
from quorate.storage.hashkv import HashTimes
from quorate.storage.reads import Readers
from quorate.storage.vacuum import Vacuum


class Stats(Collector):
    """Collects from the parts of the running process."""

    def __init__(
        self,
        applier: Applier,
        compaction: Compaction,
        readers: Readers,
        vacuum: Vacuum,
        hash_times: HashTimes,
        slow_applies: Callable[[], int] = lambda: 0,
    ) -> None:
        self._applier = applier
        self._compaction = compaction
        self._readers = readers
        self._vacuum = vacuum
        self._hash_times = hash_times
        self._slow_applies = slow_applies
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def render(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Nothing beforehand: registering must not collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Everything there is now."""
        yield CounterMetricFamily(
            "etcd_server_slow_apply", "Entries that took longer to apply than expected.", value=self._slow_applies()
        )
        yield from self._mvcc()
        yield from self._debugging()
        yield from self._leases_and_alarms()
        yield from self._disk()

    def _mvcc(self) -> Iterator[Metric]:
        prefix = "etcd_mvcc_"
        database = self._applier.store.database
        for name, text, value in (
            ("db_total_size_in_bytes", "Size of the database file.", database.size_bytes),
            ("db_total_size_in_use_in_bytes", "Of it without free pages.", database.size_in_use_bytes),
            ("db_open_read_transactions", "Reads on reader threads.", self._readers.running),
        ):
            yield GaugeMetricFamily(prefix + name, text, value=value)
        for name, count in self._applier.counts.items():
            yield CounterMetricFamily(prefix + name, f"Operations of the kind {name}.", value=count)

        times = self._hash_times
        yield _histogram(prefix + "hash_duration_seconds", "Hashing everything.", times.whole_seconds)
        yield _histogram(prefix + "hash_rev_duration_seconds", "Hashing a revision.", times.revision_seconds)

    def _debugging(self) -> Iterator[Metric]:
        prefix = "etcd_debugging_mvcc_"
        store = self._applier.store
        compaction = self._compaction
        for name, text, value in (
            ("keys_total", "Live keys.", len(store.index.live)),
            ("current_revision", "The current revision.", store.revision),
            ("compact_revision", "The compact revision, -1 for none.", store.compact_revision),
            ("total_put_size_in_bytes", "Keys and values put.", self._applier.put_bytes),
            ("db_compaction_last", "Unix time at which a compaction ended, 0 for never.", compaction.ended_at),
        ):
            yield GaugeMetricFamily(prefix + name, text, value=value)
        yield CounterMetricFamily(
            prefix + "db_compaction_keys", "Records that compaction dropped.", value=compaction.records_dropped
        )
        yield _histogram(
            prefix + "db_compaction_pause_duration_milliseconds", "A slice of compaction.", compaction.slice_ms
        )
        yield _histogram(
            prefix + "db_compaction_total_duration_milliseconds", "A whole compaction.", compaction.total_ms
        )

    def _leases_and_alarms(self) -> Iterator[Metric]:
        applier = self._applier
        lessor = applier.lessor
        for name, value in (("granted", lessor.granted), ("revoked", lessor.revoked), ("renewed", lessor.renewed)):
            yield CounterMetricFamily(f"etcd_debugging_lease_{name}", f"Leases {name}.", value=value)
        yield _histogram("etcd_debugging_lease_ttl_total", "TTL of leases in seconds.", lessor.ttls)
        yield CounterMetricFamily("etcd_debugging_server_lease_expired", "Leases expired.", value=lessor.expired)
        yield GaugeMetricFamily("etcd_debugging_auth_revision", "The auth revision.", value=applier.auth.revision)
        yield GaugeMetricFamily(
            "etcd_server_quota_backend_bytes", "The quota, 0 for none.", value=applier.quota_bytes or 0
        )
        alarms = GaugeMetricFamily(
            "etcd_debugging_server_alarms", "Alarms that are on.", labels=["server_id", "alarm_type"]
        )
        for kind, member_id in sorted(applier.alarms.active):
            alarms.add_metric([f"{member_id:x}", rpc_pb2.AlarmType.DESCRIPTOR.values_by_number[kind].name], 1)
        yield alarms

    def _disk(self) -> Iterator[Metric]:
        prefix = "etcd_disk_"
        database = self._applier.store.database
        yield _histogram(
            prefix + "backend_commit_duration_seconds", "A transaction of the database.", database.commit_seconds
        )
        yield _histogram(
            prefix + "backend_snapshot_duration_seconds", "An image of the database.", self._readers.image_seconds
        )
        yield _histogram(
            prefix + "backend_defrag_duration_seconds", "Giving free space of the database back.", self._vacuum.seconds
        )
        yield GaugeMetricFamily(prefix + "defrag_inflight", "Whether space is given back.", value=self._vacuum.is_due)


def _histogram(name: str, text: str, buckets: Buckets) -> HistogramMetricFamily:
    histogram = HistogramMetricFamily(name, text)
    histogram.add_metric([], buckets.cumulated(), buckets.total)
    return histogram
