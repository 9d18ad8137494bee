"""What is in a database file that etcd wrote: history, leases and users, and the checksums that etcd's tools show."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Final

import google_crc32c
from google.protobuf.message import DecodeError

from quorate.ctl.bbolt import BboltError, BboltFile
from quorate.proto import auth_pb2, kv_pb2
from quorate.storage import importing
from quorate.storage.importing import Record, Revisions, Users
from quorate.storage.records import read_varint

_REVISION: Final = Struct(">QcQ")
_TOMBSTONE: Final = b"t"
_BBOLT_START: Final = 16  # the first page's head, then the meta page with its magic number
_MAGIC: Final = b"\xed\xda\x0c\xed"


def is_etcd_file(path: Path) -> bool:
    """Whether the file looks like bbolt's: either meta page carries its magic number."""
    with path.open("rb") as file:
        head = file.read(_BBOLT_START + 4)
    return head[_BBOLT_START:] == _MAGIC


@contextmanager
def opened(path: Path) -> Iterator[BboltFile]:
    """The file, open for the block; BboltError for pages that are not sound and for records that are none of etcd's."""
    with BboltFile(path) as file:
        try:
            yield file
        except (DecodeError, UnicodeDecodeError, IndexError, OverflowError, sqlite3.IntegrityError) as error:
            raise BboltError(f"{path} is damaged: it holds a record that is none of etcd's ({error})") from error


@dataclass(frozen=True, slots=True)
class EtcdContents:
    """What etcdutl says of a file."""

    hash: int
    revision: int
    live_keys: int
    size_bytes: int
    version: str


def contents(path: Path) -> EtcdContents:
    """Read the whole file; BboltError when it is not sound."""
    crc, revision = 0, 0
    live: set[bytes] = set()
    version = ""
    with opened(path) as file:
        for bucket in file.buckets():
            crc = int(google_crc32c.extend(crc, bucket))
            for key, value in file.items(bucket):
                crc = int(google_crc32c.extend(crc, key + value))
                if bucket == b"key":
                    revision = int.from_bytes(key[:8], "big")
                    user_key = kv_pb2.KeyValue.FromString(value).key
                    (live.discard if _is_tombstone(key) else live.add)(user_key)
                elif bucket == b"meta" and key == b"storageVersion":
                    version = value.decode()
        live.discard(b"")
        return EtcdContents(crc, revision, len(live), file.size_bytes, version)


def convert(path: Path, target: Path) -> None:
    """Write a database of ours with everything that is in etcd's file; BboltError when that is not sound."""
    with opened(path) as file:
        importing.write(target, _records(file), _leases(file), _users(file), compactions(file))


def hash_kv(path: Path, revision: int, compact_revision: int) -> int:
    """HashKV at a revision, as a member with this file would answer."""
    with opened(path) as file:
        kept: dict[bytes, bytes] = {}  # user key: the record that is visible at the revision
        for key, value in file.items(b"key"):
            if int.from_bytes(key[:8], "big") > revision:
                break
            kept[kv_pb2.KeyValue.FromString(value).key] = key
        visible = {key for key in kept.values() if not _is_tombstone(key)}
        crc = int(google_crc32c.extend(0, b"key"))
        for key, value in file.items(b"key"):
            main = int.from_bytes(key[:8], "big")
            if main > revision:
                break
            if main > compact_revision or key in visible:
                crc = int(google_crc32c.extend(crc, key + value))
        return crc


def compactions(file: BboltFile) -> Revisions:
    """How far the history was compacted."""
    meta = dict(file.items(b"meta"))
    scheduled, finished = (_main(meta.get(name)) for name in (b"scheduledCompactRev", b"finishedCompactRev"))
    return Revisions(max(scheduled, finished), finished)


def _main(revision: bytes | None) -> int:
    return int.from_bytes(revision[:8], "big") if revision else -1


def _is_tombstone(key: bytes) -> bool:
    return len(key) > _REVISION.size and key.endswith(_TOMBSTONE)


def _records(file: BboltFile) -> Iterator[Record]:
    for key, value in file.items(b"key"):
        if len(key) < _REVISION.size:
            raise BboltError(f"the revision {key!r} is cut short")
        main, _, sub = _REVISION.unpack_from(key)
        yield Record(main, sub, _is_tombstone(key), value)


def _leases(file: BboltFile) -> dict[int, int]:
    """Granted TTLs in seconds by id; a lease is a message of ID (1), TTL (2) and RemainingTTL (3)."""
    leases: dict[int, int] = {}
    for _, value in file.items(b"lease"):
        fields = {1: 0, 2: 0}
        position = 0
        while position < len(value):
            tag, position = read_varint(value, position)
            fields[tag >> 3], position = read_varint(value, position)
        leases[fields[1]] = fields[2]
    return leases


def _users(file: BboltFile) -> Users:
    auth = dict(file.items(b"auth"))
    return Users(
        auth.get(b"authEnabled") == b"\x01",
        int.from_bytes(auth.get(b"authRevision", b"\x01"), "big"),
        [auth_pb2.User.FromString(value) for _, value in file.items(b"authUsers")],
        [auth_pb2.Role.FromString(value) for _, value in file.items(b"authRoles")],
    )
