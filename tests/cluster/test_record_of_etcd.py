"""Mistakes that etcd made and its users found, as tests of real nodes; docs/testing.md has the whole list."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import grpc
import pytest

from bench import servers
from bench.servers import Cluster, Node
from quorate.proto import rpc_pb2
from quorate.wire import errors
from tests.cluster.guarded import Guarded, Refused, guarded_cluster
from tests.cluster.watching import history
from tests.cluster.writing import put
from tests.support.cluster import paused, quorate_cluster, restart_service, wait_until
from tests.support.rpc import Caller, calling

BACKLOG = 2000  # revisions
BEYOND = 20
LEASE_TTL_S = 600
RENEWAL_S = 2.0  # several elections long


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with quorate_cluster(1) as made:
        yield made


@pytest.fixture
def caller(cluster: Cluster) -> Iterator[Caller]:
    with calling(cluster.nodes[0].endpoint) as made:
        yield made


def delete(caller: Caller, key: bytes) -> int:
    return int(caller.unary("KV/DeleteRange", rpc_pb2.DeleteRangeRequest(key=key)).header.revision)


def test_a_watch_from_the_compact_revision_sees_the_deletion_that_stands_there(
    cluster: Cluster, caller: Caller
) -> None:
    """etcd #18089 and #19179: compaction took the tombstone away."""
    put(cluster.nodes[0], b"gone", b"1")
    deleted = delete(caller, b"gone")
    caller.unary("KV/Compact", rpc_pb2.CompactionRequest(revision=deleted, physical=True))
    assert history(caller, deleted, deleted) == [(deleted, b"gone", b"")]
    restart_service(cluster.nodes[0], "storage")
    assert history(caller, deleted, deleted) == [(deleted, b"gone", b"")]


def watch(key: bytes, start_revision: int) -> rpc_pb2.WatchRequest:
    create = rpc_pb2.WatchCreateRequest(key=key, start_revision=start_revision, progress_notify=True)
    return rpc_pb2.WatchRequest(create_request=create)


@pytest.mark.parametrize("restarted", ["nothing", "watch", "storage"])
def test_a_watch_on_a_future_revision_is_told_nothing_older(cluster: Cluster, caller: Caller, restarted: str) -> None:
    """etcd #20221: after a restart it was told what came before."""
    node = cluster.nodes[0]
    future = put(node, b"later", b"0") + BEYOND
    call = caller.stream("Watch/Watch", [watch(b"later", future)], 30.0)
    assert next(call).created
    if restarted in ("watch", "storage"):
        restart_service(node, "watch" if restarted == "watch" else "storage")
        node.wait_ready()
    last = 0
    while last < future + BEYOND:
        last = put(node, b"later", b"1")
    told: list[int] = []
    while not told or told[-1] < last:
        answer = next(call)
        assert answer.header.revision >= future
        told += [event.kv.mod_revision for event in answer.events]
    call.cancel()
    assert told[0] >= future
    assert told == sorted(set(told))


def test_progress_that_is_asked_for_waits_for_watchers_that_are_behind(cluster: Cluster, caller: Caller) -> None:
    """etcd #15220: progress was promised while an older watcher of the stream had still to be told."""
    node = cluster.nodes[0]
    first = put(node, b"progress", b"0")
    pairs = [rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"progress", value=b"1"))]
    for _ in range(BACKLOG):
        last = caller.unary("KV/Txn", rpc_pb2.TxnRequest(success=pairs)).header.revision
    ask = rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest())
    call = caller.stream("Watch/Watch", [watch(b"progress", first), *[ask] * 50], 30.0)
    reached = first - 1
    while reached < last:
        answer = next(call)
        if answer.events:
            reached = answer.events[-1].kv.mod_revision
        elif not answer.created:
            assert answer.header.revision <= reached, "progress before the changes it speaks of"
    call.cancel()


