"""Mistakes to be planted into whole simulated clusters: some seed has to notice each of them.

Each is a mistake that was made: by etcd (with its number), by other systems, or here. A plant changes one function of
the services; `kinds` are the faults its runs know, `clients` who is there to notice.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from struct import unpack_from
from typing import Any, Final

import pytest

from quorate.api import ring, watches
from quorate.consensus import proposals, reads, segments, storage_stream, wal
from quorate.consensus.positions import Positions
from quorate.consensus.raft.messages import Entry, HardState
from quorate.consensus.wal_format import RECORD_BYTES
from quorate.storage import apply, compaction, database, headers, lessor, mvcc, proposer, publishing, service, txn
from quorate.storage.events import pack_events
from quorate.watch import broadcaster, groups
from quorate.wire import messages
from quorate.wire.messages import EVENTS, Kind, Part
from quorate.wire.watching import MARK, Told
from tests.simulation import bugs_of_rights as rights
from tests.simulation.whole.plan import WIDE, Links, Plan, Visitor, draw, with_people
from tests.simulation.whole.run import Outcome, run
from tests.simulation.whole.world import MS, SECOND

Patch = pytest.MonkeyPatch
Plant = Callable[[Patch], None]

KEYS: Final = ("keys", "keys", "transactions")
WATCH: Final = ("keys", "transactions", "watch", "watch", "watch")
STALE: Final = ("keys", "transactions", "stale", "stale", "stale")
LEASES: Final = ("leases", "leases", "leases", "locks")


@dataclass(frozen=True, slots=True)
class Bug:
    """One mistake. `seed` is one that is known to notice it, -1 if none is."""

    plant: Plant
    origin: str
    seed: int
    kinds: tuple[str, ...] = ("leader transfer",)
    clients: tuple[str, ...] = KEYS
    nodes: int = 0
    users: str = ""
    links: Links = WIDE

    @property
    def name(self) -> str:
        return self.plant.__name__


def plan_of(bug: Bug, seed: int) -> Plan:
    """A short run with the faults and the clients that matter."""
    plan = draw(seed, kinds=bug.kinds, length=6 * SECOND)
    visitors = tuple(Visitor(n, kind, seed * 100 + n, 20 * MS) for n, kind in enumerate(bug.clients))
    plan = plan.without(visitors=visitors, nodes=bug.nodes or plan.nodes, links=bug.links)
    return with_people(plan, bug.users) if bug.users else plan


def notices(bug: Bug, seed: int) -> Outcome:
    """The outcome of a run with the bug in it; only worth something where the run without it is well."""
    with pytest.MonkeyPatch.context() as patch:
        bug.plant(patch)
        return run(plan_of(bug, seed))


def simulated_os() -> Any:
    """What the log takes for `os` while a run lasts."""
    return vars(wal)["os"]


# --- the log ---------------------------------------------------------------------------------------------------------


def the_log_is_not_synced(patch: Patch) -> None:
    write = wal.Wal._write

    def _write(self: Any, *arguments: Any) -> None:
        self.sync = lambda _descriptor: None
        write(self, *arguments)

    patch.setattr(wal.Wal, "_write", _write)


def names_of_segments_are_not_synced(patch: Patch) -> None:
    patch.setattr(segments, "sync_directory", lambda _directory: None)
    patch.setattr(wal, "sync_directory", lambda _directory: None)


def the_vote_is_not_written(patch: Patch) -> None:
    append = wal.Wal.append
    patch.setattr(wal.Wal, "append", lambda self, entries, state: append(self, entries, state._replace(vote=0)))


def a_term_without_entries_is_not_synced(patch: Patch) -> None:
    append = wal.Wal.append

    def appended(self: Any, entries: Any, state: HardState) -> None:
        if entries or state.term == 0:
            append(self, entries, state)

    patch.setattr(wal.Wal, "append", appended)


def a_failed_sync_is_tried_again(patch: Patch) -> None:
    write = wal.Wal._write

    def _write(self: Any, *arguments: Any) -> None:
        def stubborn(descriptor: int) -> None:
            try:
                simulated_os().fdatasync(descriptor)
            except OSError:
                simulated_os().fdatasync(descriptor)

        self.sync = stubborn
        write(self, *arguments)

    patch.setattr(wal.Wal, "_write", _write)


def the_last_batch_is_not_written_again(patch: Patch) -> None:
    """The sync after the one that failed is content with what only the memory has."""
    patch.setattr(wal.Wal, "_write_again", lambda self: self.sync(self._segments[self._seq].descriptor))


def what_is_read_back_is_not_checked(patch: Patch) -> None:
    def _read_entry(self: Any, index: int, position: Any) -> Any:
        data = simulated_os().pread(self._segments[position.seq].descriptor, position.size, position.offset)
        return Entry(index, self.term(index), 1, data[RECORD_BYTES:])

    patch.setattr(wal.Wal, "_read_entry", _read_entry)


def replaced_entries_come_back_after_a_restart(patch: Patch) -> None:
    """Of an overwritten tail the first version counts."""
    add = Positions.add

    def added(self: Any, index: int, *arguments: Any) -> None:
        if index > self.last_index:
            add(self, index, *arguments)

    patch.setattr(Positions, "add", added)


def a_snapshot_leaves_the_old_log(patch: Patch) -> None:
    patch.setattr(wal.Wal, "reset", lambda self, index, term, state: None)


# --- consensus and its neighbours ------------------------------------------------------------------------------------


def reads_do_not_wait_for_what_they_must_see(patch: Patch) -> None:
    release = reads.Reads.release
    patch.setattr(
        reads.Reads, "release", lambda self, handed, storage, is_open: release(self, 1 << 62, storage, is_open)
    )


def forwarded_entries_are_proposed_again(patch: Patch) -> None:
    """A new leader: what the old one was told is told to it again, whether it was committed or not."""
    held = proposals.Proposals.propose_held

    def propose_held(self: Any, propose: Any, remember: bool) -> None:
        for ref in list(self._forwarded):
            for waiting in self._forget(ref):
                self._hold(waiting)
        held(self, propose, remember)

    patch.setattr(proposals.Proposals, "propose_held", propose_held)


def entries_are_told_to_storage_from_its_last_answer_on(patch: Patch) -> None:
    """After a restart of storage the stream goes on where it was, not where the database is."""

    def resume(self: Any) -> None:
        if self.start_index is not None:
            self.start_index = max(self.start_index, self.handed_index)
        original(self)

    original = storage_stream.StorageStream.resume
    patch.setattr(storage_stream.StorageStream, "resume", resume)


def the_log_is_dropped_before_the_database_is_durable(patch: Patch) -> None:
    stream = storage_stream.StorageStream
    note = stream.note_applied
    patch.setattr(stream, "note_applied", lambda self, applied, _durable: note(self, applied, applied))


def an_image_is_said_to_be_newer_than_it_is(patch: Patch) -> None:
    from quorate.consensus.snapshots import Snapshots

    taken = Snapshots.image_taken
    patch.setattr(
        Snapshots,
        "image_taken",
        lambda self, index, term, path: taken(self, max(index, self._driver.core.commit_index), term, path),
    )


def everybody_leaves_a_removed_member_in(patch: Patch) -> None:
    from quorate.consensus.membership import Membership

    with_conf = Membership.with_conf

    def kept(self: Any, index: int, payload: bytes) -> Any:
        from dataclasses import replace

        changed = with_conf(self, index, payload)
        return replace(changed, removed=frozenset(), members={**self.members, **changed.members})

    patch.setattr(Membership, "with_conf", kept)


# --- storage ---------------------------------------------------------------------------------------------------------


def the_revision_goes_back_after_a_crash(patch: Patch) -> None:
    """etcd #13766, #17780: the mark is one transaction behind the rows."""
    marks = database.Database._marks

    def _marks(self: Any) -> Any:
        applied, term, revision, scheduled, finished = marks(self)
        return applied, term, max(1, revision - bool(self.pending)), scheduled, finished

    patch.setattr(database.Database, "_marks", _marks)


