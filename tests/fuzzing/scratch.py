"""The directory in which a target writes what its readers get to see; it is gone when the target is done."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

IN_MEMORY: Final = Path("/dev/shm")


@functools.cache
def directory() -> Path:
    """Where to write, in memory if the system has a place for that; made when first asked for."""
    return Path(tempfile.mkdtemp(prefix="quorate-fuzz-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None))


def file(content: bytes, name: str = "file") -> Path:
    """A file with this content."""
    path = directory() / name
    path.write_bytes(content)
    return path


def clear() -> None:
    """Remove everything that is in the directory."""
    for path in directory().iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def world() -> Iterator[None]:
    """What targets that write files need."""
    try:
        yield
    finally:
        shutil.rmtree(directory())
        directory.cache_clear()
