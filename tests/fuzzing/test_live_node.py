"""A live node is told what once found something, and about a second of fresh inputs of each kind, and is well after."""

import itertools
import random
import time
from collections.abc import Iterator

import pytest

from tests.fuzzing import node, targets
from tests.fuzzing.mutation import mutated

SECONDS = 1.0
SEED = 6


@pytest.fixture(scope="module", autouse=True)
def one_node() -> Iterator[None]:
    with node.world():
        yield


@pytest.mark.parametrize("name", targets.LIVE)
def test_kept_and_fresh_inputs_leave_the_node_well(name: str) -> None:
    target = targets.target(name)
    kept = [path.read_bytes() for path in targets.kept(name)]
    ends_at = time.monotonic() + SECONDS
    number = 0
    for number, data in enumerate(itertools.chain(kept, mutated(random.Random(SEED), [*target.seeds(), *kept]))):
        try:
            target.run(data)
        except Exception as finding:
            raise AssertionError(f"seed {SEED}, input {number}: {data!r}") from finding
        if number >= len(kept) and time.monotonic() > ends_at:
            break
    assert number >= len(kept), "nothing fresh was said"
    node.live().look()
