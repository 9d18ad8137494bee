"""The one writer of the database: rows pile up in memory and are written between two batches, never before an answer.

The Raft log is the truth. What a transaction here has not taken in yet is replayed from the log after a crash, so
neither the commit nor an fsync stands between a request and its answer. Two marks say how far things are:

- the *applied index* is written in the transaction that holds the rows up to it;
- the *durable applied index* is what a power loss cannot take back: the applied index of the last transaction that a
  finished checkpoint covers. Only entries up to it may leave the log.

A checkpoint runs on its own thread. Until it is done nothing is committed (rows stay in memory), so that it covers the
whole WAL and the next transaction starts the WAL from its beginning: it stays small under any load.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from quorate.node.directories import sync_directory
from quorate.storage import schema
from quorate.storage.buckets import Buckets
from quorate.storage.schema import seal_of
from quorate.wire.messages import MAIN_SHIFT

Row = tuple[int, int, bytes, bytes]  # record id, record id of the key's previous record or 0, key, blob
ROW_BYTES: Final = 160  # of a pending row besides its key and blob
TRANSACTION_BYTES: Final = 4 * schema.PAGE_BYTES  # in the WAL besides its rows: pages that are written again
CHECKPOINT_WAL_BYTES: Final = 16 * 1024 * 1024  # above this a checkpoint is due: tens of milliseconds of writing
PENDING_BYTES_MAX: Final = 64 * 1024 * 1024  # above this the loop waits for a running checkpoint

_INSERT: Final = "INSERT INTO history VALUES (?, ?, ?, ?, ?)"
_UPDATE_STATE: Final = (
    "UPDATE state SET applied_index = ?, applied_term = ?, revision = ?,"
    " scheduled_compact_revision = ?, finished_compact_revision = ?, crc = ?"
)
_PAGES: Final = "SELECT page_count, freelist_count FROM pragma_page_count, pragma_freelist_count"
_BLOB: Final = "SELECT kv, crc, prev FROM history WHERE id = ?"
_BLOBS: Final = (
    "SELECT h.id, h.kv, h.crc, h.prev FROM json_each(?) AS wanted CROSS JOIN history AS h ON h.id = wanted.value"
)


def replaced(rows: Sequence[Row], position: int) -> int:
    """The live record that an event's prev_kv shows, 0 for none: what its key was before the *revision* of the event.

    `rows` holds whole revisions in order. The record before the row's may belong to the same transaction; etcd reads
    prev_kv at the revision below, and gives none to a put that creates its key.
    """
    record, previous, _, _ = rows[position]
    if previous & 1 and not record & 1:
        return 0
    while previous and previous >> MAIN_SHIFT == record >> MAIN_SHIFT:
        while rows[position][0] != previous:
            position -= 1
        previous = rows[position][1]
    return 0 if previous & 1 else previous


class DiskFull(Exception):  # noqa: N818 - it names the finding
    """The file system has no room for a transaction; it may have some later."""


class HeldStill(Exception):  # noqa: N818 - it names the finding
    """The file must not change just now: it is being copied."""


@contextmanager
def room_for(database: Path) -> Iterator[None]:
    """DiskFull where SQLite finds no room."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
            raise
        raise DiskFull(f"no space for the database {database}") from error


@dataclass(slots=True)
class Marks:
    """The one row of `state`."""

    applied_index: int = 0
    applied_term: int = 0
    revision: int = 1
    scheduled_compact_revision: int = -1
    finished_compact_revision: int = -1


