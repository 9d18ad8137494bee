"""When the history is compacted without being asked, on a clock of the test."""

from __future__ import annotations

import pytest

from quorate.storage.auto_compaction import Periodic, Policy, Revisions, policy

MINUTE = 60
HOUR = 3600


class World:
    """A store that grows by one revision a second and compacts what the policy says."""

    def __init__(self, chosen: Policy) -> None:
        self.policy = chosen
        self.now = 0
        self.compact_revision = -1
        self.compactions: list[tuple[int, int]] = []  # (second, revision)

    def run(self, until: int, *, is_leader: bool = True, grows: bool = True, heard: bool = True) -> None:
        while self.now < until:
            self.now += 1
            revision = self.now if grows else 1000
            target = self.policy.due(self.now, revision, self.compact_revision, is_leader)
            if target:
                self.compactions.append((self.now, target))
                if heard:
                    self.compact_revision = target


def test_periodic_keeps_the_time_and_compacts_once_an_hour_at_most() -> None:
    world = World(Periodic(5 * HOUR, 0))
    world.run(8 * HOUR + 30 * MINUTE)
    times = [second for second, _ in world.compactions]
    assert 4 == len(times)
    assert all(abs(second - wanted * HOUR) <= 7 * MINUTE for second, wanted in zip(times, (5, 6, 7, 8), strict=True))
    assert all(0 <= second - revision - 5 * HOUR <= 7 * MINUTE for second, revision in world.compactions)


def test_periodic_with_a_short_time_compacts_as_often_as_that() -> None:
    world = World(Periodic(10 * MINUTE, 0))
    world.run(HOUR)
    assert 5 <= len(world.compactions) <= 6
    assert all(0 <= second - revision - 10 * MINUTE <= 2 * MINUTE for second, revision in world.compactions)


def test_only_the_leader_compacts_and_a_new_one_knows_what_was() -> None:
    world = World(Periodic(HOUR, 0))
    world.run(2 * HOUR, is_leader=False)
    assert not world.compactions
    world.run(2 * HOUR + 7 * MINUTE)
    ((second, revision),) = world.compactions
    assert 0 <= second - revision - HOUR <= 7 * MINUTE


@pytest.mark.parametrize("chosen", [Periodic(HOUR, 0), Revisions(10, 0)])
def test_a_store_that_does_not_change_is_compacted_once(chosen: Policy) -> None:
    world = World(chosen)
    world.run(9 * HOUR, grows=False)
    assert 1 == len(world.compactions)


def test_a_proposal_that_was_lost_is_made_again() -> None:
    world = World(Revisions(10, 0))
    world.run(11 * MINUTE, heard=False)
    assert [(300, 290), (600, 590)] == world.compactions


def test_revision_keeps_a_number_and_looks_every_five_minutes() -> None:
    world = World(Revisions(100, 0))
    world.run(17 * MINUTE)
    assert [(300, 200), (600, 500), (900, 800)] == world.compactions
    world = World(Revisions(1000, 0))
    world.run(17 * MINUTE)
    assert not world.compactions


@pytest.mark.parametrize(
    ("mode", "retention", "first"),
    [
        ("periodic", "0", 0),
        ("revision", "0", 0),
        ("periodic", "1", HOUR),
        ("periodic", "30m", 1800),
        ("revision", "5", 300),
    ],
)
def test_settings_are_read_as_etcd_reads_them(mode: str, retention: str, first: int) -> None:
    world = World(policy(mode, retention, 0))
    world.run(2 * HOUR)
    if first:
        assert 0 <= world.compactions[0][0] - first <= 7 * MINUTE
    else:
        assert not world.compactions
