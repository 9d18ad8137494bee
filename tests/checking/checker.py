"""Strict serializability by sorting instead of search.

Every answer of the store carries a revision, and the committed log of changes is known, so the order of operations is
given and each rule is one pass. `check` returns the violations as sentences; an empty list is a proof for this history.

1. The log counts revisions without a hole; within a revision a key changes once.
2. A write that was acknowledged stands in the log at the revision its answer named; one of unknown fate at most once;
   one that was refused never; and on the keys of the history nothing stands there that nobody sent.
3. Real time: what returned before another operation was invoked has a smaller or equal revision (smaller, if the other
   one writes). Serializable reads are exempt, but never go back on one client's connection.
4. A read, and the failed branch of a compare-and-swap, saw exactly what the log says at its revision.
5. A compare-and-swap succeeded exactly when its comparison held in the state before it.
6. What was put in one transaction stands in the log at one revision, or not at all.

Keys that end with their lease (`leases.py`) are not among those of the history.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.checking.history import Change, Fate, Kind, Operation, Txn
from tests.checking.model import Model
from tests.checking.transactions import check_transactions, effects

VIOLATIONS_MAX = 20  # the first ones tell the story


def check(
    operations: Sequence[Operation],
    log: Sequence[Change],
    ended: frozenset[bytes] | set[bytes] = frozenset(),
    txns: Sequence[Txn] = (),
) -> list[str]:
    """All violations of the rules above, at most `VIOLATIONS_MAX`; keys in `ended` may go with their lease.

    Transactions over several keys are judged by the rules of `transactions` too.
    """
    by_clients = [change for change in log if change.value is not None or change.key not in ended] if ended else log
    found: list[str] = []
    rules = (
        _check_log(log),
        _check_writes(operations, by_clients, txns),
        _check_together(operations, log),
        _check_real_time(operations, log, txns),
        _check_answers(operations, log),
        check_transactions(txns, log) if txns else (),
    )
    for rule in rules:
        for violation in rule:
            found.append(violation)
            if len(found) >= VIOLATIONS_MAX:
                return found
    return found
    return found


def _check_log(log: Sequence[Change]) -> Iterable[str]:
    previous = 1
    keys: set[bytes] = set()
    for revision, key, _ in log:
        if revision == previous and key not in keys:
            keys.add(key)
            continue
        if revision != previous + 1:
            yield f"the log goes from revision {previous} to {revision} (key {key!r})"
        previous, keys = revision, {key}


def _check_writes(operations: Sequence[Operation], log: Sequence[Change], txns: Sequence[Txn]) -> Iterable[str]:
    written: dict[bytes, list[int]] = {}
    deleted: set[tuple[int, bytes]] = set()
    touched = {op.key for op in operations}
    touched.update(key for txn in txns for key, _ in txn.writes)
    for revision, key, value in log:
        if key not in touched:
            continue
        if value is None:
            deleted.add((revision, key))
        else:
            written.setdefault(value, []).append(revision)
    sent = {value for txn in txns for _, value in txn.writes if value is not None}
    deletes = sum(value is None for txn in txns for _, value in txn.writes)
    for op in operations:
        if op.kind is Kind.DELETE:
            deletes += op.fate is Fate.UNKNOWN or (op.fate is Fate.DONE and op.succeeded)
            if op.fate is Fate.DONE and op.succeeded and (op.revision, op.key) not in deleted:
                yield f"acknowledged and lost: {op}"
        elif op.kind in (Kind.PUT, Kind.CAS):
            sent.add(op.value)
            revisions = written.get(op.value, [])
            effective = op.kind is Kind.PUT or op.succeeded
            if len(revisions) > 1:
                yield f"written {len(revisions)} times, at {revisions}: {op}"
            elif op.fate is Fate.REFUSED and revisions:
                yield f"refused and yet written at {revisions[0]}: {op}"
            elif op.fate is Fate.DONE and effective and revisions != [op.revision]:
                yield f"acknowledged and lost (the log has it at {revisions}): {op}"
            elif op.fate is Fate.DONE and not effective and revisions:
                yield f"failed its comparison and yet written at {revisions[0]}: {op}"
    for value in written.keys() - sent:
        yield f"the log has {value!r}, which nobody sent"
    if len(deleted) > deletes:
        yield f"the log has {len(deleted)} deletions, but only {deletes} can have happened"


def _check_together(operations: Sequence[Operation], log: Sequence[Change]) -> Iterable[str]:
    revision_of = {value: revision for revision, _, value in log if value is not None}
    parts: dict[tuple[int, int], list[Operation]] = {}
    for op in operations:
        if op.kind is Kind.PUT:
            parts.setdefault((op.client, op.invoked_ns), []).append(op)
    for puts in parts.values():
        if len(puts) > 1 and len(revisions := {revision_of.get(op.value) for op in puts}) > 1:
            yield f"put in one transaction, and yet at {revisions}: {puts}"


def _check_real_time(operations: Sequence[Operation], log: Sequence[Change], txns: Sequence[Txn]) -> Iterable[str]:
    revision_of = {value: revision for revision, _, value in log if value is not None}
    moments: list[tuple[int, int, int]] = []  # (time, 0 return | 1 invoke, operation): a tie counts as concurrent
    least: list[int] = []  # what an effect must be at least above the newest that was answered before; -1: stale
    took: list[int] = []
    who: list[Operation | Txn] = []
    done, stale = Fate.DONE, Kind.STALE_GET
    for op in operations:
        effect = op.revision if op.fate is done else revision_of.get(op.value, 0) if op.value else 0
        if not effect:
            continue
        number = len(took)
        took.append(effect)
        who.append(op)
        least.append(-1 if op.kind is stale else 1 if _changes(op) else 0)
        moments.append((op.invoked_ns, 0, number))
        if op.fate is done and op.kind is not stale:
            moments.append((op.returned_ns, 1, number))
    for invoked, returned, effect, wrote, txn in effects(txns, log):
        moments.append((invoked, 0, len(took)))
        if returned is not None:
            moments.append((returned, 1, len(took)))
        took.append(effect)
        who.append(txn)
        least.append(int(wrote))
    moments.sort()
    floor = 1
    local_floor: dict[int, int] = {}
    for _, is_return, number in moments:
        effect, more = took[number], least[number]
        if is_return:
            floor = max(floor, effect)
        elif more < 0:
            client = who[number].client
            if effect < local_floor.get(client, 0):
                yield f"went back on its own connection, below {local_floor[client]}: {who[number]}"
            local_floor[client] = effect
        elif effect < floor + more:
            yield f"invoked after revision {floor} was answered, yet took effect at {effect}: {who[number]}"


def _changes(op: Operation) -> bool:
    return op.kind is Kind.PUT or (op.kind in (Kind.CAS, Kind.DELETE) and (op.succeeded or op.fate is not Fate.DONE))


def _check_answers(operations: Sequence[Operation], log: Sequence[Change]) -> Iterable[str]:
    model = Model(log)
    for op in operations:
        if op.fate is not Fate.DONE:
            continue
        if op.revision > model.last_revision:
            yield f"answered at a revision the log never reached ({model.last_revision}): {op}"
        elif op.kind is Kind.CAS and op.succeeded:
            _, held = model.at(op.key, op.revision - 1)
            if held != op.expected:
                yield f"swapped though the key stood at {held}: {op}"
        elif op.kind is Kind.DELETE:
            value, _ = model.at(op.key, op.revision - 1 if op.succeeded else op.revision)
            if (value is not None) != op.succeeded:
                yield f"the key was {'present' if value is not None else 'absent'} before: {op}"
        elif op.kind is not Kind.PUT:
            value, held = model.at(op.key, op.expected if op.kind is Kind.PAST_GET else op.revision)
            if (op.seen_value, op.seen_mod_revision) != (value, held):
                yield f"saw {op.seen_value!r} at {op.seen_mod_revision}, the log says {value!r} at {held}: {op}"
            elif op.kind is Kind.CAS and held == op.expected:
                yield f"did not swap though its comparison held: {op}"
