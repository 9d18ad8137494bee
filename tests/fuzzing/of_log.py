"""The log on disk: segments as they are, records whose checksums fit whatever they say, whole directories."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import google_crc32c

from quorate.consensus import wal_format
from quorate.consensus.raft.messages import Entry, HardState
from quorate.consensus.segments import segment_name
from quorate.consensus.wal import Wal
from quorate.consensus.wal_format import (
    HEADER_BYTES,
    RECORD_BYTES_MAX,
    STATE_KIND,
    Base,
    DamagedLog,
    SegmentHeader,
    encode_batch,
    scan_segment,
)
from tests.fuzzing import scratch
from tests.fuzzing.octets import Octets

NONCE = 0x11223344
HEADER = SegmentHeader(NONCE, 0xC1, 2, 1, Base(0, 0, 0), 0)
RAW, SEALED, DIRECTORY = range(3)
SEGMENT_BYTES = 16 * 1024


@contextmanager
def world() -> Iterator[None]:
    """A directory that is gone afterwards, and no log of ours."""
    logging.disable()
    try:
        with scratch.world():
            yield
    finally:
        logging.disable(logging.NOTSET)


def _batches() -> bytes:
    first = encode_batch(NONCE, 1, Base(0, 0, 0), [Entry(1, 1, 0, b"a"), Entry(2, 1, 1, b"bb")], HardState(1, 2, 1))
    base = Base(2, 1, first.chains[-1])
    second = encode_batch(NONCE, 2, base, [Entry(3, 1, 0, b"ccc" * 9)], HardState(1, 2, 2))
    third = encode_batch(NONCE, 3, Base(3, 1, second.chains[-1]), [], HardState(2, 0, 3))
    return first.data + second.data + third.data


def seeds() -> list[bytes]:
    """Three batches, alone and in files of their own, and a row of sealed records."""
    records = b"".join(
        bytes((kind, batch, index, 1, 1, 2)) + b"ab" for kind, batch, index in ((0, 1, 1), (0, 1, 2), (0x80, 1, 2))
    )
    return [
        bytes((RAW,)) + _batches(),
        bytes((SEALED,)) + records,
        bytes((DIRECTORY, 0)) + HEADER.pack()[:80] + _batches(),
    ]


def run(data: bytes) -> bool:
    """What is not what was written is DamagedLog, and nothing is made up."""
    octets = Octets(data)
    match octets.choice((RAW, SEALED, DIRECTORY)):
        case 0:
            return _scan(octets.rest())
        case 1:
            return _scan(_sealed(octets))
        case _:
            return _recover(octets)


def _scan(records: bytes) -> bool:
    data = HEADER.pack() + records
    try:
        scan = scan_segment("segment", data, HEADER)
    except DamagedLog:
        return False
    assert HEADER_BYTES <= scan.end <= len(data) + 8
    for place in scan.places:
        record = wal_format.read_record(data, place.offset, NONCE)
        assert record is not None
        assert record.length <= RECORD_BYTES_MAX
        assert wal_format.read_payload(data, place.offset, record) is not None
    return True


def _sealed(octets: Octets) -> bytes:
    """Records of any kind, number and place in the chain."""
    parts = []
    chain = 0
    while not octets.is_empty:
        kind, batch, index, term = (octets.number() for _ in range(4))
        follows, length = octets.number(), octets.number()
        payload = octets.take(length)
        crc = google_crc32c.value(payload)
        if kind < STATE_KIND and follows:
            chain = wal_format.link(chain, index, term, kind, crc)
        elif kind == STATE_KIND and follows:
            payload = wal_format._STATE.pack(1, 1, follows, NONCE)
            crc = google_crc32c.value(payload)
        said = len(payload) if follows != 7 else 0x3FFFFFFF
        parts.append(wal_format._record(NONCE, said, crc, kind, batch, index, term, chain) + payload)
        parts.append(bytes(-len(payload) % 8))
    return b"".join(parts)


def _recover(octets: Octets) -> bool:
    """Segments in files of this directory, and the log that a member makes of them."""
    scratch.clear()
    directory = scratch.directory()
    count = 1 + octets.number() % 3
    parts = octets.rest()
    size = max(len(parts) // count, 1)
    for number in range(count):
        content = parts[number * size : (number + 1) * size]
        content = content[:80].ljust(HEADER_BYTES, b"\0") + content[80:]
        (directory / segment_name(number + 1, number * 3 + 1)).write_bytes(content.ljust(SEGMENT_BYTES, b"\0"))
    try:
        log = Wal.recover(directory, SEGMENT_BYTES, fsync=False)
    except DamagedLog:
        return False
    log.entries(log.first_index(), log.last_index + 1, 1 << 30)
    log.close()
    Wal.recover(directory, SEGMENT_BYTES, fsync=False).abandon()
    return True
