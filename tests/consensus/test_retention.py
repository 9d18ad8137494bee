"""What of the log is dropped, and what waits for members that are behind."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from quorate.consensus import retention
from quorate.consensus.membership import Membership, Meta
from quorate.consensus.meta import MetaFiles
from quorate.consensus.pins import PATIENCE_S, Pins
from quorate.consensus.raft.messages import ConfState, HardState
from quorate.consensus.raft.progress import Progress
from quorate.consensus.retention import Retention
from quorate.consensus.wal import Wal
from tests.consensus.test_wal import entries

SEGMENT_BYTES = 64 * 1024
CATCHUP_ENTRIES = 20


class Leader:
    """A log of 200 entries of 8,000 bytes, all of them durable in storage, and one follower."""

    def __init__(self, directory: Path) -> None:
        self.wal = Wal.create(directory, 7, 9, SEGMENT_BYTES, fsync=False)
        self.follower = Progress(1)
        self.held_index: int | None = None
        core: Any = SimpleNamespace(progress=lambda: {5: self.follower}, compact=lambda _index: None)
        self.membership = Membership(7, 0, ConfState((9, 5)), {})
        files = MetaFiles(directory)
        meta = Meta(9, self.membership)
        self.retention = Retention(core, self.wal, meta, files, CATCHUP_ENTRIES, lambda: self.held_index)
        self.now = 100.0
        self.write(200)

    def write(self, count: int) -> None:
        for index in range(self.wal.last_index + 1, self.wal.last_index + 1 + count):
            self.wal.append(entries(index, index, size=8000), HardState(1, 9, index - 1))

    def first_index_after_a_look(self) -> int:
        self.now += 10.0
        last = self.wal.last_index
        self.retention.drop_segments(self.now, last, self.membership, last)
        return self.wal.first_index()


@pytest.fixture
def leader(tmp_path: Path) -> Any:
    made = Leader(tmp_path)
    yield made
    made.wal.abandon()


def test_a_follower_that_is_away_holds_nothing(leader: Leader) -> None:
    leader.follower.is_active = False
    assert 160 < leader.first_index_after_a_look() <= 181


def test_a_live_follower_holds_what_it_has_not(leader: Leader) -> None:
    leader.follower.match_index = 100
    assert 80 < leader.first_index_after_a_look() <= 101


def test_what_follows_an_image_is_held_also_for_a_member_that_is_not_heard_of(leader: Leader) -> None:
    leader.follower.is_active = False
    leader.held_index = 100
    assert 80 < leader.first_index_after_a_look() <= 101


def test_what_is_held_for_an_image_has_a_limit(leader: Leader, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that never finishes does not fill the disk."""
    leader.follower.is_active = False
    leader.held_index = 100
    monkeypatch.setattr(retention, "PINNED_BYTES_MAX", 120 * 8000)
    assert 160 < leader.first_index_after_a_look() <= 181
    leader.held_index = 180
    leader.write(50)
    assert 160 < leader.first_index_after_a_look() <= 181
    leader.write(80)
    assert 290 < leader.first_index_after_a_look()


def test_a_follower_with_an_image_may_hold_more_than_another(leader: Leader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more is written meanwhile than a follower may hold, it would need one image after the other."""
    leader.follower.match_index = 100
    monkeypatch.setattr(retention, "LOG_BYTES_MAX", 60 * 8000)
    leader.held_index = 100
    assert 80 < leader.first_index_after_a_look() <= 101
    leader.held_index = None
    assert 160 < leader.first_index_after_a_look() <= 181


def test_on_a_full_disk_nothing_is_held_for_members(leader: Leader, monkeypatch: pytest.MonkeyPatch) -> None:
    leader.follower.match_index = leader.held_index = 100
    monkeypatch.setattr(type(leader.wal), "lacks_room_because", OSError())
    assert 160 < leader.first_index_after_a_look() <= 181


def test_a_pin_moves_with_its_member_and_goes_when_that_has_caught_up() -> None:
    pins, follower = Pins(), Progress(1)
    pins.add(5, 10, 30, 0.0)
    held = []
    for follower.match_index in (0, 10, 20, 29, 30):
        pins.look(1.0, {5: follower})
        held.append(pins.lowest())
    assert [10, 10, 20, 29, None] == held


def test_a_member_that_stands_still_after_its_image_is_not_waited_for() -> None:
    pins, follower = Pins(), Progress(1)
    pins.add(5, 10, 30, 0.0)
    pins.look(PATIENCE_S, {5: follower})
    follower.match_index = 20
    pins.look(PATIENCE_S, {5: follower})
    pins.look(2 * PATIENCE_S, {5: follower})
    assert pins.lowest() == 20
    pins.look(2 * PATIENCE_S + 0.1, {5: follower})
    assert pins.lowest() is None


def test_pins_go_with_their_members_and_with_the_leadership() -> None:
    pins, follower = Pins(), Progress(1)
    pins.add(5, 10, 30, 0.0)
    pins.add(6, 12, 30, 0.0)
    pins.look(1.0, {6: follower})
    assert pins.lowest() == 12
    pins.look(1.0, {})
    assert pins.lowest() is None