def test_members_agree_when_users_are_switched_on_between_writes() -> None:
    """etcd #14571: a member that had restarted judged by other rules than its neighbours."""
    with quorate_cluster(3) as three:
        leader = three.leader()
        with calling(leader.endpoint) as root:
            root.unary("Auth/UserAdd", rpc_pb2.AuthUserAddRequest(name="root", password="r"))
            root.unary("Auth/RoleAdd", rpc_pb2.AuthRoleAddRequest(name="root"))
            root.unary("Auth/UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user="root", role="root"))
            root.unary("Auth/AuthEnable", rpc_pb2.AuthEnableRequest())
            request = rpc_pb2.AuthenticateRequest(name="root", password="r")
            token = root.unary("Auth/Authenticate", request).token
        follower = next(node for node in three.nodes if node is not leader)
        follower.kill()
        follower.start()
        header = (("token", token),)
        with calling(leader.endpoint, header) as known:
            for number in range(100):
                write = rpc_pb2.PutRequest(key=b"k%d" % number, value=b"v")
                last = known.unary("KV/Put", write).header.revision
            known.unary("Auth/AuthDisable", rpc_pb2.AuthDisableRequest())
        hashes = set()
        for node in three.nodes:
            node.wait_ready()
            with calling(node.endpoint) as caller:
                hashes.add(caller.unary("Maintenance/HashKV", rpc_pb2.HashKVRequest(revision=last)).hash)
        assert len(hashes) == 1


def renewed(node: Node, lease: int) -> bool:
    with calling(node.endpoint) as caller:
        request = rpc_pb2.LeaseKeepAliveRequest(ID=lease)
        call = caller.stream("Lease/LeaseKeepAlive", [request], timeout_s=RENEWAL_S)
        try:
            return bool(next(call).TTL == LEASE_TTL_S)
        except grpc.RpcError:
            return False
        finally:
            call.cancel()


def test_a_leader_that_hears_from_nobody_renews_no_lease() -> None:
    """etcd #15247: one that was stuck renewed by itself, and the lease ended at its successor. The first renewal of a
    stream goes its own way, those behind it go together."""
    with quorate_cluster(3) as three:
        leader = three.leader()
        others = [node for node in three.nodes if node is not leader]
        with calling(leader.endpoint) as caller, ThreadPoolExecutor(1) as aside:
            lease = caller.unary("Lease/LeaseGrant", rpc_pb2.LeaseGrantRequest(TTL=LEASE_TTL_S)).ID
            renewals: SimpleQueue[rpc_pb2.LeaseKeepAliveRequest | None] = SimpleQueue()
            call = caller.stream("Lease/LeaseKeepAlive", iter(renewals.get, None))
            try:
                for _ in range(2):
                    renewals.put(rpc_pb2.LeaseKeepAliveRequest(ID=lease))
                    assert next(call).TTL == LEASE_TTL_S
                with paused(others[0]), paused(others[1]):
                    renewals.put(rpc_pb2.LeaseKeepAliveRequest(ID=lease))
                    behind = aside.submit(next, call)
                    assert not renewed(leader, lease)
                    assert not behind.done() or behind.exception() is not None
            finally:
                renewals.put(None)
                call.cancel()
        wait_until(lambda: renewed(leader, lease), "the lease is renewed with the others")


def promoted(guarded: Guarded, node: Node, number: int) -> bool:
    try:
        guarded.call("grpc", node, "root", "Cluster/MemberPromote", rpc_pb2.MemberPromoteRequest(ID=number))
    except Refused as refused:
        if refused.text == errors.LEARNER_NOT_READY.text:
            return False
        raise
    return True


def test_a_learner_is_promoted_by_way_of_a_follower_with_users_switched_on() -> None:
    """etcd #20757: the follower passed the request on without saying whose it was, and the leader refused nobody."""
    with guarded_cluster(3) as guarded:
        follower = guarded.follower()
        node = servers.newcomer(guarded.cluster, "learner")
        request = rpc_pb2.MemberAddRequest(peerURLs=[node.peer_url], isLearner=True)
        answer = guarded.call("grpc", follower, "root", "Cluster/MemberAdd", request)
        number = rpc_pb2.MemberAddResponse.FromString(answer).member.ID
        guarded.cluster.nodes.append(node)
        node.start()
        with pytest.raises(Refused, match=errors.PERMISSION_DENIED.text):
            guarded.call("grpc", follower, "alice", "Cluster/MemberPromote", rpc_pb2.MemberPromoteRequest(ID=number))
        wait_until(lambda: promoted(guarded, follower, number), "the learner is promoted")
        answer = guarded.call("grpc", follower, "root", "Cluster/MemberList", rpc_pb2.MemberListRequest())
        members = rpc_pb2.MemberListResponse.FromString(answer).members
        assert {member.ID: member.isLearner for member in members}[number] is False
