"""Transactions over several keys: a lawful history passes, and every planted violation is found."""

import random

import pytest

from tests.checking.checker import check
from tests.checking.history import Change, Fate, Txn

KEYS = [b"a", b"b", b"c", b"d"]


def lawful(seed: int, count: int = 200) -> tuple[list[Txn], list[Change]]:
    """Transactions one after the other, some of unknown fate."""
    dice = random.Random(seed)
    state: dict[bytes, tuple[bytes, int]] = {}
    log: list[Change] = []
    txns: list[Txn] = []
    revision = 1
    for number in range(count):
        chosen = dice.sample(KEYS, dice.randint(1, 4))
        cut = dice.randint(0, len(chosen))
        writes = tuple(
            (key, None if dice.random() < 0.2 else b"%d/%d" % (number, at)) for at, key in enumerate(chosen[:cut])
        )
        guard = dice.choice(KEYS)
        expected = state.get(guard, (b"", 0))[1] + (dice.random() < 0.3)
        succeeded = state.get(guard, (b"", 0))[1] == expected
        changes = [(key, value) for key, value in writes if value is not None or key in state] if succeeded else []
        revision += bool(changes)
        for key, value in changes:
            log.append(Change(revision, key, value))
            if value is None:
                del state[key]
            else:
                state[key] = (value, revision)
        fate = Fate.UNKNOWN if dice.random() < 0.1 else Fate.DONE
        txn = Txn(1, ((guard, expected),), writes, tuple(chosen[cut:]), 100 * number, 100 * number + 50, fate)
        if fate is Fate.DONE:
            seen = tuple(state.get(key, (None, 0)) for key in chosen[cut:])
            txn = txn._replace(revision=revision, succeeded=succeeded, seen=seen, changed=bool(changes))
        txns.append(txn)
    return txns, log


@pytest.mark.parametrize("seed", range(20))
def test_a_lawful_history_has_no_violation(seed: int) -> None:
    txns, log = lawful(seed)
    assert [] == check([], log, txns=txns)


def one(txns: list[Txn], succeeded: bool = True, writes: int = 2, reads: int = 0) -> int:
    return next(
        number
        for number, txn in enumerate(txns)
        if number > 50
        and txn.fate is Fate.DONE
        and txn.succeeded is succeeded
        and sum(value is not None for _, value in txn.writes) >= writes
        and len(txn.reads) >= reads
    )


def tear(txns: list[Txn], log: list[Change]) -> None:
    """Half of a transaction comes at another revision."""
    values = [value for _, value in txns[one(txns)].writes if value is not None]
    at = next(position for position, change in enumerate(log) if change.value == values[0])
    log[at] = log[at]._replace(value=b"lost")


def tear_an_unknown_one(txns: list[Txn], log: list[Change]) -> None:
    number = one(txns)
    txns[number] = txns[number]._replace(fate=Fate.UNKNOWN)
    tear_value = next(value for _, value in txns[number].writes if value is not None)
    at = next(position for position, change in enumerate(log) if change.value == tear_value)
    log[at] = log[at]._replace(value=b"lost")


def do_what_failed(txns: list[Txn], log: list[Change]) -> None:
    number = one(txns, succeeded=False, writes=1)
    value = next(value for _, value in txns[number].writes if value is not None)
    log.append(Change(log[-1].revision + 1, b"a", value))


def compare_wrongly(txns: list[Txn], log: list[Change]) -> None:
    number = one(txns)
    ((key, expected),) = txns[number].compares
    txns[number] = txns[number]._replace(compares=((key, expected + 1),))


def refuse_what_held(txns: list[Txn], log: list[Change]) -> None:
    number = one(txns, succeeded=False, writes=0)
    ((key, expected),) = txns[number].compares
    txns[number] = txns[number]._replace(compares=((key, expected - 1),))


def read_something_else(txns: list[Txn], log: list[Change]) -> None:
    number = one(txns, writes=0, reads=1)
    txns[number] = txns[number]._replace(seen=((b"never", 3), *txns[number].seen[1:]))


def answer_late(txns: list[Txn], log: list[Change]) -> None:
    """It took effect long before it was asked."""
    number = one(txns)
    txns[number] = txns[number]._replace(invoked_ns=10**9, returned_ns=10**9 + 1)


def answer_from_the_future(txns: list[Txn], log: list[Change]) -> None:
    number = one(txns, writes=0)
    txns[number] = txns[number]._replace(revision=log[-1].revision + 1)


PLANTS = [
    tear, tear_an_unknown_one, do_what_failed, compare_wrongly, refuse_what_held, read_something_else, answer_late,
    answer_from_the_future,
]  # fmt: skip


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("seed", range(3))
def test_a_planted_violation_is_found(plant: object, seed: int) -> None:
    assert callable(plant)
    txns, log = lawful(seed)
    plant(txns, log)
    assert [] != check([], log, txns=txns)
