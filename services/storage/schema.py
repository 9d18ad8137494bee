"""Tables and pragmas of the database, each with its reason; opening it, and telling a sound file from a damaged one.

| table      | a row is                                                                                        |
|------------|-------------------------------------------------------------------------------------------------|
| history    | one change of one key; the rowid is the record id, so that a put appends and a watcher scans    |
| state      | the one row of marks: applied index and term, revision, compaction                              |
| lease      | a lease and the seconds it has after a restart                                                  |
| renewal    | which leases were granted or renewed at which log indexes; a later row overrules                |
| attachment | a key under a lease: read at start instead of every KeyValue                                    |
| alarm      | an alarm that is on                                                                             |
| auth       | a user, role, token or the state of auth                                                        |

The columns of a table WITHOUT ROWID stand in the order of its primary key: PRAGMA quick_check of SQLite 3.40 finds NULL
values that are not there when they do not.

`history.crc` is the CRC-32C of `kv` with `id` and `prev` folded in (`seal_of`), looked at whenever a `kv` is read for
an answer: SQLite does not notice a bit that flips inside a value.

The other tables have a `crc` over their other columns (`sealed`), looked at when they are read: at a start.

`history.key` repeats the key that is inside `kv`: the index is loaded from it at start without reading one value.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import google_crc32c

from quorate.node.directories import sync_directory
from quorate.wire.messages import MAIN_SHIFT, MAINS_MAX

VERSION: Final = 5
APPLICATION_ID: Final = 0x51554F52  # "QUOR": tells our file from another SQLite database
REVISION_MAX: Final = MAINS_MAX // 2  # of a database that is opened: more will follow
PAGE_BYTES: Final = 4096
WRITER_CACHE_BYTES: Final = 16 * 1024 * 1024  # interior pages of a few million rows and the pages being appended to
READER_CACHE_BYTES: Final = 2 * 1024 * 1024  # a reader goes through the file once; what it needs twice is in its cache

HISTORY: Final = """
CREATE TABLE history (
    id INTEGER PRIMARY KEY,
    prev INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    key BLOB NOT NULL,
    kv BLOB NOT NULL
) STRICT
"""  # key before kv: reading the key of a large value stays on the first page of the row
TABLES: Final = (
    HISTORY,
    """
    CREATE TABLE state (
        id INTEGER PRIMARY KEY CHECK (id = 0),
        applied_index INTEGER NOT NULL DEFAULT 0,
        applied_term INTEGER NOT NULL DEFAULT 0,
        revision INTEGER NOT NULL DEFAULT 1,
        scheduled_compact_revision INTEGER NOT NULL DEFAULT -1,
        finished_compact_revision INTEGER NOT NULL DEFAULT -1,
        crc INTEGER NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE lease (
        id INTEGER PRIMARY KEY,
        granted_ttl INTEGER NOT NULL,
        remaining_ttl INTEGER NOT NULL,
        crc INTEGER NOT NULL
    ) STRICT
    """,
    "CREATE TABLE renewal (id INTEGER PRIMARY KEY, leases BLOB NOT NULL, crc INTEGER NOT NULL) STRICT",
    """
    CREATE TABLE attachment (
        key BLOB PRIMARY KEY,
        lease INTEGER NOT NULL,
        crc INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE alarm (
        kind INTEGER,
        member_id INTEGER,
        crc INTEGER NOT NULL,
        PRIMARY KEY (kind, member_id)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE auth (
        kind TEXT,
        name TEXT,
        value BLOB NOT NULL,
        crc INTEGER NOT NULL,
        PRIMARY KEY (kind, name)
    ) STRICT, WITHOUT ROWID
    """,
)


# The second: SQLite's message quotes what is no text, so that it cannot even be told.
READING_FAILED: Final = (sqlite3.DatabaseError, UnicodeDecodeError)


class DamagedDatabase(Exception):  # noqa: N818 - it names the finding
    """The file is no database of ours, or not sound; the text is one sentence for the operator."""


class WrongFormat(DamagedDatabase):
    """A sound database of another version of this program."""


def tells_damage(error: sqlite3.DatabaseError | UnicodeDecodeError) -> bool:
    """Whether an error means that the file is not sound. A text that is none has no code of SQLite's."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def open_writer(path: Path) -> sqlite3.Connection:
    """The one writing connection, with the tables in place; DamagedDatabase when the file is not sound.

    sqlite3.OperationalError when it cannot be used just now: a full or failing disk says nothing of what is on it.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        return _open_writer(path)
    except READING_FAILED as error:
        if not tells_damage(error):
            raise
        raise DamagedDatabase(f"the database {path} cannot be used: {error}") from error


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that only reads; it may be used by one thread at a time."""
    connection = sqlite3.connect(
        f"file:{path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False, cached_statements=16
    )
    connection.execute(f"PRAGMA cache_size = {-READER_CACHE_BYTES // 1024}")
    return connection


def check(path: Path) -> None:
    """DamagedDatabase unless every page of the file is where it belongs; reads the whole file.

    sqlite3.OperationalError when it cannot be read just now.
    """
    try:
        connection = open_reader(path)
        try:
            check_pages(connection, path)
        finally:
            connection.close()
    except READING_FAILED as error:
        if not tells_damage(error):
            raise
        raise DamagedDatabase(f"the database {path} cannot be used: {error}") from error


def check_ours(path: Path) -> None:
    """DamagedDatabase unless the file says that it is a database of this program and version; reads its first page."""
    try:
        connection = open_reader(path)
        try:
            _check_ours(connection, path)
        finally:
            connection.close()
    except READING_FAILED as error:
        raise DamagedDatabase(f"the database {path} cannot be used: {error}") from error


def check_pages(connection: sqlite3.Connection, path: Path) -> None:
    """The same for a connection."""
    _check_ours(connection, path)
    (finding,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if finding != "ok":
        raise DamagedDatabase(f"the database {path} is damaged: {finding}")


def _open_writer(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=128)
    try:
        _set_up(connection, path)
    except BaseException:
        connection.close()  # not some time later, when another file may have the name
        raise
    return connection


def _set_up(connection: sqlite3.Connection, path: Path) -> None:
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    is_new = not tables
    if is_new:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        # Space of dropped history goes back to the file system in slices (Defragment), never by a rewrite that stops
        # the member; it can only be chosen before the first table.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    else:
        _check_ours(connection, path)
    # Readers never wait for the writer, nor it for them.
    connection.execute("PRAGMA journal_mode = WAL")
    # The Raft log is the truth and replays a lost tail; consensus keeps what was not synced yet (see `database`).
    connection.execute("PRAGMA synchronous = NORMAL")
    # Checkpoints run on a thread of their own: an fsync must not stand between a request and its answer.
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute(f"PRAGMA cache_size = {-WRITER_CACHE_BYTES // 1024}")
    connection.execute("PRAGMA temp_store = MEMORY")
    # Some builds of SQLite overwrite what is deleted: compaction would write as many bytes as it drops.
    connection.execute("PRAGMA secure_delete = OFF")
    if is_new:
        _create(connection)
        sync_directory(path.parent)


def _create(connection: sqlite3.Connection) -> None:
    import sqlite_utils  # only here: the import is a fifth of what storage needs without keys

    database = sqlite_utils.Database(connection)
    with database.conn:
        database.execute("BEGIN")
        for statement in TABLES:
            database.execute(statement)
        database.execute("INSERT INTO state (id, crc) VALUES (0, 0)")
        seal(connection)
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {VERSION}")
        database.execute("COMMIT")


MARKS: Final = ("applied_index", "applied_term", "revision", "scheduled_compact_revision", "finished_compact_revision")
_MARKS: Final = f"SELECT {', '.join(MARKS)}, crc FROM state"  # noqa: S608 - names of ours


def marks(connection: sqlite3.Connection) -> tuple[int, int, int, int, int]:
    """Where the database stands, in the order of MARKS; DamagedDatabase when that is not what was written."""
    for index, term, revision, scheduled, finished in opened(connection.execute(_MARKS)):
        if index < 0 or term < 0 or not 0 < revision <= REVISION_MAX or not -1 <= finished <= scheduled <= revision:
            raise DamagedDatabase("the database is damaged: it stands where none can")
        return index, term, revision, scheduled, finished
    raise DamagedDatabase("the database is damaged: it does not say where it stands")


def check_records(connection: sqlite3.Connection, revision: int) -> None:
    """DamagedDatabase when there are records outside of the revisions there were."""
    oldest, newest = connection.execute("SELECT min(id), max(id) FROM history").fetchone()
    if newest is not None and not 0 < oldest <= newest < revision + 1 << MAIN_SHIFT:
        raise DamagedDatabase("the database is damaged: a record is of no revision")


def seal(connection: sqlite3.Connection) -> None:
    """Write the checksum of marks that were changed by a statement, before the transaction ends."""
    row = connection.execute(_MARKS).fetchone()
    connection.execute("UPDATE state SET crc = ?", sealed(row[:-1])[-1:])


def sealed(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row and its checksum."""
    return *row, int(google_crc32c.value(repr(row).encode()))


def opened(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Rows without their checksums; DamagedDatabase for one that is not what was sealed."""
    for row in rows:
        if sealed(row[:-1]) != row:
            raise DamagedDatabase("the database is damaged: a row is not what was written")
        yield row[:-1]


def seal_of(record: int, previous: int, blob: bytes) -> int:
    """The checksum of a row of history. The numbers are folded, as this is done for every change and every read."""
    numbers = record ^ previous
    crc: int = google_crc32c.value(blob)
    return crc ^ (numbers ^ numbers >> 32) & 0xFFFFFFFF


def _check_ours(connection: sqlite3.Connection, path: Path) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application_id != APPLICATION_ID:
        raise DamagedDatabase(f"the file {path} is not a database of this program")
    # Triggers, views and indexes too: what a file says of itself can be SQL that runs when the file is used.
    described = connection.execute("SELECT sql FROM sqlite_schema").fetchall()
    is_as_made = sorted(str(sql).strip() for (sql,) in described) == sorted(statement.strip() for statement in TABLES)
    if version != VERSION:
        text = f"the database {path} has format {version}, this program reads format {VERSION}"
        raise DamagedDatabase(text) if is_as_made else WrongFormat(text)
    if not is_as_made:
        raise DamagedDatabase(f"the database {path} is damaged: its tables are not described as they were")
