"""Members come, move, are replaced and go while clients write: no linearizable read fails and no write is lost."""

from __future__ import annotations

import shutil
import time
from http import HTTPStatus
from urllib.request import urlopen

import pytest

from bench import failover_cases, servers
from bench.ports import free_port
from bench.servers import Cluster, Node
from tests.checking.traffic import Traffic, traffic
from tests.cluster.test_nothing_lost import judged, more
from tests.support import members
from tests.support.cluster import paused, quorate_cluster, wait_until

pytestmark = pytest.mark.timeout(300)
OPERATIONS_BETWEEN = 60  # acknowledged after each step
GAP_S_MAX = 2.0  # generous: the benchmark holds it to a tenth of a second
BEFORE_S = 0.5


def no_read_failed(crowd: Traffic) -> None:
    assert not [text for text in crowd.failures if text.startswith("GET ")], crowd.failures


def others(cluster: Cluster, node: Node) -> list[Node]:
    return [other for other in cluster.nodes if other is not node]


def test_a_cluster_grows_to_five_and_shrinks_to_one() -> None:
    with quorate_cluster(1) as cluster, traffic(cluster.endpoints) as crowd:
        more(crowd, OPERATIONS_BETWEEN, "of one member")
        for number in range(2, 6):
            node = members.grow(cluster, cluster.nodes[0], f"m{number}")
            crowd.reach(node.endpoint)
            more(crowd, OPERATIONS_BETWEEN, f"of {number} members")
        while len(cluster.nodes) > 1:
            leader = cluster.leader()
            leaving = leader if len(cluster.nodes) % 2 else others(cluster, leader)[0]
            crowd.leave(leaving.endpoint)
            members.shrink(cluster, leaving)
            more(crowd, OPERATIONS_BETWEEN, f"of {len(cluster.nodes)} members")
        no_read_failed(crowd)
        judged(cluster, crowd)


@pytest.mark.parametrize("dead", ["leader", "follower"])
def test_a_dead_member_is_replaced(dead: str) -> None:
    with quorate_cluster(3) as cluster, traffic(cluster.endpoints) as crowd:
        more(crowd, OPERATIONS_BETWEEN, "of three members")
        leader = cluster.leader()
        lost = leader if dead == "leader" else others(cluster, leader)[0]
        lost.kill()
        crowd.leave(lost.endpoint)
        cluster.nodes.remove(lost)
        shutil.rmtree(lost.data_dir)
        members.remove(cluster.nodes[0], lost.peer_url)
        more(crowd, OPERATIONS_BETWEEN, "of two members")
        node = members.grow(cluster, cluster.nodes[0], "replacement")
        crowd.reach(node.endpoint)
        more(crowd, OPERATIONS_BETWEEN, "of three members again")
        judged(cluster, crowd)


@pytest.mark.parametrize("moved", ["leader", "follower"])
def test_a_member_moves_to_another_address(moved: str) -> None:
    with quorate_cluster(3) as cluster, traffic(cluster.endpoints) as crowd:
        more(crowd, OPERATIONS_BETWEEN, "before the move")
        leader = cluster.leader()
        node = leader if moved == "leader" else others(cluster, leader)[0]
        crowd.leave(node.endpoint)
        old, port = node.peer_url, free_port()
        node.peer_port = port
        members.update(others(cluster, node)[0], old, node.peer_url)
        node.stop()
        node.flags = members.changed(node.flags, old, node.peer_url)
        node.start()
        node.wait_ready()
        crowd.reach(node.endpoint)
        more(crowd, OPERATIONS_BETWEEN, "after the move")
        no_read_failed(crowd)
        judged(cluster, crowd)


def test_a_leader_that_is_asked_to_end_fails_no_put_and_leaves_no_gap() -> None:
    with quorate_cluster(3) as cluster:
        leader = cluster.leader()
        with failover_cases.putting([failover_cases.balanced(cluster.endpoints)]) as puts:
            time.sleep(BEFORE_S)
            leader.stop()
            time.sleep(BEFORE_S)
        assert puts.failed == []
        assert puts.longest_gap_s() < GAP_S_MAX


def test_a_new_member_that_asks_one_that_lags_waits_for_the_others() -> None:
    """The first it asks has slept since before the addition, and the others do not answer for a moment."""
    with quorate_cluster(3) as cluster:
        lagging = cluster.nodes[0]
        lagging.kill()
        leader, follower = others(cluster, lagging)
        node = servers.newcomer(cluster, "late")
        members.add(leader, node.peer_url, learner=True)
        cluster.nodes.append(node)
        with paused(leader), paused(follower):
            lagging.start()
            wait_until(lambda: answers(lagging), "the lagging member answers", members.WITHIN_S)
            node.start()
            wait_until(lambda: "have not heard of this one" in node.log_tail(), "it asked them", members.WITHIN_S)
        members.promote(leader, node.peer_url)
        node.wait_ready()
        assert "error validating" not in node.log_path.read_text()


def answers(node: Node) -> bool:
    """Whether its peer port tells who the members are."""
    try:
        with urlopen(f"{node.peer_url}/members", timeout=1.0) as answer:
            return bool(answer.status == HTTPStatus.OK)
    except OSError:
        return False


def test_a_removed_member_stays_out() -> None:
    with quorate_cluster(3) as cluster:
        node = others(cluster, cluster.leader())[0]
        members.shrink(cluster, node)
        node.start()
        wait_until(lambda: members.has_ended(node), "a removed member ends again", members.WITHIN_S)
        assert "removed" in node.log_tail()
        cluster.nodes.append(node)
        shutil.rmtree(node.data_dir)
        members.add(cluster.nodes[0], node.peer_url, learner=False)
        node.flags = (*node.flags, "--initial-cluster-state", "existing")
        node.start()
        node.wait_ready()
