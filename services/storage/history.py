"""History for watchers that catch up: the changes of an interval from a revision on, in whole revisions.

The cost follows what is returned. A few keys are walked back from their newest records; an interval of many keys is
found by one pass over the records in question, in windows, so that a whole catch-up reads the table once. Either way it
happens on a reader thread, and compaction waits for it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from quorate.storage import schema
from quorate.storage.database import Row, checked, read_blobs, replaced
from quorate.storage.events import event_parts
from quorate.storage.index import OPEN_END
from quorate.storage.mvcc import Store
from quorate.storage.records import key_value_of
from quorate.wire.messages import MAIN_SHIFT
from quorate.wire.watching import HistoryRead, pack_history, pack_history_compacted

WALKED_KEYS_MAX: Final = 16  # an interval of more keys is scanned
WALKED_RECORDS_MAX: Final = 2000  # of one key: a key that changes all the time is scanned for
SCAN_REVISIONS: Final = 20_000  # in one window
SCAN_WINDOWS_MAX: Final = 10  # in one answer, when little matches: a few hundred milliseconds at most

_WALK: Final = """
WITH RECURSIVE walk (id, prev) AS (
    SELECT id, prev FROM history WHERE id = ?1
    UNION ALL
    SELECT h.id, h.prev FROM walk AS w JOIN history AS h ON h.id = w.prev WHERE w.prev >= ?2
)
SELECT id FROM walk WHERE id >= ?2 LIMIT ?3
"""
_ROWS: Final = (
    "SELECT h.id, h.prev, h.crc, h.key, h.kv FROM json_each(?) AS wanted CROSS JOIN history AS h ON h.id = wanted.value"
)
_SCAN: Final = "SELECT id, prev, crc, key, kv FROM history WHERE id >= ? AND id < ?"


class History:
    """One question for history; made on the main thread, `read` on a reader thread with everything committed."""

    def __init__(self, store: Store, question: HistoryRead) -> None:
        self.revision = max(0, question.first_revision)  # compaction must not go beyond it
        self._question = question
        self._path = store.database.path
        self._compact_revision = store.compact_revision
        self._last = min(question.last_revision, store.revision)
        self._newest = _newest_records(store, question.key, question.range_end)

    def read(self) -> bytes:
        """The body of HISTORY."""
        question = self._question
        first = question.first_revision
        if first < self._compact_revision:
            return pack_history_compacted(question.request_id, self._compact_revision)
        if first > self._last:
            return pack_history(question.request_id, self._last, [])
        connection = schema.open_reader(self._path)
        try:
            rows, complete = self._rows(connection)
            return pack_history(question.request_id, complete, _events(connection, rows, question, self._kept_from))
        finally:
            connection.close()

    @property
    def _kept_from(self) -> int:
        """The id from which on a record's predecessor is not compacted."""
        return self._compact_revision + 1 << MAIN_SHIFT

    def _rows(self, connection: sqlite3.Connection) -> tuple[list[Row], int]:
        """The matching rows, and the revision up to which they are complete."""
        question = self._question
        if self._newest is not None:
            low, high = question.first_revision << MAIN_SHIFT, self._last + 1 << MAIN_SHIFT
            records = _walked(connection, self._newest, low)
            if records is not None:
                wanted = sorted(record for record in records if record < high)
                rows, cut = _whole_revisions(_read_rows(connection, wanted), question)
                return rows, cut or self._last
        return self._scan(connection)

    def _scan(self, connection: sqlite3.Connection) -> tuple[list[Row], int]:
        question = self._question
        statement, keys = _SCAN, [question.key]
        if not question.range_end:
            statement += " AND key = ?"
        else:
            statement += " AND key >= ?"
            if question.range_end != OPEN_END:
                statement += " AND key < ?"
                keys.append(question.range_end)
        start = question.first_revision
        for _ in range(SCAN_WINDOWS_MAX):
            end = min(start + SCAN_REVISIONS, self._last + 1)
            found = connection.execute(f"{statement} ORDER BY id", (start << MAIN_SHIFT, end << MAIN_SHIFT, *keys))
            rows, cut = _whole_revisions(checked(found), question)
            found.close()
            if rows or end > self._last:
                return rows, cut or end - 1
            start = end
        return [], start - 1


def _newest_records(store: Store, key: bytes, range_end: bytes) -> list[int] | None:
    """The newest records of the interval's keys, None when it has too many."""
    index = store.index
    if not range_end:
        record = index.newest.get(key, 0)
        return [record] if record else []
    if store.count(key, range_end) + index.dead_span(key, range_end) > WALKED_KEYS_MAX:
        return None
    keys = [*index.live_keys(key, range_end), *index.dead_keys(key, range_end)]
    return [index.newest[each] for each in keys]


def _walked(connection: sqlite3.Connection, newest: list[int], low: int) -> list[int] | None:
    """The records of some keys from the id `low` on, None when they are many."""
    records: list[int] = []
    for record in newest:
        if record >= low:
            found = connection.execute(_WALK, (record, low, WALKED_RECORDS_MAX + 1)).fetchall()
            records += (each for (each,) in found)
            if len(records) > WALKED_RECORDS_MAX:
                return None
    return records


def _read_rows(connection: sqlite3.Connection, records: list[int]) -> Iterator[Row]:
    for start in range(0, len(records), 100):
        piece = records[start : start + 100]
        found = connection.execute(_ROWS, (f"[{','.join(map(str, piece))}]",)).fetchall()
        yield from checked(sorted(found))


def _whole_revisions(rows: Iterable[Row], question: HistoryRead) -> tuple[list[Row], int]:
    """The first rows up to the limits of the question, and the revision they were cut behind (0: they were not)."""
    taken: list[Row] = []
    main = revisions = size = 0
    for row in rows:
        if row[0] >> MAIN_SHIFT != main:
            if revisions == question.revisions_max or size > question.bytes_max:
                return taken, main
            main = row[0] >> MAIN_SHIFT
            revisions += 1
        size += len(row[3])
        taken.append(row)
    return taken, 0


def _events(connection: sqlite3.Connection, rows: list[Row], question: HistoryRead, kept_from: int) -> list[bytes]:
    before: dict[int, bytes] = {}
    shown = [0] * len(rows)
    if question.with_previous:
        shown = [replaced(rows, position) for position in range(len(rows))]
        wanted = (record for row, record in zip(rows, shown, strict=True) if record and row[0] >= kept_from)
        while piece := list(islice(wanted, 1000)):
            before |= read_blobs(connection, piece)
    events: list[bytes] = []
    for (record, _, key, blob), previous in zip(rows, shown, strict=True):
        old = before.get(previous)
        events.append(b"".join(event_parts(record, key, blob, key_value_of(old) if old else b"")))
    return events
