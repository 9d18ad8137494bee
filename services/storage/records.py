"""KeyValue bytes: a change of a key is encoded once, when it is made, and never again.

A *blob* is the mvccpb.KeyValue with the tag and length of field 2 in front. That is its place in RangeResponse (kvs),
in PutResponse (prev_kv) and in Event (kv) alike, so that an answer is a join of blobs. The blob of a tombstone holds
the key and mod_revision alone, which is what a watcher sees of a deletion.
"""

from __future__ import annotations

from typing import Final

from quorate.proto import kv_pb2

_SHORT: Final = [bytes((n,)) if n < 0x80 else bytes((n & 0x7F | 0x80, n >> 7)) for n in range(1 << 14)]
_LOW: Final = [bytes((n & 0x7F | 0x80, n >> 7 | 0x80)) for n in range(1 << 14)]  # fourteen bits with more to come

BLOB_TAG: Final = b"\x12"
KEY_TAG: Final = b"\x0a"
CREATE_TAG: Final = b"\x10"
MOD_TAG: Final = b"\x18"
VERSION_TAG: Final = b"\x20"
VALUE_TAG: Final = b"\x2a"
LEASE_TAG: Final = b"\x30"


# What the next put of a key needs to know of its newest record: the create_revision field as it stands in the KeyValue,
# and the version. A plain tuple, as one is made for every put.
Facts = tuple[bytes, int]


def varint(number: int) -> bytes:
    """`number` as protobuf writes it; a negative int64 takes ten bytes."""
    if 0 <= number < 0x4000:
        return _SHORT[number]
    if 0 <= number < 0x10000000:
        return _LOW[number & 0x3FFF] + _SHORT[number >> 14]
    if number < 0:
        number += 1 << 64
    low = b""
    while number >= 0x4000:
        low += _LOW[number & 0x3FFF]
        number >>= 14
    return low + _SHORT[number]


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """(number, position behind it); IndexError where there is none of 64 bits."""
    number = shift = 0
    while shift < 70:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7
    raise IndexError("a number of more than 64 bits")


def bytes_field(tag: bytes, content: bytes) -> bytes:
    """A length-delimited field, left out when empty as proto3 does."""
    return tag + varint(len(content)) + content if content else b""


def integer_field(tag: bytes, number: int) -> bytes:
    """A varint field, left out when zero as proto3 does."""
    return tag + varint(number) if number else b""


def message_field(tag: bytes, message: bytes) -> bytes:
    """An embedded message, present also when it is empty."""
    return tag + varint(len(message)) + message


def frame_bytes(blob_bytes: int) -> int:
    """How many bytes of a blob of this size stand before the KeyValue."""
    if blob_bytes <= 0x81:
        return 2
    if blob_bytes <= 0x4002:
        return 3
    return 4 if blob_bytes <= 0x200003 else 5


def key_value_of(blob: bytes) -> bytes:
    """The KeyValue without its frame."""
    return blob[frame_bytes(len(blob)) :]


def key_field_bytes(key_bytes: int) -> int:
    """The size of the key field of a KeyValue."""
    return 1 + len(varint(key_bytes)) + key_bytes


def tombstone_blob(key: bytes, main: int) -> bytes:
    """What a deletion at revision `main` leaves behind."""
    return message_field(BLOB_TAG, bytes_field(KEY_TAG, key) + MOD_TAG + varint(main))


def facts_of(blob: bytes, key_bytes: int) -> Facts:
    """Read the facts back from the blob of a put."""
    start = frame_bytes(len(blob)) + key_field_bytes(key_bytes)
    position = read_varint(blob, start + 1)[1]
    create_field = blob[start:position]
    position = read_varint(blob, position + 1)[1]
    return create_field, read_varint(blob, position + 1)[0]


def tail_position(blob: bytes, key_bytes: int) -> int:
    """Where the value field (or what follows it) starts in the blob of a put."""
    position = frame_bytes(len(blob)) + key_field_bytes(key_bytes)
    for _ in range(3):
        position = read_varint(blob, position + 1)[1]
    return position


def value_field_of(blob: bytes, key_bytes: int) -> bytes:
    """The value field of a put as it stands, empty when the value is."""
    start = tail_position(blob, key_bytes)
    if blob[start : start + 1] != VALUE_TAG:
        return b""
    length, position = read_varint(blob, start + 1)
    return blob[start : position + length]


def without_value(blob: bytes) -> bytes:
    """The same pair with an empty value."""
    key_bytes, _ = read_varint(blob, frame_bytes(len(blob)) + 1)
    value_field = value_field_of(blob, key_bytes)
    if not value_field:
        return blob
    start = tail_position(blob, key_bytes)
    return message_field(BLOB_TAG, blob[frame_bytes(len(blob)) : start] + blob[start + len(value_field) :])


def parsed(blob: bytes) -> kv_pb2.KeyValue:
    """The KeyValue as a message, where single fields are looked at."""
    return kv_pb2.KeyValue.FromString(key_value_of(blob))
