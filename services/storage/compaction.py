"""Dropping what is superseded: in slices between two batches, restartable, while readers and writers go on.

The compact revision moves when the command is applied, and nobody reads below it from then on. What may go is found by
one scan of the records made since the compaction before: each of them names the record it superseded, and a tombstone
below the compact revision goes itself. A tombstone exactly at the compact revision stays until the next compaction, as
a watch that starts there must still see the deletion (etcd #19179); so the scan starts at the finished revision itself.
Deleting is idempotent, so an interrupted compaction is simply done again.
"""

from __future__ import annotations

from time import perf_counter, time
from typing import Final

from quorate.storage.buckets import Buckets
from quorate.storage.mvcc import Store
from quorate.storage.schema import PAGE_BYTES
from quorate.wire.messages import MAIN_SHIFT, main_revision

SLICE_RECORDS: Final = 400  # one to two milliseconds of deleting

_SCAN: Final = "SELECT id, prev, key FROM history WHERE id > ? AND id < ? ORDER BY id LIMIT ?"
_DELETE: Final = "DELETE FROM history WHERE id = ?"


class Compaction:
    """The physical side: `store.compact_revision` says what is asked, the database's marks say what is done."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._target = -1
        self._rollbacks = 0  # of the database, when the last slice was done
        self._cursor = 0  # the record id up to which the target's scan is done
        self.records_dropped = 0
        self.slice_ms = Buckets(1, 2, 13)
        self.total_ms = Buckets(100, 2, 14)
        self.ended_at = 0.0  # Unix time
        self._spent_ms = 0.0

    @property
    def finished_revision(self) -> int:
        """Everything superseded at this revision is gone from the database (once it is committed)."""
        return self._store.database.marks.finished_compact_revision

    @property
    def is_due(self) -> bool:
        """Whether there is a slice to do."""
        store = self._store
        return store.database.marks.finished_compact_revision < store.compact_revision

    @property
    def pinned_by(self) -> int:
        """Reads that need revisions below this one have to end before the next slice."""
        return self._target if self._target >= 0 else self._store.compact_revision

    def advance(self, records_max: int = SLICE_RECORDS) -> None:
        """Do one slice; only when `is_due`. DiskFull when there is no room."""
        started = perf_counter()
        store = self._store
        database = store.database
        if self._rollbacks != database.rollbacks:
            self._rollbacks = database.rollbacks
            self._target = -1  # the last slices were not written: find them again
        if self._target < 0:
            self._target = store.compact_revision
            self._cursor = max(0, self.finished_revision << MAIN_SHIFT) - 1
        target = self._target
        end = target + 1 << MAIN_SHIFT
        database.insert_pending()
        rows = database.connection.execute(_SCAN, (self._cursor, end, records_max)).fetchall()
        doomed = [(previous,) for _, previous, _ in rows if previous]
        gone: list[bytes] = []
        newest = store.index.newest
        for record, _, key in rows:
            if record & 1 and main_revision(record) < target:
                doomed.append((record,))
                if newest.get(key) == record:
                    gone.append(key)
        if doomed:
            database.run_many(_DELETE, doomed)
            database.note_written(len(doomed) * PAGE_BYTES // 4)  # neighbours share a page
            self.records_dropped += len(doomed)
        store.index.forget(gone)
        if len(rows) < records_max:
            database.marks.finished_compact_revision = target
            self._target = -1
        else:
            self._cursor = rows[-1][0]
        spent_ms = (perf_counter() - started) * 1000
        self.slice_ms.add(spent_ms)
        self._spent_ms += spent_ms
        if self._target < 0:
            self.total_ms.add(self._spent_ms)
            self._spent_ms = 0.0
            self.ended_at = time()
