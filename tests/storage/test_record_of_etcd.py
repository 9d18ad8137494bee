"""Mistakes that etcd made when it compacted, as commands to one member; docs/testing.md has the whole list."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from quorate.proto import rpc_pb2
from quorate.wire import errors
from quorate.wire.errors import CallFailed
from quorate.wire.messages import Op
from tests.storage.member import Member


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Member]:
    made = Member(tmp_path / "db")
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
