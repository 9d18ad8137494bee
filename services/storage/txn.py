"""Transactions: compares on the state before, all checks before the first change, then the operations in order.

Nothing here can fail half-way: whatever could be wrong with an operation of the chosen path is found before the first
of them runs, so a transaction that fails has changed nothing (contract 5.5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import eq, gt, lt, ne
from typing import Any, Final

from quorate.proto import rpc_pb2
from quorate.storage import ranges
from quorate.storage.headers import EMPTY_HEADER, nested
from quorate.storage.index import OPEN_END
from quorate.storage.lessor import NO_LEASE, Lessor
from quorate.storage.mvcc import Store
from quorate.storage.records import (
    BLOB_TAG,
    KEY_TAG,
    LEASE_TAG,
    VALUE_TAG,
    bytes_field,
    integer_field,
    key_value_of,
    message_field,
    parsed,
    read_varint,
    value_field_of,
)
from quorate.wire import errors
from quorate.wire.errors import CallFailed
from quorate.wire.messages import MAIN_SHIFT, SUBS_MAX

Compare = rpc_pb2.Compare
SUCCEEDED_FIELD: Final = b"\x10\x01"
RESPONSES_TAG: Final = b"\x1a"
RANGE_TAG, PUT_TAG, DELETE_TAG, TXN_TAG = b"\x0a", b"\x12", b"\x1a", b"\x22"  # members of ResponseOp
DELETIONS_MAX: Final = SUBS_MAX // 2  # in one revision; the rest is for puts
DELETED_TAG: Final = b"\x10"
PREV_KVS_TAG: Final = b"\x1a"

_RELATIONS: Final[dict[int, Callable[[Any, Any], bool]]] = {
    Compare.EQUAL: eq,
    Compare.GREATER: gt,
    Compare.LESS: lt,
    Compare.NOT_EQUAL: ne,
}
_OPERANDS: Final = {
    Compare.VERSION: "version",
    Compare.CREATE: "create_revision",
    Compare.MOD: "mod_revision",
    Compare.VALUE: "value",
    Compare.LEASE: "lease",
}


class Plan:
    """The path through a transaction: the branch its compares chose, and the plans of the transactions inside it.

    A step is the name of an operation with its request; that of a nested transaction has its plan instead.
    """

    __slots__ = ("steps", "succeeded")

    def __init__(self, store: Store, request: rpc_pb2.TxnRequest) -> None:
        self.succeeded = True
        for compare in request.compare:
            if not holds(store, compare):
                self.succeeded = False
                break
        self.steps: list[tuple[str | None, Any]] = []
        for operation in request.success if self.succeeded else request.failure:
            name = operation.WhichOneof("request")
            if name == "request_txn":
                self.steps.append((name, Plan(store, operation.request_txn)))
            else:
                self.steps.append((name, getattr(operation, name) if name else None))


def run(store: Store, lessor: Lessor, request: rpc_pb2.TxnRequest) -> bytes:
    """Apply a transaction: the TxnResponse behind its header. CallFailed if nothing was changed.

    The caller has checked what does not depend on the state, and ends the store's transaction.
    """
    plan = Plan(store, request)
    if check(store, lessor, plan, []) > DELETIONS_MAX:
        raise CallFailed(errors.REQUEST_TOO_LARGE)
    return execute(store, lessor, plan)


# --- compares --------------------------------------------------------------------------------------------------------


def holds(store: Store, compare: rpc_pb2.Compare) -> bool:
    """Whether a compare is true of every key it names; no key counts as one that is absent."""
    if not compare.range_end:
        record = store.alive(compare.key)
        return _holds_for(store, compare, record, compare.key) if record else _holds_for_absent(compare)
    keys = store.keys(compare.key, compare.range_end)
    if not keys:
        return _holds_for_absent(compare)
    return all(_holds_for(store, compare, store.alive(key), key) for key in keys)


def _holds_for(store: Store, compare: rpc_pb2.Compare, record: int, key: bytes) -> bool:
    actual: int | bytes
    match compare.target:
        case Compare.MOD:
            actual = record >> MAIN_SHIFT
        case Compare.VERSION:
            actual = store.facts(key, record)[1]
        case Compare.CREATE:
            actual = read_varint(store.facts(key, record)[0], 1)[0]
        case Compare.VALUE:
            actual = parsed(store.blob(record)).value
        case Compare.LEASE:
            actual = parsed(store.blob(record)).lease
        case _:
            return _relation(compare)(0, 0)
    return _relation(compare)(actual, _operand(compare))


def _holds_for_absent(compare: rpc_pb2.Compare) -> bool:
    if compare.target == Compare.VALUE:
        return False
    if compare.target not in _OPERANDS:
        return _relation(compare)(0, 0)
    return _relation(compare)(0, _operand(compare))


def _operand(compare: rpc_pb2.Compare) -> int | bytes:
    operand: int | bytes = getattr(compare, _OPERANDS[compare.target])
    return operand


def _relation(compare: rpc_pb2.Compare) -> Callable[[Any, Any], bool]:
    return _RELATIONS.get(compare.result) or (lambda _actual, _operand: True)


# --- checks ----------------------------------------------------------------------------------------------------------


def check(store: Store, lessor: Lessor, plan: Plan, deleted: list[tuple[bytes, bytes]]) -> int:
    """CallFailed if an operation of the path cannot be done on the state before the transaction; how many keys the
    path deletes at most. `deleted` are the intervals that the operations before the path delete.

    A put may keep the value of a pair that an operation before it deletes: etcd's rule against that does not see
    a deletion of everything from a key on. All of its members end at such a transaction; here it is refused.
    """
    deletions = 0
    for name, request in plan.steps:
        match name:
            case "request_put":
                if not request.key:
                    raise CallFailed(errors.EMPTY_KEY)
                if request.lease or request.ignore_value or request.ignore_lease:
                    check_put(store, lessor, request)
                    if request.ignore_value or request.ignore_lease:
                        check_kept(request.key, deleted)
            case "request_range":
                revision = request.revision
                if revision > store.revision:
                    raise CallFailed(errors.FUTURE_REV)
                if revision != 0 and revision < store.compact_revision:
                    raise CallFailed(errors.COMPACTED)
            case "request_delete_range":
                deletions += store.count(request.key, request.range_end)
                deleted.append((request.key, request.range_end))
            case "request_txn":
                deletions += check(store, lessor, request, deleted)
            case _:
                raise CallFailed(errors.KEY_NOT_FOUND)
    return deletions


def check_put(store: Store, lessor: Lessor, put: rpc_pb2.PutRequest) -> None:
    """CallFailed if the put needs a pair or a lease that is not there; inside a transaction the pair comes first."""
    if (put.ignore_value or put.ignore_lease) and not store.alive(put.key):
        raise CallFailed(errors.KEY_NOT_FOUND)
    lessor.check(put.lease)


def check_kept(key: bytes, deleted: Iterable[tuple[bytes, bytes]]) -> None:
    """CallFailed if the key is in one of the intervals."""
    for first, range_end in deleted:
        if first <= key < range_end or (first <= key and range_end == OPEN_END) or (first == key and not range_end):
            raise CallFailed(errors.KEY_NOT_FOUND)


# --- execution -------------------------------------------------------------------------------------------------------


def execute(store: Store, lessor: Lessor, plan: Plan) -> bytes:
    """Run the operations of a checked path: the fields of the TxnResponse behind its header."""
    fields = [SUCCEEDED_FIELD] if plan.succeeded else []
    for name, request in plan.steps:
        match name:
            case "request_put":
                previous = put(store, lessor, request)
                tag, response = PUT_TAG, nested(store.main) + previous
            case "request_range":
                tag, response = RANGE_TAG, _range(store, request)
            case "request_delete_range":
                deleted = delete_range(store, lessor, request)
                tag, response = DELETE_TAG, nested(store.seen_revision) + deleted
            case _:
                tag, response = TXN_TAG, EMPTY_HEADER + execute(store, lessor, request)
        fields.append(message_field(RESPONSES_TAG, message_field(tag, response)))
    return b"".join(fields)


def _range(store: Store, request: rpc_pb2.RangeRequest) -> bytes:
    revision = store.check_revision(request.revision)
    return ranges.answer(store, request, revision, nested(store.seen_revision), store.blobs)


def put(store: Store, lessor: Lessor, request: rpc_pb2.PutRequest) -> bytes:
    """Put a pair whose checks have passed: the prev_kv field if it was asked for."""
    key = request.key
    before = store.alive(key)
    if not (request.ignore_value or request.ignore_lease or request.lease or request.prev_kv or lessor.lease_of):
        store.put(key, bytes_field(KEY_TAG, key), bytes_field(VALUE_TAG, request.value), b"")
        return b""
    if request.ignore_value:
        value_field = value_field_of(store.blob(before), len(key))
    else:
        value_field = bytes_field(VALUE_TAG, request.value)
    lease_id = lessor.lease_of.get(key, NO_LEASE) if request.ignore_lease else request.lease
    previous = store.blob(before) if request.prev_kv and before else b""
    store.put(key, bytes_field(KEY_TAG, key), value_field, integer_field(LEASE_TAG, lease_id))
    lessor.attach(key, lease_id)
    return previous


def delete_range(store: Store, lessor: Lessor, request: rpc_pb2.DeleteRangeRequest) -> bytes:
    """Delete the live keys of an interval: the fields of the DeleteRangeResponse behind its header."""
    keys = store.keys(request.key, request.range_end)
    previous: list[bytes] = []
    if request.prev_kv:
        blobs = store.blobs([store.index.newest[key] for key in keys])
        previous = [message_field(PREV_KVS_TAG, key_value_of(blob)) for blob in blobs]
    delete_keys(store, lessor, keys)
    return integer_field(DELETED_TAG, len(keys)) + b"".join(previous)


def delete_keys(store: Store, lessor: Lessor, keys: Sequence[bytes]) -> None:
    """Delete live keys and take them from their leases."""
    for key in keys:
        store.delete(key)
    if lessor.lease_of:
        for key in keys:
            lessor.attach(key, NO_LEASE)


assert BLOB_TAG == b"\x12", "prev_kv of PutResponse is field 2, so a blob stands there as it is"
