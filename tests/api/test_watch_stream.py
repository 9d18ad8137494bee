"""The rules of the Watch stream, one by one (etcd 3.6)."""

from __future__ import annotations

import pytest

from quorate.api.v3rpc import watch_stream
from quorate.proto import kv_pb2, rpc_pb2
from tests.watch.world import Client, World

NOPUT = rpc_pb2.WatchCreateRequest.NOPUT
NODELETE = rpc_pb2.WatchCreateRequest.NODELETE


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def client(world: World) -> Client:
    client = world.client()
    world.run()
    return client


def put(world: World, *keys: bytes) -> None:
    world.store.txn([(key, b"v") for key in keys])
    world.run()


def fields(response: rpc_pb2.WatchResponse) -> dict[str, object]:
    return {descriptor.name: value for descriptor, value in response.ListFields() if descriptor.name != "header"}


def test_ids_are_counted_from_zero_and_skip_those_in_use(world: World, client: Client) -> None:
    client.create(b"a")
    client.create(b"b", watch_id=1)
    client.create(b"c")
    client.cancel(0)
    client.create(b"d")
    world.run()
    created = [response.watch_id for response in client.responses if response.created]
    assert created == [0, 1, 2, 3]


def test_storage_is_asked_about_a_few_requests_at_a_time_and_all_have_their_turn(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_stream, "ASKED_MAX", 3)
    for _ in range(10):
        client.create(b"a")
    client.cancel(4)
    client.progress()
    client.create(b"b")
    assert len(world.answers.waiting) == 3
    gone = world.client()
    for _ in range(10):
        gone.create(b"a")
    gone.stream.close()
    world.run()
    told = [(response.watch_id, response.created, response.canceled) for response in client.responses[:12]]
    assert told == [*((number, True, False) for number in range(10)), (4, False, True), (10, True, False)]
    assert world.watches.places == 10
    put(world, b"a")
    assert len([response for response in client.responses if response.events]) == 9


def test_the_answer_carries_the_revision_that_was_current(world: World, client: Client) -> None:
    put(world, b"a")
    client.create(b"a")
    world.run()
    assert client.responses[0].header == rpc_pb2.ResponseHeader(cluster_id=1, member_id=2, revision=2, raft_term=3)
    assert fields(client.responses[0]) == {"created": True}


def test_an_id_in_use_is_refused_and_the_stream_goes_on(world: World, client: Client) -> None:
    client.create(b"a", watch_id=7)
    client.create(b"b", watch_id=7)
    world.run()
    put(world, b"a", b"b")
    assert fields(client.responses[1]) == {
        "watch_id": -1,
        "created": True,
        "canceled": True,
        "cancel_reason": "mvcc: duplicate watch ID provided on the WatchStream",
    }
    assert [event.kv.key for event in client.events(7)] == [b"a"]


@pytest.mark.parametrize(
    ("key", "range_end", "start_revision", "reason"),
    [
        (b"b", b"a", 0, "mvcc: watcher range is empty"),
        (b"a", b"a", 0, "mvcc: watcher range is empty"),
        (b"a", b"", -1, "etcdserver: mvcc: required revision has been compacted"),
    ],
)
def test_a_watcher_that_can_not_be_is_refused(
    world: World, client: Client, key: bytes, range_end: bytes, start_revision: int, reason: str
) -> None:
    client.create(key, range_end, start_revision=start_revision)
    world.run()
    assert fields(client.responses[0]) == {
        "watch_id": -1,
        "created": True,
        "canceled": True,
        "cancel_reason": reason,
    }


def test_who_may_not_read_is_told_so_in_words(world: World) -> None:
    reason = "rpc error: code = PermissionDenied desc = etcdserver: permission denied"

    def refuse(_key: bytes, _range_end: bytes, answered: watch_stream.Answered) -> None:
        answered(reason, b"")

    client = world.client()
    client.stream._ask = refuse
    client.create(b"a")
    assert client.responses[0].cancel_reason == reason
    assert client.responses[0].watch_id == -1


def test_no_key_is_the_first_key(world: World, client: Client) -> None:
    client.create(b"", b"\0")
    world.run()
    put(world, b"anything")
    assert [event.kv.key for event in client.events(0)] == [b"anything"]


def test_a_cancel_is_answered_and_an_unknown_one_is_not(world: World, client: Client) -> None:
    client.create(b"a")
    client.cancel(5)
    client.cancel(0)
    world.run()
    put(world, b"a")
    assert [fields(response) for response in client.responses] == [{"created": True}, {"canceled": True}]


def test_filters_drop_puts_or_deletes(world: World, client: Client) -> None:
    client.create(b"a", filters=[NOPUT])
    client.create(b"a", filters=[NODELETE])
    client.create(b"a", filters=[NOPUT, NODELETE])
    world.run()
    put(world, b"a")
    world.store.txn([(b"a", None)])
    world.run()
    kinds = [[event.type for event in client.events(watch_id)] for watch_id in range(3)]
    assert kinds == [[kv_pb2.Event.DELETE], [kv_pb2.Event.PUT], []]


