"""What an event shows of the past: the pair before its revision, whatever its transaction did to it meanwhile."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from quorate.proto import kv_pb2, rpc_pb2
from quorate.storage.events import pack_events
from quorate.storage.history import History
from quorate.wire.messages import EVENTS, Op
from quorate.wire.watching import HISTORY, HistoryRead, changes_of
from tests.storage.member import Member

Seen = list[tuple[str, bytes | None]]


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Member]:
    made = Member(tmp_path / "db")
    yield made
    made.close()


def put_and_delete(key: bytes) -> rpc_pb2.TxnRequest:
    """The one order in which etcd lets a transaction put a key and delete it."""
    txn = rpc_pb2.TxnRequest()
    txn.success.add().request_txn.success.add().request_put.CopyFrom(rpc_pb2.PutRequest(key=key, value=b"within"))
    txn.success.add().request_txn.success.add().request_delete_range.key = key
    return txn


def caught_up(member: Member) -> Seen:
    history = History(member.state.store, HistoryRead(1, 2, 99, 100, 1 << 20, True, b"k", b""))
    member.state.commit()
    body = history.read()
    return [shown(change) for change in changes_of(body, HISTORY.size, HISTORY.unpack_from(body)[-1])]


def published(member: Member) -> Seen:
    store = member.state.store
    body = b"".join(pack_events(store, store.database.pending, 1, store.revision, True))
    return [shown(change) for change in changes_of(body, EVENTS.size, len(store.database.pending))]


def shown(change: tuple[int, bytes, bytes, bytes]) -> tuple[str, bytes | None]:
    record, _, _, previous = change
    return "DELETE" if record & 1 else "PUT", kv_pb2.KeyValue.FromString(previous).value if previous else None


def test_a_pair_made_and_deleted_in_one_transaction_shows_nothing_before_it(member: Member) -> None:
    member.apply(Op.TXN, put_and_delete(b"k"))
    assert [("PUT", None), ("DELETE", None)] == published(member) == caught_up(member)


def test_a_pair_put_and_deleted_in_one_transaction_shows_twice_what_was_there_before(member: Member) -> None:
    member.put(b"k", b"old")
    member.apply(Op.TXN, put_and_delete(b"k"))
    assert [("PUT", None), ("PUT", b"old"), ("DELETE", b"old")] == published(member) == caught_up(member)


def test_a_pair_deleted_and_put_in_one_transaction_is_new(member: Member) -> None:
    member.put(b"k", b"old")
    txn = rpc_pb2.TxnRequest()
    txn.success.add().request_delete_range.CopyFrom(rpc_pb2.DeleteRangeRequest(key=b"k", range_end=b"\0"))
    txn.success.add().request_put.CopyFrom(rpc_pb2.PutRequest(key=b"k", value=b"new"))
    member.apply(Op.TXN, txn)
    assert [("PUT", None), ("DELETE", b"old"), ("PUT", None)] == published(member) == caught_up(member)


@pytest.mark.parametrize("with_previous", [False, True])
@pytest.mark.parametrize("key_bytes", [0x7F, 0x80, 0x3FFF, 0x4000, 0x1FFFFF, 0x200000])
def test_a_key_of_any_size_is_the_key_of_its_event(member: Member, key_bytes: int, with_previous: bool) -> None:
    key = bytes(range(256)) * (key_bytes // 256 + 1)
    member.put(key[:key_bytes])
    store = member.state.store
    body = b"".join(pack_events(store, store.database.pending, 1, store.revision, with_previous))
    ((_, told, _, _),) = changes_of(body, EVENTS.size, 1)
    assert key[:key_bytes] == told
