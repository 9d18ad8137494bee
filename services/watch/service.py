"""The loop of the watch process: receive, sort out, ask for history, flush. All it knows is in the hub."""

from __future__ import annotations

from functools import partial
from typing import Final, Protocol

from quorate.node.clock import Clock
from quorate.node.logs import Log
from quorate.watch.asking import heed
from quorate.watch.broadcaster import Hub
from quorate.watch.groups import Worker
from quorate.wire.messages import Kind, Part
from quorate.wire.sockets import Address, Channel, Endpoint, Message
from quorate.wire.watching import STORAGE_TO_WATCH_HELLO, WATCH_NEEDS, HistoryRead, pack_history_read

TICK_SECONDS: Final = 0.25
RETRY_MS: Final = 1  # a neighbour took no more; look again soon
DELIVER_BACKLOG_BYTES_MAX: Final = 8 * 1024 * 1024  # above it the groups of a worker fall back to history


class Settings(Protocol):
    """What watch reads of the node's configuration."""

    @property
    def api_workers(self) -> int: ...


class Service:
    """Watch on the node's ring, over an endpoint that the caller opens and closes."""

    def __init__(self, endpoint: Endpoint, settings: Settings, clock: Clock, log: Log) -> None:
        self.hub = Hub(self._ask, self._need)
        self.is_stopping = False
        self._endpoint = endpoint
        self._clock = clock
        self._log = log
        self._workers: dict[Channel, Worker] = {}
        self._told_idle: bool | None = None  # what storage was told; None: nothing
        self._ticked_at = clock.monotonic()
        endpoint.accept(lambda address: bytes if address.part is Part.API else None)
        endpoint.when_opened(self._meet)
        self._storage = endpoint.connect(Address(Part.STORAGE))
        endpoint.connect(Address(Part.CONSENSUS))
        for number in range(settings.api_workers):  # they introduce themselves, but not again after our restart
            endpoint.connect(Address(Part.API, number))

    def run(self) -> None:
        """Serve until `stop`."""
        while not self.is_stopping:
            self.turn(int(TICK_SECONDS * 1000))

    def stop(self) -> None:
        """Have `run` return after this turn; may be called from a signal handler."""
        self.is_stopping = True

    def turn(self, wait_ms: int) -> None:
        """One turn: everything that has arrived; waits when there is nothing."""
        batches = self._endpoint.receive()
        for channel, messages in batches:
            self._hear(channel, messages)
        for channel, worker in self._workers.items():
            if worker.is_full != channel.full:
                self.hub.set_full(worker, channel.full)
        now = self._clock.monotonic()
        if now - self._ticked_at >= TICK_SECONDS:
            self._ticked_at = now
            self.hub.tick()
            if self._told_idle is not True and self.hub.is_idle:
                self._tell_idle(True)
        if self._told_idle is not False and not self.hub.is_idle:
            self._tell_idle(False)
        self.hub.turn()
        flushed = self._endpoint.flush()
        if not batches:
            self._endpoint.wait(wait_ms if flushed else RETRY_MS)

    def _meet(self, channel: Channel, hello: bytes) -> None:
        self._log.debug("met a neighbour", neighbour=str(channel.peer))
        if channel is self._storage:
            (revision,) = STORAGE_TO_WATCH_HELLO.unpack(hello)
            self._told_idle = None
            self.hub.storage_opened(revision)
        elif channel.peer.part is Part.API:
            before = self._workers.pop(channel, None)
            if before is not None:
                self.hub.drop_worker(before)
            channel.backlog_bytes_max = DELIVER_BACKLOG_BYTES_MAX
            self._workers[channel] = self.hub.add_worker(partial(channel.send, Kind.DELIVER))

    def _hear(self, channel: Channel, messages: list[Message]) -> None:
        hub = self.hub
        for kind, body in messages:
            match kind:
                case Kind.EVENTS:
                    hub.publish(body)
                case Kind.WATCH:
                    heed(hub, self._workers[channel], body)
                case Kind.HISTORY:
                    hub.answer(body)
                case Kind.WATCH_IDLE:
                    self.hub.is_behind = self.hub.is_behind and body == b"\1"  # an answer to an older word
                case Kind.WATCH_NEEDS:
                    hub.needs_confirmed(body)
                case Kind.ROLE:
                    pass  # who leads makes no difference here
                case Kind.STATS_READ:
                    channel.send(Kind.STATS, body, self._figures().encode())
                case _:
                    raise AssertionError(f"{channel.peer} sent a message of kind {kind}")

    def _ask(self, read: HistoryRead) -> None:
        self._storage.send(Kind.HISTORY_READ, pack_history_read(read))

    def _need(self, previous: bool) -> None:
        self._storage.send(Kind.WATCH_NEEDS, WATCH_NEEDS.pack(previous, 0))

    def _tell_idle(self, is_idle: bool) -> None:
        """Storage publishes for those who wait; a node without watchers does not wake this process for each write."""
        self._told_idle = is_idle
        self.hub.is_behind = not is_idle
        self._storage.send(Kind.WATCH_IDLE, b"\1" if is_idle else b"\0")

    def _figures(self) -> str:
        """What this process counts, as Prometheus' text; watchers are the workers' to count."""
        groups = sum(len(worker.groups) for worker in self._workers.values())
        streams = sum(len(worker.streams) for worker in self._workers.values())
        return (
            "# TYPE etcd_debugging_mvcc_watch_stream_total gauge\n"
            f"etcd_debugging_mvcc_watch_stream_total {streams}\n"
            "# TYPE quorate_watch_groups gauge\n"
            f"quorate_watch_groups {groups}\n"
        )
