"""Clients that watch from threads, go on where they were when a stream breaks, and remember all they saw."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import grpc

from quorate.proto import kv_pb2, rpc_pb2
from tests.support.rpc import Caller

Seen = tuple[int, bytes, bytes]  # revision, key, value


class Watching:
    """One stream with several watchers, over as many calls as it takes."""

    def __init__(self, endpoint: str, ranges: list[tuple[bytes, bytes]], start_revision: int, **options: bool) -> None:
        self.ranges = ranges
        self.seen: list[list[Seen]] = [[] for _ in ranges]
        self.created = 0
        self.calls = 0
        self.compacted: dict[int, int] = {}
        self.problem = ""
        self._next = [start_revision for _ in ranges]
        self._options = options
        self._caller = Caller(endpoint)
        self._requests: queue.SimpleQueue[rpc_pb2.WatchRequest | None] = queue.SimpleQueue()
        self._call: grpc.Call | None = None
        self._stopping = threading.Event()
        self.may_read = threading.Event()
        self.may_read.set()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self.may_read.set()
        if self._call is not None:
            self._call.cancel()
        self._thread.join()
        self._caller.channel.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._requests = queue.SimpleQueue()
            for number, (key, range_end) in enumerate(self.ranges):
                if number in self.compacted:
                    continue
                create = rpc_pb2.WatchCreateRequest(
                    key=key,
                    range_end=range_end,
                    start_revision=self._next[number],
                    watch_id=number + 1,
                    **self._options,  # type: ignore[arg-type]
                )
                self._requests.put(rpc_pb2.WatchRequest(create_request=create))
            self.created = 0
            self.calls += 1
            self._call = self._caller.stream("Watch/Watch", _taken(self._requests))
            try:
                for response in self._call:
                    self.may_read.wait()
                    self._take(response)
            except grpc.RpcError:
                self._stopping.wait(0.05)
            finally:
                self._requests.put(None)

    def _take(self, response: rpc_pb2.WatchResponse) -> None:
        number = response.watch_id - 1
        if response.created:
            self.created += 1
        if response.canceled:
            self.compacted[number] = response.compact_revision
            if not response.compact_revision:
                self.problem = response.cancel_reason
        for event in response.events:
            if event.kv.mod_revision < self._next[number]:
                self.problem = f"revision {event.kv.mod_revision} came again"
            value = b"" if event.type == kv_pb2.Event.DELETE else event.kv.value
            self.seen[number].append((event.kv.mod_revision, event.kv.key, value))
        if response.events:
            self._next[number] = response.events[-1].kv.mod_revision + 1


def _taken(requests: queue.SimpleQueue[rpc_pb2.WatchRequest | None]) -> Iterator[rpc_pb2.WatchRequest]:
    while (request := requests.get()) is not None:
        yield request


def history(caller: Caller, first_revision: int, last_revision: int) -> list[Seen]:
    """Everything that happened, as a new watcher of all keys reads it."""
    create = rpc_pb2.WatchCreateRequest(key=b"\0", range_end=b"\0", start_revision=first_revision)
    requests: queue.SimpleQueue[rpc_pb2.WatchRequest | None] = queue.SimpleQueue()
    requests.put(rpc_pb2.WatchRequest(create_request=create))
    call = caller.stream("Watch/Watch", _taken(requests), timeout_s=60.0)
    seen: list[Seen] = []
    try:
        for response in call:
            assert not response.canceled, response
            for event in response.events:
                value = b"" if event.type == kv_pb2.Event.DELETE else event.kv.value
                seen.append((event.kv.mod_revision, event.kv.key, value))
            if seen and seen[-1][0] >= last_revision:
                return seen
    finally:
        requests.put(None)
        call.cancel()
    raise AssertionError("history ended early")


def within(key: bytes, range_end: bytes, wanted: bytes) -> bool:
    return wanted == key if not range_end else key <= wanted and (range_end == b"\0" or wanted < range_end)
