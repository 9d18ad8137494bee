"""Numbers as protobuf writes them, for messages that are put together by hand.

Storage has its own with tables for every short number: it writes several for each change, and has the memory anyway.
"""

from __future__ import annotations


def varint(number: int) -> bytes:
    """`number`, which is not negative, in base 128 with the low end first."""
    if number < 0x80:
        return bytes((number,))
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    octets = bytearray()
    while number >= 0x80:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    octets.append(number)
    return bytes(octets)
