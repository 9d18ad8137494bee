"""Watchers of a real node whose processes are killed and paused: nobody misses a change or sees one twice."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from bench.servers import Cluster, Node
from quorate.proto import rpc_pb2
from tests.cluster.watching import Watching, history, within
from tests.support.cluster import (
    Service,
    kill_service,
    paused,
    quorate_cluster,
    service_pid,
    wait_restarted,
    wait_until,
)
from tests.support.rpc import Caller, calling

KEYS = [b"key/%02d" % number for number in range(20)]
STREAMS = 10
PUTS_PER_S = 200
PAUSE_S = 1.5
MIB = 1 << 20


class Writer:
    """Puts and deletes at a steady rate; a call that fails is not tried again, its fate is for history to tell."""

    def __init__(self, endpoint: str, size: int = 10) -> None:
        self.endpoint = endpoint
        self.acknowledged: dict[int, bytes] = {}
        self.size = size
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def wait_for(self, more: int, within_s: float = 30.0) -> None:
        """Return when so many further writes have been acknowledged."""
        enough = len(self.acknowledged) + more
        wait_until(lambda: len(self.acknowledged) >= enough, f"{more} more writes are acknowledged", within_s)

    def _run(self) -> None:
        number = 0
        with calling(self.endpoint) as caller:
            while not self._stopping.wait(1 / PUTS_PER_S):
                number += 1
                key = KEYS[number % len(KEYS)]
                try:
                    if number % 17 == 0:
                        deleted = caller.unary("KV/DeleteRange", rpc_pb2.DeleteRangeRequest(key=key), timeout_s=10.0)
                        if deleted.deleted:
                            self.acknowledged[deleted.header.revision] = b""
                    else:
                        value = b"%d" % number + b"." * self.size
                        request = rpc_pb2.PutRequest(key=key, value=value)
                        answer = caller.unary("KV/Put", request, timeout_s=10.0)
                        self.acknowledged[answer.header.revision] = value
                except grpc.RpcError:
                    self._stopping.wait(0.1)


@contextmanager
def watchers(endpoint: str, per_stream: int, first: int) -> Iterator[list[Watching]]:
    """Streams whose watchers wait for single keys, and one for all of them each."""
    ranges = [(KEYS[number % len(KEYS)], b"") for number in range(per_stream - 1)]
    streams: list[Watching] = []
    try:
        for _ in range(STREAMS):
            streams.append(Watching(endpoint, [*ranges, (b"key/", b"key0")], first))
        yield streams
    finally:
        for stream in streams:
            stream.stop()


def revision_of(caller: Caller) -> int:
    answer = caller.unary("KV/Range", rpc_pb2.RangeRequest(key=b"any", count_only=True))
    return int(answer.header.revision)


def check(node: Node, streams: list[Watching], writer: Writer, first: int) -> None:
    """Everybody saw what history says, and history holds every acknowledged write."""
    with calling(node.endpoint) as caller:
        last = caller.unary("KV/Put", rpc_pb2.PutRequest(key=b"key/end")).header.revision
        everything = history(caller, first, last)
    revisions = {revision: value for revision, _, value in everything}
    assert [r for r, value in writer.acknowledged.items() if revisions.get(r) != value] == []
    expected = {range_: [one for one in everything if within(*range_, one[1])] for range_ in set(streams[0].ranges)}
    for stream in streams:
        wait_until(
            lambda stream=stream: all(  # type: ignore[misc]
                len(seen) >= len(expected[range_]) for range_, seen in zip(stream.ranges, stream.seen, strict=True)
            ),
            f"all events arrive: {[len(s) for s in stream.seen]} {stream.problem}",
        )
        assert stream.problem == ""
        assert stream.seen == [expected[range_] for range_ in stream.ranges]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with quorate_cluster(1) as cluster:
        yield cluster


@pytest.mark.parametrize("service", ["watch", "storage", "consensus", "api"])
def test_killing_a_process_costs_no_watcher_a_change(cluster: Cluster, service: Service) -> None:
    node = cluster.nodes[0]
    with calling(node.endpoint) as caller:
        first = revision_of(caller) + 1
    with watchers(node.endpoint, 100, first) as streams:
        wait_until(lambda: all(stream.created == 100 for stream in streams), "1,000 watchers are created")
        with Writer(node.endpoint) as writer:
            for _ in range(2):
                writer.wait_for(50)
                wait_restarted(node, service, kill_service(node, service))
            writer.wait_for(50)
        check(node, streams, writer, first)
        if service != "api":
            assert [stream.calls for stream in streams] == [1] * STREAMS, "clients notice nothing but a pause"


@pytest.mark.parametrize("service", ["watch", "storage", "consensus", "api"])
def test_pausing_a_process_costs_no_watcher_a_change(cluster: Cluster, service: Service) -> None:
    node = cluster.nodes[0]
    with calling(node.endpoint) as caller:
        first = revision_of(caller) + 1
    with watchers(node.endpoint, 100, first) as streams:
        wait_until(lambda: all(stream.created == 100 for stream in streams), "1,000 watchers are created")
        with Writer(node.endpoint) as writer:
            writer.wait_for(50)
            with paused(node, service):
                threading.Event().wait(PAUSE_S)
            writer.wait_for(50)
        check(node, streams, writer, first)


def test_a_client_that_does_not_read_harms_nobody_and_misses_nothing(cluster: Cluster) -> None:
    node = cluster.nodes[0]
    value = b"x" * 20_000
    with calling(node.endpoint) as caller:
        first = revision_of(caller) + 1
        slow = Watching(node.endpoint, [(b"large/", b"large0")] * 5, first)
        quick = Watching(node.endpoint, [(b"large/", b"large0")] * 2, first)
        try:
            wait_until(lambda: slow.created == 5 and quick.created == 2, "the watchers are created")
            slow.may_read.clear()
            before = [memory(node, "api"), memory(node, "watch")]
            for number in range(3000):
                caller.unary("KV/Put", rpc_pb2.PutRequest(key=b"large/%d" % (number % 7), value=value))
            wait_until(lambda: [len(seen) for seen in quick.seen] == [3000, 3000], "the other client has everything")
            after = [memory(node, "api"), memory(node, "watch")]
            assert max(after[0] - before[0], after[1] - before[1]) < 40 * MIB
            slow.may_read.set()
            wait_until(lambda: [len(seen) for seen in slow.seen] == [3000] * 5, "the slow client has everything", 60.0)
            assert slow.seen[0] == quick.seen[0]
            assert slow.problem == quick.problem == ""
        finally:
            slow.stop()
            quick.stop()


def test_compaction_below_a_slow_client_is_told_and_leaves_no_silent_gap(cluster: Cluster) -> None:
    node = cluster.nodes[0]
    value = b"x" * 20_000
    with calling(node.endpoint) as caller:
        first = revision_of(caller) + 1
        slow = Watching(node.endpoint, [(b"gone/", b"gone0")], first)
        try:
            wait_until(lambda: slow.created == 1, "the watcher is created")
            slow.may_read.clear()
            for number in range(1000):
                put = caller.unary("KV/Put", rpc_pb2.PutRequest(key=b"gone/%d" % (number % 7), value=value))
            compacted = put.header.revision
            caller.unary("KV/Compact", rpc_pb2.CompactionRequest(revision=compacted, physical=True))
            slow.may_read.set()
            wait_until(lambda: bool(slow.compacted), "the client is told")
            assert slow.compacted == {0: compacted}
            revisions = [revision for revision, _, _ in slow.seen[0]]
            assert revisions == list(range(first, first + len(revisions)))
            assert len(revisions) < 1000
        finally:
            slow.stop()


def test_metrics_count_watchers_and_what_they_were_sent(cluster: Cluster) -> None:
    node = cluster.nodes[0]
    before = figures(node)
    with calling(node.endpoint) as caller:
        first = revision_of(caller) + 1
        watching = Watching(node.endpoint, [(b"counted/", b"counted0")] * 3 + [(b"counted/1", b"")], first)
        try:
            wait_until(lambda: watching.created == 4, "the watchers are created")
            for number in range(5):
                caller.unary("KV/Put", rpc_pb2.PutRequest(key=b"counted/%d" % number))
            wait_until(lambda: [len(seen) for seen in watching.seen] == [5, 5, 5, 1], "all events arrive")
            grown = {name: value - before[name] for name, value in figures(node).items()}
            assert grown == {"watcher_total": 4, "slow_watcher_total": 0, "events_total": 16, "pending_events_total": 0}
        finally:
            watching.stop()
        wait_until(lambda: figures(node)["watcher_total"] == before["watcher_total"], "watchers are counted off")


def test_watchers_of_a_follower_see_everything_when_the_leader_dies() -> None:
    with quorate_cluster(3) as cluster:
        leader = cluster.leader()
        follower, other = (node for node in cluster.nodes if node is not leader)
        with calling(follower.endpoint) as caller:
            first = revision_of(caller) + 1
        with watchers(follower.endpoint, 20, first) as streams:
            wait_until(lambda: all(stream.created == 20 for stream in streams), "the watchers are created")
            with Writer(other.endpoint) as writer:
                writer.wait_for(50)
                leader.kill()
                writer.wait_for(100, 40.0)
            check(follower, streams, writer, first)


def figures(node: Node) -> dict[str, float]:
    """What /metrics says of watchers under etcd's names."""
    with urllib.request.urlopen(f"http://{node.endpoint}/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    names = ("watcher_total", "slow_watcher_total", "events_total", "pending_events_total")
    said = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(said[f"etcd_debugging_mvcc_{name}"]) for name in names}


def memory(node: Node, service: Service) -> int:
    """Resident bytes of a service."""
    status = Path(f"/proc/{service_pid(node, service)}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024
