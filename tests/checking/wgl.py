"""A general search for a linearization (Wing and Gong, Lowe's memory of configurations), for small histories.

It knows nothing of revisions: only calls, answers and a register's rules. It referees the checker that sorts, on
samples. Calls on different keys do not meet, so each key is searched for itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.checking.history import Fate, Kind, Operation

OPERATIONS_MAX = 64  # of one key: the search is exponential in what overlaps

State = bytes | None


def is_linearizable(operations: Sequence[Operation]) -> bool:
    """Whether some order of the calls, each between its begin and its end, explains all answers."""
    keys = {op.key for op in operations}
    return all(_key_is_linearizable([op for op in operations if op.key == key]) for key in keys)


def _key_is_linearizable(operations: list[Operation]) -> bool:
    calls = [op for op in operations if op.fate is not Fate.REFUSED and op.kind is not Kind.STALE_GET]
    calls = [op for op in calls if op.fate is Fate.DONE or op.kind is not Kind.GET]
    assert len(calls) <= OPERATIONS_MAX, "too many calls for a search"
    calls.sort(key=lambda op: op.invoked_ns)
    must = sum(1 << number for number, op in enumerate(calls) if op.fate is Fate.DONE)
    seen: set[tuple[int, State]] = set()
    stack: list[tuple[int, State]] = [(0, None)]
    while stack:
        done, state = stack.pop()
        if done & must == must:
            return True
        if (done, state) in seen:
            continue
        seen.add((done, state))
        stack += _next(calls, done, state)
    return False


def _next(calls: Sequence[Operation], done: int, state: State) -> Iterable[tuple[int, State]]:
    """What may come next: a call that began before any other that is not done has ended."""
    ends = min(
        (op.returned_ns for number, op in enumerate(calls) if not done >> number & 1 and op.fate is Fate.DONE),
        default=1 << 62,
    )
    for number, op in enumerate(calls):
        if op.invoked_ns > ends:
            break
        if not done >> number & 1:
            for after in _apply(op, state):
                yield done | 1 << number, after


def _apply(op: Operation, state: State) -> Iterable[State]:
    """The states after a call, if its answer fits; none if it does not. Values are unique: they stand for versions."""
    is_known = op.fate is Fate.DONE
    match op.kind:
        case Kind.PUT:
            yield op.value
        case Kind.DELETE:
            if not is_known or op.succeeded == (state is not None):
                yield None
        case Kind.CAS:
            if not is_known or op.succeeded:
                yield op.value
            elif op.seen_value == state:
                yield state
        case _:
            if op.seen_value == state:
                yield state
