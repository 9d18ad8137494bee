"""Inputs made of good ones by chance: for live nodes, for the tests, and where atheris is not installed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Final

INPUT_BYTES_MAX: Final = 1 << 16
SPECIAL: Final = (
    *(bytes((n,)) for n in (0, 1, 0x7F, 0x80, 0xFF)),
    *(n.to_bytes(4, order) for n in (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x4000) for order in ("big", "little")),
    *(n.to_bytes(8, "little") for n in (0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)),
    b'"', b"{", b"[", b"-1", b"1e999", b"\\ud800", b"null", b"\r\n\r\n", b"%00", b"/../", b"\xff\xfe", b"\xc3\xa9",
)  # fmt: skip


def mutated(random: Random, seeds: Sequence[bytes]) -> Iterator[bytes]:
    """Without end. Those that come out are parents of later ones now and then, so that changes add up."""
    pool = [*seeds, b""]
    while True:
        data = bytearray(random.choice(pool))
        for _ in range(1 + int(random.expovariate(0.5))):
            _change(random, data, pool)
        del data[INPUT_BYTES_MAX:]
        yield bytes(data)
        if random.random() < 0.02:
            fresh = len(seeds) + 1
            if len(pool) < fresh + 200:
                pool.append(bytes(data))
            else:
                pool[random.randrange(fresh, len(pool))] = bytes(data)


def _change(random: Random, data: bytearray, pool: Sequence[bytes]) -> None:
    at = random.randrange(len(data) + 1)
    length = min(int(random.expovariate(0.1)) + 1, len(data) - at)
    match random.randrange(8):
        case 0 if at < len(data):
            data[at] ^= 1 << random.randrange(8)
        case 1 if at < len(data):
            data[at] = random.randrange(256)
        case 2:
            data[at : at + length] = b""
        case 3:
            data[at:at] = data[at : at + length] * random.choice((1, 1, 2, 9, 100))
        case 4:
            data[at:at] = random.randbytes(1 + int(random.expovariate(0.2)))
        case 5:
            special = random.choice(SPECIAL)
            data[at : at + random.choice((0, len(special)))] = special
        case 6:
            other = random.choice(pool)
            start = random.randrange(len(other) + 1)
            data[at:at] = other[start : start + 1 + int(random.expovariate(0.02))]
        case _:
            if at < len(data):
                data[at] = (data[at] + random.choice((1, -1))) & 0xFF
