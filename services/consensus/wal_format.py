"""The bytes of the log on disk, both ways and without a disk: what a batch looks like, and what a damaged file means.

A log is a row of segments. A segment is a 4 KiB header and then records. One fsync writes one *batch*: entry records
followed by one STATE record, which carries the hard state and closes the batch. A batch without its STATE never
happened: nobody was told of it.

Three things tie the records together, so that damage shows wherever it is:

- every record begins with the segment's nonce, drawn anew whenever a file is (re)used. Leftovers of a recycled file can
  therefore never be taken for records, and records behind a damaged place are found by searching for four bytes;
- every entry carries a chain hash over its predecessor's chain, its index, term and payload checksum. Lost, stale or
  reordered records that look valid alone do not fit;
- batches are numbered. Batch n+1 exists only because batch n was synced; so a bad record is the torn end of the log
  exactly if nothing of a later batch lies behind it. Otherwise something that was acknowledged is damaged.

A segment header says what the log was when the segment began (last index, its term and chain, number of the last
batch). Entries of earlier segments beyond that index are void: overwriting the tail across segments needs no rewriting.

Rejected: a rolling checksum over everything (etcd's), as records could not be verified when read back alone.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from struct import Struct
from struct import error as struct_error
from typing import Final, NamedTuple

import google_crc32c

from quorate.consensus.raft.messages import Entry, HardState
from quorate.consensus.rot import flipped_bit, is_one_bit

HEADER_BYTES: Final = 4096
ALIGNMENT: Final = 8
RECORD_BYTES_MAX: Final = 1 << 30  # a length beyond it is damage, not an entry
STATE_KIND: Final = 0x80  # local to this member; entry kinds are below

_HEADER = Struct("<8sIIQQQQQQQ")  # magic, nonce, flags, cluster, member, seq, base index, term, chain, last batch
_MAGIC = b"QRWAL\x00\x00\x01"
_RESET = 1  # what earlier segments hold is void: the log begins anew at the base, after a snapshot
_CRC = Struct("<I")
_RECORD = Struct("<IIIIBBHIQQQQ")  # nonce, header crc, length, payload crc, kind, 0, 0, 0, batch, index, term, chain
_RECORD_TAIL = Struct("<IIBBHIQQQQ")  # the same from the length on: what the header crc covers
_NONCE = Struct("<I")
_STATE = Struct("<QQII")  # vote, commit, entries in this batch, end mark
_STATE_READ = Struct("<QQI")
_END_MARK = 0x5A5A5A5A  # differs with the nonce: leftovers of a recycled file never end a batch
_LINK = Struct("<QQQIB")  # chain before, index, term, payload crc, kind

RECORD_BYTES: Final = _RECORD.size
STATE_BYTES: Final = RECORD_BYTES + (_STATE.size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT

Readable = bytes | mmap.mmap
PIECE_BYTES: Final = 1024 * 1024  # of a segment that are searched at once


class DamagedLog(Exception):  # noqa: N818 - it states a condition of the disk
    """Something that was acknowledged can no longer be read; the text is one sentence with file and offset."""

    def __init__(self, file: str, offset: int, what: str) -> None:
        super().__init__(f"the log is damaged: {what} in {file} at offset {offset}")
        self.file = file
        self.offset = offset


class Base(NamedTuple):
    """The position a stretch of log continues."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody wants here
    term: int
    chain: int


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """What a segment says of itself."""

    nonce: int
    cluster_id: int
    member_id: int
    seq: int
    base: Base
    batch: int  # number of the last batch before this segment
    reset: bool = False

    def pack(self) -> bytes:
        """HEADER_BYTES bytes."""
        fixed = _HEADER.pack(
            _MAGIC,
            self.nonce,
            _RESET if self.reset else 0,
            self.cluster_id,
            self.member_id,
            self.seq,
            *self.base,
            self.batch,
        )
        return (fixed + _CRC.pack(google_crc32c.value(fixed))).ljust(HEADER_BYTES, b"\0")

    @classmethod
    def unpack(cls, file: str, data: Readable) -> SegmentHeader:
        """Raises DamagedLog for anything `pack` did not make."""
        fixed = bytes(data[: _HEADER.size])
        crc = bytes(data[_HEADER.size : _HEADER.size + _CRC.size])
        if len(fixed) < _HEADER.size or fixed[:8] != _MAGIC or crc != _CRC.pack(google_crc32c.value(fixed)):
            raise DamagedLog(file, 0, "the segment header is unreadable")
        _, nonce, flags, cluster_id, member_id, seq, index, term, chain, batch = _HEADER.unpack(fixed)
        return cls(nonce, cluster_id, member_id, seq, Base(index, term, chain), batch, bool(flags & _RESET))


