"""How a Kubernetes API server keeps objects: optimistic transactions, pages of one revision, a cache behind a watch.

Each asks one member only. Its cache follows a watch with the pair before and with progress; a consistent list is read
from it: ask for the present revision, ask the watch for progress, wait until the cache is there (KEP-2340).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import grpc

from quorate.proto import kv_pb2, rpc_pb2
from tests.support.rpc import Caller

PREFIX: Final = b"/registry/pods/"
END: Final = b"/registry/pods0"
PAGE: Final = 7
COMPACTED: Final = b"compact_rev_key"
UNKNOWN_FATE: Final = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}

Objects = dict[bytes, tuple[int, bytes]]  # key -> (revision of its last change, value)


class ApiServer:
    """One of several servers over the same keys; `problem` says which promise was broken, empty while none was."""

    def __init__(self, endpoint: str) -> None:
        self._caller = Caller(endpoint, (("hasleader", "true"),))
        self.objects: Objects = {}
        self.revision = 0
        self.problem = ""
        self.lists = 0
        self.relists = 0
        self._moved = threading.Condition()
        self._requests: queue.SimpleQueue[rpc_pb2.WatchRequest | None] = queue.SimpleQueue()
        self._call: grpc.Call | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def stop(self) -> None:
        """End the watch and the connection."""
        self._stopping.set()
        if self._call is not None:
            self._call.cancel()
        self._thread.join()
        self._caller.channel.close()

    def answers(self) -> bool:
        """Whether its member can be asked."""
        try:
            self._caller.unary("KV/Range", rpc_pb2.RangeRequest(key=COMPACTED))
        except grpc.RpcError:
            return False
        return True

    def create(self, key: bytes, value: bytes, lease: int = 0) -> bool:
        """Whether it is new: put it if nobody has."""
        absent = rpc_pb2.Compare(key=key, target=rpc_pb2.Compare.MOD, mod_revision=0)
        put = rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=key, value=value, lease=lease))
        created: bool = self._caller.unary("KV/Txn", rpc_pb2.TxnRequest(compare=[absent], success=[put])).succeeded
        return created

    def increase(self, key: bytes) -> bool:
        """Add one to the object's number; begins with what the cache has, and reads on when that is old.

        Returns whether it is known to be done; False leaves open whether it was.
        """
        with self._moved:
            held, value = self.objects.get(key, (0, b"0"))
        while True:
            put = rpc_pb2.PutRequest(key=key, value=b"%d" % (int(value) + 1))
            answer = self._swap(key, held, rpc_pb2.RequestOp(request_put=put))
            if answer is None:
                return False
            if answer.succeeded:
                return True
            held, value = _read(answer)

    def delete(self, key: bytes) -> None:
        """Delete the object as the cache has it, or as the store says it is; a failure leaves open whether it was."""
        with self._moved:
            held, _ = self.objects.get(key, (0, b""))
        delete = rpc_pb2.RequestOp(request_delete_range=rpc_pb2.DeleteRangeRequest(key=key))
        answer = self._swap(key, held, delete)
        while answer is not None and not answer.succeeded:
            held, _ = _read(answer)
            answer = self._swap(key, held, delete)

    def compact(self, told: int) -> int:
        """One turn of the compactor that all servers run; the turn to wait for next."""
        with self._moved:
            revision = self.revision
        mine = rpc_pb2.Compare(key=COMPACTED, target=rpc_pb2.Compare.VERSION, version=told)
        put = rpc_pb2.PutRequest(key=COMPACTED, value=b"%d" % revision)
        get = rpc_pb2.RangeRequest(key=COMPACTED)
        turn = rpc_pb2.TxnRequest(
            compare=[mine],
            success=[rpc_pb2.RequestOp(request_put=put)],
            failure=[rpc_pb2.RequestOp(request_range=get)],
        )
        answer = self._caller.unary("KV/Txn", turn)
        if not answer.succeeded:
            kvs = answer.responses[0].response_range.kvs
            return kvs[0].version if kvs else 0
        with suppress(grpc.RpcError):  # somebody was ahead
            self._caller.unary("KV/Compact", rpc_pb2.CompactionRequest(revision=revision))
        return told + 1

    def consistent_list(self, within_s: float) -> Objects | None:
        """What the cache holds once it is as new as the store was when this was called, else None."""
        present = rpc_pb2.RangeRequest(key=PREFIX, range_end=END, limit=1)
        wanted = self._caller.unary("KV/Range", present).header.revision
        with self._moved:
            for _ in range(int(within_s / 0.1)):
                if self.revision >= wanted:
                    self.lists += 1
                    return self._compared(dict(self.objects), self.revision)
                self._requests.put(rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest()))
                self._moved.wait(0.1)
        return None

    def _compared(self, cached: Objects, revision: int) -> Objects:
        """The cache, after a look whether the store says the same of that revision."""
        try:
            stored, _ = self._listed(revision)
        except grpc.RpcError as error:  # away, or compacted meanwhile
            if _code(error) not in {*UNKNOWN_FATE, grpc.StatusCode.OUT_OF_RANGE}:
                raise
            return cached
        if stored != cached:
            differing = sorted(key for key in {*stored, *cached} if stored.get(key) != cached.get(key))
            pairs = [(key, stored.get(key), cached.get(key)) for key in differing[:3]]
            self.problem = f"at revision {revision} (key, store, cache) are {pairs}"
        return cached

    def _swap(self, key: bytes, held: int, change: rpc_pb2.RequestOp) -> rpc_pb2.TxnResponse | None:
        same = rpc_pb2.Compare(key=key, target=rpc_pb2.Compare.MOD, mod_revision=held)
        get = rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=key))
        txn = rpc_pb2.TxnRequest(compare=[same], success=[change], failure=[get])
        try:
            answer: rpc_pb2.TxnResponse = self._caller.unary("KV/Txn", txn, timeout_s=5.0)
        except grpc.RpcError as error:
            if _code(error) not in UNKNOWN_FATE:
                raise
            return None
        return answer

    def _listed(self, revision: int = 0) -> tuple[Objects, int]:
        """All objects page by page, of one revision."""
        found: Objects = {}
        start = PREFIX
        while True:
            request = rpc_pb2.RangeRequest(key=start, range_end=END, limit=PAGE, revision=revision)
            page = self._caller.unary("KV/Range", request)
            revision = revision or page.header.revision
            found.update({pair.key: (pair.mod_revision, pair.value) for pair in page.kvs})
            if not page.more:
                return found, revision
            start = page.kvs[-1].key + b"\0"

    def _follow(self) -> None:
        """List, then watch from there, for ever; a watch that breaks goes on, one that was compacted begins anew."""
        while not self._stopping.is_set():
            try:
                if not self.revision:
                    objects, revision = self._listed()
                    self.relists += 1
                    with self._moved:
                        self.objects, self.revision = objects, revision
                        self._moved.notify_all()
                self._watch()
            except grpc.RpcError:
                self._stopping.wait(0.05)

    def _watch(self) -> None:
        requests: queue.SimpleQueue[rpc_pb2.WatchRequest | None] = queue.SimpleQueue()
        self._requests = requests
        create = rpc_pb2.WatchCreateRequest(
            key=PREFIX, range_end=END, start_revision=self.revision + 1, prev_kv=True, progress_notify=True
        )
        requests.put(rpc_pb2.WatchRequest(create_request=create))
        self._call = self._caller.stream("Watch/Watch", _taken(requests))
        try:
            for response in self._call:
                with self._moved:
                    if response.canceled:
                        self.revision = 0
                        return
                    self._take(response)
                    self._moved.notify_all()
        finally:
            requests.put(None)

    def _take(self, response: rpc_pb2.WatchResponse) -> None:
        for event in response.events:
            revision, key = event.kv.mod_revision, event.kv.key
            if revision <= self.revision:
                self.problem = f"revision {revision} came when {self.revision} had been told"
            had = self.objects.get(key, (0, b""))[0]
            if event.HasField("prev_kv") and event.prev_kv.mod_revision != had:
                self.problem = f"before {revision} {key!r} was of {event.prev_kv.mod_revision}, the cache had {had}"
            if event.type == kv_pb2.Event.DELETE:
                self.objects.pop(key, None)
            else:
                self.objects[key] = (revision, event.kv.value)
        if response.events:
            self.revision = max(self.revision, response.events[-1].kv.mod_revision)
        elif not response.created:
            if response.header.revision < self.revision:
                self.problem = f"progress went back from {self.revision} to {response.header.revision}"
            self.revision = response.header.revision


def _code(error: grpc.RpcError) -> grpc.StatusCode:
    assert isinstance(error, grpc.Call)
    return error.code()


def _read(answer: rpc_pb2.TxnResponse) -> tuple[int, bytes]:
    """What the store has, as the other branch of a transaction read it."""
    kvs = answer.responses[0].response_range.kvs
    return (kvs[0].mod_revision, kvs[0].value) if kvs else (0, b"0")


def _taken(requests: queue.SimpleQueue[rpc_pb2.WatchRequest | None]) -> Iterator[rpc_pb2.WatchRequest]:
    while (request := requests.get()) is not None:
        yield request
