"""Transactions over several keys, judged against the committed log by the same rules as single calls.

Their place in real time is judged together with everything else: `effects` says when each began, ended and took effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.checking.history import Change, Fate, Txn
from tests.checking.model import Model


def check_transactions(txns: Sequence[Txn], log: Sequence[Change]) -> Iterable[str]:
    """Violations of atomicity, durability and isolation."""
    model = Model(log)
    place: dict[bytes, int] = {change.value: change.revision for change in log if change.value is not None}
    deleted = {(change.revision, change.key) for change in log if change.value is None}
    for txn in txns:
        revisions = {place[value] for _, value in txn.writes if value is not None and value in place}
        if (txn.fate is Fate.REFUSED or (txn.fate is Fate.DONE and not txn.succeeded)) and revisions:
            yield f"refused or failed, and yet written at {sorted(revisions)}: {txn}"
        if txn.fate is not Fate.DONE:
            yield from _check_unknown(txn, place, revisions)
            continue
        if txn.revision > model.last_revision:
            yield f"answered at a revision the log never reached: {txn}"
            continue
        if txn.succeeded:
            yield from _check_writes(txn, place, deleted, model)
        before = txn.revision - txn.changed
        holds = all(model.at(key, before)[1] == expected for key, expected in txn.compares)
        if holds != txn.succeeded:
            yield f"its comparisons {'held' if holds else 'did not hold'} at revision {before}: {txn}"
        for key, seen in zip(txn.reads, txn.seen, strict=True):
            if seen != model.at(key, txn.revision):
                yield f"saw {seen} of {key!r}, the log says {model.at(key, txn.revision)}: {txn}"


def _check_unknown(txn: Txn, place: dict[bytes, int], revisions: set[int]) -> Iterable[str]:
    values = [value for _, value in txn.writes if value is not None]
    if revisions and (len(revisions) > 1 or any(value not in place for value in values)):
        yield f"written in part or at several revisions {sorted(revisions)}: {txn}"


def _check_writes(txn: Txn, place: dict[bytes, int], deleted: set[tuple[int, bytes]], model: Model) -> Iterable[str]:
    for key, value in txn.writes:
        if value is not None:
            if place.get(value) != txn.revision:
                yield f"acknowledged and lost ({key!r}, the log has it at {place.get(value)}): {txn}"
        elif (txn.revision, key) not in deleted and model.at(key, txn.revision)[1]:
            yield f"acknowledged the deletion of {key!r}, which is still there: {txn}"


def effects(txns: Sequence[Txn], log: Sequence[Change]) -> Iterable[tuple[int, int | None, int, bool, Txn]]:
    """(invoked, returned or None, revision, whether it wrote, the transaction) of each that took effect."""
    place: dict[bytes, int] = {change.value: change.revision for change in log if change.value is not None}
    for txn in txns:
        if txn.fate is Fate.DONE:
            yield txn.invoked_ns, txn.returned_ns, txn.revision, txn.changed, txn
        else:
            for _, value in txn.writes:
                if value is not None and value in place:
                    yield txn.invoked_ns, None, place[value], True, txn
                    break
