"""Whole simulated clusters: a sample of seeds, and that a seed is the same run every time."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from tests.simulation.whole.node import WatchHost
from tests.simulation.whole.plan import draw, with_people
from tests.simulation.whole.run import run
from tests.simulation.whole.world import SECOND

SEEDS = range(int(os.environ.get("QUORATE_SIM_SEEDS", "12")))


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_whole_cluster_keeps_its_promises_and_recovers(seed: int) -> None:
    outcome = run(draw(seed))
    assert "" == outcome.violation, f"replay with: make sim SEED={seed}"
    assert outcome.answered


def test_a_seed_is_the_same_run_every_time() -> None:
    plan = draw(6)
    assert run(plan).digest == run(plan).digest


def test_a_failing_seed_is_the_same_run_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run has a directory of its own, and what fails may name it."""

    def boot(self: WatchHost) -> None:
        raise FileNotFoundError(2, "No such file or directory", str(self.node.config.database_path))

    monkeypatch.setattr(WatchHost, "boot", boot)
    outcome, again = run(draw(6)), run(draw(6))
    assert "watch ended: FileNotFoundError: [Errno 2] No such file or directory: '/n" in outcome.violation
    assert (outcome.violation, outcome.digest) == (again.violation, again.digest)


@pytest.mark.parametrize("users", ["simple", "jwt"])
def test_rights_are_given_and_taken_away_while_everything_breaks(users: str) -> None:
    """A seed of every kind of fault that is short."""
    outcome = run(with_people(draw(3, length=8 * SECOND), users))
    assert "" == outcome.violation
    assert outcome.visits


def test_a_storage_that_outlived_consensus_is_told_on_behind_what_it_has() -> None:
    """What it had applied already filled the room for what it is told, and it did not say so twice."""
    assert "" == run(draw(20574)).violation


def test_a_storage_that_begins_on_a_full_disk_still_has_what_it_has() -> None:
    """It said that nothing was durable, and a single member whose log had lost its beginning took it for lost."""
    assert "" == run(draw(30427)).violation


def test_a_damaged_member_comes_back_though_the_others_have_changed_meanwhile() -> None:
    """Its membership was damaged, and the members it was started with were gone or not the leader."""
    assert "" == run(draw(30469)).violation


def test_a_removed_member_that_forgot_it_in_a_power_cut_leaves() -> None:
    assert "" == run(draw(30144)).violation


def test_a_vote_outlives_a_snapshot_that_a_failing_disk_cut_short() -> None:
    """The log was begun anew behind the snapshot, and the old one was removed before the new one knew term and vote."""
    assert "" == run(draw(32127)).violation


def test_a_member_gets_its_image_when_the_leader_was_asked_before_its_storage_was_there() -> None:
    assert "" == run(draw(31826)).violation
