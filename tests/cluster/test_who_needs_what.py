"""Who needs what when auth is on: every line of the table, over gRPC and the gateway, on leader and follower, before
and after a restart of each process."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

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

WAYS: Final[tuple[Way, ...]] = ("grpc", "gateway")
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
ON_ALICES_LEASE: Final = rpc_pb2.PutRequest(key=b"a/l", lease=ALICES_LEASE)
ON_ROOTS_LEASE: Final = rpc_pb2.PutRequest(key=b"a/l", lease=ROOTS_LEASE)
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
    Line("put on a lease of one's own", "KV/Put", ON_ALICES_LEASE, WRITERS),
    Line("put on a lease with another's key", "KV/Put", ON_ROOTS_LEASE, ROOT, ROOT),
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
    Line("txn that shows what was", "KV/Txn", txn(success=rpc_pb2.PutRequest(key=b"a", prev_kv=True)), BOTH),
    Line("txn on a lease of one's own", "KV/Txn", txn(success=ON_ALICES_LEASE), WRITERS),
    Line("txn on a lease with another's key", "KV/Txn", txn(success=ON_ROOTS_LEASE), ROOT, ROOT),
    Line("txn within on such a lease", "KV/Txn", txn(success=txn(success=ON_ROOTS_LEASE)), ROOT, ROOT),
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


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("role", ["leader", "follower"])
def test_every_line_of_the_table(guarded: Guarded, way: Way, role: str) -> None:
    judge(guarded, way, guarded.leader() if role == "leader" else guarded.follower())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("role", ["leader", "follower"])
def test_every_line_of_the_streams(guarded: Guarded, way: Way, role: str) -> None:
    judge_streams(guarded, way, guarded.leader() if role == "leader" else guarded.follower())


@pytest.mark.parametrize("service", SERVICES)
def test_every_line_holds_after_a_restart_with_the_same_tokens(guarded: Guarded, service: Service) -> None:
    leader, follower = guarded.leader(), guarded.follower()
    for node in (leader, follower):
        restart_service(node, service)
    for node in (leader, follower):
        wait_until(lambda: answers(guarded, node), f"{node.name} answers after the restart of its {service}")  # noqa: B023 - called in its turn
    doors = [(way, node) for way in WAYS for node in (leader, follower)]
    with ThreadPoolExecutor(len(doors)) as threads:
        for judged in [threads.submit(judge, guarded, way, node) for way, node in doors]:
            judged.result()
    for way, node in doors:
        judge_streams(guarded, way, node)


def answers(guarded: Guarded, node: Node) -> bool:
    try:
        guarded.call("gateway", node, "root", "KV/Range", ranged(b"a"))
    except (Refused, OSError):
        return False
    return True


def watching(key: bytes, end: bytes = b"") -> rpc_pb2.WatchRequest:
    return rpc_pb2.WatchRequest(create_request=rpc_pb2.WatchCreateRequest(key=key, range_end=end))


def renewing(lease_id: int) -> rpc_pb2.LeaseKeepAliveRequest:
    return rpc_pb2.LeaseKeepAliveRequest(ID=lease_id)


OBSERVE: Final = v3election_pb2.LeaderRequest(name=b"a/e")
STREAMS: Final = (
    Line("watch of a key", "Watch/Watch", watching(b"a"), READERS),
    Line("watch of all that is granted", "Watch/Watch", watching(b"a", b"b"), READERS),
    Line("watch without an end", "Watch/Watch", watching(b"a", b"\0"), ROOT),
    Line("watch of everything", "Watch/Watch", watching(b"", b"\0"), ROOT),
    Line("watch of another key", "Watch/Watch", watching(b"z"), ROOT),
    Line("renewal", "Lease/LeaseKeepAlive", renewing(ALICES_LEASE), WRITERS),
    Line("renewal of another's", "Lease/LeaseKeepAlive", renewing(ROOTS_LEASE), ROOT),
    Line("renewal of an empty one", "Lease/LeaseKeepAlive", renewing(EMPTY_LEASE), ANY),
    Line("renewal of none", "Lease/LeaseKeepAlive", renewing(999), ANY),
    Line("snapshot", "Maintenance/Snapshot", rpc_pb2.SnapshotRequest(), ROOT),
    Line("observation", "Election/Observe", OBSERVE, READERS),
)


def judge_streams(guarded: Guarded, way: Way, node: Node) -> None:
    """Every line as `judge` does. There is a leader to observe, and a key on the lease."""
    campaign = v3election_pb2.CampaignRequest(name=b"a/e", lease=RECIPES_LEASE, value=b"v")
    guarded.call("grpc", node, "root", "Election/Campaign", campaign)
    guarded.call("grpc", node, "root", "KV/Put", rpc_pb2.PutRequest(key=b"a/leased", lease=ALICES_LEASE))
    guarded.tokens["forger"] = "abcdefghijklmnop.1"
    wrong = []
    for line in STREAMS:
        for user in (*USERS, NOBODY, "forger"):
            found = first_word(guarded, way, node, user, line)
            expected = "may" if user in line.allowed else refusal_of(user)
            if found != expected:
                wrong.append(f"{line.name} as {user}: {found}, not {expected}")
    assert not wrong


def first_word(guarded: Guarded, way: Way, node: Node, user: str, line: Line) -> str:
    """What a stream begins with; a watcher that is refused is cancelled with the words of Go."""
    try:
        answer = guarded.first(way, node, user, line.method, line.request)
    except Refused as refused:
        return refused.text if refused.text in REFUSALS else f"failed: {refused.text}"
    if line.method != "Watch/Watch" or not answer.canceled:
        return "may"
    assert (answer.created, answer.watch_id) == (True, -1)
    code = {NOBODY: "InvalidArgument", "forger": "Unauthenticated"}.get(user, "PermissionDenied")
    head, _, text = str(answer.cancel_reason).partition(" desc = ")
    assert head == f"rpc error: code = {code}"
    return text


def test_a_renewed_lease_tells_its_time(guarded: Guarded) -> None:
    for lease_id, ttl_s in ((ALICES_LEASE, 3600), (999, 0)):
        answer = guarded.first("grpc", guarded.follower(), "alice", "Lease/LeaseKeepAlive", renewing(lease_id))
        assert answer.TTL == ttl_s


def test_no_operation_hides_in_a_transaction_within_another(guarded: Guarded) -> None:
    """CVE-2026-33343: reads and writes of another's keys, one and three levels down, in either branch."""
    for inner in (ranged(b"z"), PUT_Z, rpc_pb2.DeleteRangeRequest(key=b"z"), txn(b"z", ranged(b"a"))):
        once, thrice = txn(success=inner), txn(success=txn(failure=txn(success=inner)))
        for outer in (txn(success=once), txn(failure=once), txn(b"a", thrice), txn(b"a", PUT_A, thrice)):
            for way in WAYS:
                with pytest.raises(Refused, match=errors.PERMISSION_DENIED.text):
                    guarded.call(way, guarded.follower(), "alice", "KV/Txn", outer)
    assert guarded.call("grpc", guarded.leader(), "root", "KV/Txn", txn(success=txn(success=ranged(b"z"))))


