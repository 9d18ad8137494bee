"""The database on a failing disk: each write, truncation and sync of SQLite fails once, or it and all after it.

EIO ends storage, ENOSPC is waited out; either way the log leads to the same state from what is left, and nothing that
was called durable is gone.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest

from quorate.storage.database import Database, DiskFull
from quorate.storage.hashkv import hash_kv
from quorate.wire.messages import MAIN_SHIFT
from tests.crashes.test_log import SEED, scratch
from tests.storage.member import Member
from tests.support.failing_sqlite import FULL, IO_ERRORS, Failure, failing

ROUNDS = 4
PLACES = int(os.environ.get("QUORATE_FAILING_PLACES", "24"))  # at which a call fails, of each run and each way


class FailingDisk:
    """The nth call fails, or all from there on until it is mended."""

    def __init__(self, nth: int, is_full: bool, is_lasting: bool, share: float) -> None:
        self.calls = 0
        self.failed: list[str] = []
        self._nth = nth
        self._is_full = is_full
        self._is_lasting = is_lasting
        self._share = share
        self._is_mended = False

    def decide(self, path: str, call: str) -> Failure | None:
        self.calls += 1
        if self._is_mended or self.calls < self._nth or (self.failed and not self._is_lasting):
            return None
        if self._is_full and call != "write":
            return None
        self.failed.append(f"{call} {Path(path).name}")
        return Failure(FULL if self._is_full else IO_ERRORS[call], self._share)

    def mend(self) -> None:
        self._is_mended = True


class Run:
    """A member at work on such a disk; `told` is what it called durable."""

    def __init__(self, directory: Path, seed: int, disk: FailingDisk) -> None:
        self.path = directory / "db"
        self.log: list[bytes] = []
        self.told = 0
        self.ended = ""
        self._rng = random.Random(seed)
        self._disk = disk
        self._copy = directory / "left" / "db"

    def work(self) -> None:
        """Until it is done, or the process would end; then the files are what a process that died left."""
        member = None
        try:
            member = Member(self.path)
            self.log = member.log
            for _ in range(ROUNDS):
                self._commands(member)
                self._write(member)
        except sqlite3.OperationalError as error:
            self.ended = str(error)
        shutil.copytree(self.path.parent, self._copy.parent, ignore=lambda _, names: {*names} - {"db", "db-wal"})
        if member is not None:
            self._disk.mend()
            with suppress(sqlite3.DatabaseError):
                member.close()

    def _commands(self, member: Member) -> None:
        rng = self._rng
        for _ in range(rng.randint(3, 12)):
            key = b"k%d" % rng.randrange(8)
            if rng.random() < 0.15:
                member.delete(key)
            else:
                member.put(key, rng.randbytes(rng.choice((3, 100, 3000))))
        revision = member.state.store.revision
        if rng.random() < 0.3 and revision > 5:
            member.compact(rng.randrange(max(1, member.state.store.compact_revision), revision))

    def _write(self, member: Member) -> None:
        """As storage does between two batches: on a full disk it tries again later."""
        database = member.state.database
        with suppress(DiskFull):
            if member.compaction.is_due:
                member.compaction.advance()
            member.state.commit()
        if self._rng.random() < 0.6:
            database.start_checkpoint()
            database.wait_for_checkpoint()
        self.told = max(self.told, database.durable_index)

    def check(self, whole: int) -> None:
        """Both what a death and what an orderly end left lead to the same state."""
        for path in (self._copy, self.path):
            member = Member.__new__(Member)
            member.path, member.quota_bytes, member.term, member.now, member.log = path, None, 3, 1000.0, []
            member.open()
            stood_at = member.state.database.marks.applied_index
            assert self.told <= stood_at <= len(self.log), "what was called durable is gone"
            member.close()
            assert recovered_hash(path, self.log) == whole


def recovered_hash(path: Path, log: list[bytes]) -> int:
    member = Member.__new__(Member)
    member.path, member.quota_bytes, member.term, member.now, member.log = path, None, 3, 1000.0, log
    member.open()
    while member.compaction.is_due:
        member.compaction.advance()
    member.state.commit()
    store = member.state.store
    found = hash_kv(path, store.compact_revision, store.revision + 1 << MAIN_SHIFT)
    member.close()
    return found


@pytest.mark.parametrize("is_lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("is_full", [False, True], ids=["EIO", "ENOSPC"])
def test_wherever_the_disk_fails_nothing_durable_is_lost(is_full: bool, is_lasting: bool) -> None:
    seed, failures, ends = SEED, 0, 0
    with scratch() as directory:
        nowhere = FailingDisk(1 << 60, is_full, is_lasting, 0.0)
        (directory / "whole").mkdir()
        with failing(nowhere.decide):
            Run(directory / "whole", seed, nowhere).work()
        rng = random.Random(f"{seed} {is_full} {is_lasting}")
        for nth in sorted(rng.sample(range(1, nowhere.calls), min(PLACES, nowhere.calls - 1))):
            below = directory / str(nth)
            below.mkdir()
            disk = FailingDisk(nth, is_full, is_lasting, rng.choice((0.0, 0.0, 0.5, 1.0)))
            run = Run(below, seed, disk)
            with failing(disk.decide):
                run.work()
            assert not run.ended or not is_full or disk.failed, run.ended
            run.check(recovered_hash(below / "reference", run.log))
            failures += bool(disk.failed)
            ends += bool(run.ended)
            shutil.rmtree(below)
    print(f"{failures} failing calls of {nowhere.calls}, {ends} ends of the process, seed {seed}")
    assert failures


def test_on_a_disk_without_room_what_a_member_has_is_durable_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log may not reach back to the beginning: a database at index 0 would be one that was lost."""
    died = tmp_path / "died"
    member = Member(tmp_path / "db")
    for number in range(200):
        member.put(b"k%03d" % number, bytes(1000))
    member.state.commit()
    shutil.copytree(tmp_path, died, ignore=lambda _, names: {*names} - {"db", "db-wal"})
    member.close()
    synced: list[str] = []
    sync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    with failing(lambda path, call: Failure(FULL) if path.endswith("/db") and call == "write" else None):
        database = Database(died / "db")
    assert database.durable_index == database.marks.applied_index == 200
    assert str(died / "db-wal") in synced
    database.close()