def the_applied_index_is_written_before_the_rows(patch: Patch) -> None:
    """etcd #14685: a crash in between loses them."""
    commit = database.Database.commit

    def late(self: Any) -> None:
        kept, self.pending = self.pending[-1:], self.pending[:-1]
        commit(self)
        self.pending = kept

    patch.setattr(database.Database, "commit", late)


def rows_are_forgotten_when_the_disk_is_full(patch: Patch) -> None:
    take_back = database.Database._take_back

    def _take_back(self: Any) -> None:
        take_back(self)
        self.pending = []

    patch.setattr(database.Database, "_take_back", _take_back)


def a_checkpoint_that_failed_is_called_durable(patch: Patch) -> None:
    """fsyncgate: what consensus drops from its log then is nowhere after a loss of power."""
    run_checkpoint = database.Database._run_checkpoint

    def _run_checkpoint(self: Any) -> None:
        with suppress(sqlite3.OperationalError):
            run_checkpoint(self)

    patch.setattr(database.Database, "_run_checkpoint", _run_checkpoint)


def a_member_answers_before_it_is_where_it_was(patch: Patch) -> None:
    """After its restart storage answers stale reads from a state that clients have seen newer."""
    hear = service.Service._hear

    def _hear(self: Any, channel: Any, messages: Any) -> None:
        self._current_from = 0
        hear(self, channel, messages)

    patch.setattr(service.Service, "_hear", _hear)
    patch.setattr(
        service.Service, "_current_from", property(lambda _self: 0, lambda _self, _value: None), raising=False
    )