def test_nobody_learns_of_the_cluster_its_alarms_and_leases_without_a_name(guarded: Guarded) -> None:
    """CVE-2026-33413: what 3.6.0 to 3.6.8 answered to everybody."""
    lease = rpc_pb2.LeaseTimeToLiveRequest(ID=ROOTS_LEASE)
    calls: tuple[tuple[str, Message], ...] = (
        ("Cluster/MemberList", rpc_pb2.MemberListRequest()),
        ("Maintenance/Alarm", ALARM()),
        ("Maintenance/Alarm", ALARM(action=ALARM.ACTIVATE, alarm=rpc_pb2.NOSPACE)),
        ("Maintenance/Status", rpc_pb2.StatusRequest()),
        ("Lease/LeaseLeases", rpc_pb2.LeaseLeasesRequest()),
        ("Lease/LeaseTimeToLive", lease),
        ("Lease/LeaseGrant", rpc_pb2.LeaseGrantRequest(TTL=60)),
        ("KV/Compact", rpc_pb2.CompactionRequest(revision=1)),
    )
    for method, request in calls:
        for way in WAYS:
            for user, text in ((NOBODY, errors.USER_EMPTY.text), ("forger", errors.INVALID_AUTH_TOKEN.text)):
                guarded.tokens["forger"] = "abcdefghijklmnop.1"
                with pytest.raises(Refused, match=text):
                    guarded.call(way, guarded.follower(), user, method, request)
    wrong = guarded.call("grpc", guarded.leader(), "root", "Maintenance/Alarm", ALARM())
    assert not rpc_pb2.AlarmResponse.FromString(wrong).alarms


def test_everybody_may_log_in_and_ask_for_health(guarded: Guarded) -> None:
    for node in guarded.cluster.nodes:
        guarded.login(node, "alice")
        assert guarded.grpc(node, "forger").raw("/grpc.health.v1.Health/Check", b"") == b"\x08\x01"
