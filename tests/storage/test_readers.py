"""Reads on threads: what takes long keeps nobody waiting who asks for little."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from quorate.storage.reads import Readers, Task


class Short:
    """A read like that of a range or of history."""

    revision = 7

    def read(self) -> bytes:
        return b"short"


class Long:
    """Reads of everything, which end when they may."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.started = 0

    def task(self) -> Task:
        return Task(3, self._read)

    def _read(self) -> bytes:
        self.started += 1
        assert self.may_end.wait(10)
        return b"long"


@pytest.fixture
def long() -> Iterator[Long]:
    made = Long()
    yield made
    made.may_end.set()


@pytest.fixture
def readers(long: Long) -> Iterator[Readers]:
    made = Readers(lambda: None)
    yield made
    long.may_end.set()
    made.close()


def turn(readers: Readers, count: int, delivered: list[bytes]) -> None:
    """As the loop does, until so many were delivered."""
    deadline = time.monotonic() + 10
    while len(delivered) < count:
        assert time.monotonic() < deadline
        readers.collect()
        while readers.wants_turn:
            readers.advance(lambda: True)


def test_a_range_waits_for_no_hash_of_everything(readers: Readers, long: Long) -> None:
    delivered: list[bytes] = []
    for _ in range(3):
        readers.submit(delivered.append, long.task())
    for _ in range(3):
        readers.submit(delivered.append, Short())
    assert [3, 3, 3, 7, 7, 7] == sorted(readers.revisions())
    turn(readers, 3, delivered)
    assert ([b"short"] * 3, 1) == (delivered, long.started)
    assert [3, 3, 3] == list(readers.revisions())
    assert not readers.wants_turn
    long.may_end.set()
    turn(readers, 6, delivered)
    assert [b"long"] * 3 == delivered[3:]


def test_without_room_whoever_can_be_refused_is_and_the_others_keep_their_place(readers: Readers, long: Long) -> None:
    delivered: list[bytes] = []
    refused: list[str] = []
    long.may_end.set()
    readers.submit(delivered.append, long.task(), lambda: refused.append("long"))
    readers.submit(delivered.append, long.task())
    readers.submit(delivered.append, Short(), lambda: refused.append("short"))
    readers.submit(delivered.append, Short())
    readers.advance(lambda: False)
    assert (["long", "short"], [3, 7]) == (sorted(refused), sorted(readers.revisions()))
    turn(readers, 2, delivered)
    assert [b"long", b"short"] == sorted(delivered)
