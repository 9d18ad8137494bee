"""Seeded runs in which members lose their disks. `QUORATE_SEED=n` replays one seed, `QUORATE_SEEDS=n` runs more."""

from __future__ import annotations

import os

import pytest

from tests.simulation.lost_disks import ForgettingCluster, run_seed

SEEDS = (
    [int(os.environ["QUORATE_SEED"])]
    if "QUORATE_SEED" in os.environ
    else range(int(os.environ.get("QUORATE_SEEDS", "40")))
)
BUG_SEEDS_MAX = 500


@pytest.mark.parametrize("seed", SEEDS)
def test_a_member_that_lost_its_disk_takes_nothing_with_it(seed: int) -> None:
    try:
        run_seed(seed)
    except AssertionError as error:
        error.add_note(f"replay with: QUORATE_SEED={seed} pytest tests/simulation/test_lost_disks.py")
        raise


def test_disks_are_lost_in_these_runs() -> None:
    assert sum(run_seed(seed).losses for seed in range(10)) > 10


def test_a_member_that_forgot_and_votes_is_noticed() -> None:
    for seed in range(BUG_SEEDS_MAX):
        try:
            run_seed(seed, ForgettingCluster)
        except AssertionError:
            return
    pytest.fail(f"no seed of {BUG_SEEDS_MAX} noticed")
