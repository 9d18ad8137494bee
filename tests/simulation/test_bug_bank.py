"""Whole simulated clusters notice planted bugs: each with the seed that is known to notice it, some of them here.

`QUORATE_BUGS=all` tries every one, `python -m tests.simulation.bugs` searches for the first seed of each.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from tests.simulation.bugs import BUGS, Bug, notices

EVERY = 1 if os.environ.get("QUORATE_BUGS") == "all" else 5


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("bug", [bug for bug in BUGS if bug.seed >= 0][::EVERY], ids=lambda bug: bug.name)
def test_a_planted_bug_is_noticed(bug: Bug) -> None:
    first = bug.seed
    for seed in (first, *range(first), *range(first + 1, first + 10)):
        if notices(bug, seed).violation:
            return
    pytest.fail(f"no seed noticed it: look for another with `python -m tests.simulation.bugs {bug.name}`")
