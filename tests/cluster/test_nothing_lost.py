"""Under load, whatever is killed or paused: no acknowledged write is lost, no read is stale, no operator is needed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bench.servers import Cluster, Node
from quorate.proto import rpc_pb2
from tests.chaos.disks import Disk, why_no_disks
from tests.checking.checker import check
from tests.checking.history import Change
from tests.checking.traffic import Traffic, committed_log, traffic
from tests.support.cluster import SERVICES, Service, kill_service, paused, quorate_cluster, wait_restarted, wait_until
from tests.support.rpc import calling

OPERATIONS_BEFORE = 150  # acknowledged before the fault
OPERATIONS_AFTER = 150  # and again after it: the cluster serves without help
SERVES_WITHIN_S = 30.0
ENDS_WITHIN_S = 30.0
POWER_CUTS = 2
BACK_WITHIN_S = 90.0  # all nodes start at once, on a machine that may be busy
MISSED = 200  # revisions


def judged(cluster: Cluster, crowd: Traffic) -> None:
    """Stop the traffic; every member tells the same log, and the history is lawful."""
    operations = crowd.stop()
    for node in cluster.nodes:
        node.wait_ready()
    logs = [committed_log(node.endpoint) for node in cluster.nodes]
    assert all(log == logs[0] for log in logs), "the members disagree"
    assert len({hashed(node, logs[0][-1].revision) for node in cluster.nodes}) == 1, "the members' hashes differ"
    assert [] == check(operations, logs[0]), f"{crowd.failures}"


def hashed(node: Node, revision: int) -> int:
    with calling(node.endpoint) as caller:
        return int(caller.unary("Maintenance/HashKV", rpc_pb2.HashKVRequest(revision=revision)).hash)


def more(crowd: Traffic, count: int, what: str, within_s: float = SERVES_WITHIN_S) -> None:
    target = crowd.done + count
    wait_until(lambda: crowd.done >= target, f"{count} more operations {what} ({crowd.failures})", within_s)


def kill_node(node: Node) -> None:
    node.kill()
    node.start()


def under_load(size: int, fault: Callable[[Cluster], None]) -> None:
    with quorate_cluster(size) as cluster, traffic([node.endpoint for node in cluster.nodes]) as crowd:
        more(crowd, OPERATIONS_BEFORE, "before the fault")
        fault(cluster)
        more(crowd, OPERATIONS_AFTER, "after the fault")
        judged(cluster, crowd)


@pytest.mark.parametrize("service", SERVICES)
def test_a_killed_process_of_a_single_node_comes_back_without_loss(service: Service) -> None:
    def fault(cluster: Cluster) -> None:
        pid = kill_service(cluster.nodes[0], service)
        wait_restarted(cluster.nodes[0], service, pid)

    under_load(1, fault)


@pytest.mark.parametrize("at", ["leader", "follower"])
@pytest.mark.parametrize("service", SERVICES)
def test_a_killed_process_of_a_member_comes_back_without_loss(service: Service, at: str) -> None:
    def fault(cluster: Cluster) -> None:
        leader = cluster.leader()
        node = leader if at == "leader" else next(n for n in cluster.nodes if n is not leader)
        pid = kill_service(node, service)
        wait_restarted(node, service, pid)

    under_load(3, fault)


@pytest.mark.parametrize("size", [1, 3])
def test_killing_all_nodes_at_once_loses_nothing(size: int) -> None:
    def fault(cluster: Cluster) -> None:
        for node in cluster.nodes:
            node.kill()
        for node in cluster.nodes:
            node.start()

    under_load(size, fault)


@pytest.mark.skipif(bool(why_no_disks()), reason=why_no_disks() or "disks can be mounted")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("size", [1, 3])
def test_a_power_cut_of_all_nodes_at_once_loses_nothing(size: int) -> None:
    """etcd #14370: a single node acknowledged before the log was synced. What was not synced is really gone here."""
    with quorate_cluster(size, ready=False) as cluster, ExitStack() as stack:
        disks = [stack.enter_context(mounted(node.data_dir)) for node in cluster.nodes]
        cluster.start()
        with traffic(cluster.endpoints) as crowd:
            for _ in range(POWER_CUTS):
                more(crowd, OPERATIONS_BEFORE, "before the power cut", BACK_WITHIN_S)
                for node in cluster.nodes:
                    node.kill()
                for disk in disks:
                    disk.cut_power()
                for node in cluster.nodes:
                    node.start()
            more(crowd, OPERATIONS_AFTER, "after the power cuts", BACK_WITHIN_S)
            judged(cluster, crowd)
        for node in cluster.nodes:
            node.kill()


