"""The storage process's loop over real sockets, with fake neighbours around it."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from quorate.node import logs
from quorate.node.clock import SystemClock
from quorate.proto import rpc_pb2
from quorate.storage import corruption, mvcc, ranges, scrub, service
from quorate.storage.service import Service
from quorate.storage.state import State
from quorate.wire import errors
from quorate.wire.messages import (
    APPLIED,
    ENTRY,
    EVENTS,
    REFUSE,
    START,
    STORAGE_HELLO,
    STORAGE_WORKER,
    EntryKind,
    Kind,
    Op,
    Origin,
    Part,
    Role,
    chunks_of,
    commands_of,
    pack_chunk,
    pack_command,
    unpack_results,
)
from quorate.wire.sockets import Address, Channel, Endpoint

CLUSTER_ID, MEMBER_ID = 11, 22


class Neighbour:
    """A process next to storage that remembers what it heard."""

    def __init__(self, directory: Path, address: Address) -> None:
        self.endpoint = Endpoint(directory, address)
        self.hellos: list[bytes] = []
        self.heard: list[tuple[int, bytes]] = []
        self.endpoint.when_opened(lambda _channel, hello: self.hellos.append(hello))
        self.channel: Channel = self.endpoint.connect(Address(Part.STORAGE))

    def turn(self) -> None:
        for _, messages in self.endpoint.receive():
            self.heard += messages
        self.endpoint.flush()

    def of(self, kind: Kind) -> list[bytes]:
        return [body for heard, body in self.heard if heard == kind]


class Ring:
    """Storage in the middle, turned by hand."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.neighbours: list[Neighbour] = []
        self.index = 0
        self.quota_bytes: int | None = None
        self.compaction = ("periodic", "0")
        self.corrupt_check_ms = 0
        self.defrag_megabytes = 0
        self.start_storage()
        self.consensus = self.neighbour(Address(Part.CONSENSUS))
        self.watch = self.neighbour(Address(Part.WATCH))
        self.api = self.neighbour(Address(Part.API))
        self.until(self.all_have_met)
        self.start()

    def neighbour(self, address: Address) -> Neighbour:
        self.neighbours.append(Neighbour(self.directory, address))
        return self.neighbours[-1]

    def start_storage(self) -> None:
        settings = SimpleNamespace(
            election_timeout=1000,
            quota_bytes=self.quota_bytes,
            api_workers=1,
            auto_compaction_mode=self.compaction[0],
            auto_compaction_retention=self.compaction[1],
            corrupt_check_time=self.corrupt_check_ms,
            compact_hash_check_time=60_000,
            warning_apply_duration=10_000,
            bootstrap_defrag_threshold_megabytes=self.defrag_megabytes,
            feature_enabled=lambda _name: False,
        )
        self.state = State(self.directory / "db", 2, 300_000, time.monotonic())
        self.endpoint = Endpoint(self.directory, Address(Part.STORAGE))
        self.service = Service(self.state, self.endpoint, settings, SystemClock(), logs.named("storage"))

    def stop_storage(self) -> None:
        """As a crash does: nothing is written any more."""
        self.service.close()
        self.endpoint.close()
        self.state.close()

    def start(self, leader: bool = True) -> None:
        self.consensus.channel.send(Kind.START, START.pack(CLUSTER_ID, MEMBER_ID, 1, self.index))
        role = Role(CLUSTER_ID, MEMBER_ID, 5, MEMBER_ID if leader else 33, self.index, leader, False)
        self.consensus.channel.send(Kind.ROLE, role.pack())

    def all_have_met(self) -> bool:
        channels = self.endpoint.channels.values()
        return len(channels) == 3 and all(each.opened for each in channels) and all(n.hellos for n in self.neighbours)

    @property
    def origin(self) -> Origin:
        return Origin(MEMBER_ID, self.api.endpoint.incarnation, 0)

    def entry(self, *commands: bytes, number: int = 0, origin: Origin | None = None, index: int | None = None) -> None:
        self.index = self.index + 1 if index is None else index
        payload = pack_chunk(origin or self.origin, number, list(commands))
        self.consensus.channel.send(Kind.ENTRY, ENTRY.pack(self.index, 5, EntryKind.BATCH), payload)

    def read(self, *commands: bytes, number: int = 0, kind: Kind = Kind.READ) -> None:
        sender = self.consensus if kind is Kind.READ else self.api
        sender.channel.send(kind, pack_chunk(self.origin, number, list(commands)))

    def until(self, condition: Callable[[], Any], seconds: float = 10.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "waited too long"
            for each in self.neighbours:
                each.turn()
            self.service.turn(1)

    def results(self, count: int = 1) -> list[tuple[int, int, int, list[tuple[int, bytes]]]]:
        """The next `count` RESULTS messages."""
        self.until(lambda: len(self.api.of(Kind.RESULTS)) >= count)
        heard = [unpack_results(body) for body in self.api.of(Kind.RESULTS)]
        self.api.heard = []
        return heard

    def close(self) -> None:
        self.stop_storage()
        for each in self.neighbours:
            each.endpoint.close()


@pytest.fixture
def ring() -> Iterator[Ring]:
    directory = Path(tempfile.mkdtemp())
    made = Ring(directory)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(directory)


def put(key: bytes, value: bytes = b"v") -> bytes:
    return pack_command(Op.PUT, rpc_pb2.PutRequest(key=key, value=value).SerializeToString())


def get(key: bytes, range_end: bytes = b"") -> bytes:
    return pack_command(Op.RANGE, rpc_pb2.RangeRequest(key=key, range_end=range_end).SerializeToString())


def test_a_put_is_answered_to_its_worker_and_told_to_watch(ring: Ring) -> None:
    ring.entry(put(b"a"), put(b"b"), number=9)
    ((number, incarnation, first, results),) = ring.results()
    assert (9, ring.api.endpoint.incarnation, 0) == (number, incarnation, first)
    header = rpc_pb2.PutResponse.FromString(results[1][1]).header
    assert (CLUSTER_ID, MEMBER_ID, 3, 5) == (header.cluster_id, header.member_id, header.revision, header.raft_term)
    ring.until(lambda: ring.watch.of(Kind.EVENTS))
    assert (1, 3, 2) == EVENTS.unpack_from(ring.watch.of(Kind.EVENTS)[0])


def test_a_linearizable_and_a_serializable_read_see_the_entries_before_them(ring: Ring) -> None:
    ring.entry(put(b"a", b"1"))
    ring.read(get(b"a"), number=1)
    ring.results(2)
    ring.read(get(b"a"), number=2, kind=Kind.LOCAL)
    ((number, _, _, [(error_id, body)]),) = ring.results()
    assert (2, 0) == (number, error_id)
    assert b"1" == rpc_pb2.RangeResponse.FromString(body).kvs[0].value


def test_only_the_origin_is_answered(ring: Ring) -> None:
    ring.entry(put(b"a"), origin=Origin(99, 1, 0))
    ring.entry(put(b"a"), origin=Origin(MEMBER_ID, ring.api.endpoint.incarnation ^ 1, 0))
    ring.entry(put(b"a"), number=3)
    ((number, *_),) = ring.results()
    assert 3 == number


def test_a_refusal_of_what_storage_proposed_changes_nothing(ring: Ring) -> None:
    ring.consensus.channel.send(Kind.REFUSE, REFUSE.pack(1, ring.endpoint.incarnation, errors.TOO_MANY_REQUESTS.id))
    ring.entry(put(b"a"))
    ring.results()
    assert 2 == ring.state.store.revision


def test_an_entry_that_was_applied_is_not_applied_again(ring: Ring) -> None:
    ring.entry(put(b"a"))
    ring.entry(put(b"a"), index=1)
    ring.index = 1
    ring.entry(put(b"a"), number=2)
    results = ring.results(2)
    assert [0, 2] == [number for number, *_ in results]
    assert 3 == ring.state.store.revision


def test_after_a_restart_local_reads_wait_until_storage_is_where_it_was(ring: Ring) -> None:
    ring.entry(put(b"a"))
    ring.results()
    ring.until(lambda: not ring.state.is_dirty)
    ring.stop_storage()
    for each in ring.neighbours:
        each.hellos = []
    ring.start_storage()
    ring.until(ring.all_have_met)
    assert (1, 0) == STORAGE_HELLO.unpack(ring.consensus.hellos[0])
    ring.read(get(b"b"), number=1, kind=Kind.LOCAL)
    ring.until(lambda: not ring.api.channel.backlog_bytes)
    ring.index = 2  # committed before the restart, and lost by it
    ring.start()
    for _ in range(20):
        ring.service.turn(1)
    ring.entry(put(b"b"), number=2, index=2)
    (first, *_), (second, _, _, [(_, body)]) = ring.results(2)
    assert [2, 1] == [first, second]
    assert 1 == rpc_pb2.RangeResponse.FromString(body).count


def test_consensus_hears_what_is_applied_and_what_a_power_loss_cannot_take_back(ring: Ring) -> None:
    ring.entry(put(b"a"))
    ring.until(lambda: ring.consensus.of(Kind.APPLIED))
    assert (1, 0) == APPLIED.unpack(ring.consensus.of(Kind.APPLIED)[-1])
    ring.until(lambda: not ring.state.is_dirty)
    ring.state.database.start_checkpoint()
    ring.until(lambda: APPLIED.unpack(ring.consensus.of(Kind.APPLIED)[-1]) == (1, 1))


def test_a_large_range_is_answered_behind_its_neighbours(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "INLINE_KEYS_MAX", 10)
    for start in range(0, 3000, 500):
        ring.entry(*[put(b"k%05d" % number) for number in range(start, start + 500)])
    ring.results(6)
    ring.read(get(b"k00000"), get(b"k", b"l"), get(b"k00001"), number=4)
    ring.until(lambda: sum(len(unpack_results(body)[3]) for body in ring.api.of(Kind.RESULTS)) == 3)
    heard = sorted(ring.results(3), key=lambda each: each[2])
    assert [0, 1, 2] == [first for _, _, first, _ in heard]
    response = rpc_pb2.RangeResponse.FromString(heard[1][3][0][1])
    assert [b"k%05d" % number for number in range(3000)] == [pair.key for pair in response.kvs]
    assert 3000 == response.count


def compact(ring: Ring, revision: int) -> None:
    """Compact, and wait until what is dropped is gone from the disk."""
    request = rpc_pb2.CompactionRequest(revision=revision)
    ring.entry(pack_command(Op.COMPACT, request.SerializeToString()))
    ring.results()
    ring.read(pack_command(Op.COMPACTED, revision.to_bytes(8, "little")), number=5, kind=Kind.LOCAL)
    assert [(5, 0)] == [(number, first) for number, _, first, _ in ring.results()]


def test_a_physical_compaction_is_answered_when_the_records_are_gone(ring: Ring) -> None:
    ring.entry(*[put(b"a")] * 100)
    ring.results()
    compact(ring, 101)
    assert (1,) == ring.state.database.connection.execute("SELECT count(*) FROM history").fetchone()


def test_defragment_gives_free_pages_back_while_everything_goes_on(ring: Ring) -> None:
    for number in range(10):
        ring.entry(*[put(b"k%d" % number, b"v" * 2000)] * 100)
    ring.results(10)
    compact(ring, 1001)
    before = ring.state.database.size_bytes
    assert before > 2_000_000
    ring.read(pack_command(Op.DEFRAGMENT, b""), get(b"k1"), number=8, kind=Kind.LOCAL)
    heard = sorted(ring.results(2), key=lambda each: each[2])
    assert [(0, 0, b""), (1, 0)] == [(heard[0][2], *heard[0][3][0]), (heard[1][2], heard[1][3][0][0])]
    database = ring.state.database
    assert database.size_bytes == database.size_in_use_bytes < 200_000


def test_free_pages_are_given_back_after_a_start_when_there_are_enough(ring: Ring) -> None:
    for number in range(10):
        ring.entry(*[put(b"k%d" % number, b"v" * 2000)] * 100)
    ring.results(10)
    compact(ring, 1001)
    for megabytes, begins in ((0, False), (100, False), (1, True)):
        ring.stop_storage()
        ring.defrag_megabytes = megabytes
        ring.start_storage()
        assert ring.service.vacuum.is_due == begins
    ring.start()
    ring.until(lambda: not ring.service.vacuum.is_due)
    assert ring.state.database.size_bytes == ring.state.database.size_in_use_bytes


def test_a_mistake_of_the_background_reading_does_not_pass_for_a_database_without_damage(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistake(*_: object) -> None:
        raise OSError("the clock has gone")

    ring.stop_storage()
    monkeypatch.setattr(scrub, "_verify_records", mistake)
    ring.start_storage()
    with pytest.raises(OSError, match="the clock has gone"):
        ring.until(lambda: False)


def test_an_entry_that_takes_long_is_counted_and_logged(
    ring: Ring, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring.entry(put(b"a", b"1"))
    ring.results()
    assert ring.service.slow_applies == 0
    monkeypatch.setattr(ring.service, "_slow_apply_s", 0.0)
    ring.entry(put(b"a", b"2"), number=1)
    ring.results()
    assert ring.service.slow_applies == 1
    assert "apply request took too long" in caplog.text


def test_the_leader_proposes_to_expire_a_lease_and_its_keys_go_in_one_revision(ring: Ring) -> None:
    ring.entry(pack_command(Op.LEASE_GRANT, rpc_pb2.LeaseGrantRequest(ID=7, TTL=2).SerializeToString()))
    ring.entry(
        *[pack_command(Op.PUT, rpc_pb2.PutRequest(key=key, lease=7).SerializeToString()) for key in (b"b", b"a")]
    )
    ring.results(2)
    ring.state.lessor.leases[7].deadline = 0.0
    ring.state.lessor._deadlines = [(0.0, 7)]
    ring.until(lambda: ring.consensus.of(Kind.PROPOSE))
    (chunk,) = chunks_of(ring.consensus.of(Kind.PROPOSE)[0])
    assert STORAGE_WORKER == chunk.origin.worker
    ((op, _, body),) = commands_of(chunk.commands)
    ring.entry(pack_command(op, body), origin=chunk.origin)
    ring.until(lambda: not ring.state.lessor.leases)
    assert 0 == len(ring.state.store.index.live)
    assert 4 == ring.state.store.revision


def test_a_full_database_raises_the_alarm_and_then_refuses(ring: Ring) -> None:
    ring.service.applier.quota_bytes = 1
    ring.entry(put(b"a"))
    ring.read(pack_command(Op.OUT_OF_SPACE, b""), number=1, kind=Kind.LOCAL)
    ring.until(lambda: ring.consensus.of(Kind.PROPOSE))
    (chunk,) = chunks_of(ring.consensus.of(Kind.PROPOSE)[0])
    ((op, _, body),) = commands_of(chunk.commands)
    assert Op.ALARM == op
    request = rpc_pb2.AlarmRequest.FromString(body)
    assert (MEMBER_ID, rpc_pb2.NOSPACE) == (request.memberID, request.alarm)
    assert [] == ring.api.of(Kind.RESULTS)
    ring.entry(pack_command(op, body), origin=chunk.origin)
    assert [errors.NO_SPACE.id] * 2 == [error_id for _, _, _, [(error_id, _)] in ring.results(2)]


def test_a_refusal_whose_alarm_cannot_be_ordered_leaves_nevertheless(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "ALARM_SECONDS_MAX", 0.05)
    ring.service.applier.quota_bytes = 1
    ring.entry(put(b"a"))
    ((_, _, _, [(error_id, _)]),) = ring.results()
    assert errors.NO_SPACE.id == error_id


def test_an_alarm_that_was_taken_back_is_raised_again_at_once(ring: Ring) -> None:
    ring.service.applier.quota_bytes = 1
    for number in range(1, 3):
        ring.entry(put(b"a"))
        ring.until(lambda number=number: len(proposed(ring, Op.ALARM)) == number)  # type: ignore[misc]
        ring.entry(pack_command(Op.ALARM, proposed(ring, Op.ALARM)[-1]))
        ring.until(lambda: ring.service.applier.space_alarm_is_on)
        off = rpc_pb2.AlarmRequest(action=rpc_pb2.AlarmRequest.DEACTIVATE, memberID=MEMBER_ID, alarm=rpc_pb2.NOSPACE)
        ring.entry(pack_command(Op.ALARM, off.SerializeToString()))
        ring.until(lambda: not ring.service.applier.space_alarm_is_on)


def test_figures_are_told_to_whoever_asks(ring: Ring) -> None:
    ring.entry(put(b"a"), put(b"b"))
    ring.results()
    ring.api.channel.send(Kind.STATS_READ, (7).to_bytes(8, "little"))
    ring.until(lambda: ring.api.of(Kind.STATS))
    (body,) = ring.api.of(Kind.STATS)
    assert body[:8] == (7).to_bytes(8, "little")
    assert b"\netcd_debugging_mvcc_keys_total 2.0\n" in body
    assert b"\netcd_mvcc_put_total 2.0\n" in body


def proposed(ring: Ring, op: Op) -> list[bytes]:
    """The bodies of the commands of one kind that storage had ordered."""
    return [
        body
        for payload in ring.consensus.of(Kind.PROPOSE)
        for chunk in chunks_of(payload)
        for each, _, body in commands_of(chunk.commands)
        if each == op
    ]


def test_a_check_of_the_data_is_reported_and_the_leader_names_who_differs(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corruption, "SETTLE_SECONDS", 0.1)
    ring.entry(put(b"a", b"1"))
    ring.entry(pack_command(Op.CORRUPT_CHECK, b""))
    ring.until(lambda: proposed(ring, Op.CORRUPT_REPORT))
    ((index, member_id, value),) = (corruption.REPORT.unpack(body) for body in proposed(ring, Op.CORRUPT_REPORT))
    assert (2, MEMBER_ID) == (index, member_id)
    reports = [(MEMBER_ID, value), (33, value), (44, value ^ 1)]
    ring.entry(
        *(pack_command(Op.CORRUPT_REPORT, corruption.REPORT.pack(2, number, found)) for number, found in reports)
    )
    ring.until(lambda: proposed(ring, Op.ALARM))
    (alarm,) = map(rpc_pb2.AlarmRequest.FromString, proposed(ring, Op.ALARM))
    assert (44, rpc_pb2.CORRUPT) == (alarm.memberID, alarm.alarm)


def test_the_leader_has_checks_and_compactions_ordered(ring: Ring) -> None:
    ring.stop_storage()
    ring.corrupt_check_ms = 10
    ring.compaction = ("periodic", "50ms")
    ring.start_storage()
    ring.until(lambda: all(len(each.hellos) == 2 for each in ring.neighbours))
    ring.start()
    ring.entry(put(b"a", b"1"))
    ring.until(lambda: proposed(ring, Op.CORRUPT_CHECK) and proposed(ring, Op.COMPACT))
    assert 2 == rpc_pb2.CompactionRequest.FromString(proposed(ring, Op.COMPACT)[0]).revision


def test_the_rest_of_an_entry_that_cannot_be_read_has_no_effect(ring: Ring) -> None:
    good = pack_chunk(ring.origin, 1, [put(b"a")])
    ring.index = 1
    ring.consensus.channel.send(Kind.ENTRY, ENTRY.pack(1, 5, EntryKind.BATCH), good + good[:-1])
    ring.entry(put(b"b"))
    ring.until(lambda: ring.state.database.marks.applied_index == 2)
    assert [b"a", b"b"] == list(ring.state.store.index.live)
    assert 3 == ring.state.store.revision


@pytest.mark.parametrize("is_full", [False, True], ids=["", "with a full disk"])
def test_what_is_only_read_takes_no_memory_for_good(ring: Ring, is_full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mvcc, "RECENT_BYTES_MAX", 100_000)
    ring.entry(*[put(b"k%d" % number, b"v" * 5000) for number in range(100)])
    ring.results()
    ring.until(lambda: not ring.state.is_dirty)
    if is_full:
        execute = ring.state.database.connection.execute
        (pages,) = execute("PRAGMA page_count").fetchone()
        execute(f"PRAGMA max_page_count = {pages}")
        ring.entry(*[put(b"more%d" % number, b"v" * 5000) for number in range(20)])
        ring.results()
    for number in range(100):
        ring.read(get(b"k%d" % number), number=number)
        ring.results()
    store = ring.state.store
    remembered = sum(len(blob) for blobs in (store._recent, store._recent_old) for blob in blobs.values())
    assert remembered < (400_000 if is_full else 200_000)
    if is_full:
        ring.read(get(b"more19"))
        ((_, _, _, [(_, body)]),) = ring.results()
        assert 1 == rpc_pb2.RangeResponse.FromString(body).count
