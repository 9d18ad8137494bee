"""A follower that stood still for 50,000 writes catches up while others serve: by the log, or by an image of storage.

The others keep so little of their log in the second case that what the follower needs is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from bench import engine, messages, servers
from bench.servers import Cluster, Node
from quorate.proto import rpc_pb2
from tests.cluster.watching import Watching, history, within
from tests.cluster.writing import get
from tests.support.cluster import paused, product_cluster, restart_service, wait_until
from tests.support.rpc import calling

WRITES = 50_000
WINDOW = 1_000
KEYS = 10_000
VALUE = b"v" * 400  # so that the writes fill several checkpoints and segments
SMALL_SEGMENTS = {"QUORATE_WAL_SEGMENT_BYTES": str(1 << 20)}
CATCHES_UP_WITHIN_S = 120.0  # no promise: many tests may share the machine


@pytest.fixture(scope="module")
def forgetful() -> Iterator[Cluster]:
    """Three members that keep few entries, in small files."""
    product = servers.quorate()
    product = replace(product, environment={**product.environment, **SMALL_SEGMENTS})
    with product_cluster(product, 3, "--snapshot-catchup-entries", "20") as cluster:
        yield cluster


def write_much(node: Node, count: int = WRITES) -> None:
    """So many puts over a few thousand keys, many in flight."""
    puts = (messages.put(b"many/%d" % (number % KEYS), b"%d %s" % (number, VALUE)) for number in range(count))
    answered = sum(1 for _ in engine.pipeline(servers.HOST, node.client_port, messages.KV_PUT, puts, WINDOW))
    assert answered == count


def segments(node: Node) -> set[str]:
    """The files of its log."""
    return {path.name for path in (node.data_dir / "member" / "wal").glob("*.wal")}


def wait_forgotten(node: Node, old: set[str]) -> None:
    """Return when it has dropped these files: a busy member takes its time."""
    wait_until(lambda: not old & segments(node), f"{node.name} drops {old}", CATCHES_UP_WITHIN_S)


def revision_of(node: Node) -> int:
    return node.status()["revision"]


def same_everywhere(cluster: Cluster) -> None:
    """All members reach one revision and have the same hash of everything up to it."""
    answer = cluster.leader().wait_answer(messages.KV_PUT, messages.put(b"last", b"1"))
    last = messages.header_revision(answer)
    wait_until(
        lambda: all(revision_of(node) >= last for node in cluster.nodes),
        f"all members reach revision {last}",
        CATCHES_UP_WITHIN_S,
    )
    hashes = []
    for node in cluster.nodes:
        with calling(node.endpoint) as caller:
            hashed = caller.unary("Maintenance/HashKV", rpc_pb2.HashKVRequest(revision=last))
        hashes.append((hashed.hash, hashed.compact_revision, hashed.hash_revision))
    assert len(set(hashes)) == 1, hashes


def images_received(node: Node) -> float:
    return node.metric("etcd_network_snapshot_receive_success_total")


def left_behind(cluster: Cluster) -> Node:
    """A follower that slept while the others took the writes; it is awake again."""
    leader = cluster.leader()
    follower = next(node for node in cluster.nodes if node is not leader)
    with paused(follower):
        write_much(leader)
    return follower


def test_a_follower_that_slept_through_50000_writes_gets_them_from_the_log() -> None:
    with product_cluster(servers.quorate(), 3) as cluster:
        follower = left_behind(cluster)
        same_everywhere(cluster)
        assert images_received(follower) == 0


def test_a_follower_whose_entries_are_gone_gets_an_image_and_its_watchers_every_change(forgetful: Cluster) -> None:
    leader = forgetful.leader()
    follower = next(node for node in forgetful.nodes if node is not leader)
    ranges = [(b"many/7", b""), (b"many/10", b"many/11"), (b"last", b"")]
    first = revision_of(follower) + 1
    watching = Watching(follower.endpoint, ranges, first)
    try:
        wait_until(lambda: watching.created == len(ranges), "the watchers are created")
        with paused(follower):
            old = segments(leader)
            write_much(leader)
            wait_forgotten(leader, old)
        same_everywhere(forgetful)
        assert images_received(follower) > 0
        with calling(follower.endpoint) as caller:
            everything = history(caller, first, revision_of(follower))
        expected = [[one for one in everything if within(*range_, one[1])] for range_ in ranges]
        wait_until(
            lambda: [len(seen) for seen in watching.seen] >= [len(seen) for seen in expected],
            f"all changes arrive: {watching.problem}",
        )
        assert (watching.problem, watching.seen) == ("", expected)
    finally:
        watching.stop()


def test_a_follower_killed_for_as_long_gets_an_image_too(forgetful: Cluster) -> None:
    leader = forgetful.leader()
    follower = next(node for node in forgetful.nodes if node is not leader)
    follower.kill()
    old = segments(leader)
    write_much(leader)
    wait_forgotten(leader, old)
    follower.start()
    follower.wait_ready()
    same_everywhere(forgetful)
    assert images_received(follower) > 0
    assert get(follower, b"many/%d" % (KEYS - 1)) == b"%d %s" % (WRITES - 1, VALUE)
    restart_service(follower, "storage")
    same_everywhere(forgetful)
