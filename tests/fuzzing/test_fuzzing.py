"""Every input that ever found something is read again, and each target is tried for about a second with fresh ones."""

import itertools
import random
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.fuzzing import targets
from tests.fuzzing.mutation import mutated
from tests.fuzzing.targets import Target

SECONDS = 1.0
SEED = 6
INPUTS_MAX = 2_000


@pytest.fixture(scope="module", params=targets.IN_PROCESS)
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    found = targets.target(request.param)
    with found.world():
        yield found


def test_what_once_found_something_finds_nothing_now(target: Target) -> None:
    inputs = [*target.seeds(), *(path.read_bytes() for path in targets.kept(target.name))]
    outcomes = Counter(target.run(data) for data in inputs)
    assert outcomes[True], "none of the good ones was read"
    assert outcomes[True] + outcomes[False] == len(inputs)


def test_a_second_of_fresh_inputs_finds_nothing(target: Target) -> None:
    ends_at = time.monotonic() + SECONDS
    outcomes: Counter[bool | None] = Counter()
    for number, data in enumerate(itertools.islice(fresh(target), INPUTS_MAX)):
        try:
            outcomes[target.run(data)] += 1
        except Exception as finding:
            raise AssertionError(f"seed {SEED}, input {number}: {data!r}") from finding
        if time.monotonic() > ends_at:
            break
    assert outcomes.total() > 0
    assert outcomes.keys() <= {True, False}


def test_of_the_fresh_inputs_some_are_read_and_some_refused(target: Target) -> None:
    seen: set[bool | None] = set()
    for data in itertools.islice(fresh(target), INPUTS_MAX):
        seen.add(target.run(data))
        if len(seen) == 2:
            break
    assert seen == {True, False}


def fresh(target: Target) -> Iterator[bytes]:
    """The row of inputs of one seed."""
    return mutated(random.Random(SEED), [*target.seeds(), *(path.read_bytes() for path in targets.kept(target.name))])


def test_a_seed_means_one_row_of_inputs() -> None:
    rows = [list(itertools.islice(mutated(random.Random(5), [b"seed", b"other"]), 100)) for _ in range(2)]
    assert rows[0] == rows[1]


def test_the_corpus_is_of_targets_there_are() -> None:
    assert {path.name for path in targets.CORPUS.iterdir()} <= set(targets.NAMES)
