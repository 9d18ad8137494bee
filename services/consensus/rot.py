"""Was the last batch of a log cut by a crash, or did it rot after it was acknowledged? Pure.

Both leave a batch that is not whole with nothing behind it. A write that was cut leaves sectors as they were before:
zeros, or a recycled file's leftovers. Rot turns single bits. So a batch that one turned bit makes whole, up to its end
mark, has rotted. Damage to more than one bit of a last batch cannot be told from a cut and counts as one; a log that
was idle or closed ends with a batch that nobody misses (`Wal.settle`), so that this concerns only the last moment
before a crash. A bit is never turned back: over a long payload other damage would now and then look like one bit.
"""

from __future__ import annotations

from typing import Final

import google_crc32c

CASTAGNOLI: Final = 0x82F63B78
SEARCHED_BYTES_MAX: Final = 4 << 20  # a second of searching


def flipped_bit(content: bytes, crc: int) -> int | None:
    """The bit (8 to a byte, the lowest first) that has to turn for `content` to fit `crc`; None when no single one
    does."""
    wanted = google_crc32c.value(content) ^ crc
    if wanted == 0 or len(content) > SEARCHED_BYTES_MAX:
        return None
    difference = CASTAGNOLI  # what the last bit of the last byte does to the checksum; then bit by bit to the front
    for bit in reversed(range(8 * len(content))):
        if difference == wanted:
            return bit
        difference = difference >> 1 ^ CASTAGNOLI if difference & 1 else difference >> 1
    return None


def is_one_bit(number: int) -> bool:
    """Exactly one bit is set."""
    return number != 0 and number & number - 1 == 0
