"""What was changed, as watch hears it: one message for each batch that was applied."""

from __future__ import annotations

from quorate.storage.database import Row
from quorate.storage.mvcc import Store
from quorate.storage.records import frame_bytes, key_value_of, varint
from quorate.wire.messages import EVENT, EVENTS


def pack_events(store: Store, rows: list[Row], before: int, after: int, with_previous: bool) -> list[bytes]:
    """The parts of an EVENTS message for the rows made between two revisions."""
    parts = [EVENTS.pack(before, after, len(rows))]
    if with_previous:
        for (record, _, key, blob), previous in zip(rows, store.previous_blobs(rows), strict=True):
            parts += event_parts(record, key, blob, key_value_of(previous) if previous else b"")
        return parts
    pack = EVENT.pack
    for record, _, key, blob in rows:
        start = frame_bytes(len(blob))
        key_bytes = len(key)
        key_start = 2 if key_bytes < 0x80 else _key_start(key_bytes)
        parts.append(pack(record, key_bytes, len(blob) - start, 0, key_start) + blob[start:])
    return parts


def event_parts(record: int, key: bytes, blob: bytes, previous: bytes) -> tuple[bytes, bytes, bytes]:
    """One event: its header, its KeyValue and the KeyValue before it."""
    key_value = key_value_of(blob)
    key_bytes = len(key)
    key_start = 2 if key_bytes < 0x80 else _key_start(key_bytes)
    return EVENT.pack(record, key_bytes, len(key_value), len(previous), key_start), key_value, previous


def _key_start(key_bytes: int) -> int:
    """Where a longer key starts in its KeyValue: behind its tag and its length."""
    return 1 + len(varint(key_bytes))
