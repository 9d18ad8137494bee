"""Fans: groups come and go one by one, and a stream finds its own among thousands."""

from __future__ import annotations

from random import Random

import pytest

from quorate.watch.groups import Fan, Group, Stream, Worker
from quorate.wire.watching import HANDLE_BYTES


def fan_of(worker: Worker) -> Fan:
    return Fan(worker, b"k", b"", 0)


@pytest.mark.parametrize("seed", range(20))
def test_a_fan_holds_what_a_list_would(seed: int) -> None:
    random = Random(seed)
    worker = Worker(lambda *_: None)
    fan = fan_of(worker)
    twin: list[Group] = []
    for handle in range(1, 200):
        if twin and random.random() < 0.45:
            leaving = tuple(random.sample(twin, random.randint(1, min(3, len(twin)))))
            fan.remove(leaving)
            twin = [group for group in twin if group not in leaving]
        else:
            group = Group(handle, worker.stream(random.randrange(8)), fan_of(worker), 1)
            peer = fan.of_stream(group.stream)
            assert peer is None or (peer in twin and peer.stream is group.stream)
            fan.add(group)
            twin.append(group)
            assert group.fan is fan
        assert twin == list(fan.groups)
        assert (not twin) is fan.is_empty
        assert b"".join(group.handle.to_bytes(HANDLE_BYTES, "little") for group in twin) == fan.handles


def test_a_stream_finds_its_group_whoever_else_waits_for_the_same() -> None:
    worker = Worker(lambda *_: None)
    fan = fan_of(worker)
    groups = [Group(number, Stream(number), fan_of(worker), 1) for number in range(1, 50)]
    for group in groups:
        assert fan.of_stream(group.stream) is None
        fan.add(group)
        assert fan.of_stream(group.stream) is group
    fan.remove((groups[0],))
    assert fan.of_stream(groups[0].stream) is None
    assert all(fan.of_stream(group.stream) is group for group in groups[1:])