def a_deletion_of_nothing_makes_a_revision(patch: Patch) -> None:
    delete_range = apply.Applier.delete_range

    def deleted(self: Any, body: bytes) -> bytes:
        answer = delete_range(self, body)
        if len(answer) < 30:
            self.store.sub = self.store.sub or 1
            self.store.finish()
        return answer

    patch.setattr(apply.Applier, "delete_range", deleted)


def comparisons_are_not_looked_at(patch: Patch) -> None:
    patch.setattr(txn, "holds", lambda _store, _compare: True)


def each_put_of_a_transaction_has_its_own_revision(patch: Patch) -> None:
    put = txn.put

    def alone(store: Any, lessor_: Any, request: Any) -> bytes:
        fields = put(store, lessor_, request)
        store.finish()
        return fields

    patch.setattr(txn, "put", alone)


def answers_carry_the_revision_before(patch: Patch) -> None:
    at = headers.Headers.at
    patch.setattr(headers.Headers, "at", lambda self, revision: at(self, max(1, revision - 1)))


def compaction_drops_what_is_visible(patch: Patch) -> None:
    """One revision too many."""
    advance = compaction.Compaction.advance

    def further(self: Any, *arguments: int) -> None:
        if self._target < 0:
            newest = self._store.index.newest
            doomed = [(record,) for record in list(newest.values())[:1] if not record & 1]
            self._store.database.run_many(compaction._DELETE, doomed)
        advance(self, *arguments)

    patch.setattr(compaction.Compaction, "advance", further)


def compaction_drops_the_deletion_at_its_revision(patch: Patch) -> None:
    """etcd #18089, #19179: a watch from there never hears of it."""
    patch.setattr(compaction, "main_revision", lambda record: (record >> 24) - 1)


def members_apply_by_their_own_clocks(patch: Patch) -> None:
    """etcd #14571's class: what is applied depends on more than the entry."""
    grant = lessor.Lessor.grant

    def granted(self: Any, lease_id: int, ttl: int, now: float, index: int) -> Any:
        return grant(self, lease_id, ttl + int(now) % 2, now, index)

    patch.setattr(lessor.Lessor, "grant", granted)


# --- leases ----------------------------------------------------------------------------------------------------------


def a_renewal_does_not_move_the_deadline(patch: Patch) -> None:
    renew = lessor.Lessor.renew

    def renewed(self: Any, ids: bytes, now: float, index: int) -> list[int]:
        known = [self.leases.get(lease_id) for lease_id in unpack_from(f"<{len(ids) // 8}q", ids)]
        before = [(lease, lease.deadline) for lease in known if lease is not None]
        ttls = renew(self, ids, now, index)
        for lease, deadline in before:
            lease.deadline = deadline
        return ttls

    patch.setattr(lessor.Lessor, "renew", renewed)


def a_restart_takes_the_time_of_leases(patch: Patch) -> None:
    load = lessor.Lessor.load

    def loaded(self: Any, leases: Iterable[tuple[int, int, int]], renewed: Any, attached: Any, now: float) -> None:
        load(self, [(one, ttl, 0) for one, ttl, _ in leases], renewed, attached, now)

    patch.setattr(lessor.Lessor, "load", loaded)


def leases_end_where_nobody_leads(patch: Patch) -> None:
    """Nobody has them expired."""
    patch.setattr(proposer.Proposer, "_expire_leases", lambda self, now, commands: None)


