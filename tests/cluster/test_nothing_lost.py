"""Under load, whatever is killed or paused: no acknowledged write is lost, no read is stale, no operator is needed."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from bench.servers import Cluster, Node
from tests.checking.checker import check
from tests.checking.history import Change
from tests.checking.traffic import Traffic, committed_log, traffic
from tests.support.cluster import SERVICES, Service, kill_service, paused, quorate_cluster, wait_restarted, wait_until

OPERATIONS_BEFORE = 150  # acknowledged before the fault
OPERATIONS_AFTER = 150  # and again after it: the cluster serves without help
SERVES_WITHIN_S = 30.0
ENDS_WITHIN_S = 30.0
MISSED = 200  # revisions


def judged(cluster: Cluster, crowd: Traffic) -> None:
    """Stop the traffic; every member tells the same log, and the history is lawful."""
    operations = crowd.stop()
    for node in cluster.nodes:
        node.wait_ready()
    logs = [committed_log(node.endpoint) for node in cluster.nodes]
    assert all(log == logs[0] for log in logs), "the members disagree"
    assert [] == check(operations, logs[0]), f"{crowd.failures}"


def more(crowd: Traffic, count: int, what: str) -> None:
    target = crowd.done + count
    wait_until(lambda: crowd.done >= target, f"{count} more operations {what} ({crowd.failures})", SERVES_WITHIN_S)


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
def test_a_power_cut_of_all_nodes_at_once_loses_nothing(size: int) -> None:
    def fault(cluster: Cluster) -> None:
        for node in cluster.nodes:
            node.kill()
        for node in cluster.nodes:
            node.start()

    under_load(size, fault)


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
