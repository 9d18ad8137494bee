"""Backups, and images that come over the peer port: files of SQLite that somebody else has made or changed."""

from __future__ import annotations

import functools
import logging
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any, Final
from unittest import mock

import click

from quorate.consensus import restoring as new_log
from quorate.ctl import backup
from quorate.ctl.bbolt import BboltError
from quorate.ctl.restore import Wishes, restore
from quorate.node.config import Config
from quorate.node.lifecycle import OperatorError
from quorate.proto import auth_pb2, kv_pb2
from quorate.storage import importing, restoring, schema, scrub, snapshot
from quorate.storage.compaction import Compaction
from quorate.storage.importing import Record, Revisions, Users
from quorate.storage.lessor import RENEWED
from quorate.storage.schema import DamagedDatabase, seal_of, sealed, tells_damage
from quorate.storage.state import State
from tests.fuzzing import scratch
from tests.fuzzing.octets import Octets

RAW, PATCHED, ROWS, DESCRIBED = range(4)
APPLIED_INDEX: Final = 7
ENDLESS: Final = "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x FROM c) SELECT x AS id, x AS granted_ttl FROM c"
EVIL: Final = (
    "CREATE TRIGGER t AFTER UPDATE ON state BEGIN INSERT INTO alarm VALUES (202, 202, 0); END",
    "CREATE TRIGGER t AFTER DELETE ON alarm BEGIN INSERT INTO alarm VALUES (202, 202, 0); END",
    "CREATE TRIGGER t BEFORE INSERT ON history BEGIN DELETE FROM history; END",
    "CREATE VIEW v AS SELECT * FROM history",
    "CREATE TABLE extra (a, b AS (a + 1), c AS (hex(randomblob(9))) STORED)",
    "CREATE INDEX i ON history (abs(prev))",
    "CREATE UNIQUE INDEX i ON history (crc) WHERE prev > 0",
    "ALTER TABLE history ADD COLUMN more TEXT DEFAULT (hex(zeroblob(1000)))",
    "ALTER TABLE history RENAME TO past; CREATE VIEW history AS SELECT * FROM past",
    f"ALTER TABLE lease RENAME TO hire; CREATE VIEW lease AS {ENDLESS}",
    "CREATE VIRTUAL TABLE f USING fts5(a)",
    "CREATE TABLE sometable (a TEXT COLLATE nocase CHECK (length(a) > 2))",
    "DROP TABLE renewal",
    "DROP TABLE state; CREATE TABLE state (id, crc)",
    "ANALYZE",
)
ODDITIES: Final = (
    0, 1, -1, 5, 1 << 31, 1 << 38, (1 << 39) - 1, 1 << 39, (1 << 63) - 1, -(1 << 63), b"", b"\xff" * 9, b"\x12\xff" * 3,
    b"\x12\x03\x0a\x01a", "x", None, 1.5,
)  # fmt: skip


@functools.cache
def _good() -> bytes:
    """An image with keys, leases, users, an alarm and renewals."""
    path = scratch.directory() / "good"
    records = []
    for main in range(2, 7):
        pair = kv_pb2.KeyValue(key=b"k%d" % (main % 3), value=b"v" * 20, lease=9, version=1)
        pair.create_revision = pair.mod_revision = main
        records.append(Record(main, 0, main == 4, pair.SerializeToString()))
    user, role = auth_pb2.User(name=b"root", roles=["root"]), auth_pb2.Role(name=b"root")
    importing.write(path, records, {9: 60}, Users(False, 3, [user], [role]), Revisions(3, 2))
    with closing(schema.open_writer(path)) as connection:
        connection.execute("UPDATE state SET applied_index = ?, applied_term = 2", (APPLIED_INDEX,))
        connection.execute("INSERT INTO renewal (leases, crc) VALUES (?, ?)", sealed((RENEWED.pack(5, 1) + bytes(8),)))
        connection.execute("INSERT INTO alarm VALUES (?, ?, ?)", sealed((1, 5)))
        schema.seal(connection)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode = DELETE")
    return path.read_bytes()


@contextmanager
def world() -> Iterator[None]:
    """A directory, and neither lines of ours nor of the commands; the log of who is restored is not of interest."""
    logging.disable()
    try:
        with scratch.world(), redirect_stderr(StringIO()), mock.patch.object(new_log, "write_log"):
            yield
    finally:
        logging.disable(logging.NOTSET)
        _good.cache_clear()


def seeds() -> list[bytes]:
    """The good image, each table with a value that is odd, each statement that describes something else."""
    return [
        bytes((PATCHED,)),
        *(bytes((PATCHED, 0, page * 16, place, 3, 1, 2, 3)) for page in range(8) for place in (3, 200)),
        *(bytes((ROWS, table, column, 7 + (table + column) % 6, 0)) for table in range(7) for column in range(4)),
        *(bytes((DESCRIBED, number)) for number in range(len(EVIL))),
        bytes((RAW,)) + b"SQLite format 3\0" + bytes(100),
    ]


