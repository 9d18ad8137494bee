"""Every change of every key since the last compaction, and which of them is visible at a revision.

The rule of this file: a record is made once and is immutable from then on; only the index says which one is newest.
Answers about the present come from the index. For an older revision there is no second index: each record knows the
record of the same key before it, so that the state then is the state now *rewound*, either by the changes made since
(one scan of the newest rows, good for a page of a recent list over many keys) or by walking back key by key (good for
few keys and far revisions). An index of all versions in memory was rejected: it costs 75 MB per million updated keys
and a second of every start, for reads that are rare.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from typing import Final, cast

from quorate.storage import schema
from quorate.storage.database import ROW_BYTES, Database, DiskFull, Row, replaced
from quorate.storage.index import OPEN_END, KeyIndex
from quorate.storage.records import (
    BLOB_TAG,
    CREATE_TAG,
    MOD_TAG,
    VERSION_TAG,
    Facts,
    facts_of,
    tombstone_blob,
    varint,
)
from quorate.wire import errors
from quorate.wire.errors import CallFailed
from quorate.wire.messages import MAIN_SHIFT

RECENT_BYTES_MAX: Final = 24 * 1024 * 1024  # of KeyValues kept in memory; hot keys are then never read from the file
RECENT_BYTES_EACH: Final = 150  # what keeping one costs besides its bytes
FACTS_MAX: Final = 200_000  # keys of each of two generations whose next put reads nothing back, at about 220 bytes each
FETCH_SINGLY_MAX: Final = 3  # so many records are fetched one by one, more of them in one statement
REWINDS_MAX: Final = 8  # revisions whose changes since are remembered, for the next page of the same list
REWIND_KEYS_MAX: Final = 100_000
REWOUND_REVISIONS_MIN: Final = 1000  # so far back an interval is rewound, however few keys it has

_PREVIOUS: Final = "SELECT prev FROM history WHERE id = ?"
_CHANGED: Final = "SELECT key, prev FROM history WHERE id >= ? AND id < ? ORDER BY id DESC"
WALK_STEPS: Final = 1000
# From one record of a key back to the first below a bound, or a number of steps: where that leads.
_WALK: Final = """
WITH RECURSIVE walk (id, steps) AS (
    VALUES (?1, 0)
    UNION ALL
    SELECT h.prev, w.steps + 1 FROM walk AS w JOIN history AS h ON h.id = w.id WHERE w.id >= ?2 AND w.steps < ?3
)
SELECT id FROM walk ORDER BY steps DESC LIMIT 1
"""
_NEAREST: Final = "SELECT id FROM history WHERE id < ? AND id >= ? AND key = ? ORDER BY id DESC LIMIT 1"
NEAREST_RECORDS: Final = 20_000


@dataclass(slots=True, frozen=True)
class Selection:
    """The records of an interval that are alive at a revision, in key order."""

    records: list[int]
    count: int  # of the whole interval, also when `records` was cut at a limit


class Store:
    """The MVCC state of one member. Changes are made inside a transaction that `finish` ends; the transaction's
    revision is the current one plus one, and it exists only if something was changed."""

    def __init__(self, database: Database) -> None:
        self.database = database
        schema.check_records(database.connection, database.marks.revision)
        newest = cast("dict[bytes, int]", dict(database.connection.execute("SELECT key, id FROM history ORDER BY id")))
        self.index = KeyIndex(newest)
        self.revision = database.marks.revision
        self.compact_revision = database.marks.scheduled_compact_revision
        self.main = self.revision + 1
        self.mod_field = MOD_TAG + varint(self.main)
        self.sub = 0
        self._recent: dict[int, bytes] = {}
        self._recent_old: dict[int, bytes] = {}
        self._facts: dict[bytes, Facts] = {}  # of the newest record of keys that were written more than once
        self._facts_old: dict[bytes, Facts] = {}
        self._recent_bytes = 0
        self._rewinds: OrderedDict[int, tuple[dict[bytes, int], int]] = OrderedDict()

    # --- changing ----------------------------------------------------------------------------------------------------

    def put(self, key: bytes, key_field: bytes, value_field: bytes, lease_field: bytes) -> int:
        """Make a record of `key` from its encoded fields; the id of the key's record before it, 0 for none."""
        main = self.main
        sub = self.sub
        self.sub = sub + 1
        record = main << MAIN_SHIFT | sub << 1
        index = self.index
        previous = index.newest.get(key, 0)
        if previous and not previous & 1:
            create_field, version = self._facts.get(key) or self.facts(key, previous)
            version += 1
            self._facts[key] = (create_field, version)
        else:
            create_field = CREATE_TAG + varint(main)
            version = 1
            index.live.add(key)
            if previous:
                index.dead.remove(key)
        index.newest[key] = record
        key_value = (
            key_field + create_field + self.mod_field + VERSION_TAG + varint(version) + value_field + lease_field
        )
        blob = BLOB_TAG + varint(len(key_value)) + key_value
        self._recent[record] = blob
        size = len(blob)
        self._recent_bytes += size + RECENT_BYTES_EACH
        database = self.database
        database.pending.append((record, previous, key, blob))
        database.pending_bytes += size + ROW_BYTES
        return previous

    def delete(self, key: bytes) -> int:
        """Leave a tombstone for a live key; the id of the record it supersedes."""
        index = self.index
        previous = index.newest[key]
        record = self.main << MAIN_SHIFT | self.sub << 1 | 1
        self.sub += 1
        index.newest[key] = record
        index.live.remove(key)
        index.dead.add(key)
        self._facts.pop(key, None)
        self._facts_old.pop(key, None)
        blob = tombstone_blob(key, self.main)
        self._recent[record] = blob
        self._recent_bytes += len(blob) + RECENT_BYTES_EACH
        self.database.pending.append((record, previous, key, blob))
        self.database.pending_bytes += len(blob) + ROW_BYTES
        return previous

    def finish(self) -> None:
        """End the transaction: if it changed anything, its revision is the current one now."""
        if self.sub:
            self.revision = self.main
            self.main += 1
            self.mod_field = MOD_TAG + varint(self.main)
            self.sub = 0
            self.database.marks.revision = self.revision

    @property
    def seen_revision(self) -> int:
        """The revision a read sees that stands inside the transaction at this place."""
        return self.main if self.sub else self.revision

    def forget_recent(self) -> None:
        """Keep the memory of recent records bounded, whether they were made or only read: once a turn. Those of pending
        rows stay, as they are only here."""
        database = self.database
        if self._recent_bytes - database.pending_bytes > RECENT_BYTES_MAX // 2:
            self._recent_old, self._recent = self._recent, {row[0]: row[3] for row in database.pending}
            self._recent_bytes = database.pending_bytes
        if len(self._facts) > FACTS_MAX:
            self._facts_old, self._facts = self._facts, {}

    # --- records -----------------------------------------------------------------------------------------------------

    def blob(self, record: int) -> bytes:
        """The blob of a record that is visible at a revision that is not compacted."""
        blob = self._recent.get(record)
        if blob is None:
            blob = self.old_blob(record)
            assert blob is not None, f"record {record:x} is visible and not there"
        return blob

    def old_blob(self, record: int) -> bytes | None:
        """The blob of any record, None when compaction has dropped it."""
        blob = self._recent.get(record)
        if blob is None:
            blob = self._recent_old.get(record) or self.database.blob(record)
            if blob is not None:
                self._recent[record] = blob
                self._recent_bytes += len(blob) + RECENT_BYTES_EACH
        return blob

    def blobs(self, records: list[int]) -> list[bytes]:
        """The blobs of visible records."""
        recent = self._recent
        older = self._recent_old
        missing = [record for record in records if record not in recent and record not in older]
        if len(missing) > FETCH_SINGLY_MAX:
            found = self.database.blobs(missing)
            return [recent.get(record) or older.get(record) or found[record] for record in records]
        return [self.blob(record) for record in records]

    def facts(self, key: bytes, record: int) -> Facts:
        """The facts of a live key, whose newest record this is."""
        facts = self._facts.get(key)
        if facts is None:
            facts = self._facts_old.pop(key, None) or facts_of(self.blob(record), len(key))
            self._facts[key] = facts
        return facts

    # --- visibility --------------------------------------------------------------------------------------------------

    def alive(self, key: bytes) -> int:
        """The record of a live key, 0 for none."""
        record = self.index.newest.get(key, 0)
        return 0 if record & 1 else record

    def check_revision(self, revision: int) -> int:
        """The revision a range with this option reads; CallFailed when it is not there yet or no more."""
        seen = self.seen_revision
        if revision > seen:
            raise CallFailed(errors.FUTURE_REV)
        if revision <= 0:
            return seen
        if revision < self.compact_revision:
            raise CallFailed(errors.COMPACTED)
        return revision

    def count(self, key: bytes, range_end: bytes) -> int:
        """How many keys of the interval are live."""
        if not range_end:
            return 1 if self.alive(key) else 0
        first, last = self.index.span(key, range_end)
        return last - first

    def keys(self, key: bytes, range_end: bytes) -> list[bytes]:
        """The live keys of the interval in order."""
        if not range_end:
            return [key] if self.alive(key) else []
        first, last = self.index.span(key, range_end)
        return list(self.index.live[first:last])

    def select(self, key: bytes, range_end: bytes, revision: int, limit: int) -> Selection:
        """The records alive at `revision` (as `check_revision` returned it), `limit` of them at most when not 0."""
        if revision != self.seen_revision:
            return self._select_old(key, range_end, revision, limit)
        newest = self.index.newest
        if not range_end:
            record = self.alive(key)
            return Selection([record], 1) if record else Selection([], 0)
        first, last = self.index.span(key, range_end)
        keys = self.index.live[first : min(last, first + limit) if limit else last]
        return Selection([newest[each] for each in keys], last - first)

    def _select_old(self, key: bytes, range_end: bytes, revision: int, limit: int) -> Selection:
        bound = revision + 1 << MAIN_SHIFT
        if not range_end:
            record = self.index.newest.get(key, 0)
            record = record if record < bound else self.walk(bound)(key, record)
            return Selection([record], 1) if record and not record & 1 else Selection([], 0)
        first, last = self.index.span(key, range_end)
        if self.seen_revision - revision <= max(REWOUND_REVISIONS_MIN, (last - first) // 4):
            return self._select_rewound(key, range_end, revision, limit)
        newest = self.index.newest
        walk = self.walk(bound)
        records = []
        for each in merge(self.index.live_keys(key, range_end), self.index.dead_keys(key, range_end)):
            record = newest[each]
            if record >= bound:
                record = walk(each, record)
            if record and not record & 1:
                records.append(record)
        return Selection(records[:limit] if limit else records, len(records))

    def _select_rewound(self, key: bytes, range_end: bytes, revision: int, limit: int) -> Selection:
        then = self.rewind(revision)
        newest = self.index.newest
        first, last = self.index.span(key, range_end)
        count = last - first
        revived = []
        for each, record in then.items():
            if key <= each and (range_end == OPEN_END or each < range_end):
                was_alive = bool(record) and not record & 1
                is_alive = not newest.get(each, 1) & 1
                count += was_alive - is_alive
                if was_alive and not is_alive:
                    revived.append(each)
        keys: Iterator[bytes] = self.index.live_keys(key, range_end)
        if revived:
            keys = merge(keys, sorted(revived))
        records: list[int] = []
        for each in keys:
            if limit and len(records) == limit:
                break
            record = then[each] if each in then else newest[each]
            if record and not record & 1:
                records.append(record)
        return Selection(records, count)

    def rewind(self, revision: int) -> dict[bytes, int]:
        """Of every key changed after `revision` the record it had then: 0 or a tombstone where it was not alive."""
        bound = revision + 1 << MAIN_SHIFT
        then, scanned = self._rewinds.pop(revision, ({}, bound))
        end = self.main << MAIN_SHIFT | self.sub << 1
        if scanned < end:
            later = {row[2]: row[1] for row in reversed(self._unwritten()) if scanned <= row[0] < end}
            later.update(self.database.connection.execute(_CHANGED, (scanned, end)))
            then = {**later, **then}
        self._rewinds[revision] = (then, end)
        while len(self._rewinds) > REWINDS_MAX or (
            len(self._rewinds) > 1 and sum(len(each) for each, _ in self._rewinds.values()) > REWIND_KEYS_MAX
        ):
            self._rewinds.popitem(last=False)
        return then

    def walk(self, bound: int) -> Callable[[bytes, int], int]:
        """What finds the record of a key below `bound` from its newest one; see `walk_back`. Until the next change."""
        previous = {row[0]: row[1] for row in self._unwritten()}
        connection = self.database.connection

        def below(key: bytes, record: int) -> int:
            while record >= bound and record in previous:
                record = previous[record]
            return walk_back(connection, key, record, bound) if record >= bound else record

        return below

    def _unwritten(self) -> list[Row]:
        """The rows that are only in memory, as the disk takes none just now: what was applied is read nevertheless."""
        database = self.database
        try:
            database.insert_pending()
        except DiskFull:
            return database.pending
        return []

    def previous_blobs(self, rows: Sequence[Row]) -> Iterator[bytes | None]:
        """For each row of whole revisions the blob that prev_kv shows, None where there is none or it is compacted."""
        for position in range(len(rows)):
            record = replaced(rows, position)
            yield self.old_blob(record) if record else None


def walk_back(connection: sqlite3.Connection, key: bytes, record: int, bound: int) -> int:
    """The record of `key` below `bound`, from a newer one; 0 for none.

    A dropped tombstone may be returned as its id; whatever else is returned is there, as long as the bound is above the
    compact revision. Of a key with many changes since the bound one is likely to lie right below it; so longer and
    longer walks take turns with looking there.
    """
    steps = WALK_STEPS
    low = bound
    while True:
        (record,) = connection.execute(_WALK, (record, bound, steps)).fetchone()
        if record < bound:
            return int(record)
        high, low = low, low - (NEAREST_RECORDS * (steps // WALK_STEPS) << MAIN_SHIFT)
        near = connection.execute(_NEAREST, (high, low, key)).fetchone()
        if near:
            return int(near[0])
        steps *= 2
