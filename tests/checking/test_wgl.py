"""The checker that sorts and a general search for a linearization agree on small histories."""

import random

import pytest

from tests.checking.checker import check
from tests.checking.history import Fate, Kind, Operation
from tests.checking.test_checker import lawful
from tests.checking.wgl import is_linearizable


def without_stale_reads(operations: list[Operation]) -> list[Operation]:
    return [op for op in operations if op.kind is not Kind.STALE_GET]


@pytest.mark.parametrize("seed", range(60))
def test_what_is_lawful_can_be_linearized(seed: int) -> None:
    operations, log = lawful(seed, 60)
    assert [] == check(operations, log)
    assert is_linearizable(without_stale_reads(operations))


@pytest.mark.parametrize("seed", range(100))
def test_what_cannot_be_linearized_is_a_violation(seed: int) -> None:
    """One read is made to see what another one saw: where the search finds no order, the checker objects."""
    operations, log = lawful(seed, 60)
    dice = random.Random(seed)
    reads = [n for n, op in enumerate(operations) if op.kind is Kind.GET and op.fate is Fate.DONE]
    one, other = dice.sample(reads, 2)
    source = operations[other]
    operations[one] = operations[one]._replace(
        key=source.key,
        seen_value=source.seen_value,
        seen_mod_revision=source.seen_mod_revision,
        revision=source.revision,
    )
    if not is_linearizable(without_stale_reads(operations)):
        assert [] != check(operations, log)


def test_the_search_finds_a_stale_read() -> None:
    put = Operation(1, Kind.PUT, b"k", b"a", 0, 0, 10, Fate.DONE)
    later = put._replace(value=b"b", invoked_ns=20, returned_ns=30)
    read = Operation(2, Kind.GET, b"k", b"", 0, 40, 50, Fate.DONE, seen_value=b"a")
    assert is_linearizable([put, later, read._replace(seen_value=b"b")])
    assert not is_linearizable([put, later, read])
