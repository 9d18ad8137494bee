"""The log on disk: durable entries and hard state, and the only fsync on the way of a write.

`append` returns when what it was given is durable; nothing is acknowledged before. It writes one batch with one write
and one fdatasync, inline: while the disk works everything that arrives piles up and becomes the next batch. A separate
thread would cost two hand-overs of the interpreter lock a batch.

A failed write or sync is never repeated on the same file: what the disk holds is unknown from then on (the kernel may
have dropped the pages). The caller has to end the process; the next one recovers from what really is there.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from quorate.consensus.positions import Position, Positions
from quorate.consensus.raft.messages import Entry, HardState
from quorate.consensus.segments import Segment, SegmentStore, lock_directory, segment_paths
from quorate.consensus.wal_format import (
    ALIGNMENT,
    HEADER_BYTES,
    RECORD_BYTES,
    STATE_BYTES,
    Base,
    DamagedLog,
    Scan,
    SegmentHeader,
    Tail,
    encode_batch,
    read_payload,
    read_record,
    scan_segment,
)
from quorate.node import logs
from quorate.node.directories import sync_directory

log = logs.named("wal")

SEGMENT_BYTES: Final = 64 * 1024 * 1024
# A segment's last part is for hard state alone: a member must be able to vote while the disk is full.
STATE_RESERVE_BYTES: Final = 64 * 1024
# Upper bounds of etcd's histogram etcd_disk_wal_fsync_duration_seconds, in seconds.
SYNC_BUCKETS: Final = tuple(0.001 * 2**i for i in range(14))


class NoSpace(Exception):  # noqa: N818 - it states a condition
    """The disk gives no further segment now; nothing was written."""


class Wal:
    """The log of one member, open for writing. Made by `create` or `recover`."""

    def __init__(self, directory: Path, store: SegmentStore, lock: int, cluster_id: int, member_id: int) -> None:
        self.directory = directory
        self.cluster_id = cluster_id
        self.member_id = member_id
        self.hard_state = HardState()
        self.recovered: list[Entry] = []  # the entries of the kinds `recover` was asked for
        self.sync: Callable[[int], None] = os.fdatasync
        self.written_bytes = 0
        self.sync_seconds = 0.0
        self.sync_counts = [0] * (len(SYNC_BUCKETS) + 1)
        self._positions = Positions(Base(0, 0, 0))
        self._segments: dict[int, Segment] = {}
        self._voided: list[Segment] = []
        self._store = store
        self._lock = lock
        self._seq = 0  # of the segment being written
        self._last_batch = 0, b""  # the last one that was read: its offset and octets
        self._offset = 0  # where the next batch goes
        self._batch = 0
        self._batch_seen = self._batch_settled = 0

    # --- opening ---

    @staticmethod
    def exists(directory: Path) -> bool:
        """True if there is a log to recover."""
        return bool(segment_paths(directory))

    @classmethod
    def create(
        cls,
        directory: Path,
        cluster_id: int,
        member_id: int,
        segment_bytes: int = SEGMENT_BYTES,
        fsync: bool = True,
    ) -> Wal:
        """An empty log in an existing directory that has none."""
        lock = lock_directory(directory)
        assert not cls.exists(directory), "there is a log already"
        wal = cls(directory, SegmentStore(directory, segment_bytes), lock, cluster_id, member_id)
        wal._set_sync(fsync)
        wal._switch(wal._positions.base, reset=True)
        wal.append([], HardState())
        return wal

    @classmethod
    def recover(
        cls,
        directory: Path,
        segment_bytes: int = SEGMENT_BYTES,
        fsync: bool = True,
        keep_kinds: frozenset[int] = frozenset(),
    ) -> Wal:
        """Opens the log in `directory`, cutting off a last write that did not complete. What is left is durable.

        Raises DamagedLog if anything that was acknowledged is not intact, DirectoryInUse if another process has it.
        """
        lock = lock_directory(directory)
        try:
            wal = cls(directory, SegmentStore(directory, segment_bytes), lock, 0, 0)
            wal._set_sync(fsync)
            wal._read(segment_paths(directory), keep_kinds)
            wal._write_again()
            wal._drop_voided()
        except BaseException:
            os.close(lock)
            raise
        wal._store.prepare()
        return wal

    def close(self) -> None:
        """Releases the directory. The last batch is closed off by an empty one, so that later damage to it shows."""
        self.append([], self.hard_state)
        self.abandon()

    def abandon(self) -> None:
        """Releases the directory as a crash would."""
        self._store.close()
        for segment in self._segments.values():
            segment.close()
        self._segments.clear()
        os.close(self._lock)

    # --- writing ---

    def append(self, entries: Sequence[Entry], hard_state: HardState) -> None:
        """Makes `entries` (which replace everything from the first one's index on) and `hard_state` durable together.

        Raises NoSpace before anything is written, OSError when the disk failed: then this log must not be used again.
        """
        base = self._positions.last()
        if entries and entries[0].index <= base.index:
            base = self._positions.at(entries[0].index - 1)
        size = STATE_BYTES
        for entry in entries:
            size += RECORD_BYTES + len(entry.payload) + ALIGNMENT
        segment = self._segments[self._seq]
        left = self._store.segment_bytes - self._offset
        if base.index < segment.header.base.index or (
            size + (STATE_RESERVE_BYTES if entries else 0) > left and self._offset > HEADER_BYTES + STATE_BYTES
        ):
            segment = self._switch(base)
        self._write(segment, base, entries, hard_state)

    def settle(self, hard_state: HardState) -> None:
        """Once a tick: closes an idle log off with a batch that nobody misses, so that rot of what was acknowledged is
        never taken for a write that was cut."""
        if self._batch == self._batch_settled:
            return
        if self._batch != self._batch_seen:
            self._batch_seen = self._batch  # busy until now: not before the next tick
            return
        if self._store.segment_bytes - self._offset > STATE_RESERVE_BYTES // 2:
            self.append([], hard_state)
        self._batch_seen = self._batch_settled = self._batch

    def _write(self, segment: Segment, base: Base, entries: Sequence[Entry], hard_state: HardState) -> None:
        encoded = encode_batch(segment.header.nonce, self._batch + 1, base, entries, hard_state)
        data = encoded.data
        offset = self._offset
        written = os.pwrite(segment.descriptor, data, offset)
        while written < len(data):
            written += os.pwrite(segment.descriptor, data[written:], offset + written)
        started = time.perf_counter()
        self.sync(segment.descriptor)
        self._count_sync(time.perf_counter() - started)
        self.written_bytes += written
        self._batch += 1
        self._offset = offset + written
        self.hard_state = hard_state
        if not entries:
            return
        ends = encoded.offsets[1:]
        ends.append(written - STATE_BYTES)
        add, seq = self._positions.add, segment.header.seq
        for entry, start, end, chain in zip(entries, encoded.offsets, ends, encoded.chains, strict=True):
            add(entry.index, entry.term, chain, Position(seq, offset + start, end - start))

    def reset(self, index: int, term: int, hard_state: HardState) -> None:
        """Forgets every entry; the log continues after (index, term). For a snapshot that is durable already."""
        old = list(self._segments.values())
        self._positions = Positions(Base(index, term, 0))
        segment = self._switch(self._positions.base, reset=True)
        self._write(segment, self._positions.base, [], hard_state)
        for outdated in old:
            del self._segments[outdated.header.seq]
            self._store.retire(outdated)
        sync_directory(self.directory)

    def compact(self, index: int) -> None:
        """Removes segments that hold nothing beyond `index`."""
        seqs = sorted(self._segments)
        dropped = False
        for seq, following in pairwise(seqs):
            if self._segments[following].header.base.index > index:
                break
            if following == self._seq and self._offset == HEADER_BYTES:
                break  # it holds no hard state yet
            self._store.retire(self._segments.pop(seq))
            self._positions.drop(self._segments[following].header.base.index)
            dropped = True
        if dropped:
            sync_directory(self.directory)

    def can_drop(self, index: int) -> bool:
        """True if `compact` to `index` would remove a segment."""
        if len(self._segments) < 2:
            return False
        seqs = sorted(self._segments)
        return self._segments[seqs[1]].header.base.index <= index

    def index_behind(self, index: int, bytes_max: int) -> int:
        """The oldest index such that the entries after it, up to `index`, take no more than `bytes_max`."""
        return self._positions.index_behind(index, bytes_max)

    def bytes_between(self, index: int, last_index: int) -> int:
        """What the entries after `index` take, up to `last_index`, as far as they are there."""
        return self._positions.bytes_between(index, last_index)

    @property
    def lacks_room_because(self) -> OSError | None:
        """Why there is no further segment, as far as it was tried."""
        return self._store.failure

    def has_room(self) -> bool:
        """False while entries should be refused as the disk gives no further segment. Asks for one if need be."""
        if self._store.spare_ready:
            return True
        self._store.prepare()
        left = self._store.segment_bytes - self._offset - STATE_RESERVE_BYTES
        return self._store.failure is None or left > self._store.segment_bytes // 4

    # --- reading: what the Raft core asks of its storage ---

    def first_index(self) -> int:
        """The oldest entry still readable."""
        return self._positions.base.index + 1

    @property
    def last_index(self) -> int:
        return self._positions.last_index

    def term(self, index: int) -> int:
        """Term at `index`, which is first_index() - 1 or later."""
        return self._positions.at(index).term

    def entries(self, first: int, end: int, bytes_max: int) -> list[Entry]:
        """Entries first … end - 1, at least one, cut before they exceed `bytes_max`; DamagedLog if not intact."""
        entries: list[Entry] = []
        taken = 0
        for index in range(first, end):
            position = self._positions.position(index)
            taken += position.size
            if entries and taken > bytes_max:
                break
            entries.append(self._read_entry(index, position))
        return entries

    def _read_entry(self, index: int, position: Position) -> Entry:
        segment = self._segments[position.seq]
        data = os.pread(segment.descriptor, position.size, position.offset)
        record = read_record(data, 0, segment.header.nonce)
        payload = read_payload(data, 0, record) if record is not None else None
        if record is None or payload is None or record.index != index:
            raise DamagedLog(str(segment.path), position.offset, f"entry {index} is unreadable")
        return Entry(index, record.term, record.kind, payload)

    @property
    def bytes(self) -> int:
        """Of all entries that can be read."""
        return self._positions.bytes

    # --- inside ---

    def _set_sync(self, fsync: bool) -> None:
        if not fsync:
            self.sync = _no_sync

    def _count_sync(self, seconds: float) -> None:
        self.sync_seconds += seconds
        bucket = 0
        while bucket < len(SYNC_BUCKETS) and seconds > SYNC_BUCKETS[bucket]:
            bucket += 1
        self.sync_counts[bucket] += 1

    def _switch(self, base: Base, reset: bool = False) -> Segment:
        nonce = int.from_bytes(os.urandom(4), "little") | 1
        header = SegmentHeader(nonce, self.cluster_id, self.member_id, self._seq + 1, base, self._batch, reset)
        try:
            segment = self._store.create(header)
        except OSError as error:
            raise NoSpace(f"no room for a further log segment in {self.directory}: {error.strerror}") from error
        self._seq += 1
        self._segments[self._seq] = segment
        self._offset = HEADER_BYTES
        if not reset:
            self._store.prepare()
        return segment

    def _read(self, paths: list[Path], keep_kinds: frozenset[int]) -> None:
        previous: Scan | None = None
        kept: set[int] = set()
        for path in paths:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                with mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) as data:
                    header = SegmentHeader.unpack(str(path), data)
                    scan = scan_segment(str(path), data, header)
                    if path == paths[-1] and self._cuts_for_nothing(header, scan, previous):
                        os.close(descriptor)
                        path.unlink()
                        break
                    self._join(path, header, previous)
                    self._last_batch = scan.last, data[scan.last : scan.end]
            except BaseException as error:
                os.close(descriptor)
                if isinstance(error, ValueError):  # an empty file cannot be mapped
                    raise DamagedLog(str(path), 0, "the segment header is unreadable") from error
                raise
            self._segments[header.seq] = Segment(path, header, descriptor)
            self._take(header, scan)
            kept.update(place.index for place in scan.places if place.kind in keep_kinds)
            previous = scan
        assert previous is not None, "there is no log"
        self._offset, self._batch = previous.end, previous.batch
        for index in sorted(kept):
            if self._positions.base.index < index <= self.last_index:
                entry = self._read_entry(index, self._positions.position(index))
                if entry.kind in keep_kinds:
                    self.recovered.append(entry)
        if previous.tail is Tail.TORN:
            log.warn("repaired WAL", path=str(paths[-1]), offset=previous.end)

    def _write_again(self) -> None:
        """Makes the last batch durable: the process before may have ended between write and sync, or because the sync
        failed. After that a further sync says nothing of what was written before it."""
        descriptor = self._segments[self._seq].descriptor
        offset, batch = self._last_batch  # as it was verified: the disk may say something else when it is asked again
        while batch:
            written = os.pwrite(descriptor, batch, offset)
            offset, batch = offset + written, batch[written:]
        self._last_batch = 0, b""
        self.sync(descriptor)

    def _cuts_for_nothing(self, header: SegmentHeader, scan: Scan, previous: Scan | None) -> bool:
        """Whether a last segment was begun to replace entries, and nothing was written to it: they are still there."""
        is_empty = scan.batch == header.batch and not header.reset
        return is_empty and previous is not None and header.base.index < self.last_index

    def _join(self, path: Path, header: SegmentHeader, previous: Scan | None) -> None:
        """Checks that `header` continues what was read before it."""
        if previous is None or header.reset:
            self._positions = Positions(header.base)
            self._void_segments()
            self.cluster_id, self.member_id = header.cluster_id, header.member_id
            return
        file = str(path)
        if (header.cluster_id, header.member_id) != (self.cluster_id, self.member_id):
            raise DamagedLog(file, 0, "the segment belongs to another member")
        if header.seq != self._seq + 1 or header.batch != previous.batch:
            raise DamagedLog(file, 0, "the segment before it is missing or incomplete")
        index = header.base.index
        if index < self._positions.base.index:
            # The segments before replaced entries are being dropped, and this one replaced all that is left of them.
            self._positions = Positions(header.base)
            self._void_segments()
        elif index > self.last_index or self._positions.at(index) != header.base:
            raise DamagedLog(file, 0, "the segment does not continue the one before it")
        else:
            self._positions.truncate(index)

    def _void_segments(self) -> None:
        self._voided += self._segments.values()
        self._segments.clear()

    def _drop_voided(self) -> None:
        """Removes what a later segment has made void: until that one holds a batch, they alone know term and vote."""
        if not self._voided:
            return
        if self._offset == HEADER_BYTES:
            self.append([], self.hard_state)
        for segment in self._voided:
            self._store.retire(segment)
        self._voided.clear()
        sync_directory(self.directory)

    def _take(self, header: SegmentHeader, scan: Scan) -> None:
        self._seq = header.seq
        for place in scan.places:
            self._positions.add(place.index, place.term, place.chain, Position(header.seq, place.offset, place.size))
        if scan.hard_state is not None:
            self.hard_state = scan.hard_state


def _no_sync(_descriptor: int) -> None:
    """For `--unsafe-no-fsync`."""
