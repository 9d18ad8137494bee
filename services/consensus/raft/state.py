"""Everything one member knows, and how it changes its role.

`election`, `replication` and `core` work on this one object; nothing else does. It does no I/O: what it wants
done collects in lists that `core.RaftCore.ready` hands to the host.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from quorate.consensus.raft import confchange
from quorate.consensus.raft.confchange import ConfHistory
from quorate.consensus.raft.durability import Durability
from quorate.consensus.raft.log import RaftLog
from quorate.consensus.raft.messages import (
    NOBODY,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    Message,
    RaftConfig,
    ReadState,
    Refusal,
    Role,
    SnapshotMeta,
)
from quorate.consensus.raft.progress import Progress
from quorate.consensus.raft.read_index import ReadRequests, ReadRounds

_ALL_BYTES = 1 << 62
_CTX_RANGE = 1 << 62


class Dice(Protocol):
    """The only source of chance; a seeded random.Random in practice."""

    def randrange(self, stop: int, /) -> int:
        """A number in [0, stop)."""


class State:
    """Invariant: applied_index <= handed_index <= commit_index <= log.last_index.

    Entries handed to storage are also durable here: handed_index <= durability.stable_index at that moment.
    """

    __slots__ = (
        "ack_due",
        "acked_index",
        "applied_index",
        "commit_index",
        "conf_changed",
        "conf_finished",
        "conf_open",
        "config",
        "confs",
        "dice",
        "durability",
        "election_elapsed",
        "election_timeout",
        "handed",
        "handed_bytes",
        "handed_index",
        "heartbeat_elapsed",
        "id",
        "leader_id",
        "log",
        "messages",
        "progress",
        "read_requests",
        "read_rounds",
        "read_states",
        "refused_proposals",
        "refused_reads",
        "restored",
        "role",
        "send_due",
        "snapshot_peers",
        "term",
        "term_start_index",
        "transferee",
        "uncommitted_bytes",
        "verified_index",
        "vote",
        "votes",
    )

    def __init__(
        self,
        config: RaftConfig,
        hard_state: HardState,
        log: RaftLog,
        conf: ConfState,
        applied: int,
        dice: Dice,
    ):
        self.config = config
        self.id = config.id
        self.dice = dice
        self.log = log
        self.confs = ConfHistory(conf, log.cached_index)
        self.durability = Durability(hard_state.term, hard_state.vote, log.last_index)

        self.term = hard_state.term
        self.vote = hard_state.vote
        self.commit_index = max(hard_state.commit, applied, log.cached_index)
        self.applied_index = applied  # storage reported it
        self.handed_index = applied  # handed to storage
        self.handed: deque[tuple[int, int]] = deque()  # (last index, bytes) handed and not yet applied
        self.handed_bytes = 0

        self.role = Role.FOLLOWER
        self.leader_id = NOBODY
        self.election_elapsed = 0  # ticks since we heard of the leader; on the leader since the quorum check
        self.heartbeat_elapsed = 0
        self.election_timeout = 0
        self.votes: dict[int, bool] = {}

        self.verified_index = 0  # follower: our log equals the leader's up to here
        self.acked_index = 0  # follower: told the leader so, in this term
        self.ack_due = False

        self.progress: dict[int, Progress] = {}  # leader: all members, itself included
        self.term_start_index = 0  # leader: index of the no-op its term begins with
        self.uncommitted_bytes = 0  # leader
        self.transferee = NOBODY  # leader: whom it hands over to
        self.send_due = False  # leader: somebody may be owed an Append
        self.conf_open = False  # leader: a configuration change is not finished
        self.conf_finished = False  # leader: it was just committed; leavers may go when they were told

        self.read_rounds = ReadRounds(config.read_rounds_max)
        self.read_requests = ReadRequests(dice.randrange(_CTX_RANGE))

        self.messages: list[Message] = []
        self.read_states: list[ReadState] = []
        self.refused_reads: list[tuple[int, Refusal]] = []
        self.refused_proposals: list[tuple[int, Refusal]] = []
        self.snapshot_peers: list[int] = []
        self.restored: SnapshotMeta | None = None
        self.conf_changed = True
        assert self.commit_index <= log.last_index, "the log lost committed entries"
        self.note_configurations(log.entries(log.cached_index + 1, log.last_index, _ALL_BYTES))
        self._draw_election_timeout()

    @property
    def conf(self) -> ConfState:
        """The configuration in force: the last one in the log, committed or not (paper section 6)."""
        return self.confs.current

    def is_promotable(self) -> bool:
        """True if this member may campaign.

        A voter whose removal is in its log but not known to be committed still may: it can be the only one with a
        log complete enough to be elected, and will commit its own removal (thesis 4.2.2).
        """
        confs = self.confs
        if confs.current.is_voter(self.id):
            return True
        return confs.current_index > self.commit_index and confs.at(self.commit_index).is_voter(self.id)

    def hold(self, message: Message) -> None:
        """Sends `message` once the term and vote it speaks of, and the log as it is now, are durable."""
        durability = self.durability
        is_known = (durability.term, durability.vote) == (self.term, self.vote)
        if is_known and durability.is_idle() and durability.written_index == self.log.last_index:
            self.messages.append(message)
        else:
            durability.hold(message)

    # Roles

    def _enter_term(self, term: int) -> None:
        if term != self.term:
            assert term > self.term
            self.term = term
            self.vote = NOBODY
            self.verified_index = self.acked_index = 0
            self.ack_due = False
        self.election_elapsed = self.heartbeat_elapsed = 0
        self._draw_election_timeout()
        self.votes = {}
        self.progress = {}
        self.transferee = NOBODY
        self.uncommitted_bytes = 0
        self.send_due = self.conf_open = self.conf_finished = False

    def _draw_election_timeout(self) -> None:
        base = self.config.election_ticks
        self.election_timeout = base + self.dice.randrange(base)

    def follow(self, leader_id: int) -> None:
        """Notes who leads; reads that waited for somebody else are refused."""
        if leader_id == self.leader_id:
            return
        self.leader_id = leader_id
        reads = self.read_rounds.reset() + self.read_requests.reset()
        self.refused_reads += [(ctx, Refusal.LEADER_CHANGED) for ctx in reads]

    def become_follower(self, term: int, leader_id: int) -> None:
        """Enters `term` if it is a new one, and follows."""
        self._enter_term(term)
        self.role = Role.FOLLOWER
        self.follow(leader_id)

    def become_pre_candidate(self) -> None:
        """Neither term nor vote change (thesis 9.6)."""
        assert self.role is not Role.LEADER
        self._enter_term(self.term)
        self.role = Role.PRE_CANDIDATE
        self.follow(NOBODY)

    def become_candidate(self) -> None:
        """Enters the next term and votes for itself (paper section 5.2)."""
        assert self.role is not Role.LEADER
        self._enter_term(self.term + 1)
        self.vote = self.id
        self.role = Role.CANDIDATE
        self.follow(NOBODY)

    def become_leader(self) -> None:
        """Starts the term with a no-op; nothing of older terms is committed before it (paper 5.4.2, 8)."""
        assert self.role is Role.CANDIDATE
        self._enter_term(self.term)
        self.role = Role.LEADER
        self.follow(self.id)
        self._sync_progress()
        self.progress[self.id].match_index = self.durability.stable_index
        unknown = self.log.entries(self.commit_index + 1, self.log.last_index, _ALL_BYTES)
        self.uncommitted_bytes = sum(len(entry.payload) for entry in unknown)
        self.conf_open = self.conf.is_joint or self.confs.current_index > self.commit_index
        self.term_start_index = self.append_own(EntryKind.NOOP, b"")

    # The log

    def append_own(self, kind: int, payload: bytes) -> int:
        """The leader adds an entry; returns its index."""
        index = self.log.last_index + 1
        entry = Entry(index, self.term, kind, payload)
        self.log.append(entry)
        self.uncommitted_bytes += len(payload)
        self.send_due = True
        if kind == EntryKind.CONF:
            self.note_configurations((entry,))
        return index

    def append_received(self, entries: Sequence[Entry]) -> None:
        """A follower takes over the leader's entries, replacing what conflicts (paper 5.3)."""
        first = entries[0].index
        if first <= self.log.last_index:
            assert first > self.commit_index, "a leader without a committed entry"
            self.log.truncate(first)
            self.durability.truncate(first)
            if self.confs.maybe_truncate(first):
                self.conf_changed = True
        self.log.extend(entries)
        self.note_configurations(entries)

    def note_configurations(self, entries: Sequence[Entry]) -> None:
        """Configurations among new entries are in force at once."""
        for entry in entries:
            if entry.kind == EntryKind.CONF:
                self.confs.append(entry.index, confchange.decode(entry.payload)[0])
                self.conf_changed = True
                if self.role is Role.LEADER:
                    self.conf_open = True
                    self._sync_progress()

    def _sync_progress(self) -> None:
        """New members are probed; leaving ones stay until the change is committed and they were told."""
        for member_id in self.conf.members() | {self.id}:
            if member_id not in self.progress:
                self.progress[member_id] = Progress(self.log.last_index + 1)

    def advance_commit(self, index: int) -> None:
        """The log up to `index` is committed."""
        if index <= self.commit_index:
            return
        assert index <= self.log.last_index
        if self.role is Role.LEADER:
            for entry in self.log.entries(self.commit_index + 1, index, _ALL_BYTES):
                self.uncommitted_bytes -= len(entry.payload)
        self.commit_index = index
        if self.conf_open and self.confs.current_index <= index:
            self._continue_conf_change()

    def _continue_conf_change(self) -> None:
        if self.conf.is_joint:
            # A change inherited from another leader waits for our own term's no-op: before it, nothing tells that
            # this commit index is current.
            if self.commit_index >= self.term_start_index > 0:
                self.append_own(EntryKind.CONF, confchange.encode(confchange.leave(self.conf)))
        else:
            self.conf_open = False
            self.conf_finished = True

    def restore(self, snapshot: SnapshotMeta) -> None:
        """The whole log is replaced by a snapshot that is ahead of everything committed here."""
        assert snapshot.index > self.commit_index
        self.log.restore(snapshot.index, snapshot.term)
        self.durability.restore(snapshot.index)
        self.confs = ConfHistory(snapshot.conf_state, snapshot.index)
        self.conf_changed = True
        self.commit_index = self.handed_index = snapshot.index
        self.handed.clear()
        self.handed_bytes = 0
        self.restored = snapshot
