"""Every input that ever found something is read again, and each target is tried for about a second with fresh ones."""

import itertools
import random
import time
from collections.abc import Iterator

import pytest

from tests.fuzzing import targets
from tests.fuzzing.mutation import mutated
from tests.fuzzing.targets import Target

SECONDS = 1.0
INPUTS_MAX = 2_000


@pytest.fixture(scope="module", params=targets.IN_PROCESS)
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    found = targets.target(request.param)
    with found.world():
        yield found


def test_what_once_found_something_finds_nothing_now(target: Target) -> None:
    for data in (*target.seeds(), *(path.read_bytes() for path in targets.kept(target.name))):
        target.run(data)


def test_a_second_of_fresh_inputs_finds_nothing(target: Target) -> None:
    seed = 6
    ends_at = time.monotonic() + SECONDS
    inputs = mutated(random.Random(seed), [*target.seeds(), *(path.read_bytes() for path in targets.kept(target.name))])
    for number, data in enumerate(itertools.islice(inputs, INPUTS_MAX)):
        try:
            target.run(data)
        except Exception as finding:
            raise AssertionError(f"seed {seed}, input {number}: {data!r}") from finding
        if time.monotonic() > ends_at:
            break


def test_a_seed_means_one_row_of_inputs() -> None:
    rows = [list(itertools.islice(mutated(random.Random(5), [b"seed", b"other"]), 100)) for _ in range(2)]
    assert rows[0] == rows[1]


def test_the_corpus_is_of_targets_there_are() -> None:
    assert {path.name for path in targets.CORPUS.iterdir()} <= set(targets.NAMES)
