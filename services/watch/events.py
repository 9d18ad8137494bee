"""Changes as clients get them: the `events` field of a WatchResponse, encoded once for everybody."""

from __future__ import annotations

from quorate.wire.varints import varint

_EVENTS = b"\x5a"  # WatchResponse.events = 11
_DELETE = b"\x08\x01"  # Event.type = 1: DELETE
_KV = b"\x12"  # Event.kv = 2
_PREV_KV = b"\x1a"  # Event.prev_kv = 3

_KV_OF = [_KV + varint(size) for size in range(1024)]
_EVENTS_OF = [_EVENTS + varint(size) for size in range(1024)]


def encoded(is_tombstone: int, key_value: bytes, previous: bytes) -> bytes:
    """A change as one `events` field; `previous` is empty where there is none or nobody asks for it."""
    size = len(key_value)
    event = (_KV_OF[size] if size < 1024 else _KV + varint(size)) + key_value
    if is_tombstone:
        event = _DELETE + event
    if previous:
        event += _PREV_KV + varint(len(previous)) + previous
    size = len(event)
    return (_EVENTS_OF[size] if size < 1024 else _EVENTS + varint(size)) + event
