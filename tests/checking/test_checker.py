"""The checker itself: a lawful history passes, and every planted violation is found."""

import os
import random
import time

import pytest

from tests.checking.checker import check
from tests.checking.history import Change, Fate, Kind, Operation

JUDGED_WITHIN_S = 10.0  # a million operations
ATTEMPTS = 3


def lawful(seed: int, count: int, clients: int = 5) -> tuple[list[Operation], list[Change]]:
    """A history of `clients` with overlapping calls that take effect somewhere between invocation and return."""
    dice = random.Random(seed)
    log: list[Change] = []
    state: dict[bytes, tuple[bytes, int]] = {}
    operations: list[Operation] = []
    free = [0] * clients
    for number in range(count):
        now = 10 * (number + 1)
        client = min(range(clients), key=free.__getitem__)
        invoked, returned = max(free[client], now - dice.randrange(40)) + 1, now + dice.randrange(40)
        invoked = min(invoked, now)
        free[client] = returned
        key, value = b"k%d" % dice.randrange(5), b"v%d" % number
        kind = dice.choice(list(Kind))
        fate = Fate.UNKNOWN if kind in (Kind.PUT, Kind.CAS) and dice.random() < 0.05 else Fate.DONE
        held_value, held = state.get(key, (None, 0))
        expected = held if dice.random() < 0.7 else held + 1
        succeeded = kind is Kind.PUT or (kind is Kind.CAS and expected == held) or (kind is Kind.DELETE and held > 0)
        revision = (log[-1].revision if log else 1) + succeeded
        expected = revision if kind is Kind.PAST_GET else expected
        if succeeded:
            written = None if kind is Kind.DELETE else value
            log.append(Change(revision, key, written))
            if written is None:
                del state[key]
            else:
                state[key] = (written, revision)
        reads = kind in (Kind.GET, Kind.STALE_GET, Kind.PAST_GET) or (kind is Kind.CAS and not succeeded)
        operations.append(
            Operation(
                client, kind, key, value if kind in (Kind.PUT, Kind.CAS) else b"", expected, invoked, returned, fate,
                revision, succeeded and kind is not Kind.PUT, held_value if reads else None, held if reads else 0,
            )
        )  # fmt: skip
    return operations, log


@pytest.mark.parametrize("seed", range(20))
def test_a_lawful_history_has_no_violation(seed: int) -> None:
    operations, log = lawful(seed, 500)
    assert [] == check(operations, log)


def first(operations: list[Operation], *kinds: Kind, succeeded: bool | None = None) -> int:
    """An acknowledged operation in the middle of the history."""
    start = len(operations) // 2
    for number, op in enumerate(operations[start:], start):
        if op.kind in kinds and op.fate is Fate.DONE and (succeeded is None or op.succeeded is succeeded):
            return number
    raise AssertionError("no such operation")


def lose_a_write(ops: list[Operation], log: list[Change]) -> None:
    lost = ops[first(ops, Kind.PUT)].revision
    position = next(i for i, change in enumerate(log) if change.revision == lost)
    log[position] = log[position]._replace(value=b"something else")


