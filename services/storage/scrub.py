"""After a start the whole database is read once in the background: what nobody asks for rots unnoticed.

SQLite looks at the order of its pages, this module at what is inside: each record against its checksum, and the columns
beside it against what the record says of itself. The thread makes room for the loop after every few rows.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from quorate.storage import schema
from quorate.storage.records import MOD_TAG, frame_bytes, read_varint
from quorate.storage.schema import DamagedDatabase
from quorate.wire.messages import MAIN_SHIFT

ROWS_AT_ONCE: Final = 500
PAUSE_SECONDS: Final = 0.002
INSTRUCTIONS: Final = 100_000  # of SQLite's machine between two looks whether to stop
_ROWS: Final = "SELECT id, prev, crc, key, kv FROM history WHERE id > ? ORDER BY id LIMIT ?"
_STRAY: Final = """
SELECT h.id FROM history AS h LEFT JOIN history AS p ON p.id = h.prev
WHERE h.prev != 0 AND (p.key != h.key OR h.prev >= h.id OR p.id IS NULL AND h.prev >= ?) LIMIT 1
"""


def verify(
    path: Path, is_stopping: Callable[[], bool] = lambda: False, pause: Callable[[], object] = lambda: None
) -> None:
    """Read everything, or until `is_stopping`, with a `pause` after every few rows; DamagedDatabase for what is not
    what was written, and sqlite3.OperationalError when it cannot be read just now."""
    connection = schema.open_reader(path)
    try:
        connection.set_progress_handler(is_stopping, INSTRUCTIONS)
        schema.check_pages(connection, path)
        _verify_records(connection, is_stopping, pause)
        connection.execute("BEGIN")  # compaction goes on
        kept_from = schema.marks(connection)[3] + 1 << MAIN_SHIFT  # no record behind the compact revision is dropped
        stray = connection.execute(_STRAY, (kept_from,)).fetchone()
        connection.execute("COMMIT")
        if stray is not None:
            raise DamagedDatabase(f"the database is damaged: record {stray[0]:x} does not follow one of its key")
    except schema.READING_FAILED as error:
        if not is_stopping():
            if not schema.tells_damage(error):
                raise
            raise DamagedDatabase(f"the database {path} cannot be read: {error}") from error
    finally:
        connection.close()


def _verify_records(
    connection: sqlite3.Connection, is_stopping: Callable[[], bool], pause: Callable[[], object]
) -> None:
    last = -1
    while not is_stopping():
        rows = connection.execute(_ROWS, (last, ROWS_AT_ONCE)).fetchall()
        for record, previous, crc, key, blob in rows:
            if schema.seal_of(record, previous, blob) != crc or previous >= record or not _is_of(record, key, blob):
                raise DamagedDatabase(f"the database is damaged: record {record:x} is not what was written")
        if not rows:
            return
        last = rows[-1][0]
        pause()


def _is_of(record: int, key: bytes, blob: bytes) -> bool:
    """Whether the blob is of this key and this revision."""
    try:
        return _says(blob, record, key)
    except IndexError:
        return False


def _says(blob: bytes, record: int, key: bytes) -> bool:
    start = frame_bytes(len(blob))
    length, position = read_varint(blob, start + 1)
    if blob[position : position + length] != key:
        return False
    position += length
    is_tombstone = blob[position : position + 1] == MOD_TAG
    if not is_tombstone:
        position = read_varint(blob, position + 1)[1]  # create_revision
    return is_tombstone == bool(record & 1) and read_varint(blob, position + 1)[0] == record >> MAIN_SHIFT


class Scrub:
    """`verify` on a thread of its own; `fault` is what ended it before everything was read: DamagedDatabase, or a
    mistake of ours, which must not pass for a database without damage."""

    def __init__(self, path: Path) -> None:
        self.fault: Exception | None = None
        self._path = path
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scrub", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            verify(self._path, self._is_stopping.is_set, lambda: self._is_stopping.wait(PAUSE_SECONDS))
        except sqlite3.OperationalError:
            return  # no room or no memory says nothing of the file; the next start reads it again
        except Exception as fault:  # raised again by the loop
            self.fault = fault

    def close(self) -> None:
        """End the thread."""
        self._is_stopping.set()
        self._thread.join()
