"""A disk that remembers: what a program does to the files of one directory, and what a power cut may leave of it.

A write is on the disk for good when its file was synced after it; a name (a creation, a rename, a removal) when the
directory was. Of everything else a cut leaves any part: of data any sectors, or the first words; of names a
first part, as file systems keep their order.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SECTOR_BYTES = 512
WORD_BYTES = 8  # no bus writes less


@dataclass
class Write:
    """Bytes that were given to the disk and are not known to be on it."""

    offset: int
    data: bytes


@dataclass
class Inode:
    """One file, whatever it is called."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Write] = field(default_factory=list)

    def sync(self) -> None:
        for write in self.pending:
            put(self.durable, write)
        self.pending.clear()


def put(content: bytearray, write: Write) -> None:
    end = write.offset + len(write.data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    content[write.offset : end] = write.data


@dataclass(frozen=True)
class Rename:
    """A name moves; from "" it is new, to "" it goes. `inode` is what it stands for."""

    inode: Inode
    old: str
    new: str


def apply(names: dict[str, Inode], change: Rename) -> None:
    if change.old:
        names.pop(change.old, None)
    if change.new:
        names[change.new] = change.inode


class Disk:
    """Stands between a program and one directory, as long as `recording` lasts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.names: dict[str, Inode] = {}  # as the directory on the disk has them
        self.changes: list[Rename] = []  # not on the disk yet
        self.open: dict[int, Inode] = {}
        self.operations = 0
        self.on_operation: Callable[[str], None] = lambda _kind: None
        self.failing: dict[int, int] = {}  # number of an operation: errno

    def happens(self, kind: str) -> None:
        """Before each change: a cut may come here, or the operation may fail."""
        self.on_operation(kind)
        self.operations += 1
        if (number := self.failing.get(self.operations)) is not None:
            raise OSError(number, os.strerror(number))

    def now(self) -> dict[str, Inode]:
        """The names as the program sees them."""
        names = dict(self.names)
        for change in self.changes:
            apply(names, change)
        return names

    # --- what a cut leaves ---

    def image(self, rng: random.Random, mode: str) -> dict[str, bytes]:
        """The directory after a cut: `kept` everything, `lost` only what was synced, `mixed` any part."""
        names = dict(self.names)
        count = {"kept": len(self.changes), "lost": 0}.get(mode, rng.randint(0, len(self.changes)))
        for change in self.changes[:count]:
            apply(names, change)
        return {name: bytes(self._content(inode, rng, mode)) for name, inode in names.items()}

    @staticmethod
    def _content(inode: Inode, rng: random.Random, mode: str) -> bytearray:
        content = bytearray(inode.durable)
        if mode == "lost":
            return content
        for write in inode.pending:
            if mode == "kept" or not write.data:
                put(content, write)
            elif mode == "torn":
                cut = rng.randint(0, len(write.data)) // WORD_BYTES * WORD_BYTES
                put(content, Write(write.offset, write.data[:cut]))
            else:
                for piece in _sectors(write):
                    if rng.random() < 0.5:
                        put(content, piece)
        return content


def _sectors(write: Write) -> Iterator[Write]:
    position = 0
    while position < len(write.data):
        end = (write.offset + position) // SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES - write.offset
        yield Write(write.offset + position, write.data[position:end])
        position = end


@contextmanager
def recording(directory: Path) -> Iterator[Disk]:
    """Everything the program does to `directory` through `os` is remembered, and really done, but for the syncs."""
    disk = Disk(directory)
    with pytest.MonkeyPatch.context() as patch:
        _patch_descriptors(disk, patch)
        _patch_names(disk, patch)
        yield disk


def _patch_descriptors(disk: Disk, patch: pytest.MonkeyPatch) -> None:
    real_open, real_close, real_pwrite, real_write = os.open, os.close, os.pwrite, os.write
    positions: dict[int, int] = {}

    def opened(path: Any, flags: int, mode: int = 0o777, **rest: Any) -> int:
        name = _name(disk, path)
        if name is None or flags & os.O_DIRECTORY or name == "lock":
            return real_open(path, flags, mode, **rest)
        inode = disk.now().get(name)
        if inode is None and flags & os.O_CREAT:
            disk.happens("create")
            inode = Inode()
            disk.changes.append(Rename(inode, "", name))
        elif flags & os.O_TRUNC and inode is not None:
            disk.happens("truncate")
            fresh = Inode()
            disk.changes.append(Rename(fresh, "", name))
            inode = fresh
        descriptor = real_open(path, flags, mode, **rest)
        if inode is not None:
            disk.open[descriptor] = inode
            positions[descriptor] = 0
        return descriptor

    def closed(descriptor: int) -> None:
        disk.open.pop(descriptor, None)
        real_close(descriptor)

    def pwritten(descriptor: int, data: Any, offset: int) -> int:
        inode = disk.open.get(descriptor)
        if inode is not None:
            disk.happens("write")
            inode.pending.append(Write(offset, bytes(data)))
        return real_pwrite(descriptor, data, offset)

    def written(descriptor: int, data: Any) -> int:
        inode = disk.open.get(descriptor)
        if inode is not None:
            disk.happens("write")
            inode.pending.append(Write(positions[descriptor], bytes(data)))
            positions[descriptor] += len(data)
        return real_write(descriptor, data)

    def synced(descriptor: int) -> None:
        inode = disk.open.get(descriptor)
        if inode is not None:
            disk.happens("sync")
            inode.sync()
        elif disk.directory.samefile(f"/proc/self/fd/{descriptor}"):
            disk.happens("sync names")
            for change in disk.changes:
                apply(disk.names, change)
            disk.changes.clear()

    def allocated(descriptor: int, offset: int, size: int) -> None:
        if descriptor in disk.open:
            disk.happens("allocate")

    for name, function in (
        ("open", opened),
        ("close", closed),
        ("pwrite", pwritten),
        ("write", written),
        ("fsync", synced),
        ("fdatasync", synced),
        ("posix_fallocate", allocated),
    ):
        patch.setattr(os, name, function)


def _patch_names(disk: Disk, patch: pytest.MonkeyPatch) -> None:
    real_rename, real_unlink = os.rename, os.unlink

    def renamed(old: Any, new: Any, **rest: Any) -> None:
        source, target = _name(disk, old), _name(disk, new)
        if source is not None:
            disk.happens("rename")
            disk.changes.append(Rename(disk.now()[source], source, target or ""))
        real_rename(old, new, **rest)

    def removed(path: Any, **rest: Any) -> None:
        name = _name(disk, path)
        if name is not None and name in disk.now():
            disk.happens("remove")
            disk.changes.append(Rename(disk.now()[name], name, ""))
        real_unlink(path, **rest)

    patch.setattr(os, "rename", renamed)
    patch.setattr(os, "replace", renamed)
    patch.setattr(os, "unlink", removed)


def _name(disk: Disk, path: Any) -> str | None:
    if isinstance(path, int):
        return None
    found = Path(os.fspath(path))
    return found.name if found.parent == disk.directory else None


def lay_out(image: dict[str, bytes], directory: Path) -> None:
    """Make `directory` hold exactly this."""
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    for name, content in image.items():
        (directory / name).write_bytes(content)


MODES = ("kept", "lost", "torn", "mixed", "mixed")
ERRORS = (errno.EIO, errno.ENOSPC)
