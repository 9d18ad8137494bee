"""A bit that flipped inside a value on disk: whoever reads it is told, and nobody is given it."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from quorate.proto import rpc_pb2
from quorate.storage import restoring, schema
from quorate.storage.history import History
from quorate.storage.schema import DamagedDatabase
from quorate.wire.watching import HistoryRead
from tests.storage.member import Member


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database whose record of k5 is not what was written."""
    member = Member(tmp_path / "db")
    for number in range(10):
        member.put(b"k%d" % number, b"value")
    member.state.commit()
    member.close()
    with closing(schema.open_writer(tmp_path / "db")) as connection:
        (blob,) = connection.execute("SELECT kv FROM history WHERE key = ?", (b"k5",)).fetchone()
        connection.execute("UPDATE history SET kv = ? WHERE key = ?", (blob.replace(b"value", b"valud"), b"k5"))
    return tmp_path / "db"


READS: list[Callable[[Member], Any]] = [
    lambda member: member.range(b"k5"),
    lambda member: member.range(b"k", b"l"),
    lambda member: member.range(b"k5", revision=8),
    lambda member: member.put(b"k5", b"new", prev_kv=True),
    lambda member: History(member.state.store, HistoryRead(1, 2, 11, 100, 1 << 20, False, b"k", b"l")).read(),
]


@pytest.mark.parametrize("read", READS)
def test_it_is_found_by_every_read(path: Path, read: Callable[[Member], Any]) -> None:
    member = Member.__new__(Member)
    member.path, member.quota_bytes, member.term, member.now, member.log = path, None, 3, 1000.0, [b""] * 10
    member.open()
    assert b"value" == member.range(b"k4").kvs[0].value
    with pytest.raises(DamagedDatabase, match="is not what was written"):
        read(member)
    member.close()


def test_a_backup_with_it_is_refused_even_without_its_digest(path: Path) -> None:
    with pytest.raises(DamagedDatabase, match="is not what was written"):
        restoring.contents(path)


def test_a_delete_does_not_need_the_value(path: Path) -> None:
    member = Member.__new__(Member)
    member.path, member.quota_bytes, member.term, member.now, member.log = path, None, 3, 1000.0, [b""] * 10
    member.open()
    response: rpc_pb2.DeleteRangeResponse = member.delete(b"k5")
    assert 1 == response.deleted
    member.close()


def test_a_database_that_cannot_be_opened_for_want_of_room_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "db"
    schema.open_writer(path).close()
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, unlimited[1]))  # as on a full disk, no file grows
    try:
        with pytest.raises(sqlite3.OperationalError):
            schema.open_writer(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    schema.open_writer(path).close()


def test_a_description_that_is_no_text_any_more_is_called_damaged(path: Path) -> None:
    """One bit is enough: SQLite quotes it in its message, which then is no text either."""
    octets = path.read_bytes()
    assert octets.count(b"CREATE TABLE history") == 1
    path.write_bytes(octets.replace(b"CREATE TABLE history", b"CREATE \xd4ABLE history"))
    for opened in (schema.check, schema.check_ours, schema.open_writer):
        with pytest.raises(DamagedDatabase):
            opened(path)
