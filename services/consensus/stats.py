"""What this process tells Prometheus, under etcd's names: plain counters of the loop, read when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from quorate.consensus.calls import Promotions
from quorate.consensus.driver import Driver
from quorate.consensus.healing import Rejoining
from quorate.consensus.peers import Peers
from quorate.consensus.raft.messages import NOBODY
from quorate.consensus.raft.messages import Role as RaftRole
from quorate.consensus.rebuilding import Rebuilding
from quorate.consensus.round_trips import BUCKETS, RoundTrips
from quorate.consensus.snapshots import Snapshots
from quorate.consensus.wal import SYNC_BUCKETS
from quorate.node.expiry import Expiry


class Stats(Collector):
    """Collects from the parts of a running member."""

    def __init__(
        self,
        driver: Driver,
        peers: Peers,
        snapshots: Snapshots,
        rejoining: Rejoining,
        rebuilding: Rebuilding,
        round_trips: RoundTrips,
        promotions: Promotions,
        expiry: Expiry | None = None,
    ) -> None:
        self._rebuilding = rebuilding
        self._round_trips = round_trips
        self._rejoining = rejoining
        self._promotions = promotions
        self._driver = driver
        self._peers = peers
        self._snapshots = snapshots
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)
        if expiry is not None:
            self.registry.register(expiry)

    def render(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)

    def describe(self) -> list[Metric]:
        """Nothing beforehand: registering must not collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Everything there is now."""
        yield from self._server()
        yield from self._log()
        yield from self._network()
        yield self._distances()
        yield from self._healing()

    def _server(self) -> Iterator[Metric]:
        driver = self._driver
        core = driver.core
        own = driver.membership.members.get(driver.member_id)
        prefix = "etcd_server_"
        yield GaugeMetricFamily(
            prefix + "has_leader", "Whether or not a leader exists.", value=core.leader_id != NOBODY
        )
        yield GaugeMetricFamily(
            prefix + "is_leader", "Whether or not this member is a leader.", value=core.role is RaftRole.LEADER
        )
        yield GaugeMetricFamily(
            prefix + "is_learner",
            "Whether or not this member is a learner.",
            value=own is not None and own.is_learner,
        )
        yield CounterMetricFamily(
            prefix + "leader_changes_seen", "The number of leader changes seen.", value=driver.leader_changes
        )
        yield CounterMetricFamily(
            prefix + "heartbeat_send_failures",
            "Ticks that came late, so that heartbeats did.",
            value=driver.slow_ticks,
        )
        yield GaugeMetricFamily(
            prefix + "proposals_committed_total", "The committed log index.", value=core.commit_index
        )
        yield GaugeMetricFamily(
            prefix + "proposals_applied_total", "The applied log index.", value=driver.stream.applied_index
        )
        yield GaugeMetricFamily(
            prefix + "proposals_pending",
            "Entries and chunks that are not committed yet.",
            value=core.last_index - core.commit_index + driver.proposals.waiting,
        )
        yield CounterMetricFamily(
            prefix + "proposals_failed", "Chunks of proposals that were refused.", value=driver.proposals.failed
        )
        yield CounterMetricFamily(
            prefix + "read_indexes_failed", "Chunks of reads that were refused.", value=driver.reads.failed
        )
        yield CounterMetricFamily(
            prefix + "slow_read_indexes", "Chunks of reads that were not confirmed in time.", value=driver.reads.late
        )
        yield GaugeMetricFamily(
            prefix + "snapshot_apply_in_progress_total",
            "Whether storage is taking over an image.",
            value=driver.stream.is_installing,
        )
        yield GaugeMetricFamily(
            prefix + "learner_promote_successes", "Learners promoted.", value=self._promotions.succeeded
        )
        refused = GaugeMetricFamily(
            prefix + "learner_promote_failures", "Learners that could not be promoted.", labels=["Reason"]
        )
        for reason, count in sorted(self._promotions.failed.items()):
            refused.add_metric([reason], count)
        yield refused
        server_id = GaugeMetricFamily(prefix + "id", "The member id.", labels=["server_id"])
        server_id.add_metric([f"{driver.member_id:x}"], 1)
        yield server_id
        if driver.membership.cluster_version:
            version = GaugeMetricFamily("etcd_cluster_version", "The cluster version.", labels=["cluster_version"])
            version.add_metric([driver.membership.cluster_version.rpartition(".")[0]], 1)
            yield version

    def _healing(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "quorate_recovering",
            "Whether this member lost its log or its database and has not got it back yet.",
            value=self._rejoining.is_recovering or self._rebuilding.is_waiting,
        )
        recoveries = CounterMetricFamily(
            "quorate_recoveries", "How often this member got back what was damaged.", labels=["what"]
        )
        recoveries.add_metric(["log"], self._rejoining.recoveries)
        recoveries.add_metric(["database"], self._rebuilding.rebuilt)
        yield recoveries

    def _log(self) -> Iterator[Metric]:
        wal = self._driver.wal
        histogram = HistogramMetricFamily(
            "etcd_disk_wal_fsync_duration_seconds", "How long the log waits for the disk."
        )
        histogram.add_metric([], _cumulated(SYNC_BUCKETS, wal.sync_counts), wal.sync_seconds)
        yield histogram
        yield GaugeMetricFamily("etcd_disk_wal_write_bytes_total", "Bytes written to the log.", value=wal.written_bytes)

    def _distances(self) -> Metric:
        histogram = HistogramMetricFamily(
            "etcd_network_peer_round_trip_time_seconds", "Round trips between members.", labels=["To"]
        )
        for number, counts, seconds in self._round_trips.figures():
            histogram.add_metric([f"{number:x}"], _cumulated(BUCKETS, counts), seconds)
        return histogram

    def _network(self) -> Iterator[Metric]:
        local = f"{self._driver.member_id:x}"
        prefix = "etcd_network_"
        known = GaugeMetricFamily(prefix + "known_peers", "The other members.", labels=["Local", "Remote"])
        active = GaugeMetricFamily(prefix + "active_peers", "Connected members.", labels=["Local", "Remote"])
        lost = CounterMetricFamily(
            prefix + "disconnected_peers", "Connections that were lost.", labels=["Local", "Remote"]
        )
        sent = CounterMetricFamily(prefix + "peer_sent_bytes", "Bytes sent to a member.", labels=["To"])
        received = CounterMetricFamily(prefix + "peer_received_bytes", "Bytes a member sent.", labels=["From"])
        failed = CounterMetricFamily(prefix + "peer_sent_failures", "Messages that were dropped.", labels=["To"])
        for number, peer in self._peers.peers.items():
            remote = f"{number:x}"
            known.add_metric([local, remote], 1)
            active.add_metric([local, remote], peer.active_since is not None)
            lost.add_metric([local, remote], peer.disconnects)
            sent.add_metric([remote], self._peers.sent_bytes(number))
            received.add_metric([remote], self._peers.received_bytes(number))
            failed.add_metric([remote], peer.sent_failures)
        yield from (known, active, lost, sent, received, failed)
        for name, value in (
            ("snapshot_send_success", self._snapshots.sent),
            ("snapshot_send_failures", self._snapshots.send_failures),
            ("snapshot_receive_success", self._snapshots.received),
        ):
            yield CounterMetricFamily(prefix + name, "Snapshots between members.", value=value)
        for name, text, durations in (
            ("save_total", "Receiving an image and making it durable.", self._snapshots.saves),
            ("fsync", "Waiting for the disk at the end of that.", self._snapshots.syncs),
        ):
            histogram = HistogramMetricFamily(f"etcd_snap_db_{name}_duration_seconds", text)
            histogram.add_metric([], _cumulated(durations.bounds, durations.counts), durations.seconds)
            yield histogram


def _cumulated(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Prometheus' form of the counts between bounds: each bucket also counts what is in those before it."""
    names = (*map(floatToGoString, bounds), "+Inf")
    return list(zip(names, accumulate(counts), strict=True))
