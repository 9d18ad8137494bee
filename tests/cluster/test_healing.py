"""Damage to the files of one member of three: the member notices, gets everything from the others and votes again."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench import servers
from bench.servers import Cluster, Node
from quorate.consensus.replacing import Claim, NotGranted, asking
from quorate.proto import rpc_pb2
from tests.cluster.test_catching_up import VALUE, same_everywhere, write_much
from tests.cluster.test_disk import scribble
from tests.cluster.writing import Writer, writing
from tests.support.cluster import product_cluster, wait_until
from tests.support.rpc import calling

SMALL_SEGMENTS = {"QUORATE_WAL_SEGMENT_BYTES": str(1 << 20)}
HEALS_WITHIN_S = 60.0
RECOVERIES = 'quorate_recoveries_total{what="%s"}'


@pytest.fixture(scope="module")
def whole() -> Iterator[Cluster]:
    """Three members that keep few entries, in small files, under writes."""
    product = servers.quorate()
    product = replace(product, environment={**product.environment, **SMALL_SEGMENTS})
    with product_cluster(product, 3, "--snapshot-catchup-entries", "20") as cluster:
        write_much(cluster.leader(), 8_000)
        yield cluster


def voters(cluster: Cluster) -> dict[int, str]:
    with calling(cluster.leader().endpoint) as caller:
        answer = caller.unary("Cluster/MemberList", rpc_pb2.MemberListRequest())
    return {member.ID: member.name for member in answer.members if not member.isLearner}


def heals(cluster: Cluster, victim: Node) -> None:
    """The member votes and has what the others have."""
    victim.wait_ready()
    names = sorted(node.name for node in cluster.nodes)
    wait_until(lambda: sorted(voters(cluster).values()) == names, "all members vote", HEALS_WITHIN_S)
    same_everywhere(cluster)


def wal_of(node: Node) -> Path:
    return node.data_dir / "member" / "wal"


def damaged_log(node: Node) -> None:
    """Not the end of the log, which would be taken for a cut write, and more octets than lie between records."""
    start = 4096 + 300
    written = (path for path in wal_of(node).glob("*.wal") if len(path.read_bytes().rstrip(b"\0")) > start + 8192)
    scribble(max(written), start, 32)


def lost_membership(node: Node) -> None:
    for path in wal_of(node).glob("meta.*"):
        scribble(path, 100, 1)


def damaged_and_healed(cluster: Cluster, victim: Node, damage: Callable[[Node], None], what: str) -> Writer:
    """Damage the files of a member while it is away, and return when it has recovered; what was written meanwhile."""
    victim.stop()
    damage(victim)
    with writing(cluster) as writer:
        writer.wait_for(50)
        victim.start()
        heals(cluster, victim)
        wait_until(lambda: victim.metric(RECOVERIES % what) == 1, "the member has recovered", HEALS_WITHIN_S)
    same_everywhere(cluster)
    return writer


LOG_DAMAGES = [damaged_log, lost_membership]


@pytest.mark.parametrize("damage", LOG_DAMAGES)
def test_a_member_with_a_damaged_log_comes_back_under_a_new_id_and_votes(
    whole: Cluster, damage: Callable[[Node], None]
) -> None:
    victim = next(node for node in whole.nodes if node is not whole.leader())
    before = voters(whole)
    writer = damaged_and_healed(whole, victim, damage, "log")
    after = voters(whole)
    assert len(after.keys() - before.keys()) == 1
    assert list((wal_of(victim) / "quarantine").iterdir())
    assert "recovered from the others" in victim.log_path.read_text()
    everything_is_there(whole, writer)


def test_a_member_that_never_heard_what_it_was_given_votes_again(whole: Cluster) -> None:
    leader = whole.leader()
    victim = next(node for node in whole.nodes if node is not leader)
    lost_id = victim.status()["member_id"]
    with calling(leader.endpoint) as caller:
        cluster_id = caller.unary("Cluster/MemberList", rpc_pb2.MemberListRequest()).header.cluster_id
    victim.stop()
    damaged_log(victim)
    claim = Claim(cluster_id, lost_id, (victim.peer_url,))
    wait_until(lambda: is_granted(leader, claim), "the leader gives it a new id", HEALS_WITHIN_S)
    victim.start()
    heals(whole, victim)


def is_granted(leader: Node, claim: Claim) -> bool:
    try:
        return asking(ssl.create_default_context)(leader.peer_url, claim).votes
    except NotGranted:  # it still believes to hear of the member
        return False


def test_a_follower_names_the_leader_to_a_member_that_asks_it(whole: Cluster) -> None:
    leader = whole.leader()
    follower, victim = (node for node in whole.nodes if node is not leader)
    claim = Claim(0, victim.status()["member_id"], (victim.peer_url,))
    with pytest.raises(NotGranted) as refused:
        asking(ssl.create_default_context)(follower.peer_url, claim)
    assert refused.value.leader_urls == (leader.peer_url,)


def everything_is_there(cluster: Cluster, writer: Writer) -> None:
    for node in cluster.nodes:
        with calling(node.endpoint) as caller:
            found = caller.unary("KV/Range", rpc_pb2.RangeRequest(key=b"w/", range_end=b"w0", serializable=True))
        known = {bytes(kv.key): kv.mod_revision for kv in found.kvs}
        assert writer.acknowledged.items() <= known.items()


def database_of(node: Node) -> Path:
    return node.data_dir / "member" / "snap" / "db"


def damaged_pages(node: Node) -> None:
    for page in range(1, database_of(node).stat().st_size // 4096, 7):
        scribble(database_of(node), page * 4096, 256)


def damaged_value(node: Node) -> None:
    """One bit of one value in the middle of the file."""
    path = database_of(node)
    data = bytearray(path.read_bytes())
    position = data.index(VALUE, len(data) // 2)
    data[position + 7] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [damaged_pages, damaged_value])
def test_a_member_with_a_damaged_database_gets_it_anew_and_stays_who_it_is(
    whole: Cluster, damage: Callable[[Node], None]
) -> None:
    victim = next(node for node in whole.nodes if node is not whole.leader())
    before = voters(whole)
    writer = damaged_and_healed(whole, victim, damage, "database")
    assert before == voters(whole)
    assert list((database_of(victim).parent / "quarantine").iterdir())
    assert "the database is damaged; it is made anew" in victim.log_path.read_text()
    everything_is_there(whole, writer)
