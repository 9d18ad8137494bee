"""Keys and the half-open intervals of keys that requests name."""

from typing import Final

Key = bytes | str  # text stands for its UTF-8 bytes

FROM_KEY: Final = b"\0"  # as range_end: every key from `key` on


def as_bytes(text: Key) -> bytes:
    """The bytes of a key or value."""
    return text.encode() if isinstance(text, str) else text


def prefix_end(prefix: Key) -> bytes:
    """The range_end that makes `key` a prefix: the least key above all that start with it.

    A prefix of nothing but 0xff bytes, or an empty one, has no such key; FROM_KEY then means the same.
    """
    stripped = as_bytes(prefix).rstrip(b"\xff")
    return stripped[:-1] + bytes((stripped[-1] + 1,)) if stripped else FROM_KEY


def prefix_range(prefix: Key) -> tuple[bytes, bytes]:
    """key and range_end of all keys with this prefix; the empty prefix means every key."""
    key = as_bytes(prefix)
    return key or b"\0", prefix_end(key)
