"""Changes as clients get them: the `events` field of a WatchResponse, encoded once for everybody."""

from __future__ import annotations

from quorate.wire.watching import Change

_EVENTS = b"\x5a"  # WatchResponse.events = 11
_DELETE = b"\x08\x01"  # Event.type = 1: DELETE
_KV = b"\x12"  # Event.kv = 2
_PREV_KV = b"\x1a"  # Event.prev_kv = 3


def varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encoded(change: Change, with_previous: bool) -> bytes:
    """The change as one `events` field."""
    record, _, key_value, previous = change
    event = _KV + varint(len(key_value)) + key_value
    if record & 1:
        event = _DELETE + event
    if with_previous and previous:
        event += _PREV_KV + varint(len(previous)) + previous
    return _EVENTS + varint(len(event)) + event