class Database:
    """Rows waiting to be written, and everything that is read back by the writing connection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = schema.open_writer(path)
        try:
            self._begin_work()
        except BaseException:
            self.connection.close()
            raise

    def _begin_work(self) -> None:
        self.pending: list[Row] = []
        self.pending_bytes = 0
        self.commit_seconds = Buckets(0.001, 2, 14)
        self._inserted = 0  # so many of `pending` are in the open transaction already
        self._changes: list[tuple[str, tuple[Any, ...]]] = []
        self._in_transaction = False
        self.rollbacks = 0  # of transactions that found no room
        self.marks = Marks(*schema.marks(self.connection))
        self._written = self._marks()
        self._checkpointer = ThreadPoolExecutor(1, "checkpoint")
        self._checkpoint: Future[None] | None = None
        self._still = threading.Lock()  # held while the file must not change: by a checkpoint, or by a copy of it
        self._copying: set[int] = set()  # threads in `held_still`; a set, as adding to it is one step
        self._checkpoint_index = 0
        self._wal_bytes = 0
        self.size_bytes = 0
        self.size_in_use_bytes = 0
        self.durable_index = 0
        self.measure()
        self.start_checkpoint()  # what the file holds now may have been committed but not synced
        self.wait_for_checkpoint()
        if self.durable_index < self._checkpoint_index:  # no room to take it into the database: it stays in the WAL
            sync_wal(self.path)
            self.durable_index = self._checkpoint_index

    # --- writing -----------------------------------------------------------------------------------------------------

    def later(self, statement: str, *parameters: Any) -> None:
        """Have a change of another table be part of the next transaction."""
        self._changes.append((statement, parameters))

    @property
    def is_dirty(self) -> bool:
        """Whether there is anything a transaction would write."""
        return bool(self.pending or self._changes) or self._marks() != self._written

    @property
    def checkpoint_is_running(self) -> bool:
        return self._checkpoint is not None and not self._checkpoint.done()

    def insert_pending(self) -> None:
        """Put the pending rows into the open transaction, where this connection can read them. DiskFull as `commit`."""
        if self._inserted < len(self.pending):
            with self._room():
                self._insert()

    def _insert(self) -> None:
        self._begin()
        rows = self.pending[self._inserted :]
        sealed = [
            (record, previous, seal_of(record, previous, blob), key, blob) for record, previous, key, blob in rows
        ]
        self.connection.executemany(_INSERT, sealed)
        self._inserted = len(self.pending)

    def commit(self) -> None:
        """Write everything up to the applied index as one transaction.

        DiskFull when there is no room: everything is still pending then, except what `run_many` did.
        """
        started = perf_counter()
        with self._room():
            written = self._write()
        if written:
            self.pending = []
            self._changes = []
            self._inserted = self.pending_bytes = 0
            self.measure()
            self.commit_seconds.add(perf_counter() - started)

    def _write(self) -> bool:
        if self._inserted < len(self.pending):
            self._insert()
        marks = self._marks()
        if self._changes or marks != self._written:
            self._begin()
            execute = self.connection.execute
            for statement, parameters in self._changes:
                execute(statement, parameters)
            execute(_UPDATE_STATE, schema.sealed(marks))
        if not self._in_transaction:
            return False
        self.connection.execute("COMMIT")
        self._in_transaction = False
        self._written = marks
        self._wal_bytes += self.pending_bytes + TRANSACTION_BYTES
        return True

    @contextmanager
    def _room(self) -> Iterator[None]:
        try:
            with room_for(self.path):
                yield
        except DiskFull:
            self._take_back()
            raise

    def _take_back(self) -> None:
        self.rollbacks += 1
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
        self._in_transaction = False
        self._inserted = 0
        self.marks.finished_compact_revision = self._written[4]

    def run_many(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Execute a statement for every row inside the next transaction, at once. DiskFull as `commit`."""
        self._begin()
        with self._room():
            self.connection.executemany(statement, rows)

    def _begin(self) -> None:
        if not self._in_transaction:
            self.connection.execute("BEGIN IMMEDIATE")
            self._in_transaction = True

    def _marks(self) -> tuple[int, int, int, int, int]:
        marks = self.marks
        return (
            marks.applied_index,
            marks.applied_term,
            marks.revision,
            marks.scheduled_compact_revision,
            marks.finished_compact_revision,
        )

    def measure(self) -> None:
        """Look how large the file is and how much of it is free."""
        pages, free = self.connection.execute(_PAGES).fetchone()
        self.size_bytes = pages * schema.PAGE_BYTES
        self.size_in_use_bytes = (pages - free) * schema.PAGE_BYTES

    # --- checkpoints -------------------------------------------------------------------------------------------------

    @property
    def checkpoint_is_due(self) -> bool:
        """Whether the WAL holds so much that it should be taken into the database."""
        return self._checkpoint is None and self._wal_bytes > CHECKPOINT_WAL_BYTES and not self._copying

    def note_written(self, size: int) -> None:
        """Count what a transaction adds to the WAL; its file cannot tell, as it keeps its size when begun anew."""
        self._wal_bytes += size

    def start_checkpoint(self) -> None:
        """Begin to make what is committed durable; commit nothing until `checkpoint_is_running` is false."""
        assert self._checkpoint is None, "one checkpoint at a time"
        self._checkpoint_index = self._written[0]
        self._wal_bytes = 0
        self._checkpoint = self._checkpointer.submit(self._run_checkpoint)

    def finish_checkpoint(self) -> bool:
        """Take note of a checkpoint that is done; False when there is none, or none could be made: the disk is full,
        or a copy of the file began before it."""
        if self._checkpoint is None or not self._checkpoint.done():
            return False
        done, self._checkpoint = self._checkpoint, None
        try:
            done.result()
        except HeldStill:
            self._wal_bytes = CHECKPOINT_WAL_BYTES + 1  # as soon as the copy is there
            return False
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
            return False
        self.durable_index = self._checkpoint_index
        return True

    def wait_for_checkpoint(self) -> None:
        """Block until a running checkpoint is done."""
        if self._checkpoint is not None:
            self._checkpoint.exception()
            self.finish_checkpoint()

    @property
    def is_held_still(self) -> bool:
        """Whether no checkpoint should begin."""
        return bool(self._copying)

    def _run_checkpoint(self) -> None:
        if not self._still.acquire(blocking=False):  # commits wait for this to be over, and a copy takes long
            raise HeldStill
        try:
            if not checkpoint(self.path):  # a read under way keeps something in the WAL, where SQLite did not sync it
                sync_wal(self.path)
        finally:
            self._still.release()

    @contextmanager
    def held_still(self) -> Iterator[bool]:
        """Have the file hold what is committed now, and keep it as it is; for threads other than the loop's.

        Commits go on, they only write to the WAL. False when a read under way keeps something out of the file.
        """
        self._copying.add(threading.get_ident())
        try:
            with self._still:
                yield checkpoint(self.path)
        finally:
            self._copying.discard(threading.get_ident())

    # --- reading -----------------------------------------------------------------------------------------------------

    def blob(self, record: int) -> bytes | None:
        """The blob of a record that is in the database, None when compaction has dropped it."""
        row = self.connection.execute(_BLOB, (record,)).fetchone()
        if row is None:
            return None
        blob: bytes = row[0]
        if seal_of(record, row[2], blob) != row[1]:
            raise damaged(record)
        return blob

    def blobs(self, records: Iterable[int]) -> dict[int, bytes]:
        """The blobs of many records."""
        return read_blobs(self.connection, records)

    def close(self) -> None:
        """Close without a last transaction: what is pending is replayed."""
        try:
            self.wait_for_checkpoint()
            self._checkpointer.shutdown()
            if self._in_transaction:
                self.connection.execute("ROLLBACK")
        finally:
            self.connection.close()


