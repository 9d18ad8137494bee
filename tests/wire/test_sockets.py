"""Links between processes: batching, bounds, and meeting again after a restart of either side."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from quorate.wire.messages import Kind, Part
from quorate.wire.sockets import Address, Channel, Endpoint, Message, socket_path

API = Address(Part.API, 0)
STORAGE = Address(Part.STORAGE)


class Side:
    """One process of a pair, turned by hand."""

    def __init__(self, directory: Path, own: Address, peer: Address, hello: bytes) -> None:
        self.endpoint = Endpoint(directory, own)
        self.opened: list[bytes] = []
        self.received: list[Message] = []
        self.frames = 0
        self.endpoint.when_opened(self._when_opened)
        self.channel = self.endpoint.connect(peer, lambda: hello)

    def _when_opened(self, channel: Channel, hello: bytes) -> None:
        self.opened.append(hello)

    def turn(self) -> None:
        for _channel, messages in self.endpoint.receive():
            self.frames += 1
            self.received += messages
        self.endpoint.flush()


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[list[Side]]:
    made = [Side(tmp_path, API, STORAGE, b"api"), Side(tmp_path, STORAGE, API, b"storage")]
    yield made
    for side in made:
        side.endpoint.close()


def until(condition: object, *sides: Side) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        for side in sides:
            side.endpoint.wait(1)
            side.turn()


def test_both_sides_learn_the_hello_of_the_other(sides: list[Side]) -> None:
    api, storage = sides
    until(lambda: api.opened and storage.opened, api, storage)
    assert [b"storage"] == api.opened
    assert [b"api"] == storage.opened


def test_messages_of_one_turn_travel_in_one_frame_and_in_order(sides: list[Side]) -> None:
    api, storage = sides
    until(lambda: api.channel.opened and storage.channel.opened, api, storage)
    for number in range(100):
        api.channel.send(Kind.LOCAL, b"a", number.to_bytes(2, "big"))
    until(lambda: len(storage.received) == 100, api, storage)
    assert [(Kind.LOCAL, b"a" + n.to_bytes(2, "big")) for n in range(100)] == storage.received
    assert storage.frames == 1


def test_a_restarted_neighbour_is_met_again_and_hears_nothing_meant_for_its_predecessor(
    sides: list[Side], tmp_path: Path
) -> None:
    api, storage = sides
    until(lambda: api.channel.opened and storage.channel.opened, api, storage)
    storage.endpoint.close()
    api.channel.send(Kind.LOCAL, b"for the old one")
    api.endpoint.flush()
    reborn = sides[1] = Side(tmp_path, STORAGE, API, b"reborn")
    until(lambda: len(api.opened) == 2 and reborn.channel.opened, api, reborn)
    assert [b"storage", b"reborn"] == api.opened
    api.channel.send(Kind.LOCAL, b"for the new one")
    until(lambda: reborn.received, api, reborn)
    assert [(Kind.LOCAL, b"for the new one")] == reborn.received


def test_a_neighbour_that_does_not_read_makes_the_channel_full_and_nothing_is_lost(sides: list[Side]) -> None:
    api, storage = sides
    until(lambda: api.channel.opened and storage.channel.opened, api, storage)
    api.channel.backlog_bytes_max = 1 << 20
    sent = 0
    while not api.channel.full:
        api.channel.send(Kind.LOCAL, sent.to_bytes(4, "big") + bytes(10_000))
        sent += 1
        api.endpoint.flush()
        assert sent < 10_000, "the channel has no bound"
    until(lambda: len(storage.received) == sent, api, storage)
    assert list(range(sent)) == [int.from_bytes(body[:4], "big") for _, body in storage.received]
    assert not api.channel.full


def test_an_unknown_neighbour_is_accepted_by_the_rule_of_the_process(tmp_path: Path) -> None:
    storage = Endpoint(tmp_path, STORAGE)
    opened: list[Address] = []
    storage.accept(lambda address: bytes if address.part is Part.API else None)
    storage.when_opened(lambda channel, hello: opened.append(channel.peer))
    worker = Side(tmp_path, Address(Part.API, 3), STORAGE, b"")
    stranger = Side(tmp_path, Address(Part.WATCH), STORAGE, b"")
    try:
        deadline = time.monotonic() + 10
        while not (opened and storage.dropped_frames):
            assert time.monotonic() < deadline
            storage.wait(1)
            storage.receive()
            worker.turn()
            stranger.turn()
        assert [Address(Part.API, 3)] == opened
    finally:
        for endpoint in (storage, worker.endpoint, stranger.endpoint):
            endpoint.close()


def test_the_socket_is_closed_to_other_users(sides: list[Side], tmp_path: Path) -> None:
    assert socket_path(tmp_path, API).stat().st_mode & 0o077 == 0


def test_a_run_directory_too_long_for_a_socket_is_refused_with_its_name() -> None:
    with pytest.raises(ValueError, match="too long for a socket"):
        socket_path(Path("/" + "x" * 120), API)


def test_the_end_of_a_neighbour_is_noticed_before_its_successor_comes(sides: list[Side], tmp_path: Path) -> None:
    api, storage = sides
    api.channel.watch_for_loss()
    until(lambda: api.channel.opened and storage.channel.opened, api, storage)
    assert not api.channel.gone()
    storage.endpoint.close()
    until(api.channel.gone, api)
    reborn = sides[1] = Side(tmp_path, STORAGE, API, b"reborn")
    until(lambda: len(api.opened) == 2, api, reborn)
    assert not api.channel.gone()
