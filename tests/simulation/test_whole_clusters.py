"""Whole simulated clusters: a sample of seeds, and that a seed is the same run every time."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from tests.simulation.whole.plan import draw
from tests.simulation.whole.run import run

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
