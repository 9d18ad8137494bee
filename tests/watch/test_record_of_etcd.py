"""Mistakes that etcd made with watchers that are behind, in a node in miniature; docs/testing.md has the whole list."""

from __future__ import annotations

from random import Random

import pytest

from quorate.proto import rpc_pb2
from quorate.watch import catch_up
from quorate.wire import errors
from quorate.wire.watching import HistoryRead
from tests.watch.world import Client, Store, World

SLICE_REVISIONS = 10
BEHIND = 500  # revisions


class Measured(Store):
    """A store that counts what it is asked to read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[HistoryRead] = []

    def read(self, read: HistoryRead, revision: int, previous_hidden: bool = False) -> bytes:
        self.reads.append(read)
        return super().read(read, revision, previous_hidden)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Where whoever lacks more than a slice is far behind."""
    monkeypatch.setattr(catch_up, "SLICE_REVISIONS_MAX", SLICE_REVISIONS)
    monkeypatch.setattr(catch_up, "NEAR_REVISIONS_MAX", SLICE_REVISIONS)
    made = World(Random(1))
    made.store = Measured()
    return made


def put(world: World, key: bytes, times: int = 1) -> None:
    for _ in range(times):
        world.store.txn([(key, b"%d" % world.store.revision)])


def revisions(client: Client, watch_id: int = 0) -> list[int]:
    return [event.kv.mod_revision for event in client.events(watch_id)]


def test_who_is_far_behind_is_read_for_slice_by_slice_and_each_slice_once(world: World) -> None:
    """etcd #22264: all that was missing was read again for every thousand revisions that were told."""
    assert isinstance(world.store, Measured)
    put(world, b"a", BEHIND)
    world.publish()
    client = world.client()
    client.create(b"a", start_revision=2)
    world.run()
    assert revisions(client) == list(range(2, BEHIND + 2))
    reads = world.store.reads
    assert {read.revisions_max for read in reads} == {SLICE_REVISIONS}
    firsts = [read.first_revision for read in reads]
    assert firsts == sorted(set(firsts))
    assert len(reads) <= BEHIND // SLICE_REVISIONS + 2


def test_who_is_far_behind_keeps_nobody_from_what_happens_now(world: World) -> None:
    """etcd #22264: while it caught up, nothing could be told and so nothing written."""
    put(world, b"a", BEHIND)
    world.run()
    synced, behind = world.client(), world.client()
    synced.create(b"now")
    world.run()
    behind.create(b"a", start_revision=2)
    told = 0
    while len(revisions(behind)) < BEHIND:
        put(world, b"now")
        world.publish()
        while world.to_hub_from_storage.deliver() or world.to_api.deliver():
            pass
        told += 1
        assert len(revisions(synced)) == told, "told at once, whatever is read meanwhile"
        for _ in range(10):
            world.step()
    assert told > 1
    assert len(set(revisions(behind))) == BEHIND


def test_watchers_that_share_a_slice_are_each_told_their_own(world: World) -> None:
    """etcd #21443: events were kept from one round of catching up for the next, which had to be taken back."""
    for number in range(BEHIND // 2):
        put(world, b"a")
        if number % 5 == 4:
            world.store.txn([(b"a", None)])
    last = world.store.revision
    world.publish()
    noput, nodelete = rpc_pb2.WatchCreateRequest.NOPUT, rpc_pb2.WatchCreateRequest.NODELETE
    forms: list[dict[str, object]] = [
        {},
        {"prev_kv": True},
        {"filters": [noput]},
        {"filters": [nodelete], "prev_kv": True},
        {"fragment": True, "prev_kv": True},
    ]
    clients = [world.client() for _ in range(3)]
    asked = [(client, form, start) for client in clients for form in forms for start in (2, 7, last - 30)]
    for client in clients:
        for number, (_, form, start) in enumerate(each for each in asked if each[0] is client):
            client.create(b"a", b"", start_revision=start, watch_id=number + 1, **form)
    clients[0].take(0)
    for _ in range(40):
        world.step()
    clients[1].cancel(1)
    clients[0].take(1 << 60)
    world.run()
    for client in clients:
        for number, (_, form, start) in enumerate(each for each in asked if each[0] is client):
            if client is clients[1] and number == 0:
                continue
            wanted = []
            for change in world.store.changes(start, last):
                if change.event.type in form.get("filters", ()):  # type: ignore[operator]
                    continue
                event = type(change.event)()
                event.CopyFrom(change.event)
                if "prev_kv" not in form:
                    event.ClearField("prev_kv")
                wanted.append(event)
            assert client.events(number + 1) == wanted


def test_a_watcher_from_a_negative_revision_is_refused_and_costs_the_others_nothing(world: World) -> None:
    """etcd #20707: with one from revision -1, those who caught up beside it were told nothing of what they lacked."""
    put(world, b"a", BEHIND)
    world.publish()
    client = world.client()
    client.create(b"a", start_revision=2, watch_id=1)
    client.create(b"a", b"\0", start_revision=-1, watch_id=2)
    client.create(b"a", start_revision=3, watch_id=3)
    world.run()
    assert revisions(client, 1) == list(range(2, BEHIND + 2))
    assert revisions(client, 3) == list(range(3, BEHIND + 2))
    (refused,) = client.of(-1)
    assert (refused.created, refused.canceled, refused.cancel_reason) == (True, True, errors.COMPACTED.text)