def link(chain: int, index: int, term: int, kind: int, payload_crc: int) -> int:
    """The chain hash of an entry whose predecessor has `chain`."""
    packed = _LINK.pack(chain, index, term, payload_crc, kind)
    return int.from_bytes(blake2b(packed, digest_size=8).digest(), "little")


class Encoded(NamedTuple):
    """A batch ready to be written at one place."""

    data: bytes
    offsets: list[int]  # of each entry's record, from the start of `data`
    chains: list[int]  # of each entry


def encode_batch(nonce: int, batch: int, base: Base, entries: Sequence[Entry], state: HardState) -> Encoded:
    """The bytes of batch number `batch`: `entries`, which follow `base`, and the closing STATE."""
    parts: list[bytes] = []
    offsets: list[int] = []
    chains: list[int] = []
    position = 0
    index, _, chain = base
    for index, term, kind, payload in entries:
        length = len(payload)
        payload_crc = google_crc32c.value(payload)
        chain = link(chain, index, term, kind, payload_crc)
        padding = -length % ALIGNMENT
        parts += (_record(nonce, length, payload_crc, kind, batch, index, term, chain), payload, bytes(padding))
        offsets.append(position)
        chains.append(chain)
        position += RECORD_BYTES + length + padding
    body = _STATE.pack(state.vote, state.commit, len(entries), nonce ^ _END_MARK)
    parts.append(
        _record(nonce, len(body), google_crc32c.value(body), STATE_KIND, batch, index, state.term, chain) + body
    )
    parts.append(bytes(-len(body) % ALIGNMENT))
    return Encoded(b"".join(parts), offsets, chains)


def _record(
    nonce: int, length: int, payload_crc: int, kind: int, batch: int, index: int, term: int, chain: int
) -> bytes:
    tail = _RECORD_TAIL.pack(length, payload_crc, kind, 0, 0, 0, batch, index, term, chain)
    return _NONCE.pack(nonce) + _CRC.pack(google_crc32c.value(tail)) + tail


class Record(NamedTuple):
    """A record whose header is intact."""

    length: int
    payload_crc: int
    kind: int
    batch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody wants here
    term: int
    chain: int

    @property
    def size(self) -> int:
        return RECORD_BYTES + self.length + (-self.length % ALIGNMENT)


def read_record(data: Readable, offset: int, nonce: int) -> Record | None:
    """The record at `offset` if its header is intact; says nothing about its payload."""
    try:
        fields = _RECORD.unpack_from(data, offset)
    except struct_error:
        return None
    if fields[0] != nonce or fields[1] != google_crc32c.value(bytes(data[offset + 8 : offset + RECORD_BYTES])):
        return None
    _, _, length, payload_crc, kind, _, _, _, batch, index, term, chain = fields
    if length > RECORD_BYTES_MAX:
        return None
    return Record(length, payload_crc, kind, batch, index, term, chain)


def read_payload(data: Readable, offset: int, record: Record) -> bytes | None:
    """The payload of the record at `offset`, or None if it is not what was written."""
    start = offset + RECORD_BYTES
    payload = bytes(data[start : start + record.length])
    if len(payload) != record.length or google_crc32c.value(payload) != record.payload_crc:
        return None
    return payload


