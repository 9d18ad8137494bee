"""Images: the whole database in one file at one applied index, taken while applies go on, and put in place of another.

An image for a member stays until the next one; an export for a client belongs to the api worker that asked for it,
which opens it and takes its name away at once.

An image is a database like ours, compact, and says itself where it stands. Taking one is SQLite's own VACUUM INTO: one
read transaction on a thread, a new file, synced and renamed when it is whole. Installing one is a rename between
closing the old database and opening the new one, so a crash leaves the one or the other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quorate.node.directories import sync_directory
from quorate.storage import schema, scrub
from quorate.storage.database import Database

SUFFIX: Final = ".snap.db"
DRAFT: Final = "image.tmp"
JOURNAL_MODE_OFFSET: Final = 18  # in the header of an SQLite file: the versions to write and to read it
EXPORT: Final = "export-*.tmp"
EXPORT_SECONDS_MAX: Final = 60.0  # an export that nobody opened for so long was for a worker that is gone


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
    try:
        _copy(database, draft)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    index, term = _standing(draft)
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    for old in database.parent.glob(f"*{SUFFIX}"):
        old.unlink()
    path = database.with_name(f"{index:016x}{SUFFIX}")
    draft.rename(path)
    sync_directory(database.parent)
    return Image(index, term, path)


class NoCopy(Exception):  # noqa: N818 - it names the finding
    """There is no room for a copy of the database, or it could not be written; the text says why."""


def export(database: Database) -> Path:
    """Write what is committed to a new file for a client; whoever gets the path removes it. NoCopy when it cannot be.

    The database's own file is copied while it is held still, at a fifth of what VACUUM INTO takes.
    """
    drop_exports(database.path, EXPORT_SECONDS_MAX)
    prefix, suffix = EXPORT.split("*")
    try:
        descriptor, name = tempfile.mkstemp(suffix, prefix, database.path.parent)
    except OSError as error:
        raise NoCopy(str(error)) from error
    os.close(descriptor)
    path = Path(name)
    try:
        with database.held_still() as is_whole:
            if is_whole:
                _copy_file(database.path, path)
        if not is_whole:
            _copy(database.path, path)
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, (OSError, subprocess.CalledProcessError, sqlite3.OperationalError)):
            raise NoCopy(str(error)) from error
        raise
    return path


def drop_drafts(database: Path) -> None:
    """Delete what a process that was killed left unfinished; nobody may be writing an image or an export."""
    database.with_name(DRAFT).unlink(missing_ok=True)
    drop_exports(database)


def drop_exports(database: Path, older_seconds: float = 0.0) -> None:
    """Delete exports that were not written to for so long."""
    for path in database.parent.glob(EXPORT):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime >= older_seconds:
                path.unlink()


def _copy_file(database: Path, target: Path) -> None:
    """In a process of its own: closing the file in this one would drop SQLite's locks on it (POSIX)."""
    subprocess.run(["cp", "--", str(database), str(target)], check=True, stdin=subprocess.DEVNULL)
    with target.open("r+b") as file:
        file.seek(JOURNAL_MODE_OFFSET)
        file.write(b"\1\1")  # not WAL, so that it can be read where nothing may be written beside it


def _copy(database: Path, target: Path) -> None:
    connection = sqlite3.connect(database, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = OFF")  # the copy is synced as a whole by whoever keeps it
        connection.execute("VACUUM INTO ?", (str(target),))
    finally:
        connection.close()


class BadImage(Exception):  # noqa: N818 - it names the finding
    """What another member sent rotted on its way to here; its file is deleted, so that it is asked for again."""


def check(path: Path, index: int) -> None:
    """BadImage unless `path` is a sound image that stands at `index`."""
    try:
        scrub.verify(path)
        stands_at, _ = _standing(path)
        if stands_at != index:
            raise schema.DamagedDatabase(f"the image {path} stands at index {stands_at}, not at {index}")
    except (schema.DamagedDatabase, sqlite3.DatabaseError) as damage:
        path.unlink(missing_ok=True)
        raise BadImage(str(damage)) from damage


def install(image: Path, database: Path) -> None:
    """Put a checked image in place of a closed database; the image's file is used up.

    It keeps its name until the database has all of it: who installs it asks for it again after a crash.
    """
    is_near = image.parent.stat().st_dev == database.parent.stat().st_dev
    whole = image if is_near else database.with_name(DRAFT)
    if not is_near:
        shutil.copyfile(image, whole)
    with whole.open("rb") as file:
        os.fsync(file.fileno())
    for suffix in ("-wal", "-shm"):  # closing has emptied them; one of another database must not be read into this one
        Path(f"{database}{suffix}").unlink(missing_ok=True)
    whole.replace(database)
    sync_directory(database.parent)
    image.unlink(missing_ok=True)


def rebuild(database: Path) -> tuple[int, int]:
    """Write a database that nobody has open anew, without free pages; its bytes before and after.

    DamagedDatabase when it is not sound. A crash leaves the one or the other.
    """
    schema.check(database)
    before = sum(path.stat().st_size for path in (database, Path(f"{database}-wal")) if path.exists())
    connection = schema.open_writer(database)
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()
    draft = database.with_name(DRAFT)
    draft.unlink(missing_ok=True)
    try:
        _copy(database, draft)
        install(draft, database)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return before, database.stat().st_size


def _standing(path: Path) -> tuple[int, int]:
    connection = schema.open_reader(path)
    try:
        index, term = schema.marks(connection)[:2]
        return index, term
    finally:
        connection.close()
