"""A disk under the log: names, bytes, and what of both a loss of power leaves.

Writes go to the page cache and are durable when the file was synced; until then a loss of power keeps any part of them,
sector by sector. Names that were made, moved or removed are durable when their directory was synced; until then a loss
keeps a prefix of these changes in their order. The end of a process loses nothing.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import random
from collections.abc import Iterator
from pathlib import PurePosixPath
from types import ModuleType, SimpleNamespace, TracebackType

from tests.simulation.whole import world as worlds
from tests.simulation.whole.world import MS, current

SECTOR = 512


class File:
    """One file's bytes."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.durable = bytearray()
        self.unsynced: list[tuple[int, bytes]] = []
        self._is_truncated = False  # since it was synced

    def write(self, offset: int, data: bytes) -> None:
        _put(self.data, offset, data)
        self.unsynced.append((offset, data))

    def truncate(self) -> None:
        self.data = bytearray()
        self.unsynced.append((0, b""))
        self._is_truncated = True

    def sync(self) -> None:
        if self._is_truncated:
            self.durable = bytearray(self.data)
            self._is_truncated = False
        else:
            for offset, data in self.unsynced:
                _put(self.durable, offset, data)
        self.unsynced = []

    def fail(self, rng: random.Random) -> None:
        """The disk does not take what is unsynced: the kernel says so once, and drops its pages or calls them clean.
        Then some of `data` never gets to the disk, though nobody knows."""
        kept = bytearray(self.data)
        self.lose(rng)
        if rng.random() < 0.5:
            self.data = kept

    def lose(self, rng: random.Random) -> None:
        """What a loss of power leaves."""
        kept = self.durable
        keep = rng.choice((0.0, 0.5, 0.9, 1.0))
        for offset, data in self.unsynced:
            for start in range(0, len(data), SECTOR):
                if rng.random() < keep:
                    _put(kept, offset + start, data[start : start + SECTOR])
        self.data = bytearray(kept)
        self.durable = kept
        self.unsynced = []
        self._is_truncated = False


