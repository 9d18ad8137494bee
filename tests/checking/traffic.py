"""Clients that write and read a few keys of a real cluster, one call at a time, and write down what they saw."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import grpc

from quorate.proto import kv_pb2, rpc_pb2
from tests.checking.history import Change, Fate, Kind, Operation
from tests.support.cluster import wait_until
from tests.support.rpc import Caller, refusal

TIMEOUT_S: Final = 8.0  # above etcd's own 7 s, so that the server's verdict arrives
KINDS: Final = [Kind.PUT] * 40 + [Kind.GET] * 25 + [Kind.CAS] * 20 + [Kind.STALE_GET] * 10 + [Kind.DELETE] * 5
WITHOUT_EFFECT: Final = ("etcdserver: too many requests",)  # refused before it was ordered
OPERATIONS_THERE: Final = 50  # at one endpoint, then at the next
PAUSE_AFTER_FAILURE_S: Final = 0.02


class Client(threading.Thread):
    """One client with one call at a time; after a failure it goes on at the next endpoint."""

    def __init__(self, number: int, endpoints: Sequence[str], keys: int, seed: int, stopping: threading.Event) -> None:
        super().__init__(name=f"client {number}", daemon=True)
        self.number = number
        self.operations: list[Operation] = []
        self.failures: dict[str, int] = {}
        self._dice = random.Random(seed * 1000 + number)
        self._keys = [b"key/%d" % n for n in range(keys)]
        self._known: dict[bytes, int] = {}
        self._endpoints = list(endpoints)
        self._callers = [Caller(endpoint) for endpoint in endpoints]
        self._left: set[str] = set()
        self._at = number % len(endpoints)
        self._stopping = stopping
        self._kind = Kind.GET  # of the call under way

    @property
    def at(self) -> str:
        """The endpoint of the call under way."""
        return self._endpoints[self._at]

    def reach(self, endpoint: str) -> None:
        """Go to a further endpoint, too."""
        self._callers.append(Caller(endpoint))
        self._endpoints.append(endpoint)

    def leave(self, endpoint: str) -> None:
        """Go there no more, but for the call under way."""
        self._left.add(endpoint)

    def run(self) -> None:
        count = 0
        while not self._stopping.is_set():
            count += 1
            while self.at in self._left:
                self._at = (self._at + 1) % len(self._endpoints)
            try:
                self._one(count)
                if count % OPERATIONS_THERE == 0:
                    self._at = (self._at + 1) % len(self._endpoints)
            except grpc.RpcError as error:
                self._at = (self._at + 1) % len(self._endpoints)
                text = " ".join((self._kind.name, *refusal(error)))
                self.failures[text] = self.failures.get(text, 0) + 1
                self._stopping.wait(PAUSE_AFTER_FAILURE_S)
        for caller in self._callers:
            caller.channel.close()

    def _one(self, count: int) -> None:
        kind, key = self._dice.choice(KINDS), self._dice.choice(self._keys)
        self._kind = kind
        value = b"%d/%d" % (self.number, count) if kind in (Kind.PUT, Kind.CAS) else b""
        expected = self._known.get(key, 0)
        client = self.number * 1000 + self._at  # a serializable read never goes back on ONE member
        invoked = time.monotonic_ns()
        try:
            answer = self._call(kind, key, value, expected)
        except grpc.RpcError as error:
            if kind not in (Kind.GET, Kind.STALE_GET):
                fate = Fate.REFUSED if refusal(error)[1] in WITHOUT_EFFECT else Fate.UNKNOWN
                returned = time.monotonic_ns()
                self.operations.append(Operation(client, kind, key, value, expected, invoked, returned, fate))
            raise
        revision, succeeded, pair = answer
        seen = (pair.value, pair.mod_revision) if pair is not None else (None, 0)
        self._known[key] = revision if succeeded or kind is Kind.PUT else seen[1]
        self.operations.append(
            Operation(
                client, kind, key, value, expected, invoked, time.monotonic_ns(), Fate.DONE, revision, succeeded, *seen
            )
        )

    def _call(self, kind: Kind, key: bytes, value: bytes, expected: int) -> tuple[int, bool, kv_pb2.KeyValue | None]:
        """(revision, succeeded, pair seen)."""
        caller = self._callers[self._at]
        match kind:
            case Kind.PUT:
                put = rpc_pb2.PutRequest(key=key, value=value)
                return caller.unary("KV/Put", put, TIMEOUT_S).header.revision, False, None
            case Kind.DELETE:
                answer = caller.unary("KV/DeleteRange", rpc_pb2.DeleteRangeRequest(key=key), TIMEOUT_S)
                return answer.header.revision, answer.deleted > 0, None
            case Kind.CAS:
                answer = caller.unary("KV/Txn", _swap(key, value, expected), TIMEOUT_S)
                kvs = [] if answer.succeeded else answer.responses[0].response_range.kvs
                return answer.header.revision, answer.succeeded, kvs[0] if kvs else None
            case _:
                read = rpc_pb2.RangeRequest(key=key, serializable=kind is Kind.STALE_GET)
                answer = caller.unary("KV/Range", read, TIMEOUT_S)
                return answer.header.revision, False, answer.kvs[0] if answer.kvs else None


class Traffic:
    """A crowd of clients; `stop` returns the whole history."""

    def __init__(self, endpoints: Sequence[str], clients: int = 6, keys: int = 5, seed: int = 1) -> None:
        self._stopping = threading.Event()
        self.clients = [Client(number, endpoints, keys, seed, self._stopping) for number in range(clients)]
        for client in self.clients:
            client.start()

    @property
    def done(self) -> int:
        """Operations acknowledged so far."""
        return sum(1 for client in self.clients for op in client.operations if op.fate is Fate.DONE)

    @property
    def failures(self) -> dict[str, int]:
        """How often which error of which call was seen."""
        counted: dict[str, int] = {}
        for client in self.clients:
            for text, count in client.failures.items():
                counted[text] = counted.get(text, 0) + count
        return counted

    def reach(self, endpoint: str) -> None:
        """Go to a further endpoint, too."""
        for client in self.clients:
            client.reach(endpoint)

    def leave(self, endpoint: str) -> None:
        """Go there no more; no call is under way there when this returns."""
        for client in self.clients:
            client.leave(endpoint)
        wait_until(lambda: all(client.at != endpoint for client in self.clients), f"nobody is at {endpoint}")

    def stop(self) -> list[Operation]:
        self._stopping.set()
        for client in self.clients:
            client.join()
        return [op for client in self.clients for op in client.operations]


@contextmanager
def traffic(endpoints: Sequence[str], clients: int = 6, keys: int = 5, seed: int = 1) -> Iterator[Traffic]:
    """Traffic for as long as the block lasts; `stop` it inside to get the history."""
    crowd = Traffic(endpoints, clients, keys, seed)
    try:
        yield crowd
    finally:
        crowd.stop()


def committed_log(endpoint: str) -> list[Change]:
    """Every change of the store so far, as one member tells it to a watcher."""
    caller = Caller(endpoint)
    try:
        last = caller.unary("KV/Range", rpc_pb2.RangeRequest(key=b"\0"), TIMEOUT_S).header.revision
        create = rpc_pb2.WatchCreateRequest(key=b"\0", range_end=b"\0", start_revision=2)
        requests = _then_wait(rpc_pb2.WatchRequest(create_request=create))
        answers = caller.stream("Watch/Watch", requests, timeout_s=60.0)
        log: list[Change] = []
        while not log or log[-1].revision < last:
            answer = next(answers)
            assert not answer.canceled, answer
            for event in answer.events:
                value = event.kv.value if event.type == kv_pb2.Event.PUT else None
                log.append(Change(event.kv.mod_revision, event.kv.key, value))
        answers.cancel()
        return log
    finally:
        caller.channel.close()


def _then_wait(request: rpc_pb2.WatchRequest) -> Iterator[rpc_pb2.WatchRequest]:
    yield request
    threading.Event().wait(60.0)


def _swap(key: bytes, value: bytes, expected: int) -> rpc_pb2.TxnRequest:
    compare = rpc_pb2.Compare(key=key, target=rpc_pb2.Compare.MOD, mod_revision=expected)
    put = rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=key, value=value))
    get = rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=key))
    return rpc_pb2.TxnRequest(compare=[compare], success=[put], failure=[get])
