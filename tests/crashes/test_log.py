"""The log and the membership beside it: cut at every operation, torn, out of order, and with a disk that fails.

`make crash-images` makes many more images than the sample of every run.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from quorate.consensus import bootstrap, segments, wal
from quorate.consensus.membership import Member, Membership, Meta
from quorate.consensus.meta import MetaFiles
from quorate.consensus.raft.messages import Entry, EntryKind, HardState
from quorate.consensus.wal import NoSpace, Wal
from quorate.node.config import Config
from tests.crashes.disk import ERRORS, MODES, Disk, lay_out, recording

IMAGES = int(os.environ.get("QUORATE_CRASH_IMAGES", "3000"))
SEED = int(os.environ.get("QUORATE_SEED", "1"))
SEGMENT_BYTES = 16 * 1024
STEPS = 40
MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Model:
    """What the log has to hold."""

    entries: tuple[Entry, ...] = ()  # all since the base
    base: int = 0
    base_term: int = 0
    state: HardState = field(default_factory=HardState)

    @property
    def last_index(self) -> int:
        return self.entries[-1].index if self.entries else self.base

    def appended(self, new: list[Entry], state: HardState) -> Model:
        kept = tuple(entry for entry in self.entries if not new or entry.index < new[0].index)
        return replace(self, entries=kept + tuple(new), state=state)

    def term(self, index: int) -> int:
        return next((entry.term for entry in self.entries if entry.index == index), self.base_term)


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory in memory where there is one: an image is read once."""
    path = Path(tempfile.mkdtemp(prefix="quorate-images-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        yield path
    finally:
        shutil.rmtree(path)


class World:
    """A log at work on a recorded disk, and the check of every image of it."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.seed = seed
        self.config = Config(data_dir=str(directory / "image"), unsafe_no_fsync=True)
        self.directory = directory / "log"
        self.directory.mkdir()
        self.images = 0
        self.images_max = 0
        self.per_operation = 1
        self.quiet = False  # no images but those after a failure
        member = Member(1, ("http://a:1",), "a")
        self.meta = Meta(1, Membership.founded([member]))
        self.candidates: list[Model] | None = None  # one of these is on the disk; None while there is no log yet
        self.model = Model()
        self.committed = 0  # nothing up to there is ever replaced
        self.disk: Disk

    # --- the work ---

    def run(self, failing: dict[int, int]) -> None:
        """Some steps; ends early when the disk fails."""
        with recording(self.directory) as disk:
            self.disk = disk
            disk.failing = failing
            disk.on_operation = lambda _kind: self.look()
            log: Wal | None = None
            try:
                self.files = MetaFiles(self.directory)
                self.files.write(self.meta)
                log = Wal.create(self.directory, self.meta.membership.cluster_id, 1, SEGMENT_BYTES)
                self.candidates = [self.model]
                for _ in range(STEPS):
                    self.step(log)
            except (OSError, NoSpace):
                assert failing, "nothing failed"
                self.quiet = False
                for _ in range(5):
                    self.look()
            finally:
                disk.on_operation = lambda _kind: None
                if log is not None:
                    log.abandon()

    def step(self, log: Wal) -> None:
        rng, model = self.rng, self.model
        match rng.choices(("append", "vote", "compact", "reset", "settle"), (12, 3, 2, 1, 1))[0]:
            case "append":
                first = rng.randint(max(self.committed + 1, model.last_index - 2), model.last_index + 1)
                term = model.state.term + (first <= model.last_index) + (rng.random() < 0.1)
                entries = [
                    Entry(first + i, term, int(EntryKind.BATCH), rng.randbytes(rng.choice((0, 3, 200, 900, 3000))))
                    for i in range(rng.randint(1, 4))
                ]
                state = HardState(term, rng.randint(0, 3) if term > model.state.term else model.state.vote, 0)
                self.candidates = [model, model.appended(entries, state)]
                log.append(entries, state)
            case "vote":
                state = HardState(model.state.term + 1, rng.randint(1, 3), 0)
                self.candidates = [model, model.appended([], state)]
                log.append([], state)
            case "settle":
                log.settle(log.hard_state)
                log.settle(log.hard_state)
            case "compact":
                index = rng.randint(model.base, model.last_index)
                self.candidates = [model]
                self.committed = max(self.committed, index)
                if log.can_drop(index):
                    self.meta = replace(self.meta, membership=replace(self.meta.membership, index=index))
                    self.files.write(self.meta)
                    log.compact(index)
            case _:
                self.snapshot(log)
        assert self.candidates is not None
        self.model = self.candidates[-1]
        self.candidates = [self.model]

    def snapshot(self, log: Wal) -> None:
        model = self.model
        index, term = model.last_index + self.rng.randint(1, 5), model.state.term
        self.candidates = [model, Model((), index, term, model.state)]
        self.committed = index
        self.meta = Meta(1, replace(self.meta.membership, index=index), index, term)
        self.files.write(self.meta)
        log.reset(index, term, log.hard_state)

    # --- the check ---

    def look(self) -> None:
        """Images of this moment, each recovered."""
        for _ in range(0 if self.quiet else self.per_operation):
            if self.images < self.images_max:
                self.images += 1
                mode = self.rng.choice(MODES)
                image = self.disk.image(self.rng, mode)
                self.check(image, f"seed {self.seed}, operation {self.disk.operations}, {mode}")

    def check(self, image: dict[str, bytes], where: str) -> None:
        directory = self.config.wal_path
        lay_out(image, directory)
        if not Wal.exists(directory):
            assert self.candidates is None, f"{where}: the log is gone"
            return
        for writes in (False, True, True):  # what recovery itself has done has to be recovered from, too
            start = bootstrap.restart(self.config, SEGMENT_BYTES)
            log = start.wal
            candidates = self.candidates or [self.model]
            assert any(holds(log, model) for model in candidates), (
                f"{where}: {log.first_index()}..{log.last_index} {log.hard_state}, "
                f"wanted {[(model.base, model.last_index, model.state) for model in candidates]}"
            )
            if writes:
                log.append([], log.hard_state)
            log.abandon()


def holds(log: Wal, model: Model) -> bool:
    """Whether the log is exactly this, but for what need not be there any more."""
    if log.last_index != model.last_index or log.hard_state[:2] != model.state[:2]:
        return False
    first = max(log.first_index(), model.base + 1)
    wanted = [entry for entry in model.entries if entry.index >= first]
    found = log.entries(first, log.last_index + 1, 1 << 30) if first <= log.last_index else []
    return wanted == found


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small segments, and spares that are made at once, so that a seed gives the same operations."""
    monkeypatch.setattr(wal, "STATE_RESERVE_BYTES", 1024)
    monkeypatch.setattr(segments, "ZEROS", bytes(SEGMENT_BYTES))

    def prepare(store: segments.SegmentStore) -> None:
        if not store.spare_ready:
            store._prepare()

    monkeypatch.setattr(segments.SegmentStore, "prepare", prepare)


def test_a_file_that_is_replaced_durably_is_the_old_or_the_new_one_and_the_new_one_afterwards(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    found: set[bytes] = set()
    with recording(tmp_path) as disk:
        segments.write_durably(tmp_path / "file", b"old")
        disk.on_operation = lambda _kind: found.update(disk.image(rng, mode)["file"] for mode in MODES)
        segments.write_durably(tmp_path / "file", b"new" * 1000)
        assert found == {b"old", b"new" * 1000}
        assert disk.image(rng, "lost") == {"file": b"new" * 1000}


def test_a_cut_at_any_operation_loses_nothing_and_leaves_a_log_that_starts() -> None:
    images = 0
    seed = SEED * 1_000_000
    while images < IMAGES * 2 // 3:
        with scratch() as directory:
            world = World(directory, seed)
            world.per_operation = 4
            world.images_max = IMAGES * 2 // 3 - images
            world.run({})
            images += world.images
        seed += 1
    print(f"{images} images from {seed - SEED * 1_000_000} runs")


def test_what_only_the_memory_has_after_a_failed_sync_is_written_again_before_it_counts() -> None:
    """Many kernels keep what they could not write, and take it for written: the next sync is content with it."""
    entries = [Entry(index, 1, int(EntryKind.BATCH), b"x" * 600) for index in (1, 2)]
    with scratch() as directory, recording(directory) as disk:
        log = Wal.create(directory, 7, 9, SEGMENT_BYTES)
        log.append(entries[:1], HardState(1, 9, 0))
        disk.failing = {disk.operations + 2: errno.EIO}
        with pytest.raises(OSError, match="Input/output"):
            log.append(entries[1:], HardState(1, 9, 0))
        log.abandon()
        for inode in disk.now().values():
            inode.pending.clear()
        log = Wal.recover(directory, SEGMENT_BYTES)
        assert log.last_index == 2
        log.append([], HardState(2, 9, 0))
        log.abandon()
        lay_out(disk.image(random.Random(1), "lost"), directory / "image")
        log = Wal.recover(directory / "image", SEGMENT_BYTES, fsync=False)
        assert entries == log.entries(1, 3, 1 << 20)
        log.abandon()


def test_a_disk_that_fails_at_any_operation_loses_nothing_and_leaves_a_log_that_starts() -> None:
    images = failures = 0
    seed = SEED * 1_000_000
    while images < IMAGES // 3:
        number, error = 1 + failures // len(ERRORS) % 180, ERRORS[failures % len(ERRORS)]
        failures += 1
        with scratch() as directory:
            world = World(directory, seed + failures // 360)
            world.images_max, world.per_operation, world.quiet = 10, 2, True
            world.run({number: error})
            images += world.images
    print(f"{images} images after {failures} failures")
