"""The store against its dumb twin: random commands, questions, slices of compaction, commits and crashes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from quorate.proto import kv_pb2, rpc_pb2
from quorate.storage import history, mvcc, ranges, reads
from quorate.storage.history import History
from quorate.wire import requests
from quorate.wire.errors import CallFailed
from quorate.wire.messages import Op
from quorate.wire.watching import HISTORY, Change, HistoryRead, changes_of
from tests.storage.member import Member
from tests.storage.twin import Twin, within

KEYS = st.sampled_from([b"a", b"a/1", b"a/2", b"b", b"b/\xff", b"c" * 130, b"\xff"])
ENDS = st.sampled_from([b"", b"\0", b"a0", b"b", b"c", b"\xff\xff", b"a/2"])
VALUES = st.sampled_from([b"", b"1", b"22", b"v" * 300])
ORDERS = st.sampled_from(rpc_pb2.RangeRequest.SortOrder.values())
TARGETS = st.sampled_from(rpc_pb2.RangeRequest.SortTarget.values())
RESULTS = st.sampled_from(rpc_pb2.Compare.CompareResult.values())
COMPARE_TARGETS = st.sampled_from(rpc_pb2.Compare.CompareTarget.values())
AGES = st.sampled_from([0, 0, 0, 1, 2, 3, 5, 8, -1])  # revisions back from now; -1 is the future


def puts() -> st.SearchStrategy[rpc_pb2.PutRequest]:
    return st.builds(
        rpc_pb2.PutRequest,
        key=KEYS,
        value=VALUES,
        prev_kv=st.booleans(),
        lease=st.sampled_from([0, 0, 0, 0, 99]),
    ) | st.builds(
        rpc_pb2.PutRequest, key=KEYS, ignore_value=st.booleans(), ignore_lease=st.booleans(), prev_kv=st.booleans()
    )


def deletes() -> st.SearchStrategy[rpc_pb2.DeleteRangeRequest]:
    return st.builds(rpc_pb2.DeleteRangeRequest, key=KEYS, range_end=ENDS, prev_kv=st.booleans())


@st.composite
def range_requests(draw: st.DrawFn, revision: int) -> rpc_pb2.RangeRequest:
    bounds = st.just(0) | st.integers(1, revision + 1)
    age = draw(AGES)
    return rpc_pb2.RangeRequest(
        key=draw(KEYS),
        range_end=draw(ENDS),
        limit=draw(st.integers(-1, 4)),
        revision=draw(st.just(0) | st.just(max(0, revision - age)) | st.just(-7)),
        sort_order=draw(ORDERS),
        sort_target=draw(TARGETS),
        serializable=draw(st.booleans()),
        keys_only=draw(st.booleans()),
        count_only=draw(st.sampled_from([False, False, False, True])),
        min_mod_revision=draw(st.just(0) | bounds),
        max_mod_revision=draw(st.just(0) | bounds),
        min_create_revision=draw(st.just(0) | bounds),
        max_create_revision=draw(st.just(0) | bounds),
    )


@st.composite
def compares(draw: st.DrawFn, revision: int) -> rpc_pb2.Compare:
    compare = rpc_pb2.Compare(result=draw(RESULTS), target=draw(COMPARE_TARGETS), key=draw(KEYS))
    compare.range_end = draw(st.just(b"") | ENDS)
    number = draw(st.integers(0, 3) | st.integers(0, revision + 1))
    match draw(st.integers(0, 5)):
        case 0:
            compare.version = number
        case 1:
            compare.create_revision = number
        case 2:
            compare.mod_revision = number
        case 3:
            compare.value = draw(VALUES)
        case 4:
            compare.lease = number % 2
    return compare


@st.composite
def txns(draw: st.DrawFn, revision: int, depth: int = 2) -> rpc_pb2.TxnRequest:
    txn = rpc_pb2.TxnRequest(compare=draw(st.lists(compares(revision), max_size=2)))
    for branch in (txn.success, txn.failure):
        for _ in range(draw(st.integers(0, 3))):
            operation = branch.add()
            match draw(st.integers(0, 3 if depth else 2)):
                case 0:
                    operation.request_put.CopyFrom(draw(puts()))
                case 1:
                    operation.request_range.CopyFrom(draw(range_requests(revision)))
                case 2:
                    operation.request_delete_range.CopyFrom(draw(deletes()))
                case 3:
                    operation.request_txn.CopyFrom(draw(txns(revision, depth - 1)))
    return txn


def outcome(call: Any, *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except CallFailed as failure:
        return failure.error.name


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.member = Member(self.directory / "db")
        self.twin = Twin()

    def teardown(self) -> None:
        self.member.close()
        shutil.rmtree(self.directory)

    def compare(self, op: int, request: Any) -> None:
        expected = outcome(self.twin.apply, request)
        actual = outcome(self.member.apply, op, request)
        if not isinstance(actual, str):
            assert (actual.header.cluster_id, actual.header.raft_term) == (14841639068965178418, 3)
            actual.header.ClearField("cluster_id")
            actual.header.ClearField("member_id")
            actual.header.ClearField("raft_term")
        assert expected == actual

    @rule(request=puts())
    def put(self, request: rpc_pb2.PutRequest) -> None:
        if outcome(requests.check_put, request) is None:
            self.compare(Op.PUT, request)

    @rule(key=KEYS, value=VALUES)
    def put_again(self, key: bytes, value: bytes) -> None:
        for _ in range(3):
            self.compare(Op.PUT, rpc_pb2.PutRequest(key=key, value=value))

    @rule(request=deletes())
    def delete(self, request: rpc_pb2.DeleteRangeRequest) -> None:
        self.compare(Op.DELETE_RANGE, request)

    @rule(data=st.data())
    def txn(self, data: st.DataObject) -> None:
        request = data.draw(txns(self.twin.revision))
        refused = outcome(requests.check_txn, request, 128)
        if refused is None:
            self.compare(Op.TXN, request)

    @rule(age=AGES, physical=st.booleans())
    def compact(self, age: int, physical: bool) -> None:
        self.compare(Op.COMPACT, rpc_pb2.CompactionRequest(revision=self.twin.revision - age, physical=physical))

    @rule(records=st.integers(1, 5))
    def advance_compaction(self, records: int) -> None:
        if self.member.compaction.is_due:
            self.member.compaction.advance(records)

    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        request = data.draw(range_requests(self.twin.revision))
        expected = outcome(self.twin.range, request)
        actual = outcome(self.member.ask, Op.RANGE, request)
        if not isinstance(actual, str):
            actual.header.CopyFrom(rpc_pb2.ResponseHeader(revision=actual.header.revision))
        assert expected == actual

    @rule()
    def commit(self) -> None:
        self.member.state.commit()

    @rule()
    def crash(self) -> None:
        self.member.restart()

    @rule(key=KEYS, end=ENDS, age=AGES)
    def scan_while_writing(self, key: bytes, end: bytes, age: int) -> None:
        """A range that is pinned, named slice by slice and read after further changes."""
        revision = max(self.twin.revision - age, self.twin.compact_revision, 1)
        if not end or revision > self.twin.revision:
            return
        request = rpc_pb2.RangeRequest(key=key, range_end=end, revision=revision)
        expected = self.twin.range(request)
        scan = reads.Scan(self.member.state.store, request, revision, b"")
        changed = False
        while not scan.is_named:
            scan.name_keys()
            if not changed:
                changed = True
                self.compare(Op.DELETE_RANGE, rpc_pb2.DeleteRangeRequest(key=b"a/2", range_end=b"\0"))
                self.compare(Op.PUT, rpc_pb2.PutRequest(key=b"a/2", value=b"new"))
        self.member.state.commit()
        actual = rpc_pb2.RangeResponse.FromString(scan.read())
        expected.ClearField("header")
        assert expected == actual

    @rule(
        key=KEYS,
        end=ENDS,
        age=st.integers(0, 12),
        last=st.integers(0, 12),
        most=st.integers(1, 5),
        previous=st.booleans(),
    )
    def read_history(self, key: bytes, end: bytes, age: int, last: int, most: int, previous: bool) -> None:
        """Slice by slice, as a watcher that catches up does, until the end; it finds exactly what was changed."""
        first = max(1, self.twin.revision - age)
        last = max(first, self.twin.revision - last)
        found = []
        while first <= last:
            question = HistoryRead(5, first, last, most, 1 << 20, previous, key, end)
            history = History(self.member.state.store, question)
            self.member.state.commit()
            body = history.read()
            request_id, compact_revision, complete, count = HISTORY.unpack_from(body)
            assert 5 == request_id
            if first < self.twin.compact_revision:
                assert (self.twin.compact_revision, 0) == (compact_revision, count)
                return
            found += [self.told(change) for change in changes_of(body, HISTORY.size, count)]
            assert complete >= first
            expected = self.changes(first, complete, key, end, previous)
            assert expected == found[len(found) - count :]
            first = complete + 1

    def told(self, change: Change) -> Any:
        record, _, key_value, before = change
        previous = kv_pb2.KeyValue.FromString(before) if before else None
        return record & 1, kv_pb2.KeyValue.FromString(key_value), previous

    def changes(self, first: int, last: int, key: bytes, end: bytes, previous: bool) -> Any:
        expected = []
        for revision in range(first, last + 1):
            for changed, after, before in self.twin.history[revision]:
                if within(changed, key, end):
                    pair = after or kv_pb2.KeyValue(key=changed, mod_revision=revision)
                    kept = before if previous and revision > self.twin.compact_revision else None
                    expected.append((after is None, pair, kept))
        return expected

    @invariant()
    def counts_are_exact(self) -> None:
        store = self.member.state.store
        assert len(self.twin.states[-1]) == store.count(b"\0", b"\0")
        assert self.twin.revision == store.revision


@pytest.mark.parametrize("small", [False, True], ids=["inline", "deferred"])
def test_the_store_answers_as_its_twin_whatever_happens(small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if small:
        monkeypatch.setattr(ranges, "INLINE_KEYS_MAX", 1)
        monkeypatch.setattr(reads, "SLICE_KEYS", 2)
        monkeypatch.setattr(reads, "FETCH_RECORDS", 2)
        monkeypatch.setattr(mvcc, "WALK_STEPS", 1)
        monkeypatch.setattr(mvcc, "NEAREST_RECORDS", 1)
        monkeypatch.setattr(history, "WALKED_KEYS_MAX", 1)
        monkeypatch.setattr(history, "WALKED_RECORDS_MAX", 3)
        monkeypatch.setattr(history, "SCAN_REVISIONS", 3)
        monkeypatch.setattr(history, "SCAN_WINDOWS_MAX", 2)
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(
            max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
