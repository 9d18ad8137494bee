"""The database: its WAL cut and torn at every frame, checkpoints cut at every page, and an image being installed.

SQLite's own writes are known: a commit appends frames to the WAL, unsynced; a checkpoint syncs the WAL, writes pages
and syncs the file; then the next commit writes the WAL anew from its beginning, and syncs its new header before the
frames. The images follow from the files before and after each. From every one of them the log has to lead to the same
state.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from quorate.storage import snapshot
from quorate.storage.hashkv import hash_kv
from quorate.wire.messages import MAIN_SHIFT
from tests.crashes.disk import SECTOR_BYTES
from tests.crashes.test_log import IMAGES, SEED, scratch
from tests.storage.member import Member

SHARE = 5  # of the images are of the database
COMMITS = 12
PAGE_BYTES = 4096
FRAME_BYTES = PAGE_BYTES + 24
WAL_HEADER_BYTES = 32

Files = tuple[bytes, bytes]  # database, WAL


def files_of(path: Path) -> Files:
    wal = Path(f"{path}-wal")
    return path.read_bytes(), wal.read_bytes() if wal.exists() else b""


def write_files(path: Path, files: Files) -> None:
    for suffix, content in zip(("", "-wal"), files, strict=True):
        Path(f"{path}{suffix}").write_bytes(content)
    Path(f"{path}-shm").unlink(missing_ok=True)


def mixed(rng: random.Random, old: bytes, new: bytes, unit: int) -> bytes:
    """Some units are written, the others are as they were; what is longer may be missing."""
    size = max(len(old), len(new))
    old, new = old.ljust(size, b"\0"), new.ljust(size, b"\0")
    chosen = [rng.random() < 0.5 for _ in range(0, size, unit)]
    return b"".join((new if yes else old)[i * unit : (i + 1) * unit] for i, yes in enumerate(chosen))


class World:
    """A member at work, and what its files are between two writes."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.seed = seed
        self.path = directory / "db"
        self.copy = directory / "image" / "db"
        self.copy.parent.mkdir()
        self.member = Member(self.path)  # which ends its opening with a checkpoint
        self.images = 0
        self.synced = files_of(self.path)[1]  # of the WAL

    def work(self) -> None:
        rng, member = self.rng, self.member
        for _ in range(rng.randint(1, 25)):
            key = b"k%d" % rng.randrange(30)
            if rng.random() < 0.15:
                member.delete(key)
            else:
                member.put(key, rng.randbytes(rng.choice((3, 100, 3000))))
        if rng.random() < 0.2 and member.state.store.revision > 20:
            member.compact(rng.randrange(max(1, member.state.store.compact_revision), member.state.store.revision))

    def run(self, images_max: int) -> None:
        for _ in range(COMMITS):
            self.work()
            before = files_of(self.path)
            self.member.state.commit()
            self.look(before, files_of(self.path), self.cut_commit)
            if self.rng.random() < 0.4:
                before = files_of(self.path)
                self.member.state.database.start_checkpoint()
                self.member.state.database.wait_for_checkpoint()
                self.synced = before[1]
                self.look(before, files_of(self.path), self.cut_checkpoint)
            if self.images >= images_max:
                break
        self.member.close()

    def look(self, before: Files, after: Files, cut: Callable[[Files, Files], Files]) -> None:
        frames = max(1, len(after[1]) // FRAME_BYTES)
        for _ in range(min(2 + frames, 8)):
            self.images += 1
            self.check(cut(before, after))

    def cut_commit(self, before: Files, after: Files) -> Files:
        """The WAL up to a frame or to a byte, or any sectors of what was not synced."""
        rng, (database, wal) = self.rng, after
        is_new = wal[:WAL_HEADER_BYTES] != self.synced[:WAL_HEADER_BYTES]
        safe = min(len(wal), WAL_HEADER_BYTES if is_new else len(self.synced))
        match rng.randrange(4):
            case 0:
                frame = rng.randint(safe // FRAME_BYTES, len(wal) // FRAME_BYTES)
                cut = wal[: WAL_HEADER_BYTES + frame * FRAME_BYTES]
            case 1:
                cut = wal[: rng.randint(safe, len(wal))]
            case 2:
                cut = mixed(rng, before[1], wal, SECTOR_BYTES)
            case _:
                cut = mixed(rng, before[1], wal, PAGE_BYTES)
        return database, wal[:safe] + cut[safe:]

    def cut_checkpoint(self, before: Files, after: Files) -> Files:
        """Some pages or sectors of the file, the WAL whole; or all of the file and any of the WAL."""
        rng = self.rng
        unit = rng.choice((SECTOR_BYTES, PAGE_BYTES))
        return mixed(rng, before[0], after[0], unit), before[1]

    def check(self, files: Files) -> None:
        """What is left leads to the state of now, with the log from what it says it has."""
        member = self.member
        write_files(self.copy, files)
        recovered = Member.__new__(Member)
        recovered.path, recovered.quota_bytes, recovered.term, recovered.now = self.copy, None, 3, 1000.0
        recovered.log = member.log
        recovered.open()
        stood_at = recovered.state.database.marks.applied_index
        assert stood_at <= len(member.log)
        recovered.state.commit()
        main = member.state.store.revision + 1 << MAIN_SHIFT
        compacted = member.state.store.compact_revision
        assert recovered.state.store.revision == member.state.store.revision, f"seed {self.seed}"
        while recovered.compaction.is_due:
            recovered.compaction.advance()
        recovered.state.commit()
        assert self.whole_hash == hash_kv(self.copy, compacted, main), f"seed {self.seed}, image {self.images}"
        recovered.close()

    @property
    def whole_hash(self) -> int:
        store = self.member.state.store
        return hash_kv(self.path, store.compact_revision, store.revision + 1 << MAIN_SHIFT)


def test_from_every_cut_the_log_leads_to_the_same_state() -> None:
    images, seed = 0, SEED * 1_000_000
    while images < IMAGES // SHARE:
        with scratch() as directory:
            world = World(directory, seed)
            world.run(IMAGES // SHARE - images)
            images += world.images
        seed += 1
    print(f"{images} images from {seed - SEED * 1_000_000} runs")


@pytest.mark.parametrize("number", range(8))
def test_an_image_being_installed_leaves_the_old_or_the_new_database(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = Member(tmp_path / "other" / "db")
    for each in range(50):
        member.put(b"new", b"%d" % each)
    member.state.commit()
    image = snapshot.take(member.state.database)
    member.close()
    old = Member(tmp_path / "db")
    old.put(b"old", b"1")
    old.state.commit()
    old.close()
    calls = 0

    class Cut(BaseException):
        pass

    for name in ("replace", "rename", "unlink", "fsync"):
        real = getattr(os, name)

        def counted(*arguments: object, real: object = real, **rest: object) -> object:
            nonlocal calls
            calls += 1
            if calls > number:
                raise Cut
            return real(*arguments, **rest)  # type: ignore[operator]

        monkeypatch.setattr(os, name, counted)
    with contextlib.suppress(Cut):
        snapshot.install(image.path, tmp_path / "db")
    monkeypatch.undo()
    member = Member(tmp_path / "db")
    found = {bytes(kv.key) for kv in member.range(b"\0", b"\0").kvs}
    assert found in ({b"old"}, {b"new"})
    member.close()
