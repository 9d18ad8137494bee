"""The watch process over real sockets, with a storage and an api worker that do what the real ones promise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from quorate.api.watches import Census, Interest, Response, Watches
from quorate.node import logs
from quorate.node.clock import SystemClock
from quorate.proto import rpc_pb2
from quorate.watch.service import Service
from quorate.wire.messages import EVENTS, Kind, Part
from quorate.wire.sockets import Address, Channel, Endpoint
from quorate.wire.watching import STORAGE_TO_WATCH_HELLO, WATCH_NEEDS, unpack_history_read
from tests.watch.world import Store, header

DEADLINE_SECONDS = 10.0


class Waiter:
    """An owner of interests that remembers what it is told."""

    def __init__(self) -> None:
        self.stream = 0
        self.is_held = False
        self.keys: list[tuple[bytes, int]] = []
        self.synced = 0

    def told_events(self, interest: Interest, response: Response) -> None:
        for event in rpc_pb2.WatchResponse.FromString(response.events).events:
            self.keys.append((event.kv.key, event.kv.mod_revision))

    def told_synced(self, interest: Interest, revision: int, peer: Interest | None) -> None:
        self.synced += 1

    def told_behind(self, interest: Interest) -> None:
        pass

    def told_joined(self, interest: Interest, into: Interest, is_joined: bool) -> None:
        raise AssertionError("nobody asked")

    def told_compacted(self, interest: Interest, compact_revision: int) -> None:
        self.keys.append((b"compacted", compact_revision))

    def told_progress(self, revision: int, by_client: bool) -> None:
        pass

    def census(self) -> Census:
        return Census()


class Neighbours:
    """The watch process and what is around it, all driven by `until`."""

    def __init__(self, run_directory: Path) -> None:
        self.run_directory = run_directory
        self.store = Store()
        self.published = 1
        self.previous = False
        self.watches = Watches(header)
        self.figures = b""
        self.start_storage()
        self.api = Endpoint(run_directory, Address(Part.API, 0))
        self.api.when_opened(self._api_met)
        self.api.connect(Address(Part.WATCH))
        self.start_watch()

    def start_watch(self) -> None:
        self.watch_endpoint = Endpoint(self.run_directory, Address(Part.WATCH))
        settings = SimpleNamespace(api_workers=1)
        self.service = Service(self.watch_endpoint, settings, SystemClock(), logs.named("watch"))

    def restart_watch(self) -> None:
        self.watch_endpoint.close()
        self.start_watch()

    def start_storage(self) -> None:
        self.storage = Endpoint(self.run_directory, Address(Part.STORAGE))
        self.storage.when_opened(self._storage_met)
        self.to_watch = self.storage.connect(
            Address(Part.WATCH), lambda: STORAGE_TO_WATCH_HELLO.pack(self.store.revision)
        )

    def put(self, key: bytes, value: bytes = b"v") -> None:
        self.store.txn([(key, value)])
        if self.to_watch.opened:
            self.to_watch.send(Kind.EVENTS, self.store.events(self.published, self.store.revision, self.previous))
        self.published = self.store.revision

    def watch(self, waiter: Waiter, key: bytes, range_end: bytes = b"", first: int | None = None) -> None:
        self.watches.open(Interest(waiter, key, range_end, 0, self.store.revision + 1 if first is None else first))

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "it never came true"
            self.api.flush()
            self.storage.flush()
            self.service.turn(1)
            for _, messages in self.api.receive():
                for kind, body in messages:
                    if kind == Kind.STATS:
                        self.figures = body
                    else:
                        self.watches.deliver(body)
            for channel, messages in self.storage.receive():
                for kind, body in messages:
                    self._storage_hears(channel, kind, body)

    def close(self) -> None:
        for endpoint in (self.api, self.storage, self.watch_endpoint):
            endpoint.close()

    def _api_met(self, channel: Channel, _hello: bytes) -> None:
        self.watches.opened(partial(channel.send, Kind.WATCH))

    def _storage_met(self, _channel: Channel, _hello: bytes) -> None:
        self.previous = False
        self.published = self.store.revision

    def _storage_hears(self, channel: Channel, kind: int, body: bytes) -> None:
        if kind == Kind.HISTORY_READ:
            channel.send(Kind.HISTORY, self.store.read(unpack_history_read(body), self.store.revision))
        elif kind == Kind.WATCH_IDLE:
            channel.send(Kind.EVENTS, EVENTS.pack(self.store.revision, self.store.revision, 0))
            channel.send(Kind.WATCH_IDLE, body)
        elif kind == Kind.WATCH_NEEDS:
            self.previous = bool(WATCH_NEEDS.unpack(body)[0])
            channel.send(Kind.WATCH_NEEDS, WATCH_NEEDS.pack(self.previous, self.store.revision))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Neighbours]:
    neighbours = Neighbours(tmp_path)
    try:
        yield neighbours
    finally:
        neighbours.close()


def test_history_and_what_follows_arrive_once_and_in_order(node: Neighbours) -> None:
    for number in range(5):
        node.put(b"k%d" % number)
    waiter = Waiter()
    node.watches.enter(waiter)
    node.watch(waiter, b"k", b"l", first=3)
    node.until(lambda: waiter.synced == 1)
    node.put(b"k9")
    node.until(lambda: len(waiter.keys) == 5)
    assert waiter.keys == [(b"k1", 3), (b"k2", 4), (b"k3", 5), (b"k4", 6), (b"k9", 7)]


def test_a_restart_of_watch_is_nothing_but_a_pause(node: Neighbours) -> None:
    waiter = Waiter()
    node.watches.enter(waiter)
    node.watch(waiter, b"a")
    node.until(lambda: waiter.synced == 1)
    node.put(b"a")
    node.until(lambda: len(waiter.keys) == 1)
    node.restart_watch()
    node.put(b"a")
    node.until(lambda: waiter.synced == 2)
    node.put(b"a")
    node.until(lambda: len(waiter.keys) == 3)
    assert waiter.keys == [(b"a", 2), (b"a", 3), (b"a", 4)]


def test_what_a_restarting_storage_never_published_is_read_from_history(node: Neighbours) -> None:
    waiter = Waiter()
    node.watches.enter(waiter)
    node.watch(waiter, b"a")
    node.until(lambda: waiter.synced == 1)
    node.storage.close()
    node.store.txn([(b"a", b"unseen")])
    node.start_storage()
    node.until(lambda: len(waiter.keys) == 1)
    node.put(b"a")
    node.until(lambda: len(waiter.keys) == 2)
    assert waiter.keys == [(b"a", 2), (b"a", 3)]


def test_an_interest_whose_revisions_were_compacted_while_watch_was_away_is_told(node: Neighbours) -> None:
    waiter = Waiter()
    node.watches.enter(waiter)
    node.watch(waiter, b"a")
    node.until(lambda: waiter.synced == 1)
    node.watch_endpoint.close()
    for _ in range(5):
        node.put(b"a")
    node.store.compact(5)
    node.start_watch()
    node.until(lambda: bool(waiter.keys))
    assert waiter.keys == [(b"compacted", 5)]


def test_the_figures_count_groups_and_streams(node: Neighbours) -> None:
    waiter = Waiter()
    node.watches.enter(waiter)
    node.watch(waiter, b"a")
    node.until(lambda: waiter.synced == 1)
    node.put(b"a")
    node.until(lambda: len(waiter.keys) == 1)
    node.api.channels[Address(Part.WATCH)].send(Kind.STATS_READ, bytes(8))
    node.until(lambda: bool(node.figures))
    assert b"\nquorate_watch_groups 1\n" in node.figures
    assert b"\netcd_debugging_mvcc_watch_stream_total 1\n" in node.figures
