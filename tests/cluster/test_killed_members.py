"""kill -9 while members are added, promoted and removed, and while an image reaches a follower: when all run again the
cluster goes on without an operator, and nothing that was acknowledged is lost."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from bench import servers
from bench.servers import Cluster, Node
from tests.checking.traffic import Traffic, traffic
from tests.cluster.test_catching_up import SMALL_SEGMENTS, images_received, same_everywhere, write_much
from tests.cluster.test_nothing_lost import judged, more
from tests.support import members
from tests.support.cluster import product_cluster, quorate_cluster, wait_until
from tests.support.killing import Place, killing, needs_strace

pytestmark = pytest.mark.timeout(400)
OPERATIONS_BETWEEN = 60
DELAY_S_MAX = 0.05  # within it a change of members is proposed, written, sent and committed
KILLED_WITHIN_S = 120.0  # under strace, on a busy machine
IMAGE_WRITES = 12_000

# What consensus and storage of a follower go through when an image arrives, in this order: the file is received and
# synced, the membership and the log begin anew with it, the database is replaced.
INSTALLING = (
    *(Place("rename", nth) for nth in (1, 2, 3, 5)),
    *(Place("fsync", nth) for nth in (1, 2, 4, 6, 9)),
    *(Place("unlink", nth) for nth in (2, 4)),
)


def killed_during(change: Callable[[], None], victim: Node, dice: random.Random) -> None:
    """Kill a node soon after the change was asked for, start it again, and see the change through."""
    changing = threading.Thread(target=change)
    changing.start()
    time.sleep(dice.random() * DELAY_S_MAX)
    victim.kill()
    victim.start()
    changing.join()


def a_killed(cluster: Cluster, whom: str, newcomer: Node | None = None) -> Node:
    leader = cluster.leader()
    if whom == "newcomer":
        assert newcomer is not None
        return newcomer
    return leader if whom == "leader" else next(n for n in cluster.nodes if n not in (leader, newcomer))


def settled(cluster: Cluster, crowd: Traffic) -> None:
    more(crowd, OPERATIONS_BETWEEN, "after the kill")


@pytest.mark.parametrize("whom", ["leader", "follower"])
@pytest.mark.parametrize("learner", [True, False], ids=["learner", "voter"])
def test_a_member_that_is_added_while_another_is_killed_comes_in(learner: bool, whom: str) -> None:
    seed = random.randrange(1000)
    print("seed", seed)
    with quorate_cluster(3) as cluster, traffic(cluster.endpoints) as crowd:
        more(crowd, OPERATIONS_BETWEEN, "before")
        node = servers.newcomer(cluster, "newcomer")
        victim = a_killed(cluster, whom)
        by = next(other for other in cluster.nodes if other is not victim)
        killed_during(lambda: members.add(by, node.peer_url, learner=learner), victim, random.Random(seed))
        settled(cluster, crowd)
        cluster.nodes.append(node)
        node.start()
        if learner:
            members.promote(by, node.peer_url)
        node.wait_ready(members.WITHIN_S)
        settled(cluster, crowd)
        judged(cluster, crowd)


@pytest.mark.parametrize("whom", ["leader", "newcomer"])
def test_a_learner_is_promoted_though_somebody_is_killed(whom: str) -> None:
    seed = random.randrange(1000)
    print("seed", seed)
    with quorate_cluster(3) as cluster, traffic(cluster.endpoints) as crowd:
        more(crowd, OPERATIONS_BETWEEN, "before")
        node = servers.newcomer(cluster, "newcomer")
        members.add(cluster.nodes[0], node.peer_url, learner=True)
        node.start()
        victim = a_killed(cluster, whom, node)
        by = next(other for other in cluster.nodes if other is not victim)
        cluster.nodes.append(node)
        killed_during(lambda: members.promote(by, node.peer_url), victim, random.Random(seed))
        node.wait_ready(members.WITHIN_S)
        settled(cluster, crowd)
        judged(cluster, crowd)


@pytest.mark.parametrize("whom", ["leader", "follower"])
@pytest.mark.parametrize("removed", ["the killed", "another"])
def test_a_member_is_removed_though_somebody_is_killed(removed: str, whom: str) -> None:
    seed = random.randrange(1000)
    print("seed", seed)
    with quorate_cluster(4) as cluster, traffic(cluster.endpoints) as crowd:
        more(crowd, OPERATIONS_BETWEEN, "before")
        victim = a_killed(cluster, whom)
        rest = [node for node in cluster.nodes if node is not victim]
        gone, by = (victim, rest[0]) if removed == "the killed" else (rest[1], rest[0])
        crowd.leave(gone.endpoint)
        killed_during(lambda: members.remove(by, gone.peer_url), victim, random.Random(seed))
        wait_until(lambda: members.has_ended(gone), "the removed member ends", members.WITHIN_S)
        cluster.nodes.remove(gone)
        gone.kill()
        settled(cluster, crowd)
        judged(cluster, crowd)


def killed_at(node: Node, place: Place) -> None:
    """Start a node one of whose services is killed at a place, then kill all of it, and start it again."""
    product = node.product
    node.product = replace(product, command=tuple(killing(place, *product.command)))
    begins = node.log_path.stat().st_size
    node.start()

    def is_reached_or_past() -> bool:
        return b"terminated by SIGKILL" in node.log_path.read_bytes()[begins:] or images_received(node) > 0

    wait_until(is_reached_or_past, f"{place} is reached, or the image is there", KILLED_WITHIN_S)
    node.kill()
    node.product = product
    node.start()
    node.wait_ready()


@needs_strace
def test_a_follower_that_is_killed_anywhere_while_an_image_arrives_gets_it() -> None:
    product = servers.quorate()
    product = replace(product, environment={**product.environment, **SMALL_SEGMENTS})
    with product_cluster(product, 3, "--snapshot-catchup-entries", "20") as cluster:
        follower = next(node for node in cluster.nodes if node is not cluster.leader())
        others = [node for node in cluster.nodes if node is not follower]
        for place in random.Random(4).sample(INSTALLING, 4):
            follower.kill()
            write_much(others[0], IMAGE_WRITES)
            killed_at(follower, place)
            same_everywhere(cluster)
