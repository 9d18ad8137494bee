"""Checks of a KV request that need nothing but the request.

`api` refuses with them before a command is ordered; `storage` trusts them and judges what depends on the state. The
operation limit is a setting of one member and so must not decide what the log means: it cannot be checked later.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from quorate.proto import rpc_pb2
from quorate.wire import errors
from quorate.wire.errors import CallFailed

OPEN_END = b"\0"  # as range_end: every key from `key` on
PUT_COST_BYTES = 256  # besides key and value
LEASE_COST_BYTES = 64
Deletes = list[tuple[bytes, bytes]]


def is_plain_range(body: bytes) -> bool:
    """A RangeRequest that names one key and nothing else, so a valid and linearizable one; told without decoding it."""
    size = len(body)
    return size > 2 and body[0] == 0x0A and body[1] == size - 2 < 0x80


def is_plain_put(body: bytes) -> bool:
    """A PutRequest of a key and a value and nothing else, so a valid one; told without decoding it. False for many of
    those, too: a long key or value, or fields in another order."""
    size = len(body)
    if size < 4 or body[0] != 0x0A:
        return False
    length_at = body[1] + 3  # of the value; the key's length is a varint of one byte
    if not 3 < length_at < min(size, 0x83) or body[length_at - 1] != 0x12:
        return False
    length = body[length_at]
    if length < 0x80:
        return length_at + 1 + length == size
    if length_at + 1 == size or body[length_at + 1] >= 0x80:
        return False
    return length_at + 2 + (length & 0x7F | body[length_at + 1] << 7) == size


def check_range(request: rpc_pb2.RangeRequest) -> None:
    """CallFailed for a range no state can answer (contract 5.2)."""
    if not request.key:
        raise CallFailed(errors.EMPTY_KEY)
    if not 0 <= request.sort_order <= 2 or not 0 <= request.sort_target <= 4:
        raise CallFailed(errors.INVALID_SORT_OPTION)


def check_put(request: rpc_pb2.PutRequest) -> None:
    """CallFailed for a put that contradicts itself (contract 5.3)."""
    if not request.key:
        raise CallFailed(errors.EMPTY_KEY)
    if request.ignore_value and request.value:
        raise CallFailed(errors.VALUE_PROVIDED)
    if request.ignore_lease and request.lease:
        raise CallFailed(errors.LEASE_PROVIDED)


def check_delete(request: rpc_pb2.DeleteRangeRequest) -> None:
    """CallFailed for a deletion without a key."""
    if not request.key:
        raise CallFailed(errors.EMPTY_KEY)


def check_txn(request: rpc_pb2.TxnRequest, operations_max: int | None = None) -> None:
    """CallFailed for a transaction that is refused whatever the state (contract 5.5); the first failure wins."""
    _check_operations(request, operations_max)
    _check_duplicates(request.success)
    _check_duplicates(request.failure)


def is_read_only(request: rpc_pb2.TxnRequest) -> bool:
    """Whether the transaction needs no place in the log: ranges alone, in both branches."""
    return all(operation.WhichOneof("request") == "request_range" for operation in request.success) and all(
        operation.WhichOneof("request") == "request_range" for operation in request.failure
    )


def put_cost(key: bytes, value: bytes) -> int:
    """What a put is counted with against the quota."""
    return PUT_COST_BYTES + len(key) + len(value)


def txn_cost(request: rpc_pb2.TxnRequest) -> int:
    """What a transaction is counted with: its dearer branch, nested ones included."""
    return max(_branch_cost(request.success), _branch_cost(request.failure))


def _branch_cost(operations: Iterable[rpc_pb2.RequestOp]) -> int:
    cost = 0
    for operation in operations:
        if operation.HasField("request_put"):
            cost += put_cost(operation.request_put.key, operation.request_put.value)
        elif operation.HasField("request_txn"):
            cost += txn_cost(operation.request_txn)
    return cost


def _check_operations(request: rpc_pb2.TxnRequest, operations_max: int | None) -> None:
    if operations_max is not None:
        widest = max(len(request.compare), len(request.success), len(request.failure))
        if widest > operations_max:
            raise CallFailed(errors.TOO_MANY_OPS)
        operations_max -= widest
    for compare in request.compare:
        if not compare.key:
            raise CallFailed(errors.EMPTY_KEY)
    for branch in (request.success, request.failure):
        for operation in branch:
            match operation.WhichOneof("request"):
                case "request_put":
                    check_put(operation.request_put)
                case "request_range":
                    check_range(operation.request_range)
                case "request_delete_range":
                    check_delete(operation.request_delete_range)
                case "request_txn":
                    _check_operations(operation.request_txn, operations_max)
                case _:
                    raise CallFailed(errors.KEY_NOT_FOUND)


def _check_duplicates(operations: Sequence[rpc_pb2.RequestOp]) -> tuple[set[bytes], Deletes]:
    """Keys put and intervals deleted by `operations`; CallFailed where a put meets another change of its key.

    A put in an earlier nested transaction and a deletion in a later one pass, as they do in etcd; so does a put beside
    a deletion of everything from a key on, whose end etcd compares as if it were a key.
    """
    deletes: Deletes = []
    for operation in operations:
        if operation.HasField("request_delete_range"):
            deletes.append((operation.request_delete_range.key, operation.request_delete_range.range_end))
    puts: set[bytes] = set()
    for operation in operations:
        if operation.HasField("request_txn"):
            success_puts, success_deletes = _check_duplicates(operation.request_txn.success)
            failure_puts, failure_deletes = _check_duplicates(operation.request_txn.failure)
            inner_puts = success_puts | failure_puts
            if not puts.isdisjoint(inner_puts):
                raise CallFailed(errors.DUPLICATE_KEY)
            _refuse_overlap(inner_puts, deletes)
            puts |= inner_puts
            deletes += success_deletes + failure_deletes
    own_puts: set[bytes] = set()
    for operation in operations:
        if operation.HasField("request_put"):
            key = operation.request_put.key
            if key in puts or key in own_puts:
                raise CallFailed(errors.DUPLICATE_KEY)
            own_puts.add(key)
    _refuse_overlap(own_puts, deletes)
    return puts | own_puts, deletes


def _refuse_overlap(puts: set[bytes], deletes: Deletes) -> None:
    if not deletes or not puts:
        return
    ordered = sorted(puts)
    for key, range_end in deletes:
        if not range_end:
            overlaps = key in puts
        else:
            first = bisect_left(ordered, key)
            overlaps = first < len(ordered) and ordered[first] < range_end
        if overlaps:
            raise CallFailed(errors.DUPLICATE_KEY)