def an_expired_lease_leaves_its_keys(patch: Patch) -> None:
    expire = apply.Applier.expire

    def expired(self: Any, body: bytes) -> bytes:
        delete, self._delete_leased = self._delete_leased, lambda keys: None
        try:
            return expire(self, body)
        finally:
            self._delete_leased = delete

    patch.setattr(apply.Applier, "expire", expired)


# --- watch -----------------------------------------------------------------------------------------------------------


def a_gap_is_skipped(patch: Patch) -> None:
    """etcd #17529: what could not be told is not read later."""

    def _keep_early(self: Any, body: bytes, with_previous: bool, before: int) -> None:
        self.revision = before
        self._take(body, with_previous)

    patch.setattr(broadcaster.Hub, "_keep_early", _keep_early)


def what_is_replayed_is_told_again(patch: Patch) -> None:
    """etcd #15271, #17247: a watch goes back in time."""
    take = broadcaster.Hub._take

    def _take(self: Any, body: bytes, with_previous: bool) -> None:
        before, after, _count = EVENTS.unpack_from(body)
        if before < after <= self.revision:
            self.revision = before
        take(self, body, with_previous)

    patch.setattr(broadcaster.Hub, "_take", _take)


def a_restarted_watch_process_begins_at_the_present(patch: Patch) -> None:
    opened = watches.Watches.opened

    def reopened(self: Any, send: Any) -> None:
        for interest in self._interests.values():
            interest.next_revision = 1 << 40 if interest.is_live else interest.next_revision
        opened(self, send)

    patch.setattr(watches.Watches, "opened", reopened)


def a_restarted_watch_process_tells_everything_again(patch: Patch) -> None:
    opened = watches.Watches.opened

    def reopened(self: Any, send: Any) -> None:
        self.revision = 1
        opened(self, send)

    patch.setattr(watches.Watches, "opened", reopened)


def a_mark_promises_too_much(patch: Patch) -> None:
    """etcd #15220: progress ahead of what was told."""

    class Generous:
        @staticmethod
        def pack(kind: Told, revision: int) -> bytes:
            return MARK.pack(kind, revision + 2)

    patch.setattr(broadcaster, "MARK", Generous)


def filters_are_not_looked_at(patch: Patch) -> None:
    patch.setattr(groups.Fan, "wants", lambda self, is_tombstone: True)


def a_stream_that_was_held_is_not_caught_up(patch: Patch) -> None:
    def resume(self: Any, worker: Any, number: int) -> None:
        stream = worker.stream(number)
        if stream.held:
            stream.held = False
            worker.held_streams -= 1

    patch.setattr(broadcaster.Hub, "resume", resume)


def the_value_before_is_that_of_another_change(patch: Patch) -> None:
    previous_blobs = mvcc.Store.previous_blobs

    def shifted(self: Any, rows: Any) -> Any:
        return iter([*list(previous_blobs(self, rows))[1:], None])

    patch.setattr(mvcc.Store, "previous_blobs", shifted)


def changes_are_published_without_the_last(patch: Patch) -> None:
    pack = pack_events

    def packed(store: Any, rows: Any, *arguments: Any) -> Any:
        return pack(store, rows[:-1] if len(rows) > 1 else rows, *arguments)

    patch.setattr(publishing, "pack_events", packed)


# --- api -------------------------------------------------------------------------------------------------------------


def writes_are_asked_again_after_a_restart(patch: Patch) -> None:
    """jetcd: what is not known to have failed is done twice."""
    send = ring.Ring._send_chunks
    lost = ring.Ring._lost_with

    def _send_chunks(self: Any, lane: Any, origin: Any) -> None:
        chunks = [*lane.full, *([lane.open] if lane.open is not None else [])]
        packed = [(chunk, messages.pack_chunk(origin, chunk.number, chunk.commands)) for chunk in chunks]
        send(self, lane, origin)
        for chunk, body in packed:
            chunk.packed = body

    def lost_with(part: Part) -> tuple[int, ...]:
        return (*lost(part), Kind.PROPOSE)

    patch.setattr(ring.Ring, "_send_chunks", _send_chunks)
    patch.setattr(ring.Ring, "_lost_with", staticmethod(lost_with))


