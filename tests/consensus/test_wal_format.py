"""The log's bytes: whatever was written is read back, and no damage goes unnoticed."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.consensus import wal_format
from quorate.consensus.raft.messages import Entry, HardState
from quorate.consensus.wal_format import (
    HEADER_BYTES,
    Base,
    DamagedLog,
    Scan,
    SegmentHeader,
    Tail,
    encode_batch,
    scan_segment,
)

HEADER = SegmentHeader(nonce=0x1234567, cluster_id=7, member_id=9, seq=3, base=Base(40, 2, 99), batch=11)
ROOM = 512  # zeros behind the last batch, as in a prepared file

Batches = list[list[bytes]]


class Image:
    """A segment built batch by batch."""

    def __init__(self, batches: Batches) -> None:
        self.data = HEADER.pack()
        self.ends = [len(self.data)]
        self.entries: list[list[Entry]] = []
        base = HEADER.base
        for number, payloads in enumerate(batches, HEADER.batch + 1):
            entries = [Entry(base.index + 1 + i, 3, 1, payload) for i, payload in enumerate(payloads)]
            encoded = encode_batch(HEADER.nonce, number, base, entries, HardState(3, 9, number))
            self.data += encoded.data
            self.ends.append(len(self.data))
            self.entries.append(entries)
            if entries:
                base = Base(entries[-1].index, 3, encoded.chains[-1])

    def scan(self, data: bytes | None = None) -> Scan:
        return scan_segment("f.wal", (self.data if data is None else data) + bytes(ROOM), HEADER)

    def try_scan(self, data: bytes) -> tuple[int, Scan | None]:
        """(where it is damaged, None) or (0, what it holds)."""
        try:
            return 0, self.scan(data)
        except DamagedLog as damage:
            return damage.offset, None

    def indexes(self, batches: int) -> list[int]:
        return [entry.index for entries in self.entries[:batches] for entry in entries]


def indexes(scan: Scan) -> list[int]:
    return [place.index for place in scan.places]


payloads = st.binary(max_size=40)
some_batches = st.lists(st.lists(payloads, max_size=3), min_size=1, max_size=5)


@given(some_batches)
def test_what_was_written_is_read_back(batches: Batches) -> None:
    image = Image(batches)
    scan = image.scan()
    assert image.indexes(len(batches)) == indexes(scan)
    assert len(image.data) == scan.end
    assert HardState(3, 9, HEADER.batch + len(batches)) == scan.hard_state
    assert Tail.CLEAN is scan.tail


@given(some_batches, st.data())
def test_a_write_cut_anywhere_loses_only_the_last_batch(batches: Batches, draw: st.DataObject) -> None:
    image = Image(batches)
    start, end = image.ends[-2:]
    cut = draw.draw(st.integers(start, end - 1))
    scan = image.scan(image.data[:cut].ljust(end, b"\0"))
    padding_only = not image.data[cut:end].strip(b"\0")
    assert image.indexes(len(batches) - (0 if padding_only else 1)) == indexes(scan)


@given(some_batches, st.data())
def test_sectors_that_arrived_out_of_order_lose_only_the_last_batch(batches: Batches, draw: st.DataObject) -> None:
    image = Image(batches)
    start, end = image.ends[-2:]
    hole = draw.draw(st.integers(start, end - 1))
    scan = image.scan(image.data[:start] + bytes(hole + 1 - start) + image.data[hole + 1 :])
    assert image.indexes(len(batches) - 1) == indexes(scan)


@given(st.lists(st.lists(payloads, max_size=3), min_size=2, max_size=5), st.data())
def test_a_flipped_bit_before_the_last_batch_is_noticed_or_harmless(batches: Batches, draw: st.DataObject) -> None:
    image = Image(batches)
    at = draw.draw(st.integers(HEADER_BYTES, image.ends[-2] - 1))
    damaged = bytearray(image.data)
    damaged[at] ^= 1 << draw.draw(st.integers(0, 7))
    offset, scan = image.try_scan(bytes(damaged))
    if scan is not None:  # padding carries nothing
        assert image.indexes(len(batches)) == indexes(scan)
        return
    batch = next(i for i, (start, end) in enumerate(pairwise(image.ends)) if start <= at < end)
    assert image.ends[batch] <= offset <= at


@given(some_batches, st.binary(min_size=1, max_size=300))
def test_garbage_behind_the_end_is_not_taken_for_entries(batches: Batches, garbage: bytes) -> None:
    image = Image(batches)
    scan = image.scan(image.data + garbage)
    assert image.indexes(len(batches)) == indexes(scan)


def test_leftovers_of_a_recycled_file_are_not_taken_for_entries() -> None:
    image = Image([[b"a"], [b"b"]])
    other = SegmentHeader(0x7654321, 7, 9, 4, HEADER.base, HEADER.batch)
    data = other.pack() + image.data[HEADER_BYTES:]
    scan = scan_segment("f.wal", data, other)
    assert ([], Tail.CLEAN) == (scan.places, scan.tail)


def test_leftovers_of_a_torn_batch_do_not_hide_or_harm_what_was_written_over_them() -> None:
    torn = Image([[b"a"], [b"x" * 200, b"y" * 200]])
    hole = torn.data[: torn.ends[1]] + bytes(8) + torn.data[torn.ends[1] + 8 :]
    scan = torn.scan(hole)
    assert ([41], Tail.TORN) == (indexes(scan), scan.tail)
    written = Image([[b"a"], [b"z"]])
    scan = torn.scan(written.data + hole[len(written.data) :])
    assert [41, 42] == indexes(scan)


def test_a_lost_batch_is_noticed_though_every_record_is_valid() -> None:
    image = Image([[b"a"], [b"b"], [b"c"]])
    lost = image.data[: image.ends[1]] + image.data[image.ends[2] :]
    with pytest.raises(DamagedLog, match="batch 13 is unreadable although batch 14 follows it"):
        image.scan(lost)


def test_a_record_of_another_log_does_not_fit_the_chain() -> None:
    image = Image([[b"a"]])
    foreign = encode_batch(HEADER.nonce, HEADER.batch + 2, Base(41, 3, 5), [Entry(42, 3, 1, b"b")], HardState(3, 9, 41))
    with pytest.raises(DamagedLog, match="entry 42 does not continue the log"):
        image.scan(image.data + foreign.data)


def test_a_segment_header_is_read_back() -> None:
    header = SegmentHeader(1, 2**64 - 1, 2**63, 4, Base(5, 6, 2**64 - 7), 8, reset=True)
    assert header == SegmentHeader.unpack("f", header.pack())


@pytest.mark.parametrize("data", [b"", b"short", bytes(HEADER_BYTES), b"\xff" * HEADER_BYTES])
def test_a_segment_without_a_header_is_refused(data: bytes) -> None:
    with pytest.raises(DamagedLog, match="the segment header is unreadable in f at offset 0"):
        SegmentHeader.unpack("f", data)


def test_what_a_tail_is_searched_for_is_found_across_the_pieces_it_is_searched_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not by `mmap.find`, which may read behind the mapping before Python 3.11.4 (CPython gh-105235)."""
    dice = Random(7)
    data = bytes(dice.choice(b"ab") for _ in range(2000))
    for size in (3, 7, 64, 4096):
        monkeypatch.setattr(wal_format, "PIECE_BYTES", size)
        for start in (0, 5, 1999, 2000):
            expected = [place for place in range(start, len(data)) if data[place : place + 3] == b"aba"]
            assert list(wal_format._occurrences(data, b"aba", start)) == expected
