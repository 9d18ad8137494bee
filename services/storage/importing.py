"""A database from another store's records: the history as it was, key by key and revision by revision.

Records come in the order of revisions. A KeyValue is taken as it is, byte by byte, so that hashes of the history stay
what they were.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from quorate.proto import auth_pb2, kv_pb2, rpc_pb2
from quorate.storage import schema
from quorate.storage.records import BLOB_TAG, message_field, tombstone_blob
from quorate.wire.messages import record_id

ROWS_AT_ONCE: Final = 1000
_INSERT: Final = "INSERT INTO history VALUES (?, ?, ?, ?, ?)"


class Record(NamedTuple):
    """One change of one key as etcd stores it; the KeyValue of a tombstone holds the key alone."""

    main: int
    sub: int
    is_tombstone: bool
    key_value: bytes


class Users(NamedTuple):
    """Everything of the Auth service."""

    enabled: bool
    revision: int
    users: list[auth_pb2.User]
    roles: list[auth_pb2.Role]


class Revisions(NamedTuple):
    """Of compactions; -1 when there was none."""

    scheduled_compact: int
    finished_compact: int


def write(path: Path, records: Iterable[Record], leases: Mapping[int, int], users: Users, revisions: Revisions) -> None:
    """Make a new database of it. `leases` are granted TTLs by id."""
    connection = schema.open_writer(path)
    try:
        connection.execute("PRAGMA synchronous = OFF")  # whoever made it syncs the whole or throws it away
        connection.execute("BEGIN IMMEDIATE")
        newest, lease_of, revision = _write_history(connection, records)
        connection.executemany(
            "INSERT INTO lease VALUES (?, ?, ?, ?)", [schema.sealed((one, ttl, ttl)) for one, ttl in leases.items()]
        )
        attached = [
            schema.sealed((key, lease)) for key, lease in lease_of.items() if lease in leases and not newest[key] & 1
        ]
        connection.executemany("INSERT INTO attachment VALUES (?, ?, ?)", attached)
        connection.executemany("INSERT INTO auth VALUES (?, ?, ?, ?)", map(schema.sealed, _auth_rows(users)))
        connection.execute(
            "UPDATE state SET revision = ?, scheduled_compact_revision = ?, finished_compact_revision = ?",
            (max(1, revision, revisions.scheduled_compact), *revisions),
        )
        schema.seal(connection)
        connection.execute("COMMIT")
    finally:
        connection.close()


def _write_history(
    connection: sqlite3.Connection, records: Iterable[Record]
) -> tuple[dict[bytes, int], dict[bytes, int], int]:
    newest: dict[bytes, int] = {}
    lease_of: dict[bytes, int] = {}
    rows: list[tuple[int, int, int, bytes, bytes]] = []
    main = 0
    for main, sub, is_tombstone, key_value in records:
        pair = kv_pb2.KeyValue.FromString(key_value)
        key = pair.key
        if not key:
            continue  # etcd's mark of a revision that was raised by hand
        record = record_id(main, sub, is_tombstone)
        blob = tombstone_blob(key, main) if is_tombstone else message_field(BLOB_TAG, key_value)
        previous = newest.get(key, 0)
        rows.append((record, previous, schema.seal_of(record, previous, blob), key, blob))
        newest[key] = record
        if pair.lease:
            lease_of[key] = pair.lease
        else:
            lease_of.pop(key, None)
        if len(rows) == ROWS_AT_ONCE:
            connection.executemany(_INSERT, rows)
            rows.clear()
    connection.executemany(_INSERT, rows)
    return newest, lease_of, main


def _auth_rows(users: Users) -> list[tuple[str, str, bytes]]:
    state = rpc_pb2.AuthStatusResponse(enabled=users.enabled, authRevision=users.revision)
    return [
        ("state", "", state.SerializeToString()),
        *(("user", user.name.decode(), user.SerializeToString()) for user in users.users),
        *(("role", role.name.decode(), role.SerializeToString()) for role in users.roles),
    ]