def reads_are_answered_by_whoever_is_asked(patch: Patch) -> None:
    """etcd 0.4, Consul: without asking a quorum."""
    init = ring.Ring.__init__

    def begun(self: Any, *arguments: Any, **named: Any) -> None:
        init(self, *arguments, **named)
        self.reads = self.local

    patch.setattr(ring.Ring, "__init__", begun)


def answers_for_a_predecessor_are_taken(patch: Patch) -> None:
    """Numbers begin anew with each worker, and nobody looks at whose they are."""
    results = ring.Ring._on_results

    def _on_results(self: Any, body: bytes) -> None:
        number, _, first, count = messages.RESULTS.unpack_from(body)
        head = messages.RESULTS.pack(number, self._endpoint.incarnation, first, count)
        results(self, head + body[messages.RESULTS.size :])

    def pack_chunk(origin: messages.Origin, number: int, commands: list[bytes]) -> bytes:
        return pack(origin, number % 7 + 1, commands)

    pack = messages.pack_chunk
    patch.setattr(ring.Ring, "_on_results", _on_results)
    patch.setattr(messages, "pack_chunk", pack_chunk)


POWER: Final = ("power loss of a node", "power loss at a step", "power loss of all")
NARROW: Final = Links(1, 5 * MS, 64)
LATE: Final = ("stop a process", "delay", "kill api", "slow links inside")
ELECTIONS: Final = ("isolate the leader", "campaign", "kill consensus", "partition")

