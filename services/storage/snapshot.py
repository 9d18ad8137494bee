"""Images: the whole database in one file at one applied index, taken while applies go on, and put in place of another.

An image is a database like ours, compact, and says itself where it stands. Taking one is SQLite's own VACUUM INTO: one
read transaction on a thread, a new file, synced and renamed when it is whole. Installing one is a rename between
closing the old database and opening the new one, so a crash leaves the one or the other.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quorate.storage import schema

SUFFIX: Final = ".snap.db"
DRAFT: Final = "image.tmp"


@dataclass(frozen=True, slots=True)
class Image:
    """A file that holds the state after the entry `index` of `term`."""

    index: int
    term: int
    path: Path


def take(database: Path) -> Image:
    """Write an image of what is committed next to the database; images taken before are deleted."""
    draft = database.with_name(DRAFT)
    draft.unlink(missing_ok=True)
    connection = sqlite3.connect(database, isolation_level=None)
    try:
        connection.execute("VACUUM INTO ?", (str(draft),))
    finally:
        connection.close()
    index, term = _standing(draft)
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    for old in database.parent.glob(f"*{SUFFIX}"):
        old.unlink()
    path = database.with_name(f"{index:016x}{SUFFIX}")
    draft.rename(path)
    schema.sync_directory(database.parent)
    return Image(index, term, path)


def check(path: Path, index: int) -> None:
    """DamagedDatabase unless `path` is a sound image that stands at `index`."""
    schema.check(path)
    stands_at, _ = _standing(path)
    if stands_at != index:
        raise schema.DamagedDatabase(f"the image {path} stands at index {stands_at}, not at {index}")


def install(image: Path, database: Path) -> None:
    """Put a checked image in place of a closed database; the image's file is used up."""
    draft = database.with_name(DRAFT)
    if image.parent.stat().st_dev == database.parent.stat().st_dev:
        image.replace(draft)
    else:
        shutil.copyfile(image, draft)
        image.unlink()
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    for suffix in ("-wal", "-shm"):  # closing has emptied them; one of another database must not be read into this one
        Path(f"{database}{suffix}").unlink(missing_ok=True)
    draft.replace(database)
    schema.sync_directory(database.parent)


def _standing(path: Path) -> tuple[int, int]:
    connection = schema.open_reader(path)
    try:
        index, term = connection.execute("SELECT applied_index, applied_term FROM state").fetchone()
        return index, term
    finally:
        connection.close()
