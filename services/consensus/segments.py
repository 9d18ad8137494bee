"""The files of the log: names, preallocation, recycling, and the order of syncs that makes a file exist for good."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path
from typing import Final

from quorate.consensus.wal_format import HEADER_BYTES, SegmentHeader
from quorate.node.directories import sync_directory

ZEROS: Final = bytes(1 << 20)
SPARE: Final = "spare.tmp"
FILE_MODE: Final = 0o600
DIRECTORY_MODE: Final = 0o700


class DirectoryInUse(Exception):  # noqa: N818 - it states a condition
    """Another process holds the lock of this directory."""

    def __init__(self, directory: Path) -> None:
        super().__init__(f"data directory {directory} is in use by another process")


def lock_directory(directory: Path) -> int:
    """A descriptor that holds the exclusive lock of `directory` until it is closed; DirectoryInUse if taken."""
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise DirectoryInUse(directory) from None
    return descriptor


def write_durably(path: Path, data: bytes) -> None:
    """Replaces `path` by `data`: after a crash it holds the old or the new content, never a mixture."""
    temporary = path.with_name(path.name + ".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.rename(path)
    sync_directory(path.parent)


def segment_name(seq: int, first_index: int) -> str:
    """etcd's naming."""
    return f"{seq:016x}-{first_index:016x}.wal"


def segment_paths(directory: Path) -> list[Path]:
    """The segments in their order."""
    return sorted(directory.glob("*-*.wal"))


class Segment:
    """One open file of the log."""

    __slots__ = ("descriptor", "header", "path")

    def __init__(self, path: Path, header: SegmentHeader, descriptor: int) -> None:
        self.path = path
        self.header = header
        self.descriptor = descriptor

    def close(self) -> None:
        os.close(self.descriptor)


class SegmentStore:
    """Makes segments, and keeps one prepared ahead so that the log never waits for the disk to hand out space.

    A prepared file is written with zeros: appending then changes no metadata and costs one write and one barrier.
    """

    def __init__(self, directory: Path, segment_bytes: int) -> None:
        assert segment_bytes > HEADER_BYTES
        self.directory = directory
        self.segment_bytes = segment_bytes
        self._spare = directory / SPARE
        self._ready = self._has_spare()
        self._worker: threading.Thread | None = None
        self.failure: OSError | None = None  # why the last preparation failed; None while all is well

    @property
    def spare_ready(self) -> bool:
        """A further segment is certain to be had."""
        return self._ready

    def prepare(self) -> None:
        """Starts to prepare a spare in the background unless there is one; `failure` tells if the disk is full."""
        if self._ready or (self._worker is not None and self._worker.is_alive()):
            return
        self._worker = threading.Thread(target=self._prepare, name="wal-prepare", daemon=True)
        self._worker.start()

    def create(self, header: SegmentHeader) -> Segment:
        """A segment that exists for good, empty but for `header`. OSError if the disk does not give it."""
        if self._worker is not None:
            self._worker.join()
            self._worker = None
        if not self._ready:
            self._prepare()
            if self.failure is not None:
                raise self.failure
        path = self.directory / segment_name(header.seq, header.base.index + 1)
        descriptor = os.open(self._spare, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, header.pack(), 0)
            os.fsync(descriptor)
            self._ready = False
            self._spare.rename(path)
            sync_directory(self.directory)
        except OSError:
            os.close(descriptor)
            raise
        return Segment(path, header, descriptor)

    def retire(self, segment: Segment) -> None:
        """Removes a segment, or keeps its file as the next spare: its space is allocated already."""
        segment.close()
        busy = self._worker is not None and self._worker.is_alive()
        if self._ready or busy or segment.path.stat().st_size != self.segment_bytes:
            segment.path.unlink()
        else:
            segment.path.rename(self._spare)
            self._ready = True
            self.failure = None

    def close(self) -> None:
        if self._worker is not None:
            self._worker.join()

    def _has_spare(self) -> bool:
        if not self._spare.exists():
            return False
        if self._spare.stat().st_size == self.segment_bytes:
            return True
        self._spare.unlink()
        return False

    def _prepare(self) -> None:
        unfinished = self._spare.with_suffix(".new")
        try:
            descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
            try:
                os.posix_fallocate(descriptor, 0, self.segment_bytes)
                for offset in range(0, self.segment_bytes, len(ZEROS)):
                    os.pwrite(descriptor, ZEROS[: self.segment_bytes - offset], offset)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            unfinished.rename(self._spare)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            self.failure = error
            return
        self.failure = None
        self._ready = True


def is_full(error: OSError) -> bool:
    """True if the disk or the quota is used up, which passes; other errors of a disk do not."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
