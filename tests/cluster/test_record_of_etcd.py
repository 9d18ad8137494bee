"""Mistakes that etcd made and its users found, as tests of real nodes; docs/testing.md has the whole list."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.servers import Cluster
from quorate.proto import rpc_pb2
from tests.cluster.watching import history
from tests.cluster.writing import put
from tests.support.cluster import quorate_cluster, restart_service
from tests.support.rpc import Caller, calling

BACKLOG = 2000  # revisions
BEYOND = 20


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
