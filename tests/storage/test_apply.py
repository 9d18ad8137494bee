"""What the twin does not cover: alarms and quota, auth, maintenance, headers and malformed requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quorate.proto import auth_pb2, rpc_pb2
from quorate.storage.apply import EXPIRE
from quorate.storage.headers import MALFORMED, failed
from quorate.wire import errors
from quorate.wire.errors import CallFailed, EtcdError
from quorate.wire.identity import Caller, TokenGrant
from quorate.wire.messages import STORAGE_WORKER, Op, Origin, chunks_of, pack_chunk, pack_command
from quorate.wire.requests import check_txn
from tests.storage.member import CLUSTER_ID, MEMBER_ID, ORIGIN, Member

ALARM = rpc_pb2.AlarmRequest


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Member]:
    made = Member(tmp_path / "db")
    yield made
    made.close()


def fails_with(error: EtcdError, call: Any, *arguments: Any, **options: Any) -> None:
    with pytest.raises(CallFailed) as failure:
        call(*arguments, **options)
    assert error == failure.value.error


def alarm(member: Member, action: Any, kind: Any, member_id: int = MEMBER_ID) -> list[tuple[int, int]]:
    response = member.apply(Op.ALARM, ALARM(action=action, memberID=member_id, alarm=kind))
    return [(each.memberID, each.alarm) for each in response.alarms]


def put_txn(key: bytes) -> rpc_pb2.TxnRequest:
    txn = rpc_pb2.TxnRequest()
    txn.success.add().request_put.key = key
    return txn


# --- alarms and quota ------------------------------------------------------------------------------------------------


def test_alarms_are_switched_listed_and_kept_over_a_restart(member: Member) -> None:
    assert [(MEMBER_ID, rpc_pb2.NOSPACE)] == alarm(member, ALARM.ACTIVATE, rpc_pb2.NOSPACE)
    assert [(MEMBER_ID, rpc_pb2.NOSPACE)] == alarm(member, ALARM.ACTIVATE, rpc_pb2.NOSPACE)
    assert [] == alarm(member, ALARM.ACTIVATE, rpc_pb2.NONE)
    alarm(member, ALARM.ACTIVATE, rpc_pb2.CORRUPT, 1)
    member.state.commit()
    member.restart()
    assert [(MEMBER_ID, rpc_pb2.NOSPACE), (1, rpc_pb2.CORRUPT)] == alarm(member, ALARM.GET, rpc_pb2.NONE)
    assert [(1, rpc_pb2.CORRUPT)] == alarm(member, ALARM.GET, rpc_pb2.CORRUPT)
    assert [(1, rpc_pb2.CORRUPT)] == alarm(member, ALARM.DEACTIVATE, rpc_pb2.CORRUPT, 1)
    assert [] == alarm(member, ALARM.DEACTIVATE, rpc_pb2.CORRUPT, 1)


def test_without_space_what_adds_is_refused_and_what_frees_is_not(member: Member) -> None:
    member.put(b"a")
    member.apply(Op.LEASE_GRANT, rpc_pb2.LeaseGrantRequest(ID=1, TTL=10))
    alarm(member, ALARM.ACTIVATE, rpc_pb2.NOSPACE)
    fails_with(errors.NO_SPACE, member.put, b"a", b"v")
    fails_with(errors.NO_SPACE, member.put, b"a", prev_kv=True)
    fails_with(errors.NO_SPACE, member.apply, Op.TXN, put_txn(b"a"))
    fails_with(errors.NO_SPACE, member.apply, Op.LEASE_GRANT, rpc_pb2.LeaseGrantRequest(ID=2, TTL=10))
    assert 1 == member.range(b"a").count
    assert 1 == member.delete(b"a").deleted
    member.apply(Op.LEASE_REVOKE, rpc_pb2.LeaseRevokeRequest(ID=1))
    member.apply(Op.TXN, rpc_pb2.TxnRequest())
    member.compact(3)
    alarm(member, ALARM.DEACTIVATE, rpc_pb2.NOSPACE)
    member.put(b"a")


def test_a_corrupt_cluster_changes_nothing_more(member: Member) -> None:
    member.put(b"a")
    alarm(member, ALARM.ACTIVATE, rpc_pb2.CORRUPT)
    fails_with(errors.CORRUPT, member.put, b"a")
    fails_with(errors.CORRUPT, member.delete, b"a")
    fails_with(errors.CORRUPT, member.apply, Op.TXN, put_txn(b"a"))
    fails_with(errors.CORRUPT, member.compact, 2)
    fails_with(errors.CORRUPT, member.apply, Op.LEASE_GRANT, rpc_pb2.LeaseGrantRequest(ID=2, TTL=10))
    assert 1 == member.range(b"a").count


def test_in_a_corrupt_cluster_leases_outlive_their_time(member: Member) -> None:
    member.apply(Op.LEASE_GRANT, rpc_pb2.LeaseGrantRequest(ID=1, TTL=10))
    member.put(b"a", lease=1)
    expire = [pack_command(Op.LEASE_EXPIRE, EXPIRE.pack(1, 1))]
    alarm(member, ALARM.ACTIVATE, rpc_pb2.CORRUPT)
    member.apply_all(expire, STORAGE_WORKER)
    assert 1 == member.range(b"a").count
    alarm(member, ALARM.DEACTIVATE, rpc_pb2.CORRUPT)
    member.apply_all(expire, STORAGE_WORKER)
    assert 0 == member.range(b"a").count


def test_a_put_that_reaches_the_quota_is_made_and_answered_with_an_error(tmp_path: Path) -> None:
    member = Member(tmp_path / "db", quota_bytes=200_000)

    def fill() -> None:
        for number in range(100):
            member.put(b"k%d" % number, b"v" * 10_000)

    fails_with(errors.NO_SPACE, fill)
    assert member.applier.wants_space_alarm
    store = member.state.store
    assert store.revision == len(store.index.live) + 1 == len(member.log) + 1
    member.close()


def test_an_alarm_of_a_kind_that_is_none_is_refused(member: Member) -> None:
    fails_with(errors.UNKNOWN_ALARM, alarm, member, ALARM.ACTIVATE, 125)
    assert [] == alarm(member, ALARM.DEACTIVATE, 125)
    assert [] == alarm(member, ALARM.GET, rpc_pb2.NONE)


def test_a_pair_without_a_key_is_refused_here_too(member: Member) -> None:
    """Api refuses it first; an entry that another member made would write a record that nobody can read."""
    fails_with(errors.EMPTY_KEY, member.put, b"")
    fails_with(errors.EMPTY_KEY, member.put, b"", b"value")
    fails_with(errors.EMPTY_KEY, member.apply, Op.TXN, put_txn(b""))
    assert 1 == member.state.store.revision


def test_an_alarm_stops_the_commands_behind_it_in_the_same_chunk(member: Member) -> None:
    request = ALARM(action=ALARM.ACTIVATE, memberID=1, alarm=rpc_pb2.NOSPACE)
    commands = [pack_command(Op.ALARM, request.SerializeToString()), pack_command(Op.PUT, b"\x0a\x01a")]
    (chunk,) = chunks_of(pack_chunk(ORIGIN, 0, commands))
    _, result = member.applier.chunk(chunk)
    assert isinstance(result, bytes)
    assert errors.NO_SPACE.id == result[0]


@pytest.mark.parametrize("kept", ["ignore_value", "ignore_lease"])
@pytest.mark.parametrize("is_nested", [False, True])
def test_what_a_transaction_deletes_before_it_is_to_be_kept_is_not_found(
    member: Member, kept: str, is_nested: bool
) -> None:
    """etcd lets a deletion of everything from a key on stand before such a put, and ends at it with all members."""
    member.put(b"a", b"1")
    txn = rpc_pb2.TxnRequest()
    branch = txn.success.add().request_txn.success if is_nested else txn.success
    branch.add().request_delete_range.CopyFrom(rpc_pb2.DeleteRangeRequest(key=b"a", range_end=b"\0"))
    txn.success.add().request_put.CopyFrom(rpc_pb2.PutRequest(key=b"a", **{kept: True}))  # type: ignore[arg-type]
    check_txn(txn)
    fails_with(errors.KEY_NOT_FOUND, member.apply, Op.TXN, txn)
    assert 1 == member.range(b"a").count
    del txn.success[:]
    txn.success.add().request_delete_range.CopyFrom(rpc_pb2.DeleteRangeRequest(key=b"a", range_end=b"A"))
    txn.success.add().request_put.CopyFrom(rpc_pb2.PutRequest(key=b"a", **{kept: True}))  # type: ignore[arg-type]
    assert 2 == len(member.apply(Op.TXN, txn).responses)


# --- headers and malformed requests ----------------------------------------------------------------------------------


def test_a_header_says_who_answers_at_which_revision_and_term(member: Member) -> None:
    header = member.put(b"a", b"v").header
    assert (CLUSTER_ID, MEMBER_ID, 2, 3) == (header.cluster_id, header.member_id, header.revision, header.raft_term)
    assert header == member.range(b"a").header
    assert header == member.delete(b"none").header


def test_headers_inside_a_transaction_carry_the_revision_alone(member: Member) -> None:
    txn = rpc_pb2.TxnRequest()
    txn.success.add().request_range.key = b"a"
    txn.success.add().request_put.key = b"a"
    inner = txn.success.add().request_txn
    inner.success.add().request_delete_range.key = b"b"
    response = member.apply(Op.TXN, txn)
    before, after, nested = (each for each in response.responses)
    assert rpc_pb2.ResponseHeader(revision=1) == before.response_range.header
    assert rpc_pb2.ResponseHeader(revision=2) == after.response_put.header
    assert nested.response_txn.HasField("header")
    assert rpc_pb2.ResponseHeader() == nested.response_txn.header
    assert rpc_pb2.ResponseHeader(revision=2) == nested.response_txn.responses[0].response_delete_range.header


@pytest.mark.parametrize("size", [0, 1, 127, 128, 129, 255, 16383, 16384, 70000])
@pytest.mark.parametrize("key_bytes", [1, 127, 128, 20000])
def test_pairs_of_every_size_come_back_as_they_were_put(member: Member, size: int, key_bytes: int) -> None:
    key, value = b"k" * key_bytes, b"v" * size
    member.put(key, value)
    response = member.put(key, value, prev_kv=True)
    assert (key, value, 1) == (response.prev_kv.key, response.prev_kv.value, response.prev_kv.version)
    (pair,) = member.range(key).kvs
    assert (key, value, 2, 3, 2) == (pair.key, pair.value, pair.create_revision, pair.mod_revision, pair.version)
    assert b"" == member.range(key, keys_only=True).kvs[0].value


def test_an_explicitly_empty_value_is_stored_as_none(member: Member) -> None:
    member.apply(Op.PUT, b"\x0a\x01a\x12\x00")
    assert b"" == member.range(b"a").kvs[0].value
    assert member.state.store.blob(member.state.store.alive(b"a")).endswith(b"\x20\x01")


@pytest.mark.parametrize("body", [b"\x0a\x05a", b"\x0a\x01a\x12\x05v", b"\xff\xff\xff", b"\x0a\x01a\x12\x85", b"\x0a"])
def test_a_command_that_is_no_protobuf_changes_nothing(member: Member, body: bytes) -> None:
    fails_with(errors.MALFORMED_REQUEST, member.apply, Op.PUT, body)
    fails_with(errors.MALFORMED_REQUEST, member.ask, Op.RANGE, body)
    assert 1 == member.state.store.revision


def test_a_put_with_fields_in_another_order_or_unknown_ones_is_understood(member: Member) -> None:
    member.apply(Op.PUT, b"\x12\x01v\x0a\x01a")
    member.apply(Op.PUT, b"\x0a\x01b\x12\x01w\x98\x06\x01")
    assert [b"v", b"w"] == [pair.value for pair in member.range(b"a", b"c").kvs]


def test_a_length_written_longer_than_it_is_puts_what_every_reader_of_protobuf_reads(member: Member) -> None:
    """Here the octets before the fields that follow are as many as the first octet of the length says by itself."""
    first, then = b"\x0a\x01a\x12\x85\x00hello", b"\x0a\x01b\x12\x05other"
    unknown = b"x" * (5 + 0x85 - len(first) - len(then) - 2)
    body = first + then + bytes((0x7A, len(unknown))) + unknown
    assert b"b" == rpc_pb2.PutRequest.FromString(body).key
    member.apply(Op.PUT, body)
    assert 0 == member.range(b"a").count
    (pair,) = member.range(b"b").kvs
    assert (b"b", b"other") == (pair.key, pair.value)


def test_an_unknown_command_fails_alone(member: Member) -> None:
    put = pack_command(Op.PUT, b"\x0a\x01a")
    (chunk,) = chunks_of(pack_chunk(ORIGIN, 0, [pack_command(200, b""), put]))
    unknown, known = member.applier.chunk(chunk)
    assert isinstance(unknown, bytes)
    assert isinstance(known, bytes)
    assert (errors.UNKNOWN_METHOD.id, 0) == (unknown[0], known[0])


# --- maintenance -----------------------------------------------------------------------------------------------------


def test_status_has_storages_share(member: Member) -> None:
    alarm(member, ALARM.ACTIVATE, rpc_pb2.NOSPACE)
    member.state.commit()
    status = member.ask(Op.STATUS, rpc_pb2.StatusRequest())
    assert [f"memberID:{MEMBER_ID} alarm:NOSPACE "] == list(status.errors)
    assert status.dbSize == member.state.database.size_bytes >= status.dbSizeInUse > 0
    assert ("3.6.0", 1) == (status.storageVersion, status.raftAppliedIndex)


def test_a_hash_depends_on_the_history_and_not_on_how_far_compaction_has_come(member: Member) -> None:
    for number in range(50):
        member.put(b"k%d" % (number % 7), b"v%d" % number)
    member.delete(b"k3")
    member.put(b"after")
    whole = member.ask(Op.HASH_KV, rpc_pb2.HashKVRequest())
    assert (-1, 53) == (whole.compact_revision, whole.hash_revision)
    member.compact(30)
    scheduled = member.ask(Op.HASH_KV, rpc_pb2.HashKVRequest())
    while member.compaction.is_due:
        member.compaction.advance(3)
    finished = member.ask(Op.HASH_KV, rpc_pb2.HashKVRequest())
    assert scheduled.hash == finished.hash != whole.hash
    assert finished.hash != member.ask(Op.HASH_KV, rpc_pb2.HashKVRequest(revision=40)).hash
    fails_with(errors.COMPACTED, member.ask, Op.HASH_KV, rpc_pb2.HashKVRequest(revision=29))
    fails_with(errors.FUTURE_REV, member.ask, Op.HASH_KV, rpc_pb2.HashKVRequest(revision=54))


# --- auth ------------------------------------------------------------------------------------------------------------


def as_caller(member: Member, op: int, request: Any, caller: Caller | None) -> int:
    """Apply a command for a caller; the id of its error."""
    identity = caller.pack() if caller else b""
    packed = pack_chunk(ORIGIN, 0, [pack_command(op, request.SerializeToString(), identity)])
    (chunk,) = chunks_of(packed)
    (result,) = member.applier.chunk(chunk)
    assert isinstance(result, bytes)
    return result[0]


@pytest.fixture
def guarded(member: Member) -> Member:
    """Auth is on; `ann` may write a/."""
    for name, role in (("root", "root"), ("ann", "writer")):
        member.applier.auth.apply(
            Op.USER_ADD, None, rpc_pb2.AuthUserAddRequest(name=name, hashedPassword="aGFzaA==").SerializeToString()
        )
        member.applier.auth.apply(Op.ROLE_ADD, None, rpc_pb2.AuthRoleAddRequest(name=role).SerializeToString())
        member.applier.auth.apply(
            Op.USER_GRANT_ROLE, None, rpc_pb2.AuthUserGrantRoleRequest(user=name, role=role).SerializeToString()
        )
    perm = auth_pb2.Permission(permType=auth_pb2.Permission.WRITE, key=b"a/", range_end=b"a0")
    member.applier.auth.apply(
        Op.ROLE_GRANT_PERMISSION,
        None,
        rpc_pb2.AuthRoleGrantPermissionRequest(name="writer", perm=perm).SerializeToString(),
    )
    assert 0 == as_caller(member, Op.AUTH_ENABLE, rpc_pb2.AuthEnableRequest(), None)
    return member


def caller(member: Member, name: str) -> Caller:
    return Caller(name, member.applier.auth.revision)


def test_with_auth_on_a_command_is_judged_where_it_is_applied(guarded: Member) -> None:
    ann, root = caller(guarded, "ann"), caller(guarded, "root")
    put = rpc_pb2.PutRequest(key=b"a/1", value=b"v")
    assert errors.USER_EMPTY.id == as_caller(guarded, Op.PUT, put, None)
    assert 0 == as_caller(guarded, Op.PUT, put, ann)
    assert errors.PERMISSION_DENIED.id == as_caller(guarded, Op.PUT, rpc_pb2.PutRequest(key=b"b"), ann)
    assert errors.PERMISSION_DENIED.id == as_caller(guarded, Op.COMPACT, rpc_pb2.CompactionRequest(revision=1), ann)
    assert 0 == as_caller(guarded, Op.COMPACT, rpc_pb2.CompactionRequest(revision=1), root)
    txn = rpc_pb2.TxnRequest()
    txn.success.add().request_txn.failure.add().request_put.key = b"b"
    assert errors.PERMISSION_DENIED.id == as_caller(guarded, Op.TXN, txn, ann)


def test_storages_own_commands_need_no_right(guarded: Member) -> None:
    request = ALARM(action=ALARM.ACTIVATE, memberID=MEMBER_ID, alarm=rpc_pb2.NOSPACE)
    command = pack_command(Op.ALARM, request.SerializeToString())
    (chunk,) = chunks_of(pack_chunk(Origin(MEMBER_ID, 1, 0xFFFF), 0, [command]))
    (result,) = guarded.applier.chunk(chunk)
    assert isinstance(result, bytes)
    assert 0 == result[0]


def test_users_roles_and_tokens_survive_a_restart(guarded: Member) -> None:
    guarded.applier.index = 77
    grant = TokenGrant("ann", "abcdefghijklmnop", guarded.applier.auth.revision)
    guarded.applier.authenticate(grant.pack())
    guarded.state.commit()
    guarded.restart()
    auth = guarded.applier.auth
    assert auth.enabled
    assert caller(guarded, "ann") == auth.caller_of("abcdefghijklmnop.77", int(guarded.now * 1000))


@pytest.mark.parametrize(
    ("op", "body"),
    [
        (Op.LEASE_EXPIRE, b"short"),
        (Op.LEASE_CHECKPOINT, b"short"),
        (Op.LEASE_RENEW, b"no row of leases"[:15]),
        (Op.CORRUPT_REPORT, b"short"),
        (Op.AUTHENTICATE, b""),
        (Op.USER_ADD, rpc_pb2.AuthUserAddRequest(name="x", hashedPassword="abc").SerializeToString()),
        (Op.USER_ADD, rpc_pb2.AuthUserAddRequest(name="x", hashedPassword="\xe9").SerializeToString()),
        (Op.AUTHENTICATE, b"\0" * 10 + b"\xff"),
    ],
)
def test_a_command_of_the_node_that_cannot_be_read_fails_alone(member: Member, op: Op, body: bytes) -> None:
    chunk = pack_chunk(ORIGIN, 1, [pack_command(op, body), pack_command(Op.PUT, b"\x0a\x01a\x12\x011")])
    (first, second) = member.applier.chunk(next(chunks_of(chunk)))
    no_hash = failed(errors.NO_PASSWORD_USER)  # etcd has a text for it
    assert first == (no_hash if op == Op.USER_ADD else MALFORMED)
    assert second != MALFORMED
    assert member.applier.data_reports == []
    member.state.database.marks.revision = member.state.store.revision
    member.state.commit()
    member.state.close()
    member.open()
    assert member.state.store.revision == 2
