"""Leases, locks and elections of real nodes whose processes are killed: nothing ends early, nothing stays for ever."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import grpc
import pytest

from bench.servers import Cluster, Node
from quorate.proto import rpc_pb2, v3election_pb2, v3lock_pb2
from quorate.wire import errors
from tests.cluster.writing import get
from tests.support.cluster import SERVICES, Service, quorate_cluster, restart_service, wait_until
from tests.support.rpc import Caller, calling, refusal

LONG_TTL_S = 600
SHORT_TTL_S = 3
MANY = 1_500  # leases that end in the same second; the leader has a thousand of them ordered each second
WORD = "correct horse"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with quorate_cluster(1) as cluster:
        yield cluster


@pytest.fixture
def node(cluster: Cluster) -> Node:
    return cluster.nodes[0]


def insist(node: Node, method: str, request: Any) -> Any:
    """The answer to a call that is made again while processes come back; it must bear being made twice."""
    answers: list[Any] = []

    def is_answered() -> bool:
        with calling(node.endpoint) as caller, suppress(grpc.RpcError):
            answers.append(caller.unary(method, request, timeout_s=5.0))
        return bool(answers)

    wait_until(is_answered, f"{method} is answered", 40.0)
    return answers[0]


def grant(node: Node, ttl_s: int, key: bytes) -> int:
    """A lease with one key."""
    lease = int(insist(node, "Lease/LeaseGrant", rpc_pb2.LeaseGrantRequest(TTL=ttl_s)).ID)
    insist(node, "KV/Put", rpc_pb2.PutRequest(key=key, value=b"leased", lease=lease))
    return lease


def left(node: Node, lease: int) -> rpc_pb2.LeaseTimeToLiveResponse:
    response: rpc_pb2.LeaseTimeToLiveResponse = insist(
        node, "Lease/LeaseTimeToLive", rpc_pb2.LeaseTimeToLiveRequest(ID=lease, keys=True)
    )
    return response


def renew(node: Node, lease: int) -> int:
    """The TTL that a renewal gives."""
    ttls: list[int] = []

    def is_answered() -> bool:
        with calling(node.endpoint) as caller, suppress(grpc.RpcError):
            call = caller.stream("Lease/LeaseKeepAlive", [rpc_pb2.LeaseKeepAliveRequest(ID=lease)], 5.0)
            ttls.append(next(call).TTL)
        return bool(ttls)

    wait_until(is_answered, "the renewal is answered", 40.0)
    return ttls[0]


@pytest.mark.parametrize("service", SERVICES)
def test_leases_outlive_the_death_of_any_process(node: Node, service: Service) -> None:
    name = service.encode()
    kept = grant(node, LONG_TTL_S, b"kept/" + name)
    moved = grant(node, LONG_TTL_S, b"moved/" + name)
    insist(node, "KV/Put", rpc_pb2.PutRequest(key=b"moved/" + name, value=b"free"))
    granted_at = time.monotonic()
    ending = grant(node, SHORT_TTL_S, b"ending/" + name)
    assert renew(node, kept) == LONG_TTL_S
    restart_service(node, service)
    assert (left(node, kept).grantedTTL, list(left(node, kept).keys)) == (LONG_TTL_S, [b"kept/" + name])
    assert list(left(node, moved).keys) == []
    assert renew(node, kept) == LONG_TTL_S
    wait_until(lambda: left(node, ending).TTL == -1, "the short lease ends", 40.0)
    assert time.monotonic() - granted_at >= SHORT_TTL_S
    assert (get(node, b"ending/" + name), get(node, b"kept/" + name)) == (None, b"leased")


@pytest.mark.parametrize("size", [1, 3])
def test_leases_outlive_a_power_cut_of_all_nodes(size: int) -> None:
    with quorate_cluster(size) as cluster:
        first = cluster.nodes[0]
        lease = grant(first, LONG_TTL_S, b"kept")
        short = grant(first, SHORT_TTL_S, b"ending")
        assert renew(first, lease) == LONG_TTL_S
        revoked = grant(first, LONG_TTL_S, b"revoked")
        insist(first, "Lease/LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=revoked))
        for node in cluster.nodes:
            node.kill()
        for node in cluster.nodes:
            node.start()
        for node in cluster.nodes:
            node.wait_ready()
            assert (left(node, lease).grantedTTL, list(left(node, lease).keys)) == (LONG_TTL_S, [b"kept"])
            assert left(node, revoked).TTL == -1
            assert renew(node, lease) == LONG_TTL_S
        wait_until(lambda: left(first, short).TTL == -1, "the short lease ends", 40.0)
        assert get(first, b"ending") is None


def test_a_stream_of_renewals_is_served_through_a_restart_of_storage(node: Node) -> None:
    lease = grant(node, LONG_TTL_S, b"streamed")
    requests: queue.SimpleQueue[rpc_pb2.LeaseKeepAliveRequest | None] = queue.SimpleQueue()
    with calling(node.endpoint) as caller:
        call = caller.stream("Lease/LeaseKeepAlive", iter(requests.get, None), 60.0)
        try:
            for _ in range(2):
                requests.put(rpc_pb2.LeaseKeepAliveRequest(ID=lease))
                assert next(call).TTL == LONG_TTL_S
                restart_service(node, "storage")
            requests.put(rpc_pb2.LeaseKeepAliveRequest(ID=lease))
            assert next(call).TTL == LONG_TTL_S
        finally:
            requests.put(None)
            call.cancel()


def test_many_leases_that_end_at_once_each_take_their_key_in_a_revision_of_its_own(node: Node) -> None:
    with calling(node.endpoint) as caller:
        first = 1 + int(caller.unary("KV/Range", rpc_pb2.RangeRequest(key=b"x")).header.revision)
        with ThreadPoolExecutor(16) as pool:

            def make(number: int) -> None:
                caller.unary("Lease/LeaseGrant", rpc_pb2.LeaseGrantRequest(ID=1 << 40 | number, TTL=SHORT_TTL_S))
                put = rpc_pb2.PutRequest(key=b"crowd/%05d" % number, lease=1 << 40 | number)
                with suppress(grpc.RpcError):  # a slow machine: its lease has ended already
                    caller.unary("KV/Put", put)

            list(pool.map(make, range(MANY)))
        crowd = rpc_pb2.RangeRequest(key=b"crowd/", range_end=b"crowd0", count_only=True)

        def are_gone() -> bool:
            caller.unary("KV/Put", rpc_pb2.PutRequest(key=b"meanwhile"), timeout_s=5.0)
            return bool(caller.unary("KV/Range", crowd).count == 0)

        wait_until(are_gone, "all of them end", 60.0)
        with deletes_of(caller, b"crowd/", b"crowd0", first) as deletes:
            revisions = [next(deletes) for _ in range(MANY)]
        assert len(set(revisions)) == MANY


@contextmanager
def deletes_of(caller: Caller, key: bytes, range_end: bytes, first: int) -> Iterator[Iterator[int]]:
    """The revisions of deletes in a range, from history."""
    create = rpc_pb2.WatchCreateRequest(
        key=key, range_end=range_end, start_revision=first, filters=[rpc_pb2.WatchCreateRequest.NOPUT]
    )
    call = caller.stream("Watch/Watch", [rpc_pb2.WatchRequest(create_request=create)], 60.0)
    try:
        yield (event.kv.mod_revision for response in call for event in response.events)
    finally:
        call.cancel()


def waiters(node: Node, prefix: bytes) -> int:
    end = prefix[:-1] + bytes((prefix[-1] + 1,))
    return int(insist(node, "KV/Range", rpc_pb2.RangeRequest(key=prefix, range_end=end, count_only=True)).count)


@pytest.mark.parametrize("service", ["watch", "storage", "consensus"])
def test_whoever_waits_for_a_lock_gets_it_though_a_process_dies_meanwhile(node: Node, service: Service) -> None:
    name = b"lock-" + service.encode()
    holder, waiter = (grant(node, LONG_TTL_S, b"lock/%d" % number) for number in range(2))
    with calling(node.endpoint) as caller, ThreadPoolExecutor(1) as pool:
        held = caller.unary("Lock/Lock", v3lock_pb2.LockRequest(name=name, lease=holder))
        request = v3lock_pb2.LockRequest(name=name, lease=waiter)
        waiting = pool.submit(caller.unary, "Lock/Lock", request, 60.0)
        try:
            wait_until(lambda: waiters(node, name + b"/") == 2, "the other waits")
            restart_service(node, service)
            assert not waiting.done()
        finally:
            insist(node, "Lock/Unlock", v3lock_pb2.UnlockRequest(key=held.key))
        assert waiting.result(60.0).key == b"%b/%x" % (name, waiter)


@pytest.mark.parametrize("service", ["watch", "storage", "consensus"])
def test_whoever_observes_an_election_misses_no_leader_though_a_process_dies(node: Node, service: Service) -> None:
    name = b"chair-" + service.encode()
    leases = [grant(node, LONG_TTL_S, b"chair/%d" % number) for number in range(2)]
    with calling(node.endpoint) as caller, ThreadPoolExecutor(1) as pool:
        observed = caller.stream("Election/Observe", [v3election_pb2.LeaderRequest(name=name)], 60.0)
        try:
            campaign = v3election_pb2.CampaignRequest(name=name, lease=leases[0], value=b"one")
            first = caller.unary("Election/Campaign", campaign).leader
            assert next(observed).kv.value == b"one"
            campaign = v3election_pb2.CampaignRequest(name=name, lease=leases[1], value=b"two")
            second = pool.submit(caller.unary, "Election/Campaign", campaign, 60.0)
            wait_until(lambda: waiters(node, name + b"/") == 2, "the second campaigns")
            restart_service(node, service)
            insist(node, "Election/Resign", v3election_pb2.ResignRequest(leader=first))
            assert second.result(60.0).leader.key == b"%b/%x" % (name, leases[1])
            assert next(observed).kv.value == b"two"
        finally:
            observed.cancel()


def test_auth_that_is_turned_on_ends_a_stream_of_renewals_without_a_name() -> None:
    with quorate_cluster(1) as cluster, calling(cluster.nodes[0].endpoint) as caller:
        lease = grant(cluster.nodes[0], LONG_TTL_S, b"mine")
        requests: queue.SimpleQueue[rpc_pb2.LeaseKeepAliveRequest | None] = queue.SimpleQueue()
        call = caller.stream("Lease/LeaseKeepAlive", iter(requests.get, None), 60.0)
        requests.put(rpc_pb2.LeaseKeepAliveRequest(ID=lease))
        assert next(call).TTL == LONG_TTL_S
        caller.unary("Auth/UserAdd", rpc_pb2.AuthUserAddRequest(name="root", password=WORD))
        caller.unary("Auth/UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user="root", role="root"))
        caller.unary("Auth/AuthEnable", rpc_pb2.AuthEnableRequest())
        requests.put(rpc_pb2.LeaseKeepAliveRequest(ID=lease))
        with pytest.raises(grpc.RpcError) as ended:
            next(call)
        assert refusal(ended.value) == (errors.USER_EMPTY.code.name, errors.USER_EMPTY.text)
        requests.put(None)
        token = caller.unary("Auth/Authenticate", rpc_pb2.AuthenticateRequest(name="root", password=WORD)).token
        with calling(cluster.nodes[0].endpoint, (("token", token),)) as root:
            again = root.stream("Lease/LeaseKeepAlive", [rpc_pb2.LeaseKeepAliveRequest(ID=lease)], 20.0)
            assert next(again).TTL == LONG_TTL_S
