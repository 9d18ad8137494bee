"""What must hold after every step, over all nodes: the promises of Raft, of the disk and of the applied state."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

from quorate.consensus.frames import PeerMessage
from quorate.consensus.raft.core import RaftCore
from quorate.consensus.raft.messages import AppendAck, Entry, HardState, Role, Vote, VoteResp
from quorate.consensus.wal import Wal
from quorate.proto.kv_pb2 import KeyValue
from quorate.storage.database import Row
from quorate.storage.records import key_value_of
from quorate.storage.service import Service
from quorate.wire.messages import ENTRY, main_revision
from tests.checking.history import Change
from tests.simulation.whole.world import Violation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.simulation.whole.node import SimNode


_NO_ROLE = (-1, None)  # nothing was seen of this life yet


def demand(holds: bool, what: str) -> None:
    """Violation unless it holds."""
    if not holds:
        raise Violation(what)


class DurableLog:
    """What one member's log holds for good, as seen from outside."""

    def __init__(self) -> None:
        self.hard_state = HardState()
        self.base = 0
        self.terms: dict[int, int] = {}
        self.last = 0
        self.doubtful = 1 << 62  # from this index on a write under way may have changed things

    def took(self, entries: Sequence[Entry], state: HardState) -> None:
        demand(state.term >= self.hard_state.term, "the durable term went back")
        demand(
            state.term > self.hard_state.term or self.hard_state.vote in (0, state.vote),
            "a durable vote was changed within its term",
        )
        self.hard_state = state
        if entries:
            first = entries[0].index
            for index in range(first, self.last + 1):
                self.terms.pop(index, None)
            for entry in entries:
                self.terms[entry.index] = entry.term
            self.last = entries[-1].index

    def restarted(self, index: int, term: int, state: HardState) -> None:
        self.terms = {index: term}
        self.base = self.last = index
        self.hard_state = state

    def has(self, index: int, term: int) -> bool:
        return index <= self.base or self.terms.get(index) == term


