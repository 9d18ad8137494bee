"""Was the last batch of a log cut by a crash, or did it rot after it was acknowledged? Pure.

Both leave a batch that is not whole with nothing behind it. A write that was cut leaves what was there before: zeros,
or a recycled file's leftovers, which differ from what was to be written in about half of their bits. Rot turns single
bits. So a batch that one flipped bit explains has rotted, unless there are only zeros from that bit on: then it is the
end of what a cut write brought. Damage to more than one bit of a last batch cannot be told from a cut and counts as
one; a log that was idle or closed ends with a batch that nobody misses (`Wal.settle`), so that this concerns only the
last moment before a crash.
"""

from __future__ import annotations

import mmap
from typing import Final

import google_crc32c

CASTAGNOLI: Final = 0x82F63B78
SEARCHED_BYTES_MAX: Final = 4 << 20  # a second of searching
CUT_ZEROS: Final = 64  # more than any record has in a row at its end

Readable = bytes | mmap.mmap


def flipped_byte(content: bytes, crc: int) -> int | None:
    """Position of the byte in which one flipped bit makes `content` fit `crc`; None when no single bit does."""
    wanted = google_crc32c.value(content) ^ crc
    if wanted == 0 or len(content) > SEARCHED_BYTES_MAX:
        return None
    difference = CASTAGNOLI  # what the last bit of the last byte does to the checksum; then bit by bit to the front
    for bit in range(8 * len(content)):
        if difference == wanted:
            return len(content) - 1 - bit // 8
        difference = difference >> 1 ^ CASTAGNOLI if difference & 1 else difference >> 1
    return None


def is_one_bit(number: int) -> bool:
    """Exactly one bit is set."""
    return number != 0 and number & number - 1 == 0


def is_cut(data: Readable, position: int) -> bool:
    """Nothing was written at `position` and behind it."""
    return not any(data[position : position + CUT_ZEROS])
