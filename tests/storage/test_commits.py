"""When rows are written, and what a full disk changes, in the loop with its neighbours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from quorate.proto import rpc_pb2
from quorate.storage import commits, mvcc, ranges, schema
from quorate.storage.compaction import SLICE_RECORDS
from quorate.storage.database import DiskFull
from quorate.wire import errors
from quorate.wire.messages import Kind, Op, pack_command
from tests.storage.member import Member
from tests.storage.test_service import Ring, get, put, ring
from tests.support.failing_sqlite import failing

__all__ = ["ring"]


def test_a_checkpoint_comes_when_so_much_was_written_and_not_before(ring: Ring) -> None:
    database = ring.state.database
    asked = 0
    start = database.start_checkpoint

    def counted() -> None:
        nonlocal asked
        asked += 1
        start()

    database.start_checkpoint = counted  # type: ignore[method-assign]
    for number in range(60):
        ring.entry(put(b"k%d" % number, b"v" * 400_000))
    ring.results(60)
    ring.until(lambda: not ring.state.is_dirty and not database.checkpoint_is_running)
    made = asked
    assert 1 <= made <= 2, "24 MB are one checkpoint and perhaps the start of the next"
    for number in range(20):
        ring.entry(put(b"small%d" % number))
        ring.results()
        ring.until(lambda: not ring.state.is_dirty)
    assert made == asked


def test_what_is_called_durable_was_synced_though_a_read_keeps_it_out_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def by_us(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def by_sqlite(path: str, call: str) -> None:
        if call == "sync":
            synced.append(Path(path).name)

    monkeypatch.setattr(os, "fsync", by_us)
    with failing(by_sqlite):
        member = Member(tmp_path / "db")
        database = member.state.database
        reader = schema.open_reader(database.path)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM history").fetchone()
        member.put(b"a")
        member.state.commit()
        synced.clear()
        database.start_checkpoint()
        database.wait_for_checkpoint()
        assert 1 == database.durable_index
        assert "db-wal" in synced
        reader.close()
        member.close()


def put_more_than_fits(ring: Ring) -> None:
    """Twenty keys are put, and the database must not grow."""
    execute = ring.state.database.connection.execute
    (pages,) = execute("PRAGMA page_count").fetchone()
    execute(f"PRAGMA max_page_count = {pages}")
    ring.entry(*[put(b"k%d" % number, b"v" * 5000) for number in range(20)])
    ring.results()


def test_with_a_full_disk_nothing_is_lost_and_work_goes_on_when_there_is_room(ring: Ring) -> None:
    put_more_than_fits(ring)
    ring.until(lambda: ring.consensus.of(Kind.PROPOSE))
    assert 20 == len(ring.state.database.pending)
    ring.read(get(b"k19"), number=1)
    ((_, _, _, [(_, body)]),) = ring.results()
    assert 1 == rpc_pb2.RangeResponse.FromString(body).count
    execute = ring.state.database.connection.execute
    execute("PRAGMA max_page_count = 1000000")
    ring.until(lambda: not ring.state.is_dirty)
    assert (20,) == execute("SELECT count(*) FROM history").fetchone()


@pytest.mark.parametrize("range_end", [b"", b"\0"], ids=["a key", "an interval"])
@pytest.mark.parametrize("is_rewound", [False, True])
def test_with_a_full_disk_a_transaction_that_reads_the_past_is_applied_as_everywhere(
    ring: Ring, range_end: bytes, is_rewound: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_rewound:
        monkeypatch.setattr(mvcc, "REWOUND_REVISIONS_MIN", 0)
    ring.entry(put(b"old", b"1"), put(b"old", b"2"))
    ring.results()
    ring.until(lambda: not ring.state.is_dirty)
    put_more_than_fits(ring)
    request = rpc_pb2.TxnRequest()
    request.success.add().request_put.key = b"old"
    for revision in (2, 3, 23):
        asked = rpc_pb2.RangeRequest(key=b"old", range_end=range_end, revision=revision)
        request.success.add().request_range.CopyFrom(asked)
    ring.entry(pack_command(Op.TXN, request.SerializeToString()))
    ((_, _, _, [(error_id, body)]),) = ring.results()
    assert not error_id
    _, *found = rpc_pb2.TxnResponse.FromString(body).responses
    assert [b"1", b"2", b"2"] == [each.response_range.kvs[-1].value for each in found]


def test_a_stop_while_the_disk_is_full_is_an_orderly_one(ring: Ring) -> None:
    put_more_than_fits(ring)
    ring.service.stop()
    ring.service.run()
    assert 20 == len(ring.state.database.pending)


TAKES_ROOM = {
    "a hash of the keys": pack_command(Op.HASH_KV, b""),
    "a hash of everything": pack_command(Op.HASH, b""),
    "a backup": pack_command(Op.SNAPSHOT, b""),
    "a large range": get(b"\0", b"\0"),
    "a defragmentation": pack_command(Op.DEFRAGMENT, b""),
    "the end of a compaction": pack_command(Op.COMPACTED, (21).to_bytes(8, "little")),
}


@pytest.mark.parametrize("command", TAKES_ROOM.values(), ids=TAKES_ROOM)
def test_with_a_full_disk_nobody_is_left_waiting_for_what_takes_room(
    ring: Ring, command: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "INLINE_KEYS_MAX", 0)
    monkeypatch.setattr(commits, "DISK_FULL_SECONDS", 0.1)
    execute = ring.state.database.connection.execute
    (pages,) = execute("PRAGMA page_count").fetchone()
    execute(f"PRAGMA max_page_count = {pages}")
    ring.entry(*[put(b"k%d" % number, b"v" * 5000) for number in range(20)])
    ring.entry(pack_command(Op.COMPACT, rpc_pb2.CompactionRequest(revision=21).SerializeToString()))
    ring.results(2)
    ring.read(command, command, number=1)
    refused = [error_id for _, _, _, results in ring.results(2) for error_id, _ in results]
    assert [errors.NO_SPACE.id] * 2 == refused
    execute("PRAGMA max_page_count = 1000000")
    ring.read(command, number=2)
    ((_, _, _, [(error_id, _)]),) = ring.results()
    assert not error_id


@pytest.mark.parametrize("slices", [1, 4])
def test_a_compaction_that_a_full_disk_took_back_is_done_again(tmp_path: Path, slices: int) -> None:
    member = Member(tmp_path / "db")
    for number in range(3 * SLICE_RECORDS + 10):
        member.put(b"k", b"%d" % number)
    member.delete(b"k")
    member.state.commit()
    member.compact(member.state.store.revision - 1)
    for _ in range(slices):
        member.compaction.advance()
    assert member.compaction.is_due == (slices < 4)
    execute = member.state.database.connection.execute
    (pages,) = execute("PRAGMA page_count").fetchone()
    execute(f"PRAGMA max_page_count = {pages}")
    for number in range(40):
        member.put(b"large%d" % number, b"v" * 20_000)
    with pytest.raises(DiskFull):
        member.state.commit()
    assert member.compaction.is_due
    execute("PRAGMA max_page_count = 1000000")
    while member.compaction.is_due:
        member.compaction.advance()
    member.state.commit()
    assert (2,) == execute("SELECT count(*) FROM history WHERE key = ?", (b"k",)).fetchone()
    member.close()