def _put(content: bytearray, offset: int, data: bytes) -> None:
    end = offset + len(data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    content[offset:end] = data


class Disk:
    """What one node's log is written to."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.files: dict[str, File] = {}
        self.durable_files: dict[str, File] = {}
        self.moves: list[tuple[str, str | None, File | None]] = []  # (name gone or "", name made, its file)
        self.sync_delay = (1, 1)  # microseconds, least and most
        self.is_full = False
        self.failing = 0.0  # chance that a sync fails
        self.lying = 0.0  # chance that a read brings something else
        self.syncs = self.faults = 0

    def link(self, name: str, file: File) -> None:
        self.files[name] = file
        self.moves.append(("", name, file))

    def unlink(self, name: str) -> None:
        del self.files[name]
        self.moves.append((name, None, None))

    def rename(self, name: str, to: str) -> None:
        file = self.files.pop(name)
        self.files[to] = file
        self.moves.append((name, to, file))

    def sync_names(self) -> None:
        self._replay(len(self.moves))
        self.moves.clear()

    def lose_power(self) -> None:
        """Everything that was not synced may be gone."""
        self._replay(self.rng.randint(0, len(self.moves)))
        self.moves.clear()
        self.files = dict(self.durable_files)
        for file in self.files.values():
            file.lose(self.rng)

    def _replay(self, count: int) -> None:
        for gone, made, file in self.moves[:count]:
            self.durable_files.pop(gone, None)
            if made is not None and file is not None:
                self.durable_files[made] = file


class SimPath(PurePosixPath):
    """A path on a simulated disk: the first part says whose."""

    def _name(self) -> str:
        return str(self)

    def exists(self) -> bool:
        return str(self) in disk_of(self).files

    def unlink(self, missing_ok: bool = False) -> None:
        disk = disk_of(self)
        current().step()
        if str(self) in disk.files:
            disk.unlink(str(self))
        elif not missing_ok:
            raise FileNotFoundError(str(self))

    def rename(self, target: SimPath) -> SimPath:
        current().step()
        disk_of(self).rename(str(self), str(target))
        return target

    def stat(self) -> SimpleNamespace:
        return SimpleNamespace(st_size=len(disk_of(self).files[str(self)].data))

    def glob(self, pattern: str) -> Iterator[SimPath]:
        for name in sorted(disk_of(self).files):
            path = SimPath(name)
            if path.parent == self and fnmatch.fnmatchcase(path.name, pattern):
                yield path

    def read_bytes(self) -> bytes:
        return bytes(disk_of(self).files[str(self)].data)

    def write_bytes(self, data: bytes) -> None:
        file = File()
        file.write(0, data)
        disk_of(self).link(str(self), file)

    def mkdir(self, mode: int = 0, parents: bool = False, exist_ok: bool = False) -> None:
        """Directories are only a part of names here."""


_disks: dict[str, Disk] = {}


def mount(disks: dict[str, Disk]) -> None:
    """These are the disks from now on, by the first part of their paths."""
    _disks.clear()
    _disks.update(disks)


class DirectoriesOs:
    """What the syncing of directories asks of `os`: the logs' are simulated, the databases' are not."""

    O_RDONLY, O_DIRECTORY, O_CLOEXEC = os.O_RDONLY, os.O_DIRECTORY, os.O_CLOEXEC

    def __init__(self, simulated: Os) -> None:
        self._simulated = simulated
        self._of: dict[int, Os | ModuleType] = {}

    def open(self, path: PurePosixPath, flags: int) -> int:
        system = self._simulated if isinstance(path, SimPath) else os
        descriptor = system.open(path, flags)  # type: ignore[arg-type]
        self._of[descriptor] = system
        return descriptor

    def fsync(self, descriptor: int) -> None:
        self._of[descriptor].fsync(descriptor)

    def close(self, descriptor: int) -> None:
        self._of.pop(descriptor).close(descriptor)


def disk_of(path: PurePosixPath) -> Disk:
    return _disks[path.parts[1]]


class Os:
    """What the log asks of `os`."""

    O_RDWR, O_RDONLY, O_WRONLY, O_CREAT, O_TRUNC, O_CLOEXEC, O_DIRECTORY = 2, 0, 1, 64, 512, 0, 1 << 16

    def __init__(self) -> None:
        self._open: dict[int, tuple[Disk, File | None, list[int]]] = {}
        self._next = 1000

    def open(self, path: SimPath, flags: int, mode: int = 0) -> int:
        disk = disk_of(path)
        self._next += 1
        if flags & self.O_DIRECTORY:
            self._open[self._next] = (disk, None, [0])
            return self._next
        name = str(path)
        if name not in disk.files:
            if not flags & self.O_CREAT:
                raise FileNotFoundError(name)
            if disk.is_full:
                raise full()
            disk.link(name, File())
        elif flags & self.O_TRUNC:
            disk.files[name].truncate()
        self._open[self._next] = (disk, disk.files[name], [0])
        return self._next

    def close(self, descriptor: int) -> None:
        self._open.pop(descriptor, None)

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
        process = current()
        disk, file, _ = self._open[descriptor]
        assert file is not None
        if process.steps_left == 1:  # torn: a part of it reached the page cache
            file.write(offset, bytes(data[: disk.rng.randint(0, len(data))]))
        process.step()
        if disk.is_full and offset + len(data) > len(file.data):
            raise full()
        file.write(offset, bytes(data))
        return len(data)

    def write(self, descriptor: int, data: bytes) -> int:
        position = self._open[descriptor][2]
        written = self.pwrite(descriptor, bytes(data), position[0])
        position[0] += written
        return written

    def pread(self, descriptor: int, size: int, offset: int) -> bytes:
        disk, file, _ = self._open[descriptor]
        assert file is not None
        if disk.lying and disk.rng.random() < disk.lying:  # a misdirected or a stale read
            disk.faults += 1
            if disk.rng.random() < 0.5:
                return bytes(file.durable[offset : offset + size]).ljust(size, b"\0")
            wrong = disk.rng.randrange(max(1, len(file.data) // SECTOR)) * SECTOR
            return bytes(file.data[wrong : wrong + size])
        return bytes(file.data[offset : offset + size])

    def fsync(self, descriptor: int) -> None:
        process = current()
        process.step()
        disk, file, _ = self._open[descriptor]
        process.spend(disk.rng.randint(*disk.sync_delay))
        process.step()
        disk.syncs += 1
        if file is None:
            disk.sync_names()
            return
        if disk.failing and disk.rng.random() < disk.failing:
            disk.faults += 1
            file.fail(disk.rng)
            raise OSError(errno.EIO, "Input/output error")
        file.sync()

    fdatasync = fsync

    def posix_fallocate(self, descriptor: int, offset: int, size: int) -> None:
        disk, file, _ = self._open[descriptor]
        assert file is not None
        if disk.is_full:
            raise full()
        if len(file.data) < offset + size:
            file.write(len(file.data), bytes(offset + size - len(file.data)))

    def urandom(self, size: int) -> bytes:
        return current().rng.randbytes(size)

    def umask(self, mask: int) -> int:
        return mask

    def fsencode(self, path: PurePosixPath) -> bytes:
        return str(path).encode()

    def is_synced(self, descriptor: int) -> bool:
        """Everything written to this file is durable."""
        file = self._open[descriptor][1]
        return file is not None and not file.unsynced


def full() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


class Mapped(bytes):
    """A file in memory."""

    def __enter__(self) -> Mapped:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        return


class Mmap:
    """What the log asks of `mmap`."""

    PROT_READ = 1

    def __init__(self, os: Os) -> None:
        self._os = os

    def mmap(self, descriptor: int, length: int, prot: int = 0) -> Mapped:
        file = self._os._open[descriptor][1]
        assert file is not None
        if not file.data:
            raise ValueError("cannot mmap an empty file")
        return Mapped(file.data)


class Fcntl:
    """Locks: there is one process for each."""

    LOCK_EX = LOCK_NB = 0

    def flock(self, descriptor: int, operation: int) -> None:
        return


class Thread:
    """Work beside the loop: it is done a little later, or when somebody waits for it."""

    def __init__(self, target: object, name: str = "", daemon: bool = False, args: tuple[object, ...] = ()) -> None:
        assert callable(target)
        self._target = target
        self._args = args
        self._is_done = False

    def start(self) -> None:
        process = current()
        process.soon(process.rng.randint(1, 20) * MS, self.join)

    def is_alive(self) -> bool:
        return not self._is_done

    def join(self) -> None:
        if not self._is_done:
            self._is_done = True
            self._target(*self._args)


class Event:
    """A flag."""

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, _timeout_s: float) -> bool:
        return self._is_set


class Threading:
    """What the services ask of `threading`."""

    Thread = Thread
    Event = Event


class Time:
    """What the services ask of `time`."""

    def monotonic(self) -> float:
        return worlds.current().time()

    time = monotonic

    def perf_counter(self) -> float:
        return 0.0

    def time_ns(self) -> int:
        return 0


class TrueTime:
    """Wall clocks that agree."""

    @staticmethod
    def time() -> float:
        return worlds.current().world.now / worlds.SECOND
