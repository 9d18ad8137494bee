"""What etcd checks in a KV request before it is ordered, in etcd's order (v3rpc/key.go); each raises CallFailed.

Everything that needs the data - does the key exist, is the lease known, is the revision there - is judged by storage
when the request is applied.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from quorate.proto.rpc_pb2 import (
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from quorate.wire import errors
from quorate.wire.errors import CallFailed

SORT_ORDER_LAST: Final = 2
SORT_TARGET_LAST: Final = 4

Interval = tuple[bytes, bytes | None]  # from, up to and without; None is without end


def check_range(request: RangeRequest) -> None:
    if not request.key:
        raise CallFailed(errors.EMPTY_KEY)
    if not (0 <= request.sort_order <= SORT_ORDER_LAST and 0 <= request.sort_target <= SORT_TARGET_LAST):
        raise CallFailed(errors.INVALID_SORT_OPTION)


def check_put(request: PutRequest) -> None:
    if not request.key:
        raise CallFailed(errors.EMPTY_KEY)
    if request.ignore_value and request.value:
        raise CallFailed(errors.VALUE_PROVIDED)
    if request.ignore_lease and request.lease:
        raise CallFailed(errors.LEASE_PROVIDED)


def check_delete_range(request: DeleteRangeRequest) -> None:
    if not request.key:
        raise CallFailed(errors.EMPTY_KEY)


def check_txn(request: TxnRequest, ops_max: int) -> None:
    """Limits and fields of every level first, then keys given twice."""
    _check_txn_fields(request, ops_max)
    _puts_and_deletes(request.success)
    _puts_and_deletes(request.failure)


def is_read_only(request: TxnRequest) -> bool:
    """Only ranges in both branches; a nested transaction counts as a write."""
    return all(op.HasField("request_range") for op in request.success) and all(
        op.HasField("request_range") for op in request.failure
    )


def is_serializable(request: TxnRequest) -> bool:
    """A read-only transaction that need not wait for a read index: no op at all asks for a linearizable answer."""
    return all(op.request_range.serializable for op in request.success) and all(
        op.request_range.serializable for op in request.failure
    )


def _check_txn_fields(request: TxnRequest, ops_max: int) -> None:
    longest = max(len(request.compare), len(request.success), len(request.failure))
    if longest > ops_max:
        raise CallFailed(errors.TOO_MANY_OPS)
    for compare in request.compare:
        if not compare.key:
            raise CallFailed(errors.EMPTY_KEY)
    for ops in (request.success, request.failure):
        for op in ops:
            _check_op(op, ops_max - longest)


def _check_op(op: RequestOp, ops_left: int) -> None:
    match op.WhichOneof("request"):
        case "request_range":
            check_range(op.request_range)
        case "request_put":
            check_put(op.request_put)
        case "request_delete_range":
            check_delete_range(op.request_delete_range)
        case "request_txn":
            _check_txn_fields(op.request_txn, ops_left)
        case _:
            raise CallFailed(errors.KEY_NOT_FOUND)


def _puts_and_deletes(ops: Iterable[RequestOp]) -> tuple[set[bytes], list[Interval]]:
    """The keys a branch puts and the intervals it deletes; raises where one of them is given twice.

    Nested transactions are looked at one after the other, so that a delete in a later one is not held against a put
    in an earlier one, as in etcd.
    """
    puts: set[bytes] = set()
    deletes = [_interval(op.request_delete_range) for op in ops if op.HasField("request_delete_range")]
    for op in ops:
        if not op.HasField("request_txn"):
            continue
        then_puts, then_deletes = _puts_and_deletes(op.request_txn.success)
        else_puts, else_deletes = _puts_and_deletes(op.request_txn.failure)
        nested = then_puts | else_puts
        if nested & puts or _any_deleted(nested, deletes):
            raise CallFailed(errors.DUPLICATE_KEY)
        puts |= nested
        deletes += then_deletes
        deletes += else_deletes
    for op in ops:
        if op.HasField("request_put"):
            key = op.request_put.key
            if key in puts or _any_deleted((key,), deletes):
                raise CallFailed(errors.DUPLICATE_KEY)
            puts.add(key)
    return puts, deletes


def _interval(request: DeleteRangeRequest) -> Interval:
    if not request.range_end:
        return request.key, request.key + b"\0"
    return request.key, None if request.range_end == b"\0" else request.range_end


def _any_deleted(keys: Iterable[bytes], deletes: list[Interval]) -> bool:
    if not deletes:
        return False
    return any(start <= key and (end is None or key < end) for key in keys for start, end in deletes)