@pytest.mark.skipif(bool(why_no_disks()), reason=why_no_disks() or "disks can be mounted")
def test_a_power_cut_of_a_node_that_does_not_sync_is_noticed() -> None:
    """Who checks the disks: without syncs an acknowledged write is lost, and the checker says so."""
    with quorate_cluster(1, "--unsafe-no-fsync", ready=False) as cluster, ExitStack() as stack:
        (node,) = cluster.nodes
        disk = stack.enter_context(mounted(node.data_dir))
        cluster.start()
        with traffic(cluster.endpoints) as crowd:
            more(crowd, OPERATIONS_BEFORE, "before the power cut")
            node.kill()
            disk.cut_power()
            node.start()
            node.wait_ready()
            operations = crowd.stop()
        violations = check(operations, committed_log(node.endpoint))
        node.kill()
    assert any("acknowledged and lost" in violation for violation in violations)


@contextmanager
def mounted(path: Path) -> Iterator[Disk]:
    """A disk of its own for what is written below `path`."""
    disk = Disk(path)
    disk.create()
    try:
        yield disk
    finally:
        disk.unmount()


def test_storage_that_is_killed_while_it_defragments_comes_back_whole() -> None:
    """etcd #14685: a crash in the middle left a member that differed."""

    def fault(cluster: Cluster) -> None:
        node = cluster.leader()
        with ThreadPoolExecutor(1) as aside, calling(node.endpoint) as caller:
            request = rpc_pb2.DefragmentRequest()
            asked = aside.submit(caller.unary, "Maintenance/Defragment", request)
            pid = kill_service(node, "storage")
            asked.exception()
        wait_restarted(node, "storage", pid)

    under_load(3, fault)


def test_a_killed_leader_node_is_replaced_and_returns_without_loss() -> None:
    under_load(3, lambda cluster: kill_node(cluster.leader()))


def test_a_killed_follower_catches_up_while_the_cluster_serves() -> None:
    def fault(cluster: Cluster) -> None:
        leader = cluster.leader()
        follower = next(node for node in cluster.nodes if node is not leader)
        follower.kill()
        revision = leader.status()["revision"]
        wait_until(lambda: leader.status()["revision"] > revision + MISSED, "writes that the follower misses")
        follower.start()

    under_load(3, fault)


def test_a_leader_that_is_stopped_hands_over_without_loss() -> None:
    def fault(cluster: Cluster) -> None:
        leader = cluster.leader()
        assert leader.process is not None
        leader.process.terminate()
        assert leader.process.wait(ENDS_WITHIN_S) == -signal.SIGTERM
        leader.start()

    under_load(3, fault)


def test_a_leader_that_pauses_for_longer_than_an_election_serves_nothing_stale() -> None:
    def fault(cluster: Cluster) -> None:
        leader = cluster.leader()
        with paused(leader, "consensus"):
            others = [node for node in cluster.nodes if node is not leader]
            old = others[0].status()["leader"]
            wait_until(lambda: all(n.status()["leader"] not in (0, old) for n in others), "another leader")

    under_load(3, fault)


def test_the_checker_would_notice_a_lost_write() -> None:
    with quorate_cluster(1) as cluster, traffic([cluster.nodes[0].endpoint]) as crowd:
        more(crowd, OPERATIONS_BEFORE, "of an undisturbed node")
        operations = crowd.stop()
        log = committed_log(cluster.nodes[0].endpoint)
    lost = next(op for op in operations if op.kind.name == "PUT" and op.fate.name == "DONE")
    without = [Change(*change) for change in log if change.revision != lost.revision]
    assert check(operations, without)