def run(data: bytes) -> bool:
    """Read as the tools and as a member does: an answer, or a refusal with a sentence."""
    octets = Octets(data)
    kind = octets.choice((RAW, PATCHED, ROWS, DESCRIBED))
    good = _good()
    scratch.clear()
    path = scratch.file(good, "image")
    is_other = False
    match kind:
        case 0:
            path.write_bytes(octets.rest())
        case 1:
            path.write_bytes(_patched(good, octets))
        case 2:
            _with_odd_rows(path, octets)
        case _:
            is_other = _described(path, octets.choice(EVIL))
    read = [_refusal(reader, path) for reader in (_status, _hashes, _restored, _installed)]
    if is_other:
        assert None not in read, "a file was read that describes itself differently"
    if kind == PATCHED and path.read_bytes() == good:
        assert read == [None] * 4
    return None in read


def _refusal(reader: Callable[[Path], None], path: Path) -> str | None:
    """The sentence of a refusal, None for a file that was read."""
    copy = scratch.directory() / "copy"
    shutil.copyfile(path, copy)
    try:
        reader(copy)
    except click.ClickException as error:
        return _sentence(error.format_message())
    except (OperatorError, DamagedDatabase, BboltError, snapshot.BadImage) as error:
        return _sentence(str(error))
    except sqlite3.DatabaseError as error:
        if reader is _installed and not tells_damage(error):
            raise  # storage would end again and again
        return _sentence(str(error))
    finally:
        for suffix in ("-wal", "-shm", "-journal"):
            copy.with_name(f"copy{suffix}").unlink(missing_ok=True)
    return None


def _sentence(text: str) -> str:
    assert text, "a refusal without a sentence"
    assert "Traceback" not in text
    return text


def _status(path: Path) -> None:
    backup.status_of(path)


def _hashes(path: Path) -> None:
    found = restoring.contents(path)
    restoring.hash_of(path, found.revision, found.compact_revision)


def _restored(path: Path) -> None:
    target = scratch.directory() / "data"
    shutil.rmtree(target, ignore_errors=True)
    config = Config(data_dir=str(target))
    restore(path, config, Wishes(skip_hash_check=True, bump_revision=1000, mark_compacted=True))
    with closing(schema.open_reader(config.database_path)) as connection:
        assert connection.execute("SELECT count(*) FROM alarm").fetchone() == (0,), "SQL of the file was executed"
    _work(config.database_path)


def _installed(path: Path) -> None:
    copy = path.with_name("image-copy")
    shutil.copyfile(path, copy)
    snapshot.check(copy, APPLIED_INDEX)
    database = scratch.directory() / "installed"
    snapshot.install(copy, database)
    try:
        _work(database)
    finally:
        for suffix in ("", "-wal", "-shm"):
            database.with_name(f"installed{suffix}").unlink(missing_ok=True)


def _work(path: Path) -> None:
    """What storage does with a database: load, look everything over, change keys, compact."""
    state = State(path, 1, 1000, 0.0)
    try:
        scrub.verify(path)
        for key in (b"k1", b"new"):
            state.store.put(key, b"\x0a" + bytes((len(key),)) + key, b"", b"")
            state.store.finish()
        state.lessor.attach(b"new", 9) if 9 in state.lessor.leases else None
        state.commit()
        compaction = Compaction(state.store)
        state.store.compact_revision = state.database.marks.scheduled_compact_revision = state.store.revision
        while compaction.is_due:
            compaction.advance()
        state.commit()
    finally:
        state.close()


def _patched(good: bytes, octets: Octets) -> bytes:
    content = bytearray(good)
    while not octets.is_empty:
        at = octets.number(3) % len(content)
        patch = octets.some()
        content[at : at + len(patch)] = patch
    return bytes(content)


def _described(path: Path, statements: str) -> bool:
    """Have the file describe itself differently; False when SQLite does not take that."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        try:
            connection.executescript(statements)
        except sqlite3.DatabaseError:
            return False
    return path.read_bytes() != _good()


def _with_odd_rows(path: Path, octets: Octets) -> None:
    """Put odd values into rows, with checksums that fit."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        while not octets.is_empty:
            table = octets.choice(("state", "lease", "renewal", "attachment", "alarm", "auth", "history"))
            row: list[Any] = list(connection.execute(f"SELECT * FROM {table} LIMIT 1").fetchone() or ())
            if not row:
                continue
            column = octets.number() % len(row)
            which = octets.number()
            row[column] = octets.some() if which > 240 else ODDITIES[which % len(ODDITIES)]
            try:
                connection.execute(_insertion(table, row), _with_seal(table, row))
            except (sqlite3.Error, OverflowError, TypeError):
                continue


def _insertion(table: str, row: list[Any]) -> str:
    places = ", ".join("?" for _ in row)
    return f"INSERT OR REPLACE INTO {table} VALUES ({places})"


def _with_seal(table: str, row: list[Any]) -> tuple[Any, ...]:
    """The row as its writer would have sealed it."""
    match table:
        case "state":
            return row[0], *sealed(tuple(row[1:-1]))
        case "renewal":
            return row[0], *sealed((row[1],))
        case "history":
            return row[0], row[1], seal_of(row[0], row[1], row[4]), row[3], row[4]
        case _:
            return sealed(tuple(row[:-1]))