class Place(NamedTuple):
    """Where an entry's record lies in its segment."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody wants here
    term: int
    kind: int
    chain: int
    offset: int
    size: int  # of the whole record


class Tail(Enum):
    """How a segment ends."""

    CLEAN = "clean"
    TORN = "torn"  # the last write did not complete, or was damaged; nothing lies behind it


@dataclass(slots=True)
class Scan:
    """What a segment holds."""

    places: list[Place]  # in the order written; a later one with the same or a lower index replaces the earlier ones
    hard_state: HardState | None
    base: Base  # position and chain after the last whole batch
    batch: int
    end: int  # where the next batch is written
    tail: Tail
    last: int = HEADER_BYTES  # where the last whole batch begins; `end` without one


def scan_segment(file: str, data: Readable, header: SegmentHeader) -> Scan:
    """Reads the whole batches of a segment. Raises DamagedLog if a batch that was synced is not intact."""
    scan = Scan([], None, header.base, header.batch, HEADER_BYTES, Tail.CLEAN)
    chains = {header.base.index: header.base.chain}
    while True:
        end = _scan_batch(file, data, header.nonce, scan, chains)
        if end is None:
            break
        scan.last, scan.end = scan.end, end
    scan.tail = _classify_tail(file, data, header.nonce, scan)
    return scan


def _scan_batch(file: str, data: Readable, nonce: int, scan: Scan, chains: dict[int, int]) -> int | None:
    """Takes one batch into `scan`; its end, or None if there is no whole batch at the end of `scan`."""
    offset = scan.end
    places: list[Place] = []
    pending = dict[int, int]()
    index, chain = scan.base.index, scan.base.chain
    term = scan.base.term
    while True:
        record = read_record(data, offset, nonce)
        if record is None or record.batch != scan.batch + 1:
            return None
        payload = read_payload(data, offset, record)
        if payload is None:
            return None
        if record.kind == STATE_KIND:
            break
        before = pending.get(record.index - 1, chains.get(record.index - 1))
        if before is None or record.chain != link(before, record.index, record.term, record.kind, record.payload_crc):
            raise DamagedLog(file, offset, f"entry {record.index} does not continue the log before it")
        index, term, chain = record.index, record.term, record.chain
        pending[index] = chain
        places.append(Place(index, term, record.kind, chain, offset, record.size))
        offset += record.size
    if len(payload) < _STATE_READ.size:
        raise DamagedLog(file, offset, "the end of a batch is cut short")
    vote, commit, count = _STATE_READ.unpack_from(payload)
    if count != len(places) or record.index != index or record.chain != chain:
        raise DamagedLog(file, offset, "a batch does not hold what its end says")
    scan.places += places
    chains.update(pending)
    scan.base = Base(index, term, chain)
    scan.hard_state = HardState(record.term, vote, commit)
    scan.batch += 1
    return offset + record.size


def _classify_tail(file: str, data: Readable, nonce: int, scan: Scan) -> Tail:
    """Whether what follows the last whole batch was ever acknowledged."""
    needle = _NONCE.pack(nonce)
    tail = Tail.TORN if data[scan.end : scan.end + len(needle)] == needle else Tail.CLEAN
    for position in _occurrences(data, needle, scan.end):
        record = read_record(data, position, nonce)
        if record is not None:
            if record.batch > scan.batch + 1:
                raise DamagedLog(
                    file, scan.end, f"batch {scan.batch + 1} is unreadable although batch {record.batch} follows it"
                )
            if record.batch == scan.batch + 1:
                tail = Tail.TORN
    if has_rotted(data, scan.end, nonce, scan.batch + 1):
        raise DamagedLog(file, scan.end, f"one bit of batch {scan.batch + 1} has flipped")
    return tail


def _occurrences(data: Readable, needle: bytes, start: int) -> Iterator[int]:
    """Where `needle` begins at or behind `start`.

    Searched in copies: before Python 3.11.4 `mmap.find` may read the octet behind the mapping (CPython gh-105235).
    """
    for begin in range(start, len(data), PIECE_BYTES):
        piece = bytes(data[begin : begin + PIECE_BYTES + len(needle) - 1])
        position = -1
        while (position := piece.find(needle, position + 1)) >= 0:
            yield begin + position


def has_rotted(data: Readable, offset: int, nonce: int, batch: int) -> bool:
    """Whether a batch that is not whole was, once: with one bit turned it is."""
    start = offset
    while True:
        record = read_record(data, offset, nonce)
        if record is None:
            turned = _turned_in_header(bytes(data[offset : offset + RECORD_BYTES]), nonce)
        elif record.batch != batch or (record.kind == STATE_KIND and read_payload(data, offset, record) is not None):
            return False
        elif read_payload(data, offset, record) is None:
            begin = offset + RECORD_BYTES
            turned = flipped_bit(bytes(data[begin : begin + record.length]), record.payload_crc)
            turned = turned + 8 * RECORD_BYTES if turned is not None else None
        else:
            offset += record.size
            continue
        if turned is None:
            return False
        mended = bytearray(data[start:])
        mended[offset - start + turned // 8] ^= 1 << turned % 8
        return _is_whole(bytes(mended), nonce, batch)


def _turned_in_header(header: bytes, nonce: int) -> int | None:
    """The bit of a record's header that has to turn."""
    if len(header) < RECORD_BYTES:
        return None
    found_nonce, found_crc = _RECORD.unpack(header)[:2]
    computed = google_crc32c.value(header[8:])
    wrong: int
    if found_nonce != nonce:
        wrong = found_nonce ^ nonce
        return wrong.bit_length() - 1 if is_one_bit(wrong) and computed == found_crc else None
    wrong = computed ^ found_crc
    if is_one_bit(wrong):
        return 32 + wrong.bit_length() - 1
    turned = flipped_bit(header[8:], found_crc)
    return turned + 64 if turned is not None else None


def _is_whole(data: bytes, nonce: int, batch: int) -> bool:
    """`data` begins with a whole batch of this number."""
    offset = 0
    while (record := read_record(data, offset, nonce)) is not None and record.batch == batch:
        if read_payload(data, offset, record) is None:
            return False
        if record.kind == STATE_KIND:
            return True
        offset += record.size
    return False
