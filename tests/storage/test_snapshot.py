"""Images: taken while the store goes on, checked, and put in place of another database."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path

import pytest

from quorate.proto import rpc_pb2
from quorate.storage import schema, snapshot
from quorate.storage.schema import DamagedDatabase
from quorate.storage.snapshot import BadImage
from tests.storage.member import Member


@pytest.fixture
def member(tmp_path: Path) -> Member:
    made = Member(tmp_path / "snap" / "db")
    for number in range(300):
        made.put(b"k%03d" % (number % 100), b"v" * 300)
    made.state.commit()
    return made


def test_an_image_holds_what_was_committed_and_says_where_it_stands(member: Member) -> None:
    member.put(b"pending", b"1")
    image = snapshot.take(member.state.database)
    assert (300, 3) == (image.index, image.term)
    assert "000000000000012c.image.db" == image.path.name
    snapshot.check(image.path, 300)
    member.close()


def test_an_installed_image_is_the_state_it_was_taken_of(member: Member, tmp_path: Path) -> None:
    image = snapshot.take(member.state.database)
    other = Member(tmp_path / "other" / "db")
    other.put(b"of another life")
    other.state.commit()
    other.close()
    snapshot.install(image.path, other.path)
    other.log = member.log
    other.open()
    assert 301 == other.state.store.revision
    assert member.range(b"k", b"l") == other.range(b"k", b"l")
    assert not image.path.exists()
    member.close()
    other.close()


def test_an_image_is_durable_before_it_is_the_database_and_the_old_ones_wal_is_gone(
    member: Member, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = snapshot.take(member.state.database)
    database = tmp_path / "other" / "db"
    database.parent.mkdir()
    wal = database.with_name("db-wal")
    wal.write_bytes(b"of another database")
    steps: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        steps.append(("sync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        fsync(descriptor)

    def replaced(source: Path, target: Path) -> None:
        assert not wal.exists()
        steps.append(("replace", str(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    snapshot.install(image.path, database)
    assert [("sync", str(image.path)), ("replace", str(database)), ("sync", str(database.parent))] == steps
    member.close()


def test_an_image_with_an_alarm_in_it_is_sound(member: Member) -> None:
    member.state.alarms.activate(5, rpc_pb2.NOSPACE)
    member.state.commit()
    snapshot.check(snapshot.take(member.state.database).path, 300)  # raises what is wrong with it
    member.close()


def test_only_the_last_image_is_kept(member: Member) -> None:
    first = snapshot.take(member.state.database)
    member.put(b"a")
    member.state.commit()
    second = snapshot.take(member.state.database)
    assert not first.path.exists()
    assert second.path.exists()
    member.close()


def test_an_image_that_is_no_database_is_refused(member: Member) -> None:
    image = snapshot.take(member.state.database)
    damaged = bytearray(image.path.read_bytes())
    damaged[: schema.PAGE_BYTES] = bytes(schema.PAGE_BYTES)
    image.path.write_bytes(damaged)
    with pytest.raises(BadImage):
        snapshot.check(image.path, 300)
    assert not image.path.exists()
    member.close()


def test_an_image_is_taken_also_while_a_read_keeps_the_file_from_holding_everything(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "STILL_PAUSE_SECONDS", 0.0)
    reader = schema.open_reader(member.path)
    reader.execute("BEGIN")
    schema.marks(reader)
    member.put(b"later", b"1")
    member.state.commit()
    image = snapshot.take(member.state.database)
    reader.close()
    assert 301 == image.index
    snapshot.check(image.path, 301)
    member.close()


def test_an_image_of_another_index_is_refused(member: Member) -> None:
    image = snapshot.take(member.state.database)
    with pytest.raises(BadImage, match="stands at index 300, not at 299"):
        snapshot.check(image.path, 299)
    member.close()


def test_an_export_is_a_file_of_its_own_with_everything_committed(member: Member) -> None:
    export = snapshot.export(member.state.database)
    assert export != snapshot.export(member.state.database)
    snapshot.check(export, 300)
    assert export.stat().st_size % 512 == 0
    assert not export.with_name(f"{export.name}-wal").exists()
    member.close()


def test_an_export_beside_a_long_read_holds_what_was_committed_since(member: Member) -> None:
    with closing(schema.open_reader(member.path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM history").fetchone()
        member.put(b"new", b"1")
        member.state.commit()
        with member.state.database.held_still() as is_whole:
            assert not is_whole
        snapshot.check(snapshot.export(member.state.database), 301)
    member.close()


def test_no_checkpoint_begins_while_the_file_is_held_still(member: Member) -> None:
    database = member.state.database
    database.note_written(1 << 30)
    assert database.checkpoint_is_due
    with database.held_still() as is_whole:
        assert is_whole
        assert not database.checkpoint_is_due
        size = member.path.stat().st_mtime_ns
        member.put(b"new", b"1")
        member.state.commit()
        assert size == member.path.stat().st_mtime_ns
    assert database.checkpoint_is_due
    member.close()


def test_a_checkpoint_that_finds_the_file_held_still_does_not_wait_for_it(member: Member) -> None:
    """A copy takes minutes, commits wait for the end of a checkpoint, and the loop for commits."""
    database = member.state.database
    durable_index = database.durable_index
    member.put(b"new", b"1")
    member.state.commit()
    with database.held_still():
        database.start_checkpoint()  # it was decided on right before
        deadline = time.monotonic() + 5
        while database.checkpoint_is_running:
            assert time.monotonic() < deadline
        assert not database.finish_checkpoint()
        assert durable_index == database.durable_index
        assert not database.checkpoint_is_due
    assert database.checkpoint_is_due
    database.start_checkpoint()
    database.wait_for_checkpoint()
    assert database.marks.applied_index == database.durable_index
    member.close()


def test_an_export_that_cannot_be_written_leaves_nothing(member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(snapshot.NoCopy):
        snapshot.export(member.state.database)
    assert b"" == member.finish(member.questions.snapshot(b""))
    assert not list(member.path.parent.glob(snapshot.EXPORT))
    member.close()


def test_exports_that_nobody_took_are_deleted(member: Member) -> None:
    export = snapshot.export(member.state.database)
    snapshot.drop_exports(member.path, older_seconds=60)
    assert export.exists()
    snapshot.drop_exports(member.path)
    assert not export.exists()
    member.close()


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b""])
def test_a_file_that_is_no_database_is_named_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "db"
    path.write_bytes(content)
    if content:
        with pytest.raises(DamagedDatabase, match=f"the database {path} cannot be used"):
            schema.open_writer(path)
    else:
        schema.open_writer(path).close()  # an empty file is what a crash at the very first start leaves


def test_a_database_of_another_program_is_not_touched(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    with pytest.raises(DamagedDatabase, match="is not a database of this program"):
        schema.open_writer(path)
