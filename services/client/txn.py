"""Transactions as values: what has to hold, what to do then, what else to do.

Txn().when(version("k").equals(0)).then(put("k", "v")).otherwise(get("k"))
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from quorate.client.ranges import Key, as_bytes
from quorate.proto import rpc_pb2 as rpc
from quorate.proto.rpc_pb2 import Compare, RequestOp


@dataclass(slots=True)
class Txn:
    """A transaction under construction; each method adds to it and returns it."""

    request: rpc.TxnRequest = field(default_factory=rpc.TxnRequest)

    def when(self, *comparisons: Compare) -> Self:
        """Conditions that all have to hold."""
        self.request.compare.extend(comparisons)
        return self

    def then(self, *operations: RequestOp) -> Self:
        """What to do when they hold."""
        self.request.success.extend(operations)
        return self

    def otherwise(self, *operations: RequestOp) -> Self:
        """What to do when one does not."""
        self.request.failure.extend(operations)
        return self


@dataclass(frozen=True, slots=True)
class Number:
    """A number that belongs to a key, to be compared."""

    target: Compare.CompareTarget.ValueType
    key: bytes
    range_end: bytes

    def equals(self, number: int) -> Compare:
        """The number is this one."""
        return self._compare(Compare.EQUAL, number)

    def differs(self, number: int) -> Compare:
        """The number is another."""
        return self._compare(Compare.NOT_EQUAL, number)

    def greater(self, number: int) -> Compare:
        """The number is greater."""
        return self._compare(Compare.GREATER, number)

    def less(self, number: int) -> Compare:
        """The number is less."""
        return self._compare(Compare.LESS, number)

    def _compare(self, result: Compare.CompareResult.ValueType, number: int) -> Compare:
        compare = Compare(result=result, target=self.target, key=self.key, range_end=self.range_end)
        match self.target:
            case Compare.VERSION:
                compare.version = number
            case Compare.CREATE:
                compare.create_revision = number
            case Compare.MOD:
                compare.mod_revision = number
            case _:
                compare.lease = number
        return compare


@dataclass(frozen=True, slots=True)
class Value:
    """The value of a key, to be compared byte by byte; a comparison with an absent key never holds."""

    key: bytes
    range_end: bytes

    def equals(self, value: Key) -> Compare:
        """The value is this one."""
        return self._compare(Compare.EQUAL, value)

    def differs(self, value: Key) -> Compare:
        """The value is another."""
        return self._compare(Compare.NOT_EQUAL, value)

    def greater(self, value: Key) -> Compare:
        """The value is greater."""
        return self._compare(Compare.GREATER, value)

    def less(self, value: Key) -> Compare:
        """The value is less."""
        return self._compare(Compare.LESS, value)

    def _compare(self, result: Compare.CompareResult.ValueType, value: Key) -> Compare:
        return Compare(
            result=result, target=Compare.VALUE, key=self.key, range_end=self.range_end, value=as_bytes(value)
        )


def version(key: Key, range_end: bytes = b"") -> Number:
    """Changes since the key's creation; 0 when there is no such key."""
    return Number(Compare.VERSION, as_bytes(key), range_end)


def create_revision(key: Key, range_end: bytes = b"") -> Number:
    """Revision of the key's creation; 0 when there is no such key."""
    return Number(Compare.CREATE, as_bytes(key), range_end)


def mod_revision(key: Key, range_end: bytes = b"") -> Number:
    """Revision of the key's last change; 0 when there is no such key."""
    return Number(Compare.MOD, as_bytes(key), range_end)


def lease(key: Key, range_end: bytes = b"") -> Number:
    """The key's lease id; 0 when it has none."""
    return Number(Compare.LEASE, as_bytes(key), range_end)


def value(key: Key, range_end: bytes = b"") -> Value:
    """The key's value."""
    return Value(as_bytes(key), range_end)


def put(key: Key, value: Key, lease_id: int = 0, prev_kv: bool = False) -> RequestOp:
    """Store a value."""
    request = rpc.PutRequest(key=as_bytes(key), value=as_bytes(value), lease=lease_id, prev_kv=prev_kv)
    return RequestOp(request_put=request)


def get(key: Key, range_end: bytes = b"", limit: int = 0) -> RequestOp:
    """Read a key or a range; `reading` takes a request with every option."""
    return reading(rpc.RangeRequest(key=as_bytes(key), range_end=range_end, limit=limit))


def reading(request: rpc.RangeRequest) -> RequestOp:
    """Read as the request says."""
    return RequestOp(request_range=request)


def delete(key: Key, range_end: bytes = b"", prev_kv: bool = False) -> RequestOp:
    """Delete a key or a range."""
    return RequestOp(
        request_delete_range=rpc.DeleteRangeRequest(key=as_bytes(key), range_end=range_end, prev_kv=prev_kv)
    )


def nested(txn: Txn) -> RequestOp:
    """A transaction within the transaction."""
    return RequestOp(request_txn=txn.request)
