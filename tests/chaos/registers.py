"""Clients that put, delete, swap and read a few keys, alone and several at once."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any, Final

import grpc

from quorate.proto import kv_pb2, rpc_pb2
from tests.chaos.calls import AsyncCaller, refusal
from tests.chaos.cluster import Member
from tests.chaos.crowd import Crowd, never_sent, surely_without_effect
from tests.checking.history import Fate, Kind, Operation, Txn

PREFIX: Final = b"key/"
PREFIX_END: Final = b"key0"
KEYS: Final = 12
VALUE_BYTES_MAX: Final = 3000
MIX: Final = (
    ("put", 30), ("get", 18), ("swap", 18), ("stale get", 10), ("delete", 6), ("several puts", 8), ("list", 4),
    ("get in the past", 6), ("transaction", 8),
)  # fmt: skip


class Registers:
    """One client with one call at a time, at the first of some members, and at the next one when that is away."""

    def __init__(
        self, crowd: Crowd, number: int, places: Sequence[tuple[Member, AsyncCaller]], timeout_s: float
    ) -> None:
        self.operations: list[Operation] = []
        self.txns: list[Txn] = []
        self._crowd = crowd
        self._number = number
        self._places = places
        self._place = 0
        self._timeout_s = timeout_s
        self._dice = random.Random(f"registers {crowd.seed} {number}")
        self._keys = [PREFIX + b"%d" % n for n in range(KEYS)]
        self._known: dict[bytes, int] = {}
        self._seen_revision = 1
        self._count = 0
        self._acts = [name for name, weight in MIX for _ in range(weight)]

    async def run(self) -> None:
        while not self._crowd.stopping.is_set():
            self._count += 1
            try:
                await self._one(self._dice.choice(self._acts))
                self._crowd.done += 1
            except grpc.RpcError as error:
                if never_sent(refusal(error)):
                    self._place = (self._place + 1) % len(self._places)
                await self._crowd.failed(refusal(error))
            await self._crowd.pace(self._dice)

    async def _one(self, act: str) -> None:
        key = self._dice.choice(self._keys)
        match act:
            case "put":
                await self._write([(Kind.PUT, key, self._value(0))])
            case "several puts":
                keys = self._dice.sample(self._keys, self._dice.randrange(2, 5))
                await self._write([(Kind.PUT, key, self._value(part)) for part, key in enumerate(keys)])
            case "delete":
                await self._write([(Kind.DELETE, key, b"")])
            case "swap":
                await self._write([(Kind.CAS, key, self._value(0))])
            case "list":
                await self._list()
            case "transaction":
                await self._transaction()
            case "get in the past":
                await self._get(Kind.PAST_GET, key, max(2, self._seen_revision - self._dice.randrange(200)))
            case _:
                await self._get(Kind.STALE_GET if act == "stale get" else Kind.GET, key, 0)

    def _value(self, part: int) -> bytes:
        value = b"%d/%d/%d" % (self._number, self._count, part)
        return value.ljust(self._dice.randrange(VALUE_BYTES_MAX), b".") if self._dice.random() < 0.1 else value

    async def _write(self, changes: list[tuple[Kind, bytes, bytes]]) -> None:
        kind, key, value = changes[0]
        expected = self._known.get(key, 0)
        invoked = time.monotonic_ns()
        try:
            revision, succeeded, pair = await self._sent(changes, expected)
        except grpc.RpcError as error:
            fate = Fate.REFUSED if surely_without_effect(refusal(error)) else Fate.UNKNOWN
            returned = time.monotonic_ns()
            for kind, key, value in () if never_sent(refusal(error)) else changes:
                self._note(kind, key, value, expected, invoked, returned, fate)
            raise
        returned = time.monotonic_ns()
        seen = (pair.value, pair.mod_revision) if pair is not None else (None, 0)
        for kind, key, value in changes:
            self._note(kind, key, value, expected, invoked, returned, Fate.DONE, revision, succeeded, *seen)
            changed = succeeded or kind is Kind.PUT
            self._known[key] = (0 if kind is Kind.DELETE else revision) if changed else seen[1]
        self._seen_revision = max(self._seen_revision, revision)

    async def _sent(
        self, changes: list[tuple[Kind, bytes, bytes]], expected: int
    ) -> tuple[int, bool, kv_pb2.KeyValue | None]:
        """(revision, whether it changed something conditional, pair seen instead)."""
        kind, key, value = changes[0]
        if len(changes) > 1:
            puts = [_put(key, value) for _, key, value in changes]
            answer = await self._call("KV/Txn", rpc_pb2.TxnRequest(success=puts))
            return answer.header.revision, False, None
        match kind:
            case Kind.PUT:
                answer = await self._call("KV/Put", rpc_pb2.PutRequest(key=key, value=value))
                return answer.header.revision, False, None
            case Kind.DELETE:
                answer = await self._call("KV/DeleteRange", rpc_pb2.DeleteRangeRequest(key=key))
                return answer.header.revision, answer.deleted > 0, None
            case _:
                compare = rpc_pb2.Compare(key=key, target=rpc_pb2.Compare.MOD, mod_revision=expected)
                get = rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=key))
                request = rpc_pb2.TxnRequest(compare=[compare], success=[_put(key, value)], failure=[get])
                answer = await self._call("KV/Txn", request)
                kvs = [] if answer.succeeded else answer.responses[0].response_range.kvs
                return answer.header.revision, answer.succeeded, kvs[0] if kvs else None

    async def _get(self, kind: Kind, key: bytes, at: int) -> None:
        invoked = time.monotonic_ns()
        request = rpc_pb2.RangeRequest(key=key, serializable=kind is Kind.STALE_GET, revision=at)
        answer = await self._call("KV/Range", request)
        seen = (answer.kvs[0].value, answer.kvs[0].mod_revision) if answer.kvs else (None, 0)
        revision = answer.header.revision
        self._note(kind, key, b"", at, invoked, time.monotonic_ns(), Fate.DONE, revision, False, *seen)
        self._seen_revision = max(self._seen_revision, revision)

    async def _list(self) -> None:
        """All keys at once: a read of each at one revision."""
        invoked = time.monotonic_ns()
        answer = await self._call("KV/Range", rpc_pb2.RangeRequest(key=PREFIX, range_end=PREFIX_END))
        returned = time.monotonic_ns()
        found = {kv.key: (kv.value, kv.mod_revision) for kv in answer.kvs}
        for key in self._keys:
            seen = found.get(key, (None, 0))
            revision = answer.header.revision
            self._note(Kind.GET, key, b"", 0, invoked, returned, Fate.DONE, revision, False, *seen)

    async def _transaction(self) -> None:
        """Compare some keys, change others if all stand where they were seen, and read the rest."""
        compared, changed = (self._dice.sample(self._keys, self._dice.randrange(1, 3)) for _ in range(2))
        reads = tuple(key for key in self._dice.sample(self._keys, 3) if key not in changed)
        writes = tuple(
            (key, self._value(n) if n or self._dice.random() < 0.8 else None) for n, key in enumerate(changed)
        )
        compares = tuple((key, self._known.get(key, 0)) for key in compared)
        invoked = time.monotonic_ns()
        txn = Txn(self._number, compares, writes, reads, invoked, 0, Fate.UNKNOWN)
        try:
            answer = await self._call("KV/Txn", _request(txn))
        except grpc.RpcError as error:
            if never_sent(refusal(error)):
                raise
            fate = Fate.REFUSED if surely_without_effect(refusal(error)) else Fate.UNKNOWN
            self.txns.append(txn._replace(returned_ns=time.monotonic_ns(), fate=fate))
            raise
        returned = time.monotonic_ns()
        parts = answer.responses[len(writes) :] if answer.succeeded else answer.responses
        seen = tuple(_seen(part.response_range) for part in parts)
        did = answer.succeeded and any(
            value is not None or part.response_delete_range.deleted
            for (_, value), part in zip(writes, answer.responses, strict=False)
        )
        revision = answer.header.revision
        self.txns.append(
            txn._replace(
                returned_ns=returned,
                fate=Fate.DONE,
                revision=revision,
                succeeded=answer.succeeded,
                seen=seen,
                changed=did,
            )
        )
        for key, (_, modified) in zip(reads, seen, strict=True):
            self._known[key] = modified
        for key, value in writes if answer.succeeded else ():
            self._known[key] = revision if value is not None else 0

    async def _call(self, name: str, request: Any) -> Any:
        return await self._places[self._place][1].unary(name, request, self._timeout_s)

    def _note(self, *columns: Any) -> None:
        """A member that was started again may be behind what a broken connection to it has told, as may another one."""
        connection = (self._number * 10 + self._place) * 100_000 + self._places[self._place][0].lives
        self.operations.append(Operation(connection, *columns))


def _request(txn: Txn) -> rpc_pb2.TxnRequest:
    reads = [rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=key)) for key in txn.reads]
    writes = [
        rpc_pb2.RequestOp(request_delete_range=rpc_pb2.DeleteRangeRequest(key=key))
        if value is None
        else _put(key, value)
        for key, value in txn.writes
    ]
    compares = [
        rpc_pb2.Compare(key=key, target=rpc_pb2.Compare.MOD, mod_revision=modified) for key, modified in txn.compares
    ]
    return rpc_pb2.TxnRequest(compare=compares, success=[*writes, *reads], failure=reads)


def _seen(answer: rpc_pb2.RangeResponse) -> tuple[bytes | None, int]:
    return (answer.kvs[0].value, answer.kvs[0].mod_revision) if answer.kvs else (None, 0)


def _put(key: bytes, value: bytes) -> rpc_pb2.RequestOp:
    return rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=key, value=value))
