"""HashKV: one number for what is visible from the compact revision up to a revision, as etcd computes it.

CRC-32C over the word "key" and then, in the order of revisions, the 17 bytes etcd stores a record under (18 for a
tombstone) and the KeyValue. Of a tombstone etcd hashes the key alone. Of what was made
up to the compact revision only that counts which is still visible at the revision asked for, whether compaction has
dropped the rest yet or not; so members agree while they are at different slices. (etcd counts what is left of the
compacted part when no key is alive; members that compact at different times then differ.)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from struct import Struct
from time import perf_counter
from typing import Final

import google_crc32c

from quorate.storage import schema
from quorate.storage.buckets import Buckets
from quorate.storage.records import KEY_TAG, bytes_field, key_value_of
from quorate.wire.messages import MAIN_SHIFT, SUBS_MAX

_RECORD_KEY: Final = Struct(">QcQ")
_ROWS: Final = "SELECT id, key, kv FROM history WHERE id < ? ORDER BY id"
_SUPERSEDED: Final = "SELECT prev FROM history WHERE id < ? AND prev > 0 AND prev < ?"
_ROWS_AT_ONCE: Final = 500


class HashTimes:
    """How long hashing took, of everything and of a revision."""

    def __init__(self) -> None:
        self.whole_seconds = Buckets(0.01, 2, 15)
        self.revision_seconds = Buckets(0.01, 2, 15)


def timed(hashing: Callable[[], int], seconds: Buckets) -> int:
    """The hash; its time is added."""
    began = perf_counter()
    value = hashing()
    seconds.add(perf_counter() - began)
    return value


def hash_kv(path: Path, compact_revision: int, end: int) -> int:
    """The hash of the records below the id `end`; reads the whole table, so on a thread of its own."""
    compacted = compact_revision + 1 << MAIN_SHIFT if compact_revision >= 0 else 0
    connection = schema.open_reader(path)
    try:
        connection.execute("BEGIN")  # both statements see the same state
        superseded = {record for (record,) in connection.execute(_SUPERSEDED, (end, compacted))}
        crc = int(google_crc32c.extend(0, b"key"))
        rows = connection.execute(_ROWS, (end,))
        while piece := rows.fetchmany(_ROWS_AT_ONCE):
            crc = int(google_crc32c.extend(crc, _hashed(piece, superseded, compacted)))
        return crc
    finally:
        connection.close()


def _hashed(rows: list[tuple[int, bytes, bytes]], superseded: set[int], compacted: int) -> bytes:
    parts: list[bytes] = []
    for record, key, blob in rows:
        tombstone = record & 1
        if record < compacted and (record in superseded or tombstone):
            continue
        parts.append(_RECORD_KEY.pack(record >> MAIN_SHIFT, b"_", record >> 1 & SUBS_MAX - 1))
        parts += (b"t", bytes_field(KEY_TAG, key)) if tombstone else (key_value_of(blob),)
    return b"".join(parts)