def make_a_hole(ops: list[Operation], log: list[Change]) -> None:
    del log[len(log) // 2]


def write_twice(ops: list[Operation], log: list[Change]) -> None:
    log.append(Change(log[-1].revision + 1, b"k0", ops[first(ops, Kind.PUT)].value))


def write_what_was_refused(ops: list[Operation], log: list[Change]) -> None:
    number = first(ops, Kind.PUT)
    ops[number] = ops[number]._replace(fate=Fate.REFUSED)


def read_stale(ops: list[Operation], log: list[Change]) -> None:
    """The read itself is right for its revision, which is too old for its place in time."""
    number = first(ops, Kind.GET)
    old = ops[first(ops[: number // 2] or ops, Kind.GET)]
    ops[number] = ops[number]._replace(
        key=old.key, revision=old.revision, seen_value=old.seen_value, seen_mod_revision=old.seen_mod_revision
    )


def read_from_the_future(ops: list[Operation], log: list[Change]) -> None:
    number = first(ops, Kind.GET)
    ops[number] = ops[number]._replace(revision=log[-1].revision + 1)


def read_a_wrong_value(ops: list[Operation], log: list[Change]) -> None:
    number = first(ops, Kind.GET)
    ops[number] = ops[number]._replace(seen_value=b"never")


def swap_wrongly(ops: list[Operation], log: list[Change]) -> None:
    number = first(ops, Kind.CAS, succeeded=True)
    ops[number] = ops[number]._replace(expected=ops[number].expected + 1)


def refuse_a_swap_that_held(ops: list[Operation], log: list[Change]) -> None:
    number = first(ops, Kind.CAS, succeeded=False)
    ops[number] = ops[number]._replace(expected=ops[number].seen_mod_revision)


def delete_twice(ops: list[Operation], log: list[Change]) -> None:
    number = first(ops, Kind.DELETE, succeeded=True)
    ops[number] = ops[number]._replace(succeeded=False)


def order_a_write_before_the_past(ops: list[Operation], log: list[Change]) -> None:
    """An acknowledged write moves to a place in time far behind later revisions."""
    number = first(ops, Kind.PUT)
    ops[number] = ops[number]._replace(invoked_ns=10**9, returned_ns=10**9 + 1)


def go_back_on_a_connection(ops: list[Operation], log: list[Change]) -> None:
    stale = [i for i, op in enumerate(ops) if op.kind is Kind.STALE_GET]
    old, number = ops[stale[0]], stale[-1]
    earlier = ops[number]._replace(invoked_ns=ops[number].invoked_ns - 1)
    ops.insert(number, earlier)
    ops[number + 1] = old._replace(client=earlier.client, invoked_ns=earlier.invoked_ns + 1)


def delete_what_nobody_deleted(ops: list[Operation], log: list[Change]) -> None:
    sent = sum(op.kind is Kind.DELETE for op in ops)
    for _ in range(sent + 1):
        log.append(Change(log[-1].revision + 1, b"k0", None))


PLANTS = [
    lose_a_write, make_a_hole, write_twice, write_what_was_refused, read_stale, read_from_the_future,
    read_a_wrong_value, swap_wrongly, refuse_a_swap_that_held, delete_twice, order_a_write_before_the_past,
    go_back_on_a_connection, delete_what_nobody_deleted,
]  # fmt: skip


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("seed", range(3))
def test_a_planted_violation_is_found(plant: object, seed: int) -> None:
    assert callable(plant)
    operations, log = lawful(seed, 600)
    plant(operations, log)
    assert [] != check(operations, log)


def put_together(second_revision: int) -> tuple[list[Operation], list[Change]]:
    """A transaction of unknown fate that put two keys."""
    puts = [Operation(1, Kind.PUT, b"k%d" % n, b"part %d" % n, 0, 10, 20, Fate.UNKNOWN) for n in range(2)]
    log = [Change(2, b"k0", b"part 0"), Change(second_revision, b"k1", b"part 1")]
    return puts, log[: 2 if second_revision else 1]


def test_the_puts_of_a_transaction_stand_together() -> None:
    assert [] == check(*put_together(2))


@pytest.mark.parametrize("second_revision", [0, 3])
def test_a_torn_transaction_is_found(second_revision: int) -> None:
    assert [] != check(*put_together(second_revision))


def test_a_read_of_the_past_sees_what_was_there_then() -> None:
    log = [Change(2, b"k", b"old"), Change(3, b"k", b"new")]
    puts = [
        Operation(1, Kind.PUT, b"k", b"old", 0, 1, 2, Fate.DONE, 2),
        Operation(1, Kind.PUT, b"k", b"new", 0, 3, 4, Fate.DONE, 3),
    ]
    read = Operation(1, Kind.PAST_GET, b"k", b"", 2, 5, 6, Fate.DONE, 3, False, b"old", 2)
    assert [] == check([*puts, read], log)
    assert [] != check([*puts, read._replace(seen_value=b"new", seen_mod_revision=3)], log)
    assert [] != check([*puts, read._replace(revision=2)], log)


def test_a_million_operations_are_judged_in_ten_seconds_of_processor_time() -> None:
    """A fifth of them in a fifth of the time; `QUORATE_OPERATIONS=1000000` judges all."""
    count = int(os.environ.get("QUORATE_OPERATIONS", "200000"))
    operations, log = lawful(1, count)
    took_s = []
    for _ in range(ATTEMPTS):  # what else runs on the machine costs processor time too
        started = time.process_time()
        assert [] == check(operations, log)
        took_s.append(time.process_time() - started)
        if took_s[-1] < JUDGED_WITHIN_S * count / 1_000_000:
            return
    assert min(took_s) < JUDGED_WITHIN_S * count / 1_000_000
