"""A backup becomes the database of a new member: what belonged to the old cluster goes, keys, leases and users stay.

The file of a backup carries the SHA-256 of everything before it in its last 32 bytes. The new database says that it
stands at a log index that the new cluster's log begins behind, so that a member without these data can never be fed
from the log alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quorate.node.directories import sync_directory
from quorate.storage import hashkv, schema
from quorate.storage.database import checked
from quorate.wire.messages import MAIN_SHIFT

DIGEST_BYTES: Final = 32
UNIT_BYTES: Final = 512  # a backup is a whole number of these and a digest; a bare database file has no digest
_BLOCK_BYTES: Final = 1 << 20
_LIVE_KEYS: Final = "SELECT count(*) FROM (SELECT max(id) AS id FROM history GROUP BY key) WHERE id & 1 = 0"


@dataclass(frozen=True, slots=True)
class Digests:
    """What a file says of itself and what is true; `stated` is empty where the file ends without a digest."""

    stated: bytes
    actual: bytes
    content_bytes: int


def digests(path: Path) -> Digests:
    """Read a backup once."""
    size = path.stat().st_size
    content_bytes = size - DIGEST_BYTES if size % UNIT_BYTES == DIGEST_BYTES else size
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        left = content_bytes
        while left and (block := file.read(min(left, _BLOCK_BYTES))):
            hasher.update(block)
            left -= len(block)
        return Digests(file.read(), hasher.digest(), content_bytes)


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a database."""

    revision: int
    compact_revision: int  # -1 when never compacted
    live_keys: int


def contents(path: Path) -> Contents:
    """Look into a database or backup; DamagedDatabase when it is none or not sound."""
    schema.check(path)
    connection = schema.open_reader(path)
    try:
        for _ in checked(connection.execute("SELECT * FROM history")):
            pass
        (live_keys,) = connection.execute(_LIVE_KEYS).fetchone()
        _, _, revision, compact_revision, _ = schema.marks(connection)
        schema.check_records(connection, revision)
        return Contents(revision, compact_revision, live_keys)
    finally:
        connection.close()


def hash_of(path: Path, revision: int, compact_revision: int) -> int:
    """HashKV of a database or backup at a revision."""
    return hashkv.hash_kv(path, compact_revision, revision + 1 << MAIN_SHIFT)


def renew(path: Path, index: int, term: int, bump: int = 0, mark_compacted: bool = False) -> None:
    """Make a database that nobody has open the start of a new cluster, synced when this returns.

    `bump` is added to the revision, so that it lies above everything the old cluster gave out after the backup; with
    `mark_compacted` everything up to the new revision is compacted, so that watches from before it end with an error.
    Alarms go: they name members that are no more, and all new members begin with the same data. Tokens go, too.
    """
    connection = schema.open_writer(path)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM alarm")
        connection.execute("DELETE FROM renewal")  # their places are in the old cluster's log
        connection.execute("DELETE FROM auth WHERE kind = 'token'")
        connection.execute("UPDATE state SET applied_index = ?, applied_term = ?", (index, term))
        connection.execute("UPDATE state SET revision = revision + ?", (bump,))
        if mark_compacted:
            connection.execute("UPDATE state SET scheduled_compact_revision = revision")
        schema.seal(connection)
        schema.marks(connection)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()
    sync_directory(path.parent)
