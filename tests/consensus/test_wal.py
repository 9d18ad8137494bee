"""The log on a real file system: restarts, crashes, overwritten tails, dropped segments, full disks."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from quorate.consensus.raft.messages import Entry, EntryKind, HardState
from quorate.consensus.segments import DirectoryInUse, segment_paths
from quorate.consensus.wal import NoSpace, Wal
from quorate.consensus.wal_format import HEADER_BYTES, DamagedLog

SEGMENT_BYTES = 128 * 1024
BATCH = int(EntryKind.BATCH)


def create(directory: Path) -> Wal:
    return Wal.create(directory, 7, 9, SEGMENT_BYTES, fsync=False)


def recover(directory: Path) -> Wal:
    return Wal.recover(directory, SEGMENT_BYTES, fsync=False, keep_kinds=frozenset({int(EntryKind.CONF)}))


def entries(first: int, last: int, term: int = 1, size: int = 20) -> list[Entry]:
    return [Entry(i, term, BATCH, b"%d/%d:" % (i, term) + b"x" * size) for i in range(first, last + 1)]


def content(wal: Wal) -> list[Entry]:
    return wal.entries(wal.first_index(), wal.last_index + 1, 1 << 30) if wal.last_index >= wal.first_index() else []


def crash(wal: Wal) -> None:
    wal.abandon()


def test_a_restart_finds_entries_and_hard_state(tmp_path: Path) -> None:
    wal = create(tmp_path)
    wal.append(entries(1, 3), HardState(1, 9, 0))
    wal.append([], HardState(2, 5, 3))
    wal.append(entries(4, 4, term=2), HardState(2, 5, 3))
    crash(wal)
    wal = recover(tmp_path)
    assert entries(1, 3) + entries(4, 4, term=2) == content(wal)
    assert (HardState(2, 5, 3), 7, 9) == (wal.hard_state, wal.cluster_id, wal.member_id)
    wal.append(entries(5, 5, term=2), HardState(2, 5, 4))
    wal.close()
    wal = recover(tmp_path)
    assert 5 == wal.last_index
    wal.close()


def test_what_a_killed_process_wrote_is_durable_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wal = create(tmp_path)
    wal.append(entries(1, 1), HardState(1, 9, 0))
    crash(wal)
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    wal = Wal.recover(tmp_path, SEGMENT_BYTES)
    assert segment_paths(tmp_path)[-1].stat().st_ino in synced
    wal.abandon()


def test_the_last_batch_is_written_again_as_it_was_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed 88: a disk that answered something else when it was asked a second time had that written over the batch."""
    wal = create(tmp_path)
    wal.append(entries(1, 1), HardState(1, 9, 0))
    crash(wal)
    written: list[bytes] = []
    write = os.pwrite

    def noted(descriptor: int, data: bytes, offset: int) -> int:
        written.append(bytes(data))
        return write(descriptor, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", lambda _descriptor, size, _offset: bytes(size))
        patch.setattr(os, "pwrite", noted)
        crash(Wal.recover(tmp_path, SEGMENT_BYTES))
    assert any(entries(1, 1)[0].payload in data for data in written)
    wal = recover(tmp_path)
    assert entries(1, 1) == content(wal)
    crash(wal)


def test_a_replaced_tail_stays_replaced_also_across_segments(tmp_path: Path) -> None:
    wal = create(tmp_path)
    for index in range(1, 40):
        wal.append(entries(index, index, size=8000), HardState(1, 9, 0))
    assert len(segment_paths(tmp_path)) > 2
    wal.append(entries(3, 4, term=2), HardState(2, 9, 0))
    expected = entries(1, 2, size=8000) + entries(3, 4, term=2)
    assert expected == content(wal)
    crash(wal)
    wal = recover(tmp_path)
    assert expected == content(wal)
    assert 2 == wal.term(4)
    crash(wal)


def test_whole_segments_are_dropped_and_the_log_begins_later(tmp_path: Path) -> None:
    wal = create(tmp_path)
    for index in range(1, 100):
        wal.append(entries(index, index, size=8000), HardState(1, 9, index - 1))
    count = len(segment_paths(tmp_path))
    wal.compact(60)
    first = wal.first_index()
    assert 30 < first <= 61
    assert len(segment_paths(tmp_path)) < count
    assert 1 == wal.term(first - 1)
    assert entries(first, 99, size=8000) == content(wal)
    crash(wal)
    wal = recover(tmp_path)
    assert (first, 99) == (wal.first_index(), wal.last_index)
    assert entries(first, 99, size=8000) == content(wal)
    crash(wal)


def test_a_segment_that_was_only_begun_does_not_part_the_log_from_term_and_vote(tmp_path: Path) -> None:
    wal = create(tmp_path)
    wal.append(entries(1, 5), HardState(3, 9, 5))
    wal._switch(wal._positions.last())  # and a crash before the batch it was begun for
    crash(wal)
    wal = recover(tmp_path)
    wal.compact(5)
    crash(wal)
    wal = recover(tmp_path)
    assert HardState(3, 9, 5) == wal.hard_state
    wal.append(entries(6, 6, term=3), HardState(3, 9, 5))
    wal.compact(5)
    crash(wal)
    wal = recover(tmp_path)
    assert (6, HardState(3, 9, 5)) == (wal.first_index(), wal.hard_state)
    crash(wal)


def test_what_entries_take_is_counted_as_one_by_one(tmp_path: Path) -> None:
    wal = create(tmp_path)
    wal.append([Entry(i, 1, BATCH, b"x" * (i % 97)) for i in range(1, 3001)], HardState(1, 9, 0))
    wal.compact(1000)
    first, last = wal.first_index(), wal.last_index
    sizes = {index: wal._positions.position(index).size for index in range(first, last + 1)}

    def behind(index: int, bytes_max: int) -> int:
        taken = 0
        while index >= first and (taken := taken + sizes[index]) <= bytes_max:
            index -= 1
        return index

    for index in (first, first + 1, 2000, 2999, 3000):
        for bytes_max in (0, 100, 5_000, wal.bytes - 1, wal.bytes):
            expected = behind(index, bytes_max) if bytes_max < wal.bytes else first - 1
            assert expected == wal.index_behind(index, bytes_max)
        assert sum(sizes[each] for each in range(index, last)) == wal.bytes_between(index - 1, last - 1)
    crash(wal)


def test_a_reset_log_continues_after_the_snapshot(tmp_path: Path) -> None:
    wal = create(tmp_path)
    wal.append(entries(1, 5), HardState(1, 9, 3))
    wal.reset(1000, 4, HardState(4, 0, 1000))
    assert (1001, 1000, 4) == (wal.first_index(), wal.last_index, wal.term(1000))
    wal.append(entries(1001, 1002, term=4), HardState(4, 0, 1000))
    crash(wal)
    wal = recover(tmp_path)
    assert entries(1001, 1002, term=4) == content(wal)
    assert HardState(4, 0, 1000) == wal.hard_state
    crash(wal)


def test_a_crash_before_the_old_segments_are_removed_does_not_revive_them(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    wal = create(tmp_path / "log")
    wal.append(entries(1, 4), HardState(1, 9, 3))
    wal.append([Entry(5, 1, int(EntryKind.CONF), b"members")], HardState(1, 9, 3))
    old = segment_paths(tmp_path / "log")[0]
    shutil.copy(old, tmp_path / old.name)
    wal.reset(5, 4, HardState(4, 0, 5))
    crash(wal)
    shutil.copy(tmp_path / old.name, old)
    wal = recover(tmp_path / "log")
    assert (6, 5, HardState(4, 0, 5)) == (wal.first_index(), wal.last_index, wal.hard_state)
    assert [] == wal.recovered
    crash(wal)
    assert not old.exists()


def test_term_and_vote_outlive_a_reset_that_was_cut_and_a_disk_that_fails_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The segment of the reset is there and holds nothing: what it made void is all that knows them."""
    wal = create(tmp_path)
    wal.append(entries(1, 3), HardState(3, 5, 3))

    def failing(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    wal.sync = failing
    with pytest.raises(OSError):
        wal.reset(1000, 3, HardState(3, 5, 1000))
    crash(wal)
    last = segment_paths(tmp_path)[-1]
    last.write_bytes(last.read_bytes()[:HEADER_BYTES].ljust(SEGMENT_BYTES, b"\0"))  # what a loss of power leaves
    monkeypatch.setattr(os, "fdatasync", failing)
    for _ in range(2):
        with pytest.raises(OSError):
            Wal.recover(tmp_path, SEGMENT_BYTES)
    monkeypatch.undo()
    for _ in range(2):
        wal = recover(tmp_path)
        assert (1000, HardState(3, 5, 3)) == (wal.last_index, wal.hard_state)
        assert [last] == segment_paths(tmp_path)
        crash(wal)


def test_kept_kinds_are_handed_over_after_recovery(tmp_path: Path) -> None:
    wal = create(tmp_path)
    conf = Entry(2, 1, int(EntryKind.CONF), b"first")
    wal.append([*entries(1, 1), conf, Entry(3, 1, int(EntryKind.CONF), b"replaced")], HardState(1, 9, 0))
    wal.append(entries(3, 3, term=2), HardState(2, 9, 0))
    crash(wal)
    wal = recover(tmp_path)
    assert [conf] == wal.recovered
    crash(wal)


def damage_last(directory: Path, change: Callable[[bytearray, int], None]) -> Path:
    """Changes the newest segment; the change is told where the used part ends."""
    path = segment_paths(directory)[-1]
    data = bytearray(path.read_bytes())
    change(data, len(bytes(data).rstrip(b"\0")))
    path.write_bytes(data)
    return path


def test_a_torn_last_write_is_cut_off_and_the_log_goes_on(tmp_path: Path) -> None:
    wal = create(tmp_path)
    wal.append(entries(1, 3), HardState(1, 9, 0))
    wal.append(entries(4, 6), HardState(1, 9, 0))
    crash(wal)

    def tear(data: bytearray, end: int) -> None:
        data[end - 100 : end] = bytes(100)

    damage_last(tmp_path, tear)
    for _ in range(2):
        wal = recover(tmp_path)
        assert entries(1, 3) == content(wal)[:3]
        wal.append(entries(wal.last_index + 1, wal.last_index + 1), HardState(1, 9, 0))
        crash(wal)
    wal = recover(tmp_path)
    assert 5 == wal.last_index
    crash(wal)


def test_damage_in_the_middle_is_refused_with_file_and_offset(tmp_path: Path) -> None:
    wal = create(tmp_path)
    for index in range(1, 10):
        wal.append(entries(index, index), HardState(1, 9, 0))
    crash(wal)

    def flip(data: bytearray, _end: int) -> None:
        data[HEADER_BYTES + 300] ^= 4

    path = damage_last(tmp_path, flip)
    with pytest.raises(DamagedLog, match="at offset") as raised:
        recover(tmp_path)
    assert str(path) in str(raised.value)
    with pytest.raises(DamagedLog):
        recover(tmp_path)  # the lock was released, and nothing was changed


@pytest.mark.parametrize("which", [0, 1, -2])
def test_a_missing_or_emptied_segment_is_refused(tmp_path: Path, which: int) -> None:
    wal = create(tmp_path)
    for index in range(1, 100):
        wal.append(entries(index, index, size=8000), HardState(1, 9, 0))
    crash(wal)
    victim = segment_paths(tmp_path)[which]
    victim.write_bytes(b"")
    with pytest.raises(DamagedLog):
        recover(tmp_path)
    victim.unlink()
    if which != 0:  # without its first segments a log cannot be told from one that was shortened; meta can
        with pytest.raises(DamagedLog, match="missing or incomplete"):
            recover(tmp_path)


def test_a_segment_of_another_member_is_refused(tmp_path: Path) -> None:
    last = []
    for member in (9, 8):
        directory = tmp_path / str(member)
        directory.mkdir()
        wal = Wal.create(directory, 7, member, SEGMENT_BYTES, fsync=False)
        for index in range(1, 20):
            wal.append(entries(index, index, size=8000), HardState(1, 9, 0))
        crash(wal)
        last.append(segment_paths(directory)[-1])
    shutil.copy(last[1], last[0])
    with pytest.raises(DamagedLog, match="belongs to another member"):
        recover(tmp_path / "9")


def test_a_segment_that_lost_its_last_batch_is_no_torn_write_when_another_follows(tmp_path: Path) -> None:
    wal = create(tmp_path)
    wal.append(entries(1, 5), HardState(1, 9, 0))
    start = wal._offset
    wal.append([], HardState(2, 8, 0))
    end = wal._offset
    wal._switch(wal._positions.last())
    wal.append(entries(6, 6, term=2), HardState(2, 8, 0))
    crash(wal)
    with segment_paths(tmp_path)[0].open("r+b") as file:
        file.seek(start)
        file.write(bytes(end - start))
    with pytest.raises(DamagedLog, match="missing or incomplete"):
        recover(tmp_path)


def test_a_segment_behind_other_entries_is_refused(tmp_path: Path) -> None:
    last = []
    for history in ("one", "two"):
        directory = tmp_path / history
        directory.mkdir()
        wal = create(directory)
        wal.append([Entry(1, 1, BATCH, history.encode())], HardState(1, 9, 0))
        wal._switch(wal._positions.last())
        wal.append(entries(2, 2), HardState(1, 9, 0))
        crash(wal)
        last.append(segment_paths(directory)[-1])
    shutil.copy(last[1], last[0])
    with pytest.raises(DamagedLog, match="does not continue the one before it"):
        recover(tmp_path / "one")


@pytest.mark.parametrize("closed_by", ["an idle tick", "the end of the process"])
def test_damage_to_what_was_acknowledged_last_is_no_torn_write_when_the_log_was_closed_off(
    tmp_path: Path, closed_by: str
) -> None:
    wal = create(tmp_path)
    wal.append(entries(1, 5), HardState(1, 9, 0))
    start = wal._offset
    wal.append(entries(6, 6), HardState(1, 9, 0))
    end = wal._offset
    if closed_by == "an idle tick":
        wal.settle(wal.hard_state)  # busy until now
        wal.settle(wal.hard_state)
        crash(wal)
    else:
        wal.close()

    def lose(data: bytearray, _end: int) -> None:
        data[start + 40 : end] = bytes(end - start - 40)

    damage_last(tmp_path, lose)
    with pytest.raises(DamagedLog):
        recover(tmp_path)


def test_damage_is_noticed_when_an_entry_is_read_back(tmp_path: Path) -> None:
    wal = create(tmp_path)
    wal.append(entries(1, 3), HardState(1, 9, 0))

    def flip(data: bytearray, _end: int) -> None:
        data[HEADER_BYTES + 300] ^= 4

    damage_last(tmp_path, flip)
    with pytest.raises(DamagedLog, match="is unreadable"):
        wal.entries(1, 4, 1 << 20)
    crash(wal)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    wal = create(tmp_path)
    with pytest.raises(DirectoryInUse, match="in use by another process"):
        recover(tmp_path)
    crash(wal)


def test_reading_back_is_bounded_by_bytes_but_never_empty(tmp_path: Path) -> None:
    wal = create(tmp_path)
    wal.append(entries(1, 10, size=1000), HardState(1, 9, 0))
    assert entries(3, 3, size=1000) == wal.entries(3, 11, 1)
    assert entries(1, 3, size=1000) == wal.entries(1, 11, 3500)
    crash(wal)


def test_an_entry_larger_than_a_segment_is_kept(tmp_path: Path) -> None:
    wal = create(tmp_path)
    big = entries(1, 1, size=3 * SEGMENT_BYTES)
    wal.append(big, HardState(1, 9, 0))
    wal.append(entries(2, 2), HardState(1, 9, 0))
    crash(wal)
    wal = recover(tmp_path)
    assert big + entries(2, 2) == content(wal)
    crash(wal)


def fill(wal: Wal) -> None:
    for index in range(1, 100):
        wal.append(entries(index, index, size=8000), HardState(1, 9, 0))


def test_a_full_disk_refuses_entries_but_not_votes_and_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wal = create(tmp_path)
    wal._store.close()
    (tmp_path / "spare.tmp").unlink(missing_ok=True)
    wal._store._ready = False

    def full(*_args: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(NoSpace, match="No space left on device"):
        fill(wal)
    index = wal.last_index
    assert index > 3
    assert not wal.has_room()
    for _ in range(500):  # no chance: the room for them is kept
        wal.append([], HardState(2, 5, 0))
    wal._store.close()
    monkeypatch.undo()
    wal._store.prepare()
    wal._store.close()
    assert wal.has_room()
    wal.append(entries(index + 1, index + 1), HardState(2, 5, 0))
    crash(wal)
    wal = recover(tmp_path)
    assert (index + 1, HardState(2, 5, 0)) == (wal.last_index, wal.hard_state)
    crash(wal)


@pytest.mark.parametrize("cut", range(0, 700, 7))
def test_a_crash_at_any_byte_of_the_last_write_keeps_everything_before_it(tmp_path: Path, cut: int) -> None:
    wal = create(tmp_path)
    wal.append(entries(1, 2), HardState(1, 9, 0))
    before = wal._offset
    wal.append(entries(3, 5), HardState(1, 9, 2))
    after = wal._offset
    crash(wal)

    def tear(data: bytearray, _end: int) -> None:
        data[min(before + cut, after) : after] = bytes(max(0, after - before - cut))

    damage_last(tmp_path, tear)
    wal = recover(tmp_path)
    assert wal.last_index in (2, 5)
    assert (2 if cut < after - before else 5) == wal.last_index
    assert entries(1, wal.last_index) == content(wal)
    crash(wal)