BUGS: Final[tuple[Bug, ...]] = (
    Bug(the_log_is_not_synced, "etcd #14370, NATS", 0),
    Bug(names_of_segments_are_not_synced, "here", 0, POWER),
    Bug(the_vote_is_not_written, "Raft 5.2", 2, ELECTIONS, nodes=3),
    Bug(a_term_without_entries_is_not_synced, "Raft 5.2", 6, ELECTIONS, nodes=3),
    Bug(a_failed_sync_is_tried_again, "fsyncgate", 6, ("failing fsync", *POWER)),
    Bug(the_last_batch_is_not_written_again, "fsyncgate", 23, ("failing fsync", *POWER)),
    Bug(what_is_read_back_is_not_checked, "TigerBeetle's faults", 2, ("lying reads", "kill storage", "partition")),
    Bug(replaced_entries_come_back_after_a_restart, "etcd #14143's class", 11, (*ELECTIONS, "crash a node"), nodes=3),
    Bug(a_snapshot_leaves_the_old_log, "etcd #18055's class", 8, ("crash a node", "isolate the leader"), nodes=3),
    Bug(reads_do_not_wait_for_what_they_must_see, "etcd #7331's class", 0, ("delay", "slow links inside"), nodes=3),
    Bug(forwarded_entries_are_proposed_again, "jetcd's class", 0, ("leader transfer", "campaign"), nodes=3),
    Bug(entries_are_told_to_storage_from_its_last_answer_on, "here", 0, ("kill storage",)),
    Bug(the_log_is_dropped_before_the_database_is_durable, "here", 9, POWER, nodes=1),
    Bug(
        an_image_is_said_to_be_newer_than_it_is,
        "etcd #20271's class",
        13,
        ("crash a node", "isolate the leader"),
        nodes=3,
    ),
    Bug(everybody_leaves_a_removed_member_in, "zombie members", 0, ("replace a member",), nodes=3),
    Bug(the_revision_goes_back_after_a_crash, "etcd #13766, #17780", 0, ("kill storage", "crash a node")),
    Bug(the_applied_index_is_written_before_the_rows, "etcd #14685", 0, ("kill storage", "crash a node")),
    Bug(rows_are_forgotten_when_the_disk_is_full, "ENOSPC", 0, ("full database", "kill storage")),
    Bug(a_checkpoint_that_failed_is_called_durable, "fsyncgate", 83, ("failing database", *POWER), nodes=1),
    Bug(a_member_answers_before_it_is_where_it_was, "here", 2, ("full database", "kill storage"), STALE, links=NARROW),
    Bug(a_deletion_of_nothing_makes_a_revision, "revisions without a hole", 0),
    Bug(comparisons_are_not_looked_at, "lost update", 0),
    Bug(each_put_of_a_transaction_has_its_own_revision, "atomicity", 0),
    Bug(answers_carry_the_revision_before, "etcd #18667's class", 0),
    Bug(compaction_drops_what_is_visible, "MVCC", 0, ("compaction", "kill storage")),
    Bug(compaction_drops_the_deletion_at_its_revision, "etcd #18089, #19179", 24, ("compaction", "kill api"), WATCH),
    Bug(members_apply_by_their_own_clocks, "etcd #14571's class", 2, ("leader transfer",), LEASES, 3),
    Bug(a_renewal_does_not_move_the_deadline, "leases", 0, ("leader transfer",), LEASES),
    Bug(a_restart_takes_the_time_of_leases, "leases", 0, ("kill storage", "crash a node"), LEASES),
    Bug(leases_end_where_nobody_leads, "leases", 0, ("leader transfer",), LEASES),
    Bug(an_expired_lease_leaves_its_keys, "leases", 0, ("leader transfer",), LEASES),
    Bug(a_gap_is_skipped, "etcd #17529", 2, ("kill watch", "kill storage", "crash a node"), WATCH),
    Bug(what_is_replayed_is_told_again, "etcd #15271, #17247", 103, ("kill storage", "crash a node"), WATCH),
    Bug(a_restarted_watch_process_begins_at_the_present, "here", 0, ("kill watch",), WATCH),
    Bug(a_restarted_watch_process_tells_everything_again, "etcd #20221's class", 5, ("kill watch",), WATCH),
    Bug(a_mark_promises_too_much, "etcd #15220", 8, ("kill watch", "kill storage"), WATCH),
    Bug(filters_are_not_looked_at, "Filter", 1, (), WATCH),
    Bug(a_stream_that_was_held_is_not_caught_up, "etcd #17529", 0, (), WATCH),
    Bug(the_value_before_is_that_of_another_change, "PrevKV", 2, (), WATCH),
    Bug(changes_are_published_without_the_last, "Reliable", 0, (), WATCH),
    Bug(writes_are_asked_again_after_a_restart, "jetcd", 2, ("kill consensus", "kill storage")),
    Bug(reads_are_answered_by_whoever_is_asked, "etcd 0.4, Consul", 0, ("delay", "partition"), nodes=3),
    Bug(answers_for_a_predecessor_are_taken, "here", 4, ("kill api",)),
    Bug(rights.only_the_member_that_was_asked_judges_rights, "etcd #14571's class", 0, nodes=3, users="simple"),
    Bug(rights.a_caller_keeps_the_rights_it_came_with, "etcd #14571's class", 4, LATE, nodes=3, users="jwt"),
    Bug(rights.a_session_outlives_a_change_of_rights, "stale caches", 1, LATE, nodes=3, users="simple"),
    Bug(rights.compiled_rights_are_not_thrown_away, "stale caches", 0, users="simple"),
    Bug(rights.nested_operations_are_not_judged, "CVE-2026-33343", 0, users="simple"),
    Bug(rights.a_range_of_rights_holds_its_end, "off by one", 0, users="simple"),
    Bug(rights.a_range_is_judged_by_where_it_begins, "intervals", 0, users="jwt"),
    Bug(
        rights.roles_do_not_survive_a_restart,
        "etcd #14571's class",
        0,
        ("kill storage", "crash a node"),
        users="simple",
    ),
    Bug(
        rights.a_restart_forgets_that_there_are_users,
        "etcd #14571",
        0,
        ("kill storage", "crash a node"),
        users="simple",
    ),
    Bug(rights.members_have_users_from_different_entries_on, "etcd #14571's class", 1, nodes=3, users="simple"),
    Bug(rights.a_role_that_is_deleted_stays_with_its_users, "rights", 0, users="simple"),
)
SEEDS_MAX: Final = 500


def main() -> None:
    """For each bug the first seed that notices it."""
    import logging
    import sys

    logging.disable(logging.CRITICAL)
    wanted = sys.argv[1:]
    for bug in BUGS:
        if wanted and bug.name not in wanted:
            continue
        for seed in range(int(os.environ.get("QUORATE_SEEDS", str(SEEDS_MAX)))):
            outcome = notices(bug, seed)
            if outcome.violation and not run(plan_of(bug, seed)).violation:
                print(f"{bug.name}: seed {seed}: {outcome.violation[:160]}", flush=True)
                break
        else:
            print(f"{bug.name}: NOT FOUND", flush=True)


if __name__ == "__main__":
    main()