class Ledger:
    """What the cluster as a whole has decided."""

    def __init__(self) -> None:
        self.terms: list[int] = [0]  # of the committed entry at each index
        self.chain: dict[int, int] = {0: 0}  # index: checksum over everything applied up to it
        self.leaders: dict[int, int] = {}  # term: member
        self.logs: dict[int, DurableLog] = {}
        self.checks = 0
        self.records: dict[int, int] = {}  # checksum of each record of the store
        self.log: list[Change] = []
        self.revision = 1
        self.compact_revision = 0  # below it a member may have forgotten what is superseded
        self.times: list[int] = [0, 0]  # of each revision: when the first member applied it
        self._commit: dict[int, int] = {}  # by node, in this life of its consensus
        self._applied: dict[int, int] = {}  # by node, in this life of its storage
        self._role: dict[int, tuple[int, Role]] = {}

    # --- consensus ---

    def ended(self, node: SimNode) -> None:
        self._commit.pop(node.number, None)
        self._role.pop(node.number, None)

    def watch_log(self, node: SimNode, wal: Wal) -> None:
        """Notes what becomes durable from now on; what a restart finds must hold what was promised."""
        log = DurableLog()
        log.hard_state = wal.hard_state
        log.base, log.last = wal.first_index() - 1, wal.last_index
        log.terms = {index: wal.term(index) for index in range(log.base, log.last + 1)}
        before = self.logs.get(node.number)
        if before is not None and not node.has_rotted:
            demand(log.hard_state.term >= before.hard_state.term, f"{node.name} forgot its term in a restart")
            if log.hard_state.term == before.hard_state.term:
                demand(before.hard_state.vote in (0, log.hard_state.vote), f"{node.name} forgot its vote in a restart")
            for index, term in before.terms.items():
                if log.base < index < before.doubtful:
                    demand(log.terms.get(index) == term, f"{node.name} forgot the durable entry {index} in a restart")
        self.logs[node.number] = log
        system_os = node.cluster.system.os
        append, reset = wal.append, wal.reset

        def appended(entries: Sequence[Entry], state: HardState) -> None:
            if entries:
                log.doubtful = entries[0].index
            append(entries, state)
            log.doubtful = 1 << 62
            descriptor = wal._segments[wal._seq].descriptor
            demand(system_os.is_synced(descriptor), f"{node.name} takes for durable what was not synced")
            log.took(entries, state)

        def was_reset(index: int, term: int, state: HardState) -> None:
            log.doubtful = 0
            reset(index, term, state)
            log.doubtful = 1 << 62
            log.restarted(index, term, state)

        wal.append = appended  # type: ignore[method-assign, assignment]
        wal.reset = was_reset  # type: ignore[method-assign, assignment]

    def check_promise(self, node: SimNode, message: PeerMessage) -> None:
        """No vote and no acknowledgement leaves a member before its disk backs it: a later term does that as well."""
        log = self.logs[node.number]
        durable = log.hard_state
        if isinstance(message, AppendAck):
            demand(durable.term >= message.term, "acknowledged in a term that is not durable")
            demand(message.match_index <= log.last or durable.term > message.term, "acknowledged before fsync")
        elif isinstance(message, Vote) or (isinstance(message, VoteResp) and message.granted):
            vote = node.member_id if isinstance(message, Vote) else message.to_id
            is_durable = (durable.term, durable.vote) == (message.term, vote) or durable.term > message.term
            demand(is_durable, "vote before fsync")

    def look(self, node: SimNode, core: RaftCore) -> None:
        """After each event of a consensus process."""
        self.checks += 1
        state, number = core._state, node.number
        seen = self._commit.get(number, 0)
        commit = state.commit_index
        if commit != seen:
            demand(commit > seen, f"the commit index of {node.name} went back")
            self._commit[number] = commit
            self._note_commit(node, core, seen, commit)
        term, role = self._role.get(number, _NO_ROLE)
        if role is not state.role or term != state.term:
            self._role[number] = (state.term, state.role)
            if state.role is Role.LEADER:
                known = self.leaders.setdefault(state.term, node.member_id)
                demand(known == node.member_id, f"two leaders in term {state.term}")
                self._check_complete(node, core)

    def _note_commit(self, node: SimNode, core: RaftCore, seen: int, commit: int) -> None:
        terms = self.terms
        for index in range(max(seen + 1, core.first_index), commit + 1):
            term = core.term_at(index)
            if term is None:
                continue
            if index < len(terms):
                if terms[index] not in (term, -1):
                    raise Violation(f"{node.name} committed another entry at {index}")
                terms[index] = term
                continue
            terms.extend([-1] * (index - len(terms)))
            terms.append(term)
        if core.role is Role.LEADER and commit >= len(terms) - 1:
            term = core.term_at(commit) or 0
            demand(term == core.term, "an entry of an older term was committed by counting")
            self._check_quorum(node, core, commit, term)

    def _check_quorum(self, node: SimNode, core: RaftCore, index: int, term: int) -> None:
        """No commit before a quorum has the entry on disk."""
        conf = core.conf_state
        by_id = node.cluster.network.by_id
        for voters in (conf.voters, conf.outgoing):
            if voters:
                holding = sum(voter in by_id and self._holds(by_id[voter], voter, index, term) for voter in voters)
                demand(holding * 2 > len(voters), f"entry {index} was committed without a quorum on disk")

    def _holds(self, node: SimNode, voter: int, index: int, term: int) -> bool:
        """Of a former self nobody knows any more what it had when it was counted."""
        return self.logs[node.number].has(index, term) or (node.has_rotted and node.member_id != voter)

    def _check_complete(self, node: SimNode, core: RaftCore) -> None:
        """A new leader has every committed entry (paper 5.4)."""
        last = len(self.terms) - 1
        demand(core.last_index >= last, f"the new leader {node.name} lacks the committed entry {last}")
        for index in range(max(core.first_index, last - 200), last + 1):
            if self.terms[index] >= 0:
                demand(core.term_at(index) == self.terms[index], f"the new leader {node.name} lacks entry {index}")

    # --- storage ---

    def watch_storage(self, node: SimNode, service: Service) -> None:
        """State machine safety: every member applies the same entries in the same order."""
        apply = service._apply
        marks = service.state.database.marks
        chain = self.chain

        def applied(body: bytes) -> None:
            index, term, _kind = ENTRY.unpack_from(body)
            before = marks.applied_index
            if index > before:
                if index >= len(self.terms):
                    raise Violation(f"{node.name} applies entry {index}, which is not committed")
                if self.terms[index] not in (term, -1):
                    raise Violation(f"{node.name} applies another entry {index}")
                if index - 1 in chain:
                    value = crc32(body, chain[index - 1])
                    if chain.setdefault(index, value) != value:
                        raise Violation(f"{node.name} applies other bytes at {index}")
            rows = service.state.database.pending
            count = len(rows)
            apply(body)
            demand(marks.applied_index == max(index, before), "an entry was not applied")
            if len(rows) > count:
                self._note_rows(node, rows[count:])
            self.compact_revision = max(self.compact_revision, service.state.store.compact_revision)

        service._apply = applied  # type: ignore[method-assign]

    def _note_rows(self, node: SimNode, rows: Sequence[Row]) -> None:
        """Every member makes the same records, byte for byte; the first to do so writes the history of the store."""
        for record, previous, key, blob in rows:
            # Whether a tombstone is still there to be followed depends on how far a member has compacted.
            checksum = crc32(blob, crc32(key, 0 if previous & 1 else previous))
            known = self.records.get(record)
            if known is not None:
                if known != checksum:
                    raise Violation(f"{node.name} made another record {record:x}")
                continue
            self.records[record] = checksum
            revision = main_revision(record)
            demand(revision in (self.revision, self.revision + 1), f"{node.name} skipped a revision before {revision}")
            if revision > self.revision:
                self.revision = revision
                self.times.append(node.cluster.world.now)
            value = None
            if not record & 1:
                value = KeyValue.FromString(key_value_of(blob)).value
            self.log.append(Change(revision, key, value))
