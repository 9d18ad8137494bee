"""Leases, locks and elections of a real node, call by call."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from quorate.proto import rpc_pb2, v3election_pb2, v3lock_pb2
from quorate.wire import errors
from quorate.wire.errors import EtcdError
from tests.support.cluster import quorate_cluster, wait_until
from tests.support.rpc import Caller, calling, refusal

TTL_S = 600


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with quorate_cluster(1) as cluster:
        yield cluster.nodes[0].endpoint


@pytest.fixture
def caller(endpoint: str) -> Iterator[Caller]:
    with calling(endpoint) as caller:
        yield caller


@pytest.fixture
def others() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def refused(call: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return refusal(caught.value)


def worded(error: EtcdError) -> tuple[str, str]:
    return error.code.name, error.text


def grant(caller: Caller, ttl: int = TTL_S, lease_id: int = 0) -> int:
    return int(caller.unary("Lease/LeaseGrant", rpc_pb2.LeaseGrantRequest(TTL=ttl, ID=lease_id)).ID)


def put(caller: Caller, key: bytes, lease: int = 0) -> int:
    return int(caller.unary("KV/Put", rpc_pb2.PutRequest(key=key, value=b"v", lease=lease)).header.revision)


def keys_of(caller: Caller, prefix: bytes) -> list[bytes]:
    end = prefix[:-1] + bytes((prefix[-1] + 1,))
    return [kv.key for kv in caller.unary("KV/Range", rpc_pb2.RangeRequest(key=prefix, range_end=end)).kvs]


# --- leases ----------------------------------------------------------------------------------------------------------


def test_a_lease_takes_its_keys_with_it_in_one_revision(caller: Caller) -> None:
    lease = grant(caller)
    put(caller, b"leased/b", lease)
    before = put(caller, b"leased/a", lease)
    left = caller.unary("Lease/LeaseTimeToLive", rpc_pb2.LeaseTimeToLiveRequest(ID=lease, keys=True))
    assert (left.grantedTTL, sorted(left.keys)) == (TTL_S, [b"leased/a", b"leased/b"])
    assert TTL_S - 20 < left.TTL <= TTL_S
    assert lease in [one.ID for one in caller.unary("Lease/LeaseLeases", rpc_pb2.LeaseLeasesRequest()).leases]
    revoked = caller.unary("Lease/LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=lease))
    assert revoked.header.revision == before + 1
    assert keys_of(caller, b"leased/") == []


def test_leases_that_can_not_be_are_refused(caller: Caller) -> None:
    grant(caller, lease_id=77)
    assert refused(lambda: grant(caller, lease_id=77)) == worded(errors.LEASE_EXIST)
    assert refused(lambda: grant(caller, ttl=9_000_000_001)) == worded(errors.LEASE_TTL_TOO_LARGE)
    revoke = rpc_pb2.LeaseRevokeRequest(ID=78)
    assert refused(lambda: caller.unary("Lease/LeaseRevoke", revoke)) == worded(errors.LEASE_NOT_FOUND)
    assert refused(lambda: put(caller, b"a", 78)) == worded(errors.LEASE_NOT_FOUND)


@pytest.mark.parametrize("ttl", [-(1 << 63), -5, 0, 1])
def test_a_short_ttl_is_raised_to_the_minimum(caller: Caller, ttl: int) -> None:
    granted = caller.unary("Lease/LeaseGrant", rpc_pb2.LeaseGrantRequest(TTL=ttl))
    assert (granted.TTL, granted.error, granted.ID > 0) == (2, "", True)


@pytest.mark.parametrize("lease", [-3, -(1 << 63), (1 << 63) - 1])
def test_an_id_may_be_negative_or_huge(caller: Caller, lease: int) -> None:
    assert grant(caller, lease_id=lease) == lease
    put(caller, b"of/%d" % lease, lease)
    left = caller.unary("Lease/LeaseTimeToLive", rpc_pb2.LeaseTimeToLiveRequest(ID=lease, keys=True))
    assert (left.ID, left.grantedTTL, list(left.keys)) == (lease, TTL_S, [b"of/%d" % lease])
    assert lease in [one.ID for one in caller.unary("Lease/LeaseLeases", rpc_pb2.LeaseLeasesRequest()).leases]
    caller.unary("Lease/LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=lease))
    assert keys_of(caller, b"of/%d" % lease) == []


@pytest.mark.parametrize("ttl", [9_000_000_001, (1 << 63) - 1])
def test_a_ttl_that_is_too_large_is_refused(caller: Caller, ttl: int) -> None:
    assert refused(lambda: grant(caller, ttl=ttl)) == worded(errors.LEASE_TTL_TOO_LARGE)


def test_ids_that_are_not_chosen_are_made_of_the_member_and_grow(caller: Caller) -> None:
    member = caller.unary("Maintenance/Status", rpc_pb2.StatusRequest()).header.member_id
    first, second = grant(caller), grant(caller)
    assert first < second
    assert first >> 48 == member & 0x7FFF


def test_what_is_left_of_an_unknown_lease_is_minus_one(caller: Caller) -> None:
    left = caller.unary("Lease/LeaseTimeToLive", rpc_pb2.LeaseTimeToLiveRequest(ID=99999))
    assert (left.ID, left.TTL, left.grantedTTL) == (99999, -1, 0)


@pytest.mark.parametrize("lease", [0, -1, -(1 << 63), (1 << 63) - 1])
def test_an_unknown_id_has_etcds_answers_whatever_the_number(caller: Caller, lease: int) -> None:
    missing = worded(errors.LEASE_NOT_FOUND)
    assert refused(lambda: caller.unary("Lease/LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=lease))) == missing
    left = caller.unary("Lease/LeaseTimeToLive", rpc_pb2.LeaseTimeToLiveRequest(ID=lease, keys=True))
    assert (left.ID, left.TTL, left.grantedTTL, list(left.keys)) == (lease, -1, 0, [])
    (renewed,) = caller.stream("Lease/LeaseKeepAlive", [rpc_pb2.LeaseKeepAliveRequest(ID=lease)], timeout_s=20.0)
    assert (renewed.ID, renewed.TTL) == (lease, 0)
    if lease:
        assert refused(lambda: put(caller, b"unleased", lease)) == missing


def test_renewals_are_answered_in_order_and_the_stream_ends_with_its_requests(caller: Caller) -> None:
    lease = grant(caller)
    requests = [rpc_pb2.LeaseKeepAliveRequest(ID=one) for one in (lease, 12345, lease)]
    answers = list(caller.stream("Lease/LeaseKeepAlive", requests, timeout_s=20.0))
    assert [(answer.ID, answer.TTL) for answer in answers] == [(lease, TTL_S), (12345, 0), (lease, TTL_S)]


def test_a_lease_that_nobody_renews_ends_and_one_that_is_renewed_does_not(caller: Caller) -> None:
    forgotten, kept = grant(caller, ttl=2), grant(caller, ttl=2)
    put(caller, b"ending/forgotten", forgotten)
    put(caller, b"ending/kept", kept)
    granted_at = time.monotonic()
    requests: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
    renewals = caller.stream("Lease/LeaseKeepAlive", iter(requests.get, None))
    try:

        def forgotten_is_gone() -> bool:
            requests.put(rpc_pb2.LeaseKeepAliveRequest(ID=kept))
            assert next(renewals).TTL == 2
            return keys_of(caller, b"ending/") == [b"ending/kept"]

        wait_until(forgotten_is_gone, "the lease ends")
        assert time.monotonic() - granted_at >= 2.0
    finally:
        requests.put(None)
        renewals.cancel()


# --- locks -----------------------------------------------------------------------------------------------------------


def lock(caller: Caller, name: bytes, lease: int, timeout_s: float = 20.0) -> Any:
    return caller.unary("Lock/Lock", v3lock_pb2.LockRequest(name=name, lease=lease), timeout_s=timeout_s)


def unlock(caller: Caller, key: bytes) -> Any:
    return caller.unary("Lock/Unlock", v3lock_pb2.UnlockRequest(key=key))


def test_a_lock_is_a_key_named_after_its_lease(caller: Caller) -> None:
    lease = grant(caller)
    held = lock(caller, b"single", lease)
    assert held.key == b"single/%x" % lease
    assert lock(caller, b"single", lease).key == held.key
    assert unlock(caller, held.key).header.revision == held.header.revision + 1
    assert unlock(caller, held.key).header.revision == held.header.revision + 1


def test_a_lock_without_a_lease_gets_one_of_a_minute(caller: Caller) -> None:
    held = lock(caller, b"leaseless", 0)
    lease = int(held.key.rpartition(b"/")[2], 16)
    left = caller.unary("Lease/LeaseTimeToLive", rpc_pb2.LeaseTimeToLiveRequest(ID=lease, keys=True))
    assert (left.grantedTTL, list(left.keys)) == (60, [held.key])


def test_waiters_get_the_lock_in_the_order_they_came(caller: Caller, others: ThreadPoolExecutor) -> None:
    held = lock(caller, b"queue", grant(caller))
    order: list[int] = []
    waiting: list[Future[Any]] = []
    for number in range(4):
        lease = grant(caller)

        def wait(number: int = number, lease: int = lease) -> None:
            key = lock(caller, b"queue", lease).key
            order.append(number)
            unlock(caller, key)

        waiting.append(others.submit(wait))
        wait_until(lambda count=number: len(keys_of(caller, b"queue/")) == count + 2, "it waits")  # type: ignore[misc]
    assert order == []
    unlock(caller, held.key)
    for one in waiting:
        one.result(20.0)
    assert order == [0, 1, 2, 3]


def test_a_waiter_who_gives_up_leaves_nothing_behind(caller: Caller, others: ThreadPoolExecutor) -> None:
    held = lock(caller, b"patience", grant(caller))
    code, _ = refused(lambda: lock(caller, b"patience", grant(caller), timeout_s=0.5))
    assert code == "DEADLINE_EXCEEDED"
    wait_until(lambda: keys_of(caller, b"patience/") == [held.key], "its key is gone")
    code, _ = refused(lambda: lock(caller, b"patience", 0, timeout_s=0.5))
    wait_until(lambda: keys_of(caller, b"patience/") == [held.key], "its key is gone")


def test_a_waiter_whose_lease_ends_is_told_so(caller: Caller, others: ThreadPoolExecutor) -> None:
    held = lock(caller, b"expiring", grant(caller))
    lease = grant(caller)
    waiter = others.submit(refused, lambda: lock(caller, b"expiring", lease))
    wait_until(lambda: len(keys_of(caller, b"expiring/")) == 2, "it waits")
    caller.unary("Lease/LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=lease))
    unlock(caller, held.key)
    assert waiter.result(20.0) == ("UNKNOWN", "mutex: session is expired")


def test_a_lock_under_an_unknown_lease_is_refused_as_unknown(caller: Caller) -> None:
    assert refused(lambda: lock(caller, b"x", 4242)) == ("UNKNOWN", "etcdserver: requested lease not found")


# --- elections -------------------------------------------------------------------------------------------------------


def campaign(caller: Caller, name: bytes, value: bytes, lease: int, timeout_s: float = 20.0) -> Any:
    request = v3election_pb2.CampaignRequest(name=name, lease=lease, value=value)
    return caller.unary("Election/Campaign", request, timeout_s=timeout_s).leader


@contextmanager
def observing(caller: Caller, name: bytes) -> Iterator[Any]:
    stop = threading.Event()

    def request() -> Iterator[Message]:
        yield v3election_pb2.LeaderRequest(name=name)
        stop.wait(60.0)

    call = caller.stream("Election/Observe", request())
    try:
        yield call
    finally:
        stop.set()
        call.cancel()


def test_an_election_is_won_proclaimed_observed_and_resigned(caller: Caller, others: ThreadPoolExecutor) -> None:
    name = b"chair"
    ask = v3election_pb2.LeaderRequest(name=name)
    assert refused(lambda: caller.unary("Election/Leader", ask)) == ("UNKNOWN", "election: no leader")
    with observing(caller, name) as observed:
        lease = grant(caller)
        first = campaign(caller, name, b"one", lease)
        assert (first.name, first.key, first.lease) == (name, b"chair/%x" % lease, lease)
        assert next(observed).kv.value == b"one"
        answer = caller.unary("Election/Leader", ask)
        assert (answer.kv.value, answer.kv.create_revision) == (b"one", first.rev)
        second = others.submit(campaign, caller, name, b"two", grant(caller))
        wait_until(lambda: len(keys_of(caller, b"chair/")) == 2, "the second campaigns")
        caller.unary("Election/Proclaim", v3election_pb2.ProclaimRequest(leader=first, value=b"uno"))
        told = next(observed)
        assert (told.kv.value, told.header.revision) == (b"uno", told.kv.mod_revision)
        caller.unary("Election/Resign", v3election_pb2.ResignRequest(leader=first))
        assert second.result(20.0).key != first.key
        assert next(observed).kv.value == b"two"
        proclaim = v3election_pb2.ProclaimRequest(leader=first, value=b"late")
        assert refused(lambda: caller.unary("Election/Proclaim", proclaim)) == ("UNKNOWN", "election: not leader")
        caller.unary("Election/Resign", v3election_pb2.ResignRequest(leader=first))


def test_a_candidate_who_campaigns_again_changes_its_value(caller: Caller) -> None:
    lease = grant(caller)
    first = campaign(caller, b"again", b"one", lease)
    second = campaign(caller, b"again", b"two", lease)
    assert (first.key, first.rev) == (second.key, second.rev)
    leader = caller.unary("Election/Leader", v3election_pb2.LeaderRequest(name=b"again"))
    assert leader.kv.value == b"two"


def test_a_candidate_who_gives_up_leaves_nothing_behind(caller: Caller) -> None:
    leader = campaign(caller, b"brief", b"one", grant(caller))
    code, _ = refused(lambda: campaign(caller, b"brief", b"two", grant(caller), timeout_s=0.5))
    assert code == "DEADLINE_EXCEEDED"
    wait_until(lambda: keys_of(caller, b"brief/") == [leader.key], "its key is gone")


@pytest.mark.parametrize("method", ["Proclaim", "Resign"])
def test_a_leader_has_to_be_named(caller: Caller, method: str) -> None:
    request = {"Proclaim": v3election_pb2.ProclaimRequest(), "Resign": v3election_pb2.ResignRequest()}[method]
    text = '"leader" field must be provided'
    assert refused(lambda: caller.unary(f"Election/{method}", request)) == ("UNKNOWN", text)
