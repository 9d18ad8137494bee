"""Ways around etcd's rights that its advisories tell of, each as a request of somebody who has no right to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from quorate.proto import auth_pb2, rpc_pb2
from quorate.wire import errors
from quorate.wire.errors import CallFailed, EtcdError
from quorate.wire.identity import Need
from quorate.wire.messages import Op
from tests.storage.test_judge import Guarded

ALICES_LEASE, ROOTS_LEASE = 5, 6
ALARM = rpc_pb2.AlarmRequest
NESTED = "CVE-2026-33343"
UNNAMED = "CVE-2026-33413"
IN_TRANSACTION = "CVE-2026-44283, etcd #21681 and #21685"
OPEN_END = "GHSA-xg4h-6gfc-h4m8"


@dataclass(frozen=True)
class Attempt:
    """A request, who makes it, and how it ends; None where the right is there."""

    advisory: str
    name: str
    user: str
    op: Op
    request: Any
    refusal: EtcdError | None = errors.PERMISSION_DENIED


def operation(**request: Any) -> rpc_pb2.RequestOp:
    return rpc_pb2.RequestOp(**{f"request_{name}": each for name, each in request.items()})


def txn(*success: rpc_pb2.RequestOp, failure: tuple[rpc_pb2.RequestOp, ...] = ()) -> rpc_pb2.TxnRequest:
    return rpc_pb2.TxnRequest(success=success, failure=failure)


def inside(each: rpc_pb2.RequestOp, branch: str) -> rpc_pb2.TxnRequest:
    """Three transactions deep, beside what is allowed."""
    allowed = operation(range=rpc_pb2.RangeRequest(key=b"a"))
    for _ in range(2):
        each = operation(txn=txn(allowed, each) if branch == "success" else txn(allowed, failure=(each,)))
    return txn(allowed, each) if branch == "success" else txn(allowed, failure=(each,))


def attempts() -> Iterator[Attempt]:
    yield from nested()
    yield from shown_and_attached()
    yield from open_ended()
    yield from unnamed()


def nested() -> Iterator[Attempt]:
    theirs = {
        "a read": operation(range=rpc_pb2.RangeRequest(key=b"z")),
        "a read without an end": operation(range=rpc_pb2.RangeRequest(key=b"a", range_end=b"\0")),
        "a put": operation(put=rpc_pb2.PutRequest(key=b"z")),
        "a deletion": operation(delete_range=rpc_pb2.DeleteRangeRequest(key=b"z")),
        "a compare": operation(txn=rpc_pb2.TxnRequest(compare=[rpc_pb2.Compare(key=b"z")])),
    }
    for name, each in theirs.items():
        for branch in ("success", "failure"):
            yield Attempt(NESTED, f"{name} within, {branch}", "alice", Op.TXN, inside(each, branch))
    own = operation(put=rpc_pb2.PutRequest(key=b"b"))
    yield Attempt(NESTED, "what one may do within", "alice", Op.TXN, inside(own, "success"), None)


def shown_and_attached() -> Iterator[Attempt]:
    """The pair before, and a lease with another's key: alone and in transactions."""
    shown = rpc_pb2.PutRequest(key=b"w", prev_kv=True)
    deleted = rpc_pb2.DeleteRangeRequest(key=b"w", prev_kv=True)
    attached = rpc_pb2.PutRequest(key=b"a", lease=ROOTS_LEASE)
    yield Attempt(IN_TRANSACTION, "a put that shows", "writer", Op.PUT, shown)
    yield Attempt(IN_TRANSACTION, "a deletion that shows", "writer", Op.DELETE_RANGE, deleted)
    yield Attempt(IN_TRANSACTION, "a put on a lease", "alice", Op.PUT, attached)
    for branch in ("success", "failure"):
        for depth in ("flat", "nested"):
            for name, user, each in (
                ("a put that shows", "writer", operation(put=shown)),
                ("a deletion that shows", "writer", operation(delete_range=deleted)),
                ("a put on a lease", "alice", operation(put=attached)),
            ):
                if depth == "nested":
                    each = operation(txn=txn(each) if branch == "success" else txn(failure=(each,)))
                request = txn(each) if branch == "success" else txn(failure=(each,))
                yield Attempt(IN_TRANSACTION, f"{name}, {depth} {branch}", user, Op.TXN, request)
    blind = operation(put=rpc_pb2.PutRequest(key=b"w"))
    yield Attempt(IN_TRANSACTION, "a put that shows nothing", "writer", Op.TXN, txn(blind), None)
    own = operation(put=rpc_pb2.PutRequest(key=b"a", lease=ALICES_LEASE))
    yield Attempt(IN_TRANSACTION, "a put on a lease of one's own", "alice", Op.TXN, txn(own), None)


