"""A node in miniature for watch tests: a store that remembers everything, the hub, an api worker and its clients.

Every neighbour is reached over a link that delivers in order but at its own pace, so that any interleaving of a real
node can happen here; a world is a function of its random numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from struct import unpack_from

from quorate.api.v3rpc.watch_stream import Answered, Stream
from quorate.api.watches import Watches
from quorate.proto import kv_pb2, rpc_pb2
from quorate.watch.asking import heed
from quorate.watch.broadcaster import Hub
from quorate.watch.groups import Worker
from quorate.wire.messages import EVENTS, pack_event, record_id
from quorate.wire.watching import (
    WATCH_NEEDS,
    HistoryRead,
    pack_history,
    pack_history_compacted,
)

REQUEST_BYTES_MAX = 1_572_864


@dataclass
class Recorded:
    """One change of the store."""

    revision: int
    sub: int
    event: kv_pb2.Event  # with prev_kv where there was one


def within(key: bytes, range_end: bytes, wanted: bytes) -> bool:
    if not range_end:
        return wanted == key
    return key <= wanted and (range_end == b"\0" or wanted < range_end)


class Store:
    """Storage: a history that is never forgotten, so that tests can compare with it, behind a compact revision."""

    def __init__(self) -> None:
        self.revision = 1
        self.compact_revision = -1
        self.history: list[Recorded] = []
        self._live: dict[bytes, kv_pb2.KeyValue] = {}

    def txn(self, operations: list[tuple[bytes, bytes | None]]) -> None:
        """Put or (value None) delete; deletes of absent keys do nothing."""
        done: list[Recorded] = []
        for key, value in operations:
            before = self._live.get(key)
            if value is None and before is None:
                continue
            revision = self.revision + 1
            event = kv_pb2.Event()
            if before is not None and before.mod_revision < revision:
                event.prev_kv.CopyFrom(before)
            if value is None:
                event.type = kv_pb2.Event.DELETE
                event.kv.CopyFrom(kv_pb2.KeyValue(key=key, mod_revision=revision))
                del self._live[key]
            else:
                assert before is None or before.mod_revision < revision, "a key is put once in a transaction"
                event.kv.CopyFrom(
                    kv_pb2.KeyValue(
                        key=key,
                        value=value,
                        create_revision=before.create_revision if before else revision,
                        mod_revision=revision,
                        version=before.version + 1 if before else 1,
                    )
                )
                self._live[key] = event.kv
            done.append(Recorded(revision, len(done), event))
        if done:
            self.revision += 1
            self.history += done

    def compact(self, revision: int) -> None:
        self.compact_revision = max(self.compact_revision, revision)

    def changes(self, first: int, last: int) -> list[Recorded]:
        return [change for change in self.history if first <= change.revision <= last]

    def packed(self, change: Recorded, previous: bool) -> bytes:
        event = change.event
        key_value = event.kv.SerializeToString()
        record = record_id(change.revision, change.sub, event.type == kv_pb2.Event.DELETE)
        before = event.prev_kv.SerializeToString() if previous and event.HasField("prev_kv") else b""
        return pack_event(record, key_value, 2, len(event.kv.key), before)

    def events(self, before: int, after: int, previous: bool) -> bytes:
        changes = self.changes(before + 1, after)
        return EVENTS.pack(before, after, len(changes)) + b"".join(self.packed(one, previous) for one in changes)

    def read(self, read: HistoryRead, revision: int, previous_hidden: bool = False) -> bytes:
        """The answer of a store that has applied up to `revision`."""
        if read.first_revision < self.compact_revision:
            return pack_history_compacted(read.request_id, self.compact_revision)
        last = min(read.last_revision, revision)
        complete = read.first_revision - 1
        events: list[bytes] = []
        while complete < last and len(events) < read.revisions_max:
            complete += 1
            events += [
                self.packed(change, read.with_previous and not previous_hidden)
                for change in self.changes(complete, complete)
                if within(read.key, read.range_end, change.event.kv.key)
            ]
        return pack_history(read.request_id, complete, events)


class Link:
    """Messages on their way to one process, in order."""

    def __init__(self) -> None:
        self.waiting: deque[Callable[[], None]] = deque()

    def send(self, step: Callable[[], None]) -> None:
        self.waiting.append(step)

    def deliver(self) -> bool:
        if not self.waiting:
            return False
        self.waiting.popleft()()
        return True

    def cut(self) -> None:
        self.waiting.clear()


@dataclass
class Client:
    """Somebody who watches: what was asked for and what came."""

    world: World
    responses: list[rpc_pb2.WatchResponse] = field(default_factory=list)
    room: int = 1 << 60  # bytes it takes before it blocks

    def __post_init__(self) -> None:
        self.stream = Stream(self.world.watches, self.world.ask, self, REQUEST_BYTES_MAX)

    def write(self, messages: bytes) -> bool:
        for message in split(messages):
            self.responses.append(rpc_pb2.WatchResponse.FromString(message))
        self.room -= len(messages)
        return self.room > 0

    def take(self, room: int) -> None:
        self.room = room
        if room > 0 and self.stream.is_blocked:
            self.stream.writable()

    def create(self, key: bytes, range_end: bytes = b"", **options: object) -> None:
        request = rpc_pb2.WatchRequest()
        request.create_request.key = key
        request.create_request.range_end = range_end
        for name, value in options.items():
            if name == "filters":
                request.create_request.filters.extend(value)  # type: ignore[arg-type]
            else:
                setattr(request.create_request, name, value)
        self.stream.receive(request.SerializeToString())

    def cancel(self, watch_id: int) -> None:
        self.stream.receive(
            rpc_pb2.WatchRequest(cancel_request=rpc_pb2.WatchCancelRequest(watch_id=watch_id)).SerializeToString()
        )

    def progress(self) -> None:
        self.stream.receive(rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest()).SerializeToString())

    def of(self, watch_id: int) -> list[rpc_pb2.WatchResponse]:
        return [response for response in self.responses if response.watch_id == watch_id]

    def events(self, watch_id: int) -> list[kv_pb2.Event]:
        return [event for response in self.of(watch_id) for event in response.events]


def split(messages: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(messages):
        compressed, length = unpack_from(">BI", messages, at)
        assert not compressed
        yield messages[at + 5 : at + 5 + length]
        at += 5 + length


def header(revision: int) -> bytes:
    return rpc_pb2.WatchResponse(
        header=rpc_pb2.ResponseHeader(cluster_id=1, member_id=2, revision=revision, raft_term=3)
    ).SerializeToString()


class World:
    """Everything together. `run` delivers until nothing is on its way."""

    def __init__(self, random: Random | None = None) -> None:
        self.random = random or Random(0)
        self.store = Store()
        self.applied = 1  # what the store process has applied since it started
        self.published = 1
        self.previous_needed = False
        self.clients: list[Client] = []
        self.watches = Watches(header)
        self.to_hub_from_storage = Link()
        self.to_hub_from_api = Link()
        self.to_storage = Link()
        self.to_api = Link()
        self.answers = Link()
        self.links = [self.to_hub_from_storage, self.to_hub_from_api, self.to_storage, self.to_api, self.answers]
        self.hub: Hub
        self.worker: Worker
        self.start_hub()

    # --- processes -----------------------------------------------------------------------------------------

    def start_hub(self) -> None:
        """A new watch process; the one before was killed."""
        for link in (self.to_hub_from_storage, self.to_hub_from_api, self.to_storage, self.to_api):
            link.cut()
        hub = self.hub = Hub(self._ask_storage, self._need)
        worker = self.worker = hub.add_worker(self._tell_api)
        self.previous_needed = False

        def said(*parts: bytes) -> None:
            self.to_hub_from_api.send(lambda: heed(hub, worker, b"".join(parts)))

        self.watches.opened(said)
        self._greet_from_storage()

    def restart_storage(self, lost: int = 0) -> None:
        """Storage was killed; the last `lost` revisions that it applied are replayed."""
        self.to_hub_from_storage.cut()
        self.to_storage.cut()
        self.applied = max(1, self.applied - lost, self.store.compact_revision)
        self.published = self.applied
        self.previous_needed = False
        self._greet_from_storage()

    def install_image(self) -> None:
        """Storage continues from an image of the present; what lies between was never published."""
        self.applied = self.store.revision
        self.restart_storage()

    def _greet_from_storage(self) -> None:
        revision = self.published = self.applied
        self.to_hub_from_storage.send(lambda: self.hub.storage_opened(revision))

    def publish(self, revisions: int = 1 << 60) -> None:
        """Storage applies and publishes up to `revisions` more."""
        after = min(self.store.revision, self.published + revisions)
        if after > self.published:
            body = self.store.events(self.published, after, self.previous_needed)
            self.published = self.applied = after
            self.to_hub_from_storage.send(lambda: self.hub.publish(body))

    # --- links -----------------------------------------------------------------------------------------------

    def ask(self, _key: bytes, _range_end: bytes, answered: Answered) -> None:
        """A question of a client's stream to storage."""
        self.answers.send(lambda: answered("", header(self.applied)))

    def _ask_storage(self, read: HistoryRead) -> None:
        self.to_storage.send(lambda: self._answer(read))

    def _answer(self, read: HistoryRead) -> None:
        body = self.store.read(read, self.applied)
        self.to_hub_from_storage.send(lambda: self.hub.answer(body))

    def _need(self, previous: bool) -> None:
        def heard() -> None:
            self.previous_needed = previous
            body = WATCH_NEEDS.pack(previous, self.applied)
            self.to_hub_from_storage.send(lambda: self.hub.needs_confirmed(body))

        self.to_storage.send(heard)

    def _tell_api(self, *parts: bytes) -> None:
        body = b"".join(parts)
        self.to_api.send(lambda: self.watches.deliver(body))

    # --- time ------------------------------------------------------------------------------------------------

    def client(self) -> Client:
        client = Client(self)
        self.clients.append(client)
        return client

    def step(self) -> bool:
        """Deliver one message of any link; False if there was none."""
        links = [link for link in self.links if link.waiting]
        if links:
            self.random.choice(links).deliver()
        self.hub.turn()
        return bool(links)

    def run(self) -> None:
        self.publish()
        for _ in range(4):
            while self.step():
                pass
            self.hub.tick()
            self.publish()
