"""Parts of a node, whole nodes and whole clusters are killed while a client writes: nothing acknowledged is lost."""

import signal

import pytest

from tests.cluster.writing import assert_nothing_lost, get, put, writing
from tests.support.cluster import SERVICES, Service, kill_service, quorate_cluster, wait_restarted


@pytest.mark.parametrize("service", SERVICES)
def test_killed_service_of_a_single_node_comes_back_without_loss(service: Service) -> None:
    with quorate_cluster(1) as cluster, writing(cluster) as writer:
        node = cluster.nodes[0]
        writer.wait_for(50)
        wait_restarted(node, service, kill_service(node, service))
        writer.wait_for(50)
        assert_nothing_lost(node, writer)


@pytest.mark.parametrize("service", SERVICES)
def test_killed_service_of_the_leader_comes_back_without_loss(service: Service) -> None:
    with quorate_cluster(3) as cluster, writing(cluster) as writer:
        leader = cluster.leader()
        writer.wait_for(50)
        wait_restarted(leader, service, kill_service(leader, service))
        writer.wait_for(50)
        for node in cluster.nodes:
            assert_nothing_lost(node, writer)


def test_killed_node_has_everything_after_its_restart() -> None:
    with quorate_cluster(1) as cluster:
        node = cluster.nodes[0]
        with writing(cluster) as writer:
            writer.wait_for(200)
            node.kill()
        node.start()
        assert_nothing_lost(node, writer)


def test_all_nodes_killed_at_once_have_everything_after_their_restart() -> None:
    with quorate_cluster(3) as cluster:
        with writing(cluster) as writer:
            writer.wait_for(200)
            for node in cluster.nodes:
                node.kill()
        for node in cluster.nodes:
            node.start()
        for node in cluster.nodes:
            assert_nothing_lost(node, writer)


def test_killed_follower_catches_up_while_the_cluster_serves() -> None:
    with quorate_cluster(3) as cluster, writing(cluster) as writer:
        leader = cluster.leader()
        follower = next(node for node in cluster.nodes if node is not leader)
        follower.kill()
        writer.wait_for(300)
        follower.start()
        assert_nothing_lost(follower, writer)


def test_stopped_leader_hands_over_and_the_others_go_on() -> None:
    with quorate_cluster(3) as cluster:
        leader = cluster.leader()
        others = [node for node in cluster.nodes if node is not leader]
        assert leader.process is not None
        leader.process.send_signal(signal.SIGTERM)
        put(others[0], b"after", b"1")
        assert get(others[1], b"after") == b"1"
        assert leader.process.wait(30) == -signal.SIGTERM