def test_a_watcher_of_the_future_hears_nothing_before(world: World, client: Client) -> None:
    client.create(b"a", start_revision=4, progress_notify=True)
    world.run()
    for _ in range(2):
        put(world, b"a")
        client.progress()
        client.stream.tick()
        world.run()
    assert len(client.responses) == 1
    put(world, b"a")
    assert [event.kv.mod_revision for event in client.events(0)] == [4]


def test_history_that_is_gone_is_said_in_a_message_of_its_own(world: World, client: Client) -> None:
    for _ in range(5):
        put(world, b"a")
    world.store.compact(4)
    client.create(b"a", start_revision=3)
    client.create(b"a", start_revision=4)
    world.run()
    gone = client.of(0)
    assert [fields(response) for response in gone] == [{"created": True}, {"canceled": True, "compact_revision": 4}]
    assert gone[1].header.revision == 0
    assert [event.kv.mod_revision for event in client.events(1)] == [4, 5, 6]


def test_watchers_of_one_key_share_a_group_and_each_hears_all(world: World, client: Client) -> None:
    for _ in range(300):
        client.create(b"a")
    world.run()
    put(world, b"a")
    put(world, b"a")
    assert len(world.worker.groups) == 1
    assert all(len(client.events(watch_id)) == 2 for watch_id in range(300))
    for watch_id in range(0, 300, 2):
        client.cancel(watch_id)
    world.run()
    put(world, b"a")
    assert [len(client.events(watch_id)) for watch_id in range(300)] == [2, 3] * 150


def test_manual_progress_waits_for_all_watchers_of_the_stream(world: World, client: Client) -> None:
    client.progress()
    world.run()
    assert client.responses == []
    client.create(b"a")
    world.run()
    client.progress()
    world.run()
    put(world, b"b")
    client.progress()
    world.run()
    assert [(response.watch_id, response.header.revision) for response in client.responses[1:]] == [(-1, 1), (-1, 2)]
    client.create(b"a", start_revision=9)
    client.progress()
    world.run()
    assert len(client.responses) == 4


def test_a_watcher_lost_to_compaction_keeps_progress_back_until_it_is_cancelled(world: World, client: Client) -> None:
    for _ in range(5):
        put(world, b"a")
    world.store.compact(5)
    client.create(b"a")
    client.create(b"a", start_revision=2)
    world.run()
    client.progress()
    world.run()
    assert client.responses[-1].canceled
    client.cancel(1)
    client.progress()
    world.run()
    assert client.responses[-1].watch_id == -1


def test_progress_is_told_to_those_who_asked_and_heard_nothing(world: World, client: Client) -> None:
    client.create(b"a", progress_notify=True)
    client.create(b"b", progress_notify=True)
    client.create(b"c")
    world.run()
    put(world, b"a")
    client.stream.tick()
    world.run()
    assert [response.watch_id for response in client.responses[4:]] == [1]
    client.stream.tick()
    world.run()
    assert [response.watch_id for response in client.responses[5:]] == [0, 1]


def test_a_large_response_is_cut_between_its_events_for_who_asked(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.stream._response_bytes_max = 70
    client.create(b"a", b"b", fragment=True)
    client.create(b"a", b"b")
    world.run()
    put(world, *[b"a%d" % number for number in range(9)])
    parts = client.of(0)[1:]
    assert [response.fragment for response in parts] == [True] * (len(parts) - 1) + [False]
    assert len(parts) > 2
    assert all(response.ByteSize() <= 74 for response in parts)
    assert [event.kv.key for response in parts for event in response.events] == [b"a%d" % n for n in range(9)]
    assert [len(response.events) for response in client.of(1)] == [0, 9]


def test_a_client_that_takes_nothing_is_held_and_misses_nothing(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_stream, "QUEUE_BYTES_MAX", 2000)
    other = world.client()
    for one in (client, other):
        for _ in range(3):
            one.create(b"a")
    world.run()
    client.take(0)
    for _ in range(50):
        put(world, b"a")
    assert client.stream.is_held
    assert len(client.stream._queue) < 20
    assert [len(other.events(watch_id)) for watch_id in range(3)] == [50, 50, 50]
    client.take(1 << 60)
    world.run()
    assert not client.stream.is_held
    assert [len(client.events(watch_id)) for watch_id in range(3)] == [50, 50, 50]


def test_requests_that_are_none_of_the_three_are_ignored(world: World, client: Client) -> None:
    client.stream.receive(b"")
    world.run()
    assert client.responses == []


def test_a_stream_that_ends_leaves_nothing_behind(world: World, client: Client) -> None:
    for number in range(5):
        client.create(b"a%d" % (number // 2), progress_notify=True)
    world.run()
    client.stream.tick()
    client.stream.close()
    world.run()
    assert not world.worker.groups
    assert not world.worker.streams
    assert not world.watches._interests