def read_blobs(connection: sqlite3.Connection, records: Iterable[int]) -> dict[int, bytes]:
    """Blobs by record id in one statement: SQLite walks the list, not Python."""
    blobs: dict[int, bytes] = {}
    for record, blob, crc, previous in connection.execute(_BLOBS, (f"[{','.join(map(str, records))}]",)):
        if seal_of(record, previous, blob) != crc:
            raise damaged(record)
        blobs[record] = blob
    return blobs


def checked(rows: Iterable[tuple[int, int, int, bytes, bytes]]) -> Iterator[Row]:
    """Rows as they stand in the table, without their checksums; DamagedDatabase for one that is damaged."""
    for record, previous, crc, key, blob in rows:
        if seal_of(record, previous, blob) != crc:
            raise damaged(record)
        yield record, previous, key, blob


def damaged(record: int) -> schema.DamagedDatabase:
    """What was read of a record is not what was written."""
    return schema.DamagedDatabase(f"the database is damaged: the value of record {record:x} is not what was written")


def checkpoint(path: Path) -> bool:
    """Take the WAL into the file, synced; False when a read under way still needs a part of it."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = NORMAL")
        busy, frames, taken = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return bool(not busy and frames == taken)
    finally:
        connection.close()


def sync_wal(path: Path) -> None:
    """Make what is committed durable where it is; SQLite synced what the WAL no longer holds when it began it anew."""
    wal = path.with_name(f"{path.name}-wal")
    if wal.exists():
        descriptor = os.open(wal, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_directory(path.parent)
