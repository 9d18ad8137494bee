"""Images: the whole database in one file at one applied index, taken while applies go on, and put in place of another.

An image for a member belongs to consensus, which sends it and drops it; an export for a client belongs to the api
worker that asked for it, which opens it and takes its name away at once.

An image is a database like ours and says itself where it stands. Taking one copies the file while it is held still, in
a process that lets others go first; where a long read keeps the file from holding everything, SQLite's VACUUM INTO
takes its place. It is not synced: nobody looks for it after a crash, and before the system writes it to the disk by
itself it is gone. Installing one is a rename between closing the old database and opening the new one, so a crash
leaves the one or the other.
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
from quorate.storage import schema
from quorate.storage.database import Database

SUFFIX: Final = ".image.db"
DRAFT: Final = "image.tmp"
JOURNAL_MODE_OFFSET: Final = 18  # in the header of an SQLite file: the versions to write and to read it
EXPORT: Final = "export-*.tmp"
EXPORT_SECONDS_MAX: Final = 60.0  # an export that nobody opened for so long was for a worker that is gone
STILL_TRIES: Final = 20  # reads end, and then the file can hold everything
STILL_PAUSE_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Image:
    """A file that holds the state after the entry `index` of `term`."""

    index: int
    term: int
    path: Path


def take(database: Database) -> Image:
    """Write an image of what is committed next to the database; images taken before are deleted.

    OSError, sqlite3.OperationalError when it cannot be written.
    """
    draft = database.path.with_name(DRAFT)
    draft.unlink(missing_ok=True)
    try:
        _copy_committed(database, draft)
        index, term = _standing(draft)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    drop_images(database.path.parent)
    path = database.path.with_name(f"{index:016x}{SUFFIX}")
    draft.rename(path)
    return Image(index, term, path)


def _copy_committed(database: Database, target: Path) -> None:
    """Copy the file at a fifth of what VACUUM INTO takes, or do that."""
    for _ in range(STILL_TRIES):
        with database.held_still() as is_whole:
            if is_whole:
                _copy_file(database.path, target)
                return
        time.sleep(STILL_PAUSE_SECONDS)
    _copy(database.path, target)


class NoCopy(Exception):  # noqa: N818 - it names the finding
    """There is no room for a copy of the database, or it could not be written; the text says why."""


def export(database: Database) -> Path:
    """Write what is committed to a new file for a client, to be removed by who gets the path; else NoCopy."""
    drop_exports(database.path, EXPORT_SECONDS_MAX)
    prefix, suffix = EXPORT.split("*")
    try:
        descriptor, name = tempfile.mkstemp(suffix, prefix, database.path.parent)
    except OSError as error:
        raise NoCopy(str(error)) from error
    os.close(descriptor)
    path = Path(name)
    try:
        _copy_committed(database, path)
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, (OSError, sqlite3.OperationalError)):
            raise NoCopy(str(error)) from error
        raise
    return path


def drop_drafts(database: Path) -> None:
    """Delete what a process that was killed left unfinished; nobody may be writing an image or an export."""
    database.with_name(DRAFT).unlink(missing_ok=True)
    drop_exports(database)


def drop_images(directory: Path) -> None:
    """Delete images that were taken for members."""
    for path in directory.glob(f"*{SUFFIX}"):
        path.unlink(missing_ok=True)


def drop_exports(database: Path, older_seconds: float = 0.0) -> None:
    """Delete exports that were not written to for so long."""
    for path in database.parent.glob(EXPORT):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime >= older_seconds:
                path.unlink()


def _copy_file(database: Path, target: Path) -> None:
    """In a process of its own: closing the file in this one would drop SQLite's locks on it (POSIX).

    The target must not be there: ext4 writes a file that was emptied to the disk as soon as it is closed.
    """
    target.unlink(missing_ok=True)
    copied = subprocess.run(
        ["nice", "cp", "--", str(database), str(target)], check=False, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    if copied.returncode:
        raise OSError(copied.stderr.decode(errors="replace").strip() or f"cp ended with {copied.returncode}")
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
    """What another member sent is no image of ours; its file is deleted, so that it is asked for again."""


def check(path: Path, index: int) -> None:
    """BadImage unless `path` is an image that stands at `index`.

    Its bytes are those that were sent: consensus has compared them. What is inside is read by the scrub that follows
    every start, and each value against its checksum when it is asked for.
    """
    try:
        schema.check_ours(path)
        stands_at, _ = _standing(path)
        if stands_at != index:
            raise schema.DamagedDatabase(f"the image {path} stands at index {stands_at}, not at {index}")
    except (schema.DamagedDatabase, *schema.READING_FAILED) as damage:
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
