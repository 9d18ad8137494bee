"""The state of a member, put together from its database and written back to it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from struct import error as StructError  # noqa: N812 - it is one
from typing import Any, Final

from google.protobuf.message import DecodeError

from quorate.proto import rpc_pb2
from quorate.storage.alarms import Alarms
from quorate.storage.auth import AuthStore, Change
from quorate.storage.database import Database
from quorate.storage.lessor import Lessor
from quorate.storage.mvcc import Store
from quorate.storage.schema import DamagedDatabase, opened, sealed

# What reading raises that meets another type or form than was written.
NOT_AS_WRITTEN: Final = (
    *(ArithmeticError, AssertionError, AttributeError, DecodeError, LookupError, StructError, TypeError, ValueError),
)


class State:
    """Keys, leases, alarms and users over one database; DamagedDatabase when it cannot be read.

    `persist` and `commit` are its only ways to the disk.
    """

    def __init__(self, path: Path, lease_ttl_min: int, token_ttl_ms: int, now: float) -> None:
        gc.disable()  # millions of keys and numbers are about to be made, none of them garbage
        try:
            self.database = Database(path)
            try:
                self._load(lease_ttl_min, token_ttl_ms, now)
            except BaseException:
                self.database.close()
                raise
        except NOT_AS_WRITTEN as error:
            raise DamagedDatabase(f"the database {path} is damaged: {type(error).__name__} {error}") from error
        finally:
            gc.enable()
        gc.freeze()

    def _load(self, lease_ttl_min: int, token_ttl_ms: int, now: float) -> None:
        self.store = Store(self.database)
        execute = self.database.connection.execute

        def read(table: str, columns: str, order: str = "") -> Iterator[tuple[Any, ...]]:
            return opened(execute(f"SELECT {columns}, crc FROM {table} {order}"))  # noqa: S608 - names of ours

        self.lessor = Lessor(lease_ttl_min)
        self.lessor.load(
            read("lease", "id, granted_ttl, remaining_ttl"),
            (record for (record,) in read("renewal", "leases", "ORDER BY id")),
            read("attachment", "key, lease"),
            now,
        )
        self.auth = AuthStore(token_ttl_ms)
        self.auth.load((Change(*row) for row in read("auth", "kind, name, value")), int(now * 1000))
        alarms = [(kind, _unsigned(member)) for kind, member in read("alarm", "kind, member_id")]
        assert {kind for kind, _ in alarms} <= {rpc_pb2.NOSPACE, rpc_pb2.CORRUPT}, "an alarm of no kind"
        self.alarms = Alarms(alarms)

    def commit(self) -> None:
        """Write everything that was applied as one transaction."""
        self._persist_leases()
        self._persist_alarms()
        self._persist_auth()
        self.database.commit()
        self.store.forget_recent()

    @property
    def is_dirty(self) -> bool:
        """Whether a commit would write anything."""
        return self.database.is_dirty

    def close(self) -> None:
        """Close the database; what was not committed is replayed from the log."""
        self.database.close()

    def _persist_leases(self) -> None:
        lessor = self.lessor
        later = self.database.later
        if lessor.dirty_leases:
            for lease_id in lessor.dirty_leases:
                lease = lessor.leases.get(lease_id)
                if lease is None:
                    later("DELETE FROM lease WHERE id = ?", lease_id)
                else:
                    row = (lease_id, lease.granted_ttl, lease.remaining_ttl)
                    later("INSERT OR REPLACE INTO lease VALUES (?, ?, ?, ?)", *sealed(row))
            lessor.dirty_leases = set()
        renewals, is_all = lessor.take_renewals()
        if is_all:
            later("DELETE FROM renewal")
        if renewals:
            later("INSERT INTO renewal (leases, crc) VALUES (?, ?)", *sealed((bytes(renewals),)))
        if lessor.dirty_keys:
            for key in lessor.dirty_keys:
                attached = lessor.lease_of.get(key)
                if attached is None:
                    later("DELETE FROM attachment WHERE key = ?", key)
                else:
                    later("INSERT OR REPLACE INTO attachment VALUES (?, ?, ?)", *sealed((key, attached)))
            lessor.dirty_keys = set()

    def _persist_alarms(self) -> None:
        later = self.database.later
        for (kind, member_id), is_on in self.alarms.changes:
            if is_on:
                later("INSERT OR REPLACE INTO alarm VALUES (?, ?, ?)", *sealed((int(kind), _signed(member_id))))
            else:
                later("DELETE FROM alarm WHERE member_id = ? AND kind = ?", _signed(member_id), kind)
        self.alarms.changes = []

    def _persist_auth(self) -> None:
        later = self.database.later
        for table, name, value in self.auth.changes:
            if value is None:
                later("DELETE FROM auth WHERE kind = ? AND name = ?", table, name)
            else:
                later("INSERT OR REPLACE INTO auth VALUES (?, ?, ?, ?)", *sealed((table, name, value)))
        self.auth.changes = []


def _signed(number: int) -> int:
    """An unsigned 64-bit id as SQLite stores it."""
    return number - (1 << 64) if number >> 63 else number


def _unsigned(number: int) -> int:
    return number & (1 << 64) - 1
