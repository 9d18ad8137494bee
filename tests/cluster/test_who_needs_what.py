"""Who needs what when auth is on: every line of the table, over gRPC and the gateway, on leader and follower, before
and after a restart of each process."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import grpc
import pytest
from google.protobuf.message import Message

from bench.servers import Node
from quorate.proto import auth_pb2, rpc_pb2, v3election_pb2, v3lock_pb2
from quorate.wire import errors
from tests.cluster.guarded import (
    ALICES_LEASE,
    EMPTY_LEASE,
    NOBODY,
    RECIPES_LEASE,
    ROOTS_LEASE,
    USERS,
    Guarded,
    Refused,
    Way,
    guarded_cluster,
)
from tests.support.cluster import SERVICES, Service, restart_service, wait_until
from tests.support.rpc import refusal

READERS: Final = ("root", "alice", "reader")
WRITERS: Final = ("root", "alice", "writer")
BOTH: Final = ("root", "alice")
ROOT: Final = ("root",)
ANY: Final = tuple(USERS)
REFUSALS: Final = frozenset(
    (
        errors.PERMISSION_DENIED.text,
        errors.USER_EMPTY.text,
        errors.INVALID_AUTH_TOKEN.text,
        errors.AUTH_OLD_REVISION.text,
    )
)
IN_ELECTION: Final = v3election_pb2.LeaderKey(name=b"a/e", key=b"a/e/4a", rev=1, lease=RECIPES_LEASE)


@dataclass(frozen=True)
class Line:
    """A call and who may make it. `spares` are users for whom the call would really do what would disturb."""

    name: str
    method: str
    request: Message
    allowed: tuple[str, ...]
    spares: tuple[str, ...] = ()


def ranged(key: bytes, end: bytes = b"", serializable: bool = False, count_only: bool = False) -> rpc_pb2.RangeRequest:
    return rpc_pb2.RangeRequest(key=key, range_end=end, serializable=serializable, count_only=count_only)


def operation(request: Message) -> rpc_pb2.RequestOp:
    match request:
        case rpc_pb2.RangeRequest():
            return rpc_pb2.RequestOp(request_range=request)
        case rpc_pb2.PutRequest():
            return rpc_pb2.RequestOp(request_put=request)
        case rpc_pb2.DeleteRangeRequest():
            return rpc_pb2.RequestOp(request_delete_range=request)
        case rpc_pb2.TxnRequest():
            return rpc_pb2.RequestOp(request_txn=request)
    raise AssertionError(request)


def txn(
    compare: bytes = b"", success: Message | None = None, failure: Message | None = None, compare_end: bytes = b""
) -> rpc_pb2.TxnRequest:
    return rpc_pb2.TxnRequest(
        compare=[rpc_pb2.Compare(key=compare, range_end=compare_end)] if compare else [],
        success=[operation(success)] if success else [],
        failure=[operation(failure)] if failure else [],
    )


PUT_A: Final = rpc_pb2.PutRequest(key=b"a", value=b"1")
PUT_Z: Final = rpc_pb2.PutRequest(key=b"z", value=b"1")
DELETE_A: Final = rpc_pb2.DeleteRangeRequest(key=b"a/gone", range_end=b"a/h")
KEYS: Final = (
    Line("range of a key", "KV/Range", ranged(b"a"), READERS),
    Line("serializable range", "KV/Range", ranged(b"a", serializable=True), READERS),
    Line("range of all that is granted", "KV/Range", ranged(b"a", b"b"), READERS),
    Line("range beyond what is granted", "KV/Range", ranged(b"a", b"c"), ROOT),
    Line("serializable range beyond", "KV/Range", ranged(b"a", b"c", serializable=True), ROOT),
    Line("range without an end", "KV/Range", ranged(b"a", b"\0"), ROOT),
    Line("count of another key", "KV/Range", ranged(b"z", count_only=True), ROOT),
    Line("put", "KV/Put", PUT_A, WRITERS),
    Line("put of another key", "KV/Put", PUT_Z, ROOT),
    Line("put that shows what was", "KV/Put", rpc_pb2.PutRequest(key=b"a", prev_kv=True), BOTH),
    Line("put on a lease of one's own", "KV/Put", rpc_pb2.PutRequest(key=b"a/l", lease=ALICES_LEASE), WRITERS),
    Line("put on a lease with another's key", "KV/Put", rpc_pb2.PutRequest(key=b"a/l", lease=ROOTS_LEASE), ROOT, ROOT),
    Line("deletion", "KV/DeleteRange", DELETE_A, WRITERS),
    Line("deletion that shows what was", "KV/DeleteRange", rpc_pb2.DeleteRangeRequest(key=b"a/x", prev_kv=True), BOTH),
    Line("deletion beyond", "KV/DeleteRange", rpc_pb2.DeleteRangeRequest(key=b"a/x", range_end=b"\0"), ROOT, ROOT),
    Line("txn", "KV/Txn", txn(b"a", PUT_A), BOTH),
    Line("txn that only reads", "KV/Txn", txn(b"a", ranged(b"a")), READERS),
    Line("txn that compares another key", "KV/Txn", txn(b"z", PUT_A), ROOT),
    Line("txn that compares a range", "KV/Txn", txn(b"a", ranged(b"a"), compare_end=b"c"), ROOT),
    Line("txn with the other branch", "KV/Txn", txn(b"a", ranged(b"a"), ranged(b"z")), ROOT),
    Line("txn that puts in the other branch", "KV/Txn", txn(b"a", PUT_A, PUT_Z), ROOT),
    Line("txn with a put inside", "KV/Txn", txn(b"a", txn(b"a", PUT_Z)), ROOT),
    Line("txn with a read inside", "KV/Txn", txn(b"a", ranged(b"a"), txn(b"a", ranged(b"a"), ranged(b"z"))), ROOT),
    Line("txn with a compare inside", "KV/Txn", txn(b"a", txn(b"z", ranged(b"a"))), ROOT),
    Line("compaction", "KV/Compact", rpc_pb2.CompactionRequest(), ROOT),
)
LEASES: Final = (
    Line("grant", "Lease/LeaseGrant", rpc_pb2.LeaseGrantRequest(TTL=60), ANY),
    Line("time to live", "Lease/LeaseTimeToLive", rpc_pb2.LeaseTimeToLiveRequest(ID=ROOTS_LEASE), ANY),
    Line("keys", "Lease/LeaseTimeToLive", rpc_pb2.LeaseTimeToLiveRequest(ID=ALICES_LEASE, keys=True), READERS),
    Line("others' keys", "Lease/LeaseTimeToLive", rpc_pb2.LeaseTimeToLiveRequest(ID=ROOTS_LEASE, keys=True), ROOT),
    Line("leases", "Lease/LeaseLeases", rpc_pb2.LeaseLeasesRequest(), ROOT),
    Line("revocation", "Lease/LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=ALICES_LEASE), WRITERS, WRITERS),
    Line("revocation of another's", "Lease/LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=ROOTS_LEASE), ROOT, ROOT),
    Line("revocation of none", "Lease/LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=999), ANY),
)
ALARM: Final = rpc_pb2.AlarmRequest
NODE: Final = (
    Line("members", "Cluster/MemberList", rpc_pb2.MemberListRequest(), ANY),
    Line("new member", "Cluster/MemberAdd", rpc_pb2.MemberAddRequest(peerURLs=["nonsense"]), ROOT),
    Line("removal", "Cluster/MemberRemove", rpc_pb2.MemberRemoveRequest(ID=1), ROOT),
    Line("update", "Cluster/MemberUpdate", rpc_pb2.MemberUpdateRequest(ID=1, peerURLs=["http://h:1"]), ROOT),
    Line("promotion", "Cluster/MemberPromote", rpc_pb2.MemberPromoteRequest(ID=1), ROOT),
    Line("alarms", "Maintenance/Alarm", ALARM(), ANY),
    Line("alarm on", "Maintenance/Alarm", ALARM(action=ALARM.ACTIVATE), ROOT),
    Line("alarm off", "Maintenance/Alarm", ALARM(action=ALARM.DEACTIVATE, alarm=rpc_pb2.NOSPACE), ROOT),
    Line("status", "Maintenance/Status", rpc_pb2.StatusRequest(), ANY),
    Line("defragmentation", "Maintenance/Defragment", rpc_pb2.DefragmentRequest(), ROOT),
    Line("hash", "Maintenance/Hash", rpc_pb2.HashRequest(), ROOT),
    Line("hash of keys", "Maintenance/HashKV", rpc_pb2.HashKVRequest(), ROOT),
    Line("move of the leader", "Maintenance/MoveLeader", rpc_pb2.MoveLeaderRequest(targetID=1), ROOT),
    Line("downgrade", "Maintenance/Downgrade", rpc_pb2.DowngradeRequest(version="nonsense"), ROOT),
)
PERMISSION: Final = auth_pb2.Permission(key=b"k")
MANAGEMENT: Final = (
    Line("auth status", "Auth/AuthStatus", rpc_pb2.AuthStatusRequest(), ROOT),
    Line("auth on", "Auth/AuthEnable", rpc_pb2.AuthEnableRequest(), ROOT),
    Line("auth off", "Auth/AuthDisable", rpc_pb2.AuthDisableRequest(), ROOT, ROOT),
    Line("new user", "Auth/UserAdd", rpc_pb2.AuthUserAddRequest(name="bob", password="x"), ROOT),
    Line("own user", "Auth/UserGet", rpc_pb2.AuthUserGetRequest(name="alice"), BOTH),
    Line("users", "Auth/UserList", rpc_pb2.AuthUserListRequest(), ROOT),
    Line("end of a user", "Auth/UserDelete", rpc_pb2.AuthUserDeleteRequest(name="ghost"), ROOT),
    Line("password", "Auth/UserChangePassword", rpc_pb2.AuthUserChangePasswordRequest(name="ghost"), ROOT),
    Line("role to a user", "Auth/UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user="ghost", role="x"), ROOT),
    Line("role from a user", "Auth/UserRevokeRole", rpc_pb2.AuthUserRevokeRoleRequest(name="ghost", role="x"), ROOT),
    Line("new role", "Auth/RoleAdd", rpc_pb2.AuthRoleAddRequest(name="bob"), ROOT),
    Line("own role", "Auth/RoleGet", rpc_pb2.AuthRoleGetRequest(role="alice"), BOTH),
    Line("roles", "Auth/RoleList", rpc_pb2.AuthRoleListRequest(), ROOT),
    Line("end of a role", "Auth/RoleDelete", rpc_pb2.AuthRoleDeleteRequest(role="ghost"), ROOT),
    Line(
        "range to a role",
        "Auth/RoleGrantPermission",
        rpc_pb2.AuthRoleGrantPermissionRequest(name="ghost", perm=PERMISSION),
        ROOT,
    ),
    Line("range from a role", "Auth/RoleRevokePermission", rpc_pb2.AuthRoleRevokePermissionRequest(role="ghost"), ROOT),
)
RECIPES: Final = (
    Line("lock", "Lock/Lock", v3lock_pb2.LockRequest(name=b"a/lock", lease=RECIPES_LEASE), BOTH),
    Line("lock elsewhere", "Lock/Lock", v3lock_pb2.LockRequest(name=b"z/lock", lease=RECIPES_LEASE), ROOT, ROOT),
    Line("unlock", "Lock/Unlock", v3lock_pb2.UnlockRequest(key=b"a/lock/4a"), WRITERS),
    Line(
        "campaign",
        "Election/Campaign",
        v3election_pb2.CampaignRequest(name=b"a/e", lease=RECIPES_LEASE, value=b"v"),
        BOTH,
    ),
    Line("leader", "Election/Leader", v3election_pb2.LeaderRequest(name=b"a/e"), READERS),
    Line("proclamation", "Election/Proclaim", v3election_pb2.ProclaimRequest(leader=IN_ELECTION), BOTH),
    Line("resignation", "Election/Resign", v3election_pb2.ResignRequest(leader=IN_ELECTION), BOTH),
)
TABLE: Final = (*KEYS, *LEASES, *NODE, *MANAGEMENT, *RECIPES)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    with guarded_cluster(3) as made:
        yield made


def judge(guarded: Guarded, way: Way, node: Node, lines: tuple[Line, ...] = TABLE) -> None:
    """Every line as every user, as nobody, and with a token that is none."""
    wrong = []
    guarded.tokens["forger"] = "abcdefghijklmnop.1"
    for line in lines:
        for user in (*USERS, NOBODY, "forger"):
            if user in line.spares:
                continue
            found = outcome(guarded, way, node, user, line)
            expected = "may" if user in line.allowed else refusal_of(user)
            if found != expected:
                wrong.append(f"{line.name} as {user}: {found}, not {expected}")
    assert not wrong


def outcome(guarded: Guarded, way: Way, node: Node, user: str, line: Line) -> str:
    try:
        guarded.call(way, node, user, line.method, line.request)
    except Refused as refused:
        return refused.text if refused.text in REFUSALS else "may"
    return "may"


def refusal_of(user: str) -> str:
    if user == "forger":
        return errors.INVALID_AUTH_TOKEN.text
    return errors.USER_EMPTY.text if user == NOBODY else errors.PERMISSION_DENIED.text


@pytest.mark.parametrize("way", ["grpc", "gateway"])
@pytest.mark.parametrize("role", ["leader", "follower"])
def test_every_line_of_the_table(guarded: Guarded, way: Way, role: str) -> None:
    judge(guarded, way, guarded.leader() if role == "leader" else guarded.follower())


@pytest.mark.parametrize("service", SERVICES)
def test_every_line_holds_after_a_restart_with_the_same_tokens(guarded: Guarded, service: Service) -> None:
    node = guarded.follower()
    restart_service(node, service)

    def answers() -> bool:
        try:
            guarded.call("gateway", node, "root", "KV/Range", ranged(b"a"))
        except (Refused, OSError):
            return False
        return True

    wait_until(answers, f"{node.name} answers after the restart of its {service}")
    judge(guarded, "gateway", node)


@pytest.mark.parametrize(
    ("key", "end", "allowed"),
    [
        (b"a", b"", READERS),
        (b"a", b"b", READERS),
        (b"a", b"\0", ROOT),
        (b"", b"\0", ROOT),
        (b"z", b"", ROOT),
    ],
)
def test_a_watcher_is_judged_by_the_range_as_it_was_sent(
    guarded: Guarded, key: bytes, end: bytes, allowed: tuple[str, ...]
) -> None:
    create = rpc_pb2.WatchRequest(create_request=rpc_pb2.WatchCreateRequest(key=key, range_end=end))
    for node in (guarded.leader(), guarded.follower()):
        for user in (*USERS, NOBODY, "forger"):
            guarded.tokens["forger"] = "nonsense"
            watch = guarded.grpc(node, user).stream("Watch/Watch", [create], 20.0)
            answer = next(iter(watch))
            watch.cancel()
            if user in allowed:
                assert (answer.created, answer.canceled) == (True, False)
                continue
            code = "PermissionDenied"
            if user in (NOBODY, "forger"):
                code = "InvalidArgument" if user == NOBODY else "Unauthenticated"
            assert (answer.created, answer.canceled, answer.watch_id) == (True, True, -1)
            assert answer.cancel_reason == f"rpc error: code = {code} desc = {refusal_of(user)}"


@pytest.mark.parametrize(
    ("lease_id", "allowed"), [(ALICES_LEASE, WRITERS), (ROOTS_LEASE, ROOT), (EMPTY_LEASE, ANY), (999, ANY)]
)
def test_a_lease_is_kept_alive_by_whoever_may_write_its_keys(
    guarded: Guarded, lease_id: int, allowed: tuple[str, ...]
) -> None:
    guarded.as_root("KV/Put", rpc_pb2.PutRequest(key=b"a/leased", lease=ALICES_LEASE))
    for node in (guarded.leader(), guarded.follower()):
        for user in (*USERS, NOBODY):
            stream = guarded.grpc(node, user).stream(
                "Lease/LeaseKeepAlive", [rpc_pb2.LeaseKeepAliveRequest(ID=lease_id)], 20.0
            )
            if user in allowed:
                assert next(iter(stream)).TTL == (0 if lease_id == 999 else 3600)
                stream.cancel()
                continue
            with pytest.raises(grpc.RpcError) as failure:
                next(iter(stream))
            assert refusal(failure.value)[1] == refusal_of(user)


def test_a_snapshot_is_for_root(guarded: Guarded) -> None:
    for user in (*USERS, NOBODY):
        caller = guarded.grpc(guarded.follower(), user)
        stream = caller.channel.unary_stream("/etcdserverpb.Maintenance/Snapshot")(
            b"", timeout=20.0, metadata=caller.metadata
        )
        if user == "root":
            assert list(stream)
            continue
        with pytest.raises(grpc.RpcError) as failure:
            list(stream)
        assert refusal(failure.value)[1] == refusal_of(user)


def test_an_observer_is_told_what_it_may_not_read(guarded: Guarded) -> None:
    observe = "/v3electionpb.Election/Observe"
    caller = guarded.grpc(guarded.leader(), "bob")
    request = v3election_pb2.LeaderRequest(name=b"a/e").SerializeToString()
    with pytest.raises(grpc.RpcError) as failure:
        next(iter(caller.channel.unary_stream(observe)(request, timeout=20.0, metadata=caller.metadata)))
    assert refusal(failure.value)[1] == errors.PERMISSION_DENIED.text


def test_everybody_may_log_in_and_ask_for_health(guarded: Guarded) -> None:
    for node in guarded.cluster.nodes:
        guarded.login(node, "alice")
        assert guarded.grpc(node, "forger").raw("/grpc.health.v1.Health/Check", b"") == b"\x08\x01"