def open_ended() -> Iterator[Attempt]:
    """A watch is judged as a count of its range; `single` may read the key s and nothing else."""
    for name, key, end, refusal in (
        ("its key", b"s", b"", None),
        ("from its key on", b"s", b"\0", errors.PERMISSION_DENIED),
        ("its key and the next", b"s", b"s\0\0", errors.PERMISSION_DENIED),
        ("everything", b"\0", b"\0", errors.PERMISSION_DENIED),
    ):
        request = rpc_pb2.RangeRequest(key=key, range_end=end, serializable=True, count_only=True)
        yield Attempt(OPEN_END, f"a watch of {name}", "single", Op.RANGE, request, refusal)


def unnamed() -> Iterator[Attempt]:
    """What was open to everybody."""
    for name, op, request in (
        ("alarms", Op.ALARM, ALARM()),
        ("an alarm on", Op.ALARM, ALARM(action=ALARM.ACTIVATE, alarm=rpc_pb2.NOSPACE)),
        ("status", Op.STATUS, b""),
        ("the hash", Op.HASH, b""),
        ("the hash of the keys", Op.HASH_KV, b""),
        ("a snapshot", Op.SNAPSHOT, b""),
        ("a defragmentation", Op.DEFRAGMENT, b""),
        ("the members", Op.PERMISSION, bytes((Need.USER,))),
        ("a new member", Op.PERMISSION, bytes((Need.ADMIN,))),
        ("leases", Op.LEASE_LEASES, b""),
        ("the time of a lease", Op.LEASE_TIME_TO_LIVE, rpc_pb2.LeaseTimeToLiveRequest(ID=ROOTS_LEASE)),
        ("a grant", Op.LEASE_GRANT, rpc_pb2.LeaseGrantRequest(ID=9, TTL=60)),
        ("a revocation", Op.LEASE_REVOKE, rpc_pb2.LeaseRevokeRequest(ID=ROOTS_LEASE)),
        ("a renewal", Op.LEASE_KEEP_ALIVE, rpc_pb2.LeaseKeepAliveRequest(ID=ROOTS_LEASE)),
        ("a compaction", Op.COMPACT, rpc_pb2.CompactionRequest(revision=1)),
    ):
        yield Attempt(UNNAMED, name, "", op, request, errors.USER_EMPTY)
    for op in (Op.HASH, Op.HASH_KV, Op.SNAPSHOT, Op.DEFRAGMENT):
        yield Attempt(UNNAMED, f"{op.name.lower()} by one who is not root", "alice", op, b"")
    keys = rpc_pb2.LeaseTimeToLiveRequest(ID=ROOTS_LEASE, keys=True)
    yield Attempt(UNNAMED, "another's keys of a lease", "alice", Op.LEASE_TIME_TO_LIVE, keys)


QUESTIONS = frozenset(
    {Op.RANGE, Op.STATUS, Op.HASH, Op.HASH_KV, Op.SNAPSHOT, Op.DEFRAGMENT, Op.PERMISSION, Op.LEASE_LEASES}
    | {Op.LEASE_TIME_TO_LIVE}
)


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """With writer, who may write [w, x) and not read it, and single, who may read s; root's pairs and leases."""
    made = Guarded(tmp_path_factory.mktemp("rights") / "db")
    permission = auth_pb2.Permission
    for name, kind, key, end in (("writer", permission.WRITE, b"w", b"x"), ("single", permission.READ, b"s", b"")):
        made.do("root", Op.USER_ADD, rpc_pb2.AuthUserAddRequest(name=name, hashedPassword="aA=="))
        made.do("root", Op.ROLE_ADD, rpc_pb2.AuthRoleAddRequest(name=name))
        made.permit("root", name, kind, key, end)
        made.do("root", Op.USER_GRANT_ROLE, rpc_pb2.AuthUserGrantRoleRequest(user=name, role=name))
    for lease_id, key in ((ALICES_LEASE, b"a"), (ROOTS_LEASE, b"z")):
        made.do("root", Op.LEASE_GRANT, rpc_pb2.LeaseGrantRequest(ID=lease_id, TTL=60))
        made.do("root", Op.PUT, rpc_pb2.PutRequest(key=key, value=b"secret", lease=lease_id))
    made.do("root", Op.PUT, rpc_pb2.PutRequest(key=b"w", value=b"secret"))
    yield made
    made.close()


@pytest.mark.parametrize("attempt", list(attempts()), ids=lambda each: f"{each.advisory}: {each.name}")
def test_no_way_around_the_rights_that_etcd_had_is_open(member: Guarded, attempt: Attempt) -> None:
    before = member.state.store.revision
    found: EtcdError | None = None
    try:
        if attempt.op in QUESTIONS:
            member.question(member.identity(attempt.user), attempt.op, attempt.request)
        else:
            member.do(attempt.user, attempt.op, attempt.request)
    except CallFailed as failed:
        found = failed.error
    assert found == attempt.refusal
    if attempt.refusal is not None:
        assert member.state.store.revision == before
