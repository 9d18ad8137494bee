"""Mistakes that etcd made in its store, as commands to one member; docs/testing.md has the whole list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from quorate.node import logs
from quorate.proto import rpc_pb2
from quorate.storage import history
from quorate.storage.auto_compaction import policy
from quorate.storage.corruption import Corruption
from quorate.storage.database import Row, checked
from quorate.storage.history import History
from quorate.storage.proposer import LEASE_CHECK_SECONDS, Proposer
from quorate.wire import errors
from quorate.wire.errors import CallFailed
from quorate.wire.messages import STORAGE_WORKER, Op, commands_of, pack_command
from quorate.wire.requests import PUT_COST_BYTES, txn_cost
from quorate.wire.watching import HISTORY, HistoryRead
from tests.storage.member import MEMBER_ID, Member

LEASE_ID = 7
TTL_S = 10


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Member]:
    made = Member(tmp_path / "db")
    yield made
    made.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Member]:
    made = Member(tmp_path / "other")
    yield made
    made.close()


def put(member: Member, key: bytes, value: bytes = b"v") -> int:
    return int(member.apply(Op.PUT, rpc_pb2.PutRequest(key=key, value=value)).header.revision)


def delete(member: Member, key: bytes) -> int:
    return int(member.apply(Op.DELETE_RANGE, rpc_pb2.DeleteRangeRequest(key=key)).header.revision)


def test_the_revision_does_not_go_back_when_what_it_named_last_is_compacted(member: Member) -> None:
    """etcd #17780: the newest revision was read from what compaction had left."""
    put(member, b"k")
    deleted = delete(member, b"k")
    member.apply(Op.COMPACT, rpc_pb2.CompactionRequest(revision=deleted, physical=True))
    member.restart()
    assert member.ask(Op.RANGE, rpc_pb2.RangeRequest(key=b"k")).header.revision == deleted
    assert put(member, b"k") == deleted + 1


def test_the_revision_does_not_go_back_when_compaction_was_cut_short(member: Member) -> None:
    """etcd #17780, the crash between the rows and the mark."""
    for number in range(50):
        put(member, b"k%d" % (number % 5))
        last = delete(member, b"k%d" % (number % 5))
    member.apply(Op.COMPACT, rpc_pb2.CompactionRequest(revision=last))
    member.compaction.advance()
    member.restart()
    assert member.ask(Op.RANGE, rpc_pb2.RangeRequest(key=b"k")).header.revision == last
    while member.compaction.is_due:
        member.compaction.advance()
    member.restart()
    assert put(member, b"k") == last + 1


def test_a_transaction_that_reads_what_is_compacted_changes_nothing(member: Member) -> None:
    """etcd #18667: it was half done where the compaction was late."""
    put(member, b"k")
    last = put(member, b"k")
    member.apply(Op.COMPACT, rpc_pb2.CompactionRequest(revision=last))
    write = rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"half", value=b"done"))
    past = rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=b"k", revision=last - 1))
    with pytest.raises(CallFailed) as failed:
        member.apply(Op.TXN, rpc_pb2.TxnRequest(success=[write, past]))
    assert failed.value.error == errors.COMPACTED
    answer = member.ask(Op.RANGE, rpc_pb2.RangeRequest(key=b"half"))
    assert (answer.header.revision, answer.count) == (last, 0)


def test_members_refuse_alike_a_transaction_that_reads_the_past_wherever_their_compactions_are(
    member: Member, other: Member
) -> None:
    """etcd #18667 and #21432: who had dropped the records by then refused what the others did."""
    for one in (member, other):
        for _ in range(50):
            last = put(one, b"k")
        one.apply(Op.COMPACT, rpc_pb2.CompactionRequest(revision=last))
    while member.compaction.is_due:
        member.compaction.advance()
    write = rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"half", value=b"done"))
    for revision, refusal in ((last - 1, errors.COMPACTED), (last + 1, errors.FUTURE_REV), (last, None)):
        past = rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=b"k", revision=revision))
        for one in (member, other):
            found = None
            try:
                one.apply(Op.TXN, rpc_pb2.TxnRequest(success=[write, past]))
            except CallFailed as failed:
                found = failed.error
            assert found == refusal
    hashes = [one.ask(Op.HASH_KV, rpc_pb2.HashKVRequest(revision=last + 1)).hash for one in (member, other)]
    assert hashes[0] == hashes[1]


# --- leases ----------------------------------------------------------------------------------------------------------


def grant(member: Member) -> None:
    member.apply(Op.LEASE_GRANT, rpc_pb2.LeaseGrantRequest(ID=LEASE_ID, TTL=TTL_S))
    member.apply(Op.PUT, rpc_pb2.PutRequest(key=b"leased", lease=LEASE_ID))


def test_a_renewal_behind_a_revocation_finds_no_lease(member: Member) -> None:
    """etcd #20615: a renewal that met a revocation under way was answered with time to live."""
    grant(member)
    renewal = rpc_pb2.LeaseKeepAliveRequest(ID=LEASE_ID).SerializeToString()
    commands = [
        pack_command(Op.LEASE_KEEP_ALIVE, renewal),
        pack_command(Op.LEASE_REVOKE, rpc_pb2.LeaseRevokeRequest(ID=LEASE_ID).SerializeToString()),
        pack_command(Op.LEASE_KEEP_ALIVE, renewal),
        pack_command(Op.LEASE_RENEW, LEASE_ID.to_bytes(8, "little")),
    ]
    before, _, behind, together = member.apply_all(commands)
    assert rpc_pb2.LeaseKeepAliveResponse.FromString(before).TTL == TTL_S
    assert rpc_pb2.LeaseKeepAliveResponse.FromString(behind).TTL == 0
    assert together.endswith(bytes(8))
    assert member.range(b"leased").count == 0


