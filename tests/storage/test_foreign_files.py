"""A database that somebody else has made: nothing it says of itself is executed, and nothing in it is believed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import pytest

from quorate.ctl import backup
from quorate.ctl.restore import Wishes, restore
from quorate.node.config import Config
from quorate.proto import auth_pb2, kv_pb2
from quorate.storage import importing, restoring, schema, scrub, snapshot
from quorate.storage.importing import Record, Revisions, Users
from quorate.storage.records import read_varint
from quorate.storage.schema import REVISION_MAX, DamagedDatabase, seal_of, sealed
from quorate.storage.state import State
from quorate.wire.messages import record_id

INDEX = 7


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A sound one with one key, which is under a lease."""
    path = tmp_path / "image"
    pair = kv_pb2.KeyValue(key=b"a", value=b"1", create_revision=2, mod_revision=2, version=1, lease=9)
    users = Users(False, 1, [auth_pb2.User(name=b"root")], [])
    importing.write(path, [Record(2, 0, False, pair.SerializeToString())], {9: 60}, users, Revisions(-1, -1))
    change(path, "UPDATE state SET applied_index = ?", INDEX)
    return path


def change(path: Path, statement: str, *values: Any) -> None:
    """Change a file that nobody has open, with marks that fit their checksum."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement, values)
        schema.seal(connection)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode = DELETE")


def restored(path: Path) -> Path:
    """The database of a member made from it."""
    config = Config(data_dir=str(path.with_name("data")))
    restore(path, config, Wishes(skip_hash_check=True, bump_revision=5, mark_compacted=True))
    return config.database_path


def opened(path: Path) -> None:
    """As a member that starts, and looks everything over."""
    State(path, 1, 1000, 0.0).close()
    scrub.verify(path)


def test_a_sound_file_is_taken_everywhere(image: Path) -> None:
    assert backup.status_of(image).total_key == 1
    snapshot.check(image, INDEX)
    opened(restored(image))


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER UPDATE ON state BEGIN INSERT INTO alarm VALUES (1, 1, 0); END",
        "CREATE TRIGGER t AFTER DELETE ON renewal BEGIN DELETE FROM history; END",
        "CREATE TRIGGER t BEFORE INSERT ON history BEGIN SELECT raise(ABORT, 'no'); END",
        "CREATE VIEW v AS SELECT * FROM history",
        "CREATE INDEX i ON history (abs(prev))",
        "CREATE TABLE more (a, b AS (hex(zeroblob(9))) STORED)",
        "ALTER TABLE renewal ADD COLUMN more BLOB AS (zeroblob(9))",
    ],
)
def test_a_file_that_brings_sql_is_refused_before_it_runs(image: Path, statement: str) -> None:
    change(image, statement)
    for reader in (backup.status_of, restoring.contents, restored, opened):
        with pytest.raises(DamagedDatabase, match="not described as they were"):
            reader(image)
    with pytest.raises(snapshot.BadImage, match="not described as they were"):
        snapshot.check(image, INDEX)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("revision", REVISION_MAX + 1),
        ("revision", (1 << 63) - 1),
        ("revision", 0),
        ("revision", -5),
        ("scheduled_compact_revision", 3),
        ("finished_compact_revision", 0),
        ("applied_term", -1),
    ],
)
def test_marks_that_no_member_reaches_are_damage(image: Path, column: str, value: int) -> None:
    change(image, f"UPDATE state SET {column} = ?", value)
    for reader in (restoring.contents, restored, opened):
        with pytest.raises(DamagedDatabase, match="stands where none can"):
            reader(image)


def test_a_raised_revision_stays_below_the_last(image: Path) -> None:
    config = Config(data_dir=str(image.with_name("data")))
    with pytest.raises(DamagedDatabase, match="stands where none can"):
        restore(image, config, Wishes(skip_hash_check=True, bump_revision=REVISION_MAX, mark_compacted=True))
    assert not config.database_path.exists()


@pytest.mark.parametrize("record", [record_id(3, 0, False), (1 << 63) - 2, 0, -2])
def test_a_record_of_no_revision_is_damage(image: Path, record: int) -> None:
    blob = b"\x12\x03\x0a\x01a"
    row = (record, 0, seal_of(record, 0, blob), b"a", blob)
    change(image, "INSERT INTO history VALUES (?, ?, ?, ?, ?)", *row)
    for reader in (restoring.contents, opened):
        with pytest.raises(DamagedDatabase, match="a record is of no revision"):
            reader(image)


@pytest.mark.parametrize(
    ("statement", "row"),
    [
        ("INSERT INTO renewal VALUES (1, ?, ?)", (b"short",)),
        ("INSERT INTO renewal VALUES (1, ?, ?)", (b"\xff" * 12,)),
        ("INSERT INTO alarm VALUES (?, ?, ?)", (77, 1)),
        ("INSERT INTO alarm VALUES (?, ?, ?)", (1 << 40, 1)),
        ("INSERT INTO attachment VALUES (?, ?, ?)", (b"b", 5)),
        ("INSERT OR REPLACE INTO auth VALUES (?, ?, ?, ?)", ("user", "root", b"\xff")),
    ],
)
def test_a_row_that_nobody_writes_is_damage(image: Path, statement: str, row: tuple[Any, ...]) -> None:
    change(image, statement, *sealed(row))
    with pytest.raises(DamagedDatabase):
        opened(image)


@pytest.mark.parametrize("blob", [b"", b"\x12", b"\x12\x01\x0a", b"\x12\x03\x0a\x01b", b"\x12" + b"\xff" * 200_000])
def test_a_record_that_cannot_be_read_is_damage(image: Path, blob: bytes) -> None:
    record = record_id(2, 0, False)
    change(image, "UPDATE history SET kv = ?, crc = ?", blob, seal_of(record, 0, blob))
    with pytest.raises(DamagedDatabase, match="is not what was written"):
        scrub.verify(image)


def test_a_number_without_end_is_given_up_early() -> None:
    with pytest.raises(IndexError):
        read_varint(b"\xff" * 11, 0)
    assert read_varint(b"\xff" * 9 + b"\x01", 0) == ((1 << 64) - 1, 10)


def test_a_refusal_of_the_tool_is_one_sentence(image: Path) -> None:
    image.write_bytes(image.read_bytes()[:5000])
    with pytest.raises((click.ClickException, DamagedDatabase)) as refusal:
        backup.status_of(image)
    assert "\n" not in str(refusal.value)
