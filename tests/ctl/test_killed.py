"""kill -9 at every place where a command changes files: what is left is the old state, the new one, or a draft that
the same command does anew."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from bench import servers
from quorate.storage import restoring, snapshot
from tests.storage.member import Member
from tests.support.killing import needs_strace, places, run_killed, spread

pytestmark = [needs_strace, pytest.mark.timeout(300)]
PLACES = 10
KEYS = 60
TOOL = (sys.executable, "-m", "quorate.ctl.quorateutl")
INSTALL = """
import sys
from pathlib import Path
from quorate.storage import snapshot
snapshot.install(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.fixture
def environment() -> dict[str, str]:
    return {**os.environ, **servers.quorate().environment, "PYTHONDONTWRITEBYTECODE": "1"}


def member(path: Path, rounds: int = 1) -> Member:
    """A database with some keys, written so often."""
    made = Member(path)
    for number in range(rounds):
        for key in range(KEYS):
            made.put(b"k%02d" % key, b"%d " % number + b"v" * 2000)
    made.state.commit()
    return made


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    made = member(tmp_path / "old" / "db")
    content = snapshot.export(made.state.database).read_bytes()
    made.close()
    path = tmp_path / "backup.db"
    path.write_bytes(content + sha256(content).digest())
    return path


@pytest.mark.parametrize("wal_dir", [False, True], ids=["inside", "wal-dir"])
def test_a_restore_that_was_killed_is_done_or_can_be_done_again(
    backup: Path, environment: dict[str, str], tmp_path: Path, wal_dir: bool
) -> None:
    place = tmp_path / "place"
    data, log = place / "data", place / "log"
    flags = ("--data-dir", str(data), *(("--wal-dir", str(log)) if wal_dir else ()))
    command = [*TOOL, "snapshot", "restore", str(backup), *flags]
    found = places(command, environment, tmp_path / "trace", place)
    for number, killed_at in enumerate(spread(found, PLACES)):
        shutil.rmtree(place)
        place.mkdir()
        assert run_killed(killed_at, command, environment), killed_at
        if number % 2 and not (data / "member").exists():
            run_killed(killed_at, command, environment)  # and once more
        if not (data / "member").exists():
            again = subprocess.run(command, env=environment, capture_output=True, check=False, text=True)
            assert again.returncode == 0, (killed_at, again.stderr)
        directory = log if wal_dir else data / "member" / "wal"
        assert {"meta.a", "meta.b"} < {path.name for path in directory.iterdir()}, killed_at
        assert restoring.contents(data / "member" / "snap" / "db").live_keys == KEYS, killed_at
        assert not (data / "restoring").exists(), killed_at


def test_a_defragmentation_that_was_killed_leaves_the_old_database_or_the_new_one(
    environment: dict[str, str], tmp_path: Path
) -> None:
    original, data = tmp_path / "original", tmp_path / "data"
    made = member(original / "member" / "snap" / "db", rounds=4)
    made.compact(made.state.store.revision, physical=True)
    made.state.commit()
    made.close()
    command = [*TOOL, "defrag", "--data-dir", str(data)]
    database = data / "member" / "snap" / "db"

    def begin() -> None:
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(original, data)

    begin()
    before = database.stat().st_size
    expected = restoring.contents(database)
    found = places(command, environment, tmp_path / "trace", data)
    after = database.stat().st_size
    assert after < before / 2
    for killed_at in spread(found, PLACES):
        begin()
        assert run_killed(killed_at, command, environment), killed_at
        assert restoring.contents(database) == expected, killed_at
        assert database.stat().st_size in (before, after), killed_at
        with closing(sqlite3.connect(database)) as opened:
            assert opened.execute("PRAGMA auto_vacuum").fetchone() == (2,), killed_at
        subprocess.run(command, env=environment, check=True, capture_output=True)
        assert restoring.contents(database) == expected, killed_at
        assert [path.name for path in database.parent.iterdir()] == ["db"], killed_at


def test_an_image_that_is_being_installed_is_there_until_the_database_is_the_image(
    environment: dict[str, str], tmp_path: Path
) -> None:
    source = member(tmp_path / "source" / "db")
    image = snapshot.take(source.state.database)
    source.close()
    place = tmp_path / "place"
    database, arrived = place / "db", place / image.path.name
    command = [sys.executable, "-c", INSTALL, str(arrived), str(database)]

    def begin() -> None:
        shutil.rmtree(place, ignore_errors=True)
        Member(database).close()
        shutil.copy(image.path, arrived)

    begin()
    found = places(command, environment, tmp_path / "trace", place)
    for killed_at in found:
        begin()
        assert run_killed(killed_at, command, environment), killed_at
        if not arrived.exists():
            assert restoring.contents(database).live_keys == KEYS, killed_at
            continue
        assert restoring.contents(database).live_keys in (0, KEYS), killed_at
        snapshot.check(arrived, image.index)
        subprocess.run(command, env=environment, check=True)
        assert restoring.contents(database).live_keys == KEYS, killed_at


def test_a_backup_that_was_killed_while_it_was_saved_is_whole_or_not_there(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with servers.running(servers.quorate(), 1) as cluster:
        place = tmp_path / "place"
        file = place / "backup.db"
        flags = ("--endpoints", cluster.endpoints[0], "snapshot", "save", str(file))
        command = [sys.executable, "-m", "quorate.ctl.quoratectl", *flags]
        place.mkdir()
        for killed_at in spread(places(command, environment, tmp_path / "trace", place), PLACES // 2):
            shutil.rmtree(place)
            place.mkdir()
            assert run_killed(killed_at, command, environment), killed_at
            if file.exists():
                content = file.read_bytes()
                assert sha256(content[:-32]).digest() == content[-32:], killed_at
            subprocess.run(command, env=environment, check=True, capture_output=True)
            assert [path.name for path in place.iterdir()] == ["backup.db"], killed_at
