"""Random histories, watchers, slow clients, restarts and compactions: what everybody saw is compared with history."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest

from quorate.api.v3rpc import watch_stream
from quorate.proto import kv_pb2
from quorate.watch import broadcaster, catch_up, groups
from tests.watch.world import Client, World, within

KEYS = [b"a", b"aa", b"ab", b"b", b"ba", b"c", b"\xff"]
RANGES = [
    (b"a", b""),
    (b"aa", b""),
    (b"b", b""),
    (b"a", b"b"),
    (b"a", b"\0"),
    (b"\0", b"\0"),
    (b"aa", b"ba"),
    (b"b", b"c"),
]


@dataclass
class Watcher:
    """What was asked for."""

    client: Client
    watch_id: int
    key: bytes
    range_end: bytes
    start_revision: int
    filters: list[int]
    previous: bool
    cancelled: bool = False
    progress: list[int] = field(default_factory=list)


def expected(world: World, watcher: Watcher, first: int) -> list[kv_pb2.Event]:
    events = []
    for change in world.store.changes(first, world.store.revision):
        if within(watcher.key, watcher.range_end, change.event.kv.key) and change.event.type not in watcher.filters:
            event = kv_pb2.Event()
            event.CopyFrom(change.event)
            if not watcher.previous:
                event.ClearField("prev_kv")
            events.append(event)
    return events


def check(world: World, watcher: Watcher) -> None:
    """The nine properties: filter, ordered, unique, atomic, bookmarkable, resumable, reliable, prev_kv, is_create."""
    responses = watcher.client.of(watcher.watch_id)
    created = [response for response in responses if response.created]
    assert len(created) == 1
    assert responses[0].created, "the answer to create comes first"
    first = watcher.start_revision or created[0].header.revision + 1
    events = [event for response in responses for event in response.events]
    wanted = expected(world, watcher, first)
    ended = [response for response in responses if response.canceled]
    if ended:
        assert responses[-1].canceled, "nothing comes behind the end"
        assert len(ended) == 1 + (watcher.cancelled and bool(ended[0].compact_revision))
        assert events == wanted[: len(events)]
        if ended[0].compact_revision:
            assert ended[0].header.revision == 0
            missed = wanted[len(events) :]
            assert (
                first < ended[0].compact_revision
                or not missed
                or (missed[0].kv.mod_revision <= ended[0].compact_revision)
            )
        else:
            assert watcher.cancelled
    else:
        assert events == wanted
    told = 0
    for response in responses:
        for event in response.events:
            assert event.kv.mod_revision <= response.header.revision
        if response.events:
            assert response.events[0].kv.mod_revision > told, "a revision is never split, and progress is a promise"
            told = response.events[-1].kv.mod_revision
        elif not response.created and not response.canceled:
            assert response.header.revision >= told
            told = response.header.revision


def check_manual_progress(client: Client) -> None:
    """Behind a progress answer for the whole stream nobody hears of an earlier revision."""
    promised = 0
    started: set[int] = set()
    for response in client.responses:
        if response.created:
            started.add(response.watch_id)
        elif response.watch_id == -1:
            promised = max(promised, response.header.revision)
            watchers = set(started)
        elif response.events and promised and response.watch_id in watchers:
            assert response.events[0].kv.mod_revision > promised


def change_store(world: World, random: Random) -> None:
    keys = random.sample(KEYS, random.choice([1, 1, 1, 2, 4]))
    world.store.txn([(key, None if random.random() < 0.3 else b"%d" % world.store.revision) for key in keys])


def watch_something(world: World, random: Random) -> Watcher:
    client = random.choice(world.clients)
    key, range_end = random.choice(RANGES)
    revision = world.store.revision
    start = random.choice([0, 0, 0, revision, revision + 1, revision + 3, max(1, revision - random.randrange(40)), 1])
    filters = random.choice([[], [], [], [0], [1]])
    previous = random.random() < 0.3
    watch_id = 1000 + sum(1 for _ in client.responses) * 7 + random.randrange(1 << 20)
    client.create(
        key,
        range_end,
        start_revision=start,
        filters=filters,
        prev_kv=previous,
        watch_id=watch_id,
        progress_notify=random.random() < 0.3,
        fragment=random.random() < 0.2,
    )
    return Watcher(client, watch_id, key, range_end, start, filters, previous)


LIMITS = [
    (catch_up, "NEAR_REVISIONS_MAX", [3, 20]),
    (catch_up, "NEAR_GROUPS_MIN", [1, 3]),
    (catch_up, "SLICE_REVISIONS_MAX", [1, 3, 10]),
    (catch_up, "RECENT_BYTES_MAX", [200, 2000]),
    (broadcaster, "SLICE_REVISIONS_MAX", [1, 3, 10]),
    (broadcaster, "EARLY_BYTES_MAX", [100, 1000]),
    (groups, "RESPONSE_BYTES_MAX", [100, 1000]),
    (groups, "RESPONSE_REVISIONS_MAX", [1, 5]),
    (watch_stream, "QUEUE_BYTES_MAX", [200, 1000]),
    (watch_stream, "WRITE_BYTES_MAX", [100, 1000]),
]


@pytest.mark.parametrize("seed", range(400))
def test_every_watcher_sees_exactly_its_history(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random(seed)
    for module, limit, choices in LIMITS:
        if random.random() < 0.5:
            monkeypatch.setattr(module, limit, random.choice(choices))
    world = World(random)
    for _ in range(random.choice([1, 2, 5])):
        world.client()
    watchers: list[Watcher] = []
    restarts = random.choice([0, 0, 0.01, 0.03])
    compactions = random.choice([0, 0, 0.02])
    slowness = random.choice([0, 0.05])
    for _ in range(random.choice([60, 300])):
        chance = random.random()
        if chance < 0.3:
            change_store(world, random)
        elif chance < 0.4:
            watchers.append(watch_something(world, random))
        elif chance < 0.43 and watchers:
            watcher = random.choice(watchers)
            watcher.cancelled = True
            watcher.client.cancel(watcher.watch_id)
        elif chance < 0.46:
            random.choice(world.clients).progress()
        elif chance < 0.48:
            random.choice(world.clients).stream.tick()
        elif chance < 0.7:
            world.publish(random.choice([1, 3, 1000]))
        else:
            for _ in range(random.randrange(10)):
                world.step()
        if random.random() < slowness:
            random.choice(world.clients).take(random.choice([0, 50, 500, 1 << 60]))
        if random.random() < slowness:
            world.hub.set_full(world.worker, random.random() < 0.5)
        if random.random() < compactions:
            world.store.compact(max(1, world.applied - random.randrange(20)))
        if random.random() < restarts:
            match random.randrange(4):
                case 0:
                    world.start_hub()
                case 1:
                    world.restart_storage(random.randrange(5))
                case 2:
                    world.install_image()
                case 3:
                    world.hub.tick()
    world.hub.set_full(world.worker, is_full=False)
    for client in world.clients:
        client.take(1 << 60)
    world.run()
    world.run()
    for watcher in watchers:
        check(world, watcher)
    for client in world.clients:
        check_manual_progress(client)