def proposer(member: Member) -> Proposer:
    never = policy("periodic", "0", member.now)
    return Proposer(member.applier, never, Corruption(0, 0, wants_initial=False, now=member.now), logs.named("storage"))


def expiries(commands: list[bytes]) -> list[bytes]:
    """The bodies of the proposals to expire among commands."""
    packed = b"".join(commands)
    return [bytes(body) for op, _, body in commands_of(packed) if op == Op.LEASE_EXPIRE]


def test_a_leader_that_was_deposed_ends_no_lease_that_was_renewed_at_its_successor(
    member: Member, other: Member
) -> None:
    """etcd #12528 and #15247: what the old leader had decided was carried out under the new one."""
    for one in (member, other):
        grant(one)
    member.now += TTL_S + 1
    (proposal,) = expiries(proposer(member).commands(member.now, is_leader=True))
    for one in (member, other):  # the successor's log: the renewal comes first, then what its predecessor forwarded
        one.term += 1
        renewal = rpc_pb2.LeaseKeepAliveRequest(ID=LEASE_ID)
        assert one.apply(Op.LEASE_KEEP_ALIVE, renewal).TTL == TTL_S
        one.apply_all([pack_command(Op.LEASE_EXPIRE, proposal)], STORAGE_WORKER)
        assert one.range(b"leased").count == 1
        assert LEASE_ID in one.state.lessor.leases


def test_a_member_that_does_not_lead_proposes_to_end_no_lease(member: Member) -> None:
    """etcd #15247: one that had stepped down went on, as that half of it had not heard."""
    grant(member)
    member.now += TTL_S + 1
    deposed = proposer(member)
    assert expiries(deposed.commands(member.now, is_leader=False)) == []
    member.now += LEASE_CHECK_SECONDS
    assert len(expiries(deposed.commands(member.now, is_leader=True))) == 1


# --- quota -----------------------------------------------------------------------------------------------------------


ABSENT = rpc_pb2.Compare(key=b"absent", target=rpc_pb2.Compare.VERSION, version=1)  # which does not hold


def within(branch: str, depth: int, operation: rpc_pb2.RequestOp) -> rpc_pb2.TxnRequest:
    """An operation, `depth` transactions deep, where it is carried out."""
    for _ in range(depth + 1):
        if branch == "success":
            request = rpc_pb2.TxnRequest(success=[operation])
        else:
            request = rpc_pb2.TxnRequest(compare=[ABSENT], failure=[operation])
        operation = rpc_pb2.RequestOp(request_txn=request)
    return request


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("branch", ["success", "failure"])
def test_a_nested_put_costs_what_it_costs_elsewhere_and_is_refused_without_space(
    member: Member, branch: str, depth: int
) -> None:
    """etcd #22140: what stood in a transaction within a transaction cost nothing."""
    write = rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"k", value=b"v" * 100))
    request = within(branch, depth, write)
    assert txn_cost(request) == PUT_COST_BYTES + 101
    alarm = rpc_pb2.AlarmRequest(action=rpc_pb2.AlarmRequest.ACTIVATE, alarm=rpc_pb2.NOSPACE, memberID=MEMBER_ID)
    member.apply(Op.ALARM, alarm)
    with pytest.raises(CallFailed) as failed:
        member.apply(Op.TXN, request)
    assert failed.value.error == errors.NO_SPACE
    assert member.range(b"k").count == 0


# --- catching up -----------------------------------------------------------------------------------------------------


def test_a_slice_of_history_costs_what_it_returns_however_far_behind_its_reader_is(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    """etcd #22264: everything that was missing was read, and a thousand revisions of it were told, again and again."""
    drawn = 0

    def counted(rows: Iterable[tuple[int, int, int, bytes, bytes]]) -> Iterator[Row]:
        nonlocal drawn
        for row in checked(rows):
            drawn += 1
            yield row

    monkeypatch.setattr(history, "checked", counted)
    keys = history.WALKED_KEYS_MAX * 2
    last = put_many(member, keys, 3000)
    member.state.commit()
    first, slice_revisions, slices = 2, 100, 0
    while first <= last:
        question = HistoryRead(1, first, last, slice_revisions, 1 << 20, False, b"k", b"l")
        body = History(member.state.store, question).read()
        _, compacted, complete, count = HISTORY.unpack_from(body)
        assert (compacted, count) == (0, complete - first + 1)
        first, slices = complete + 1, slices + 1
    assert slices == 3000 // slice_revisions
    assert drawn <= 3000 + 2 * slices


def put_many(member: Member, keys: int, count: int) -> int:
    """Puts, a hundred in an entry; the last revision."""
    for start in range(0, count, 100):
        puts = [rpc_pb2.PutRequest(key=b"k%d" % (number % keys), value=b"v") for number in range(start, start + 100)]
        member.apply_all([pack_command(Op.PUT, each.SerializeToString()) for each in puts])
    return member.state.store.revision
