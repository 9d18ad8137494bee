"""The Raft core as its host sees it: messages, ticks and wishes in, Readys out.

Deterministic and without I/O: the same calls in the same order give the same Readys. The host's loop is

    core.tick() / core.step(message) / core.propose(payload) / core.read_index(ctx)    any number of them,
    then while (ready := core.ready()) is not None: send ready.messages write ready.snapshot, hard_state and
    entries if ready.must_sync hand ready.committed to storage, answer ready.read_states, ready.refused_* ...
    later, in the order in which the disk and storage finish: core.on_persisted(ready.number)
    core.on_applied(index)

and nothing in it has to wait for anything else: the next Ready may be taken while the disk still writes the
last. Safety does not depend on the host's order of sending, because the core itself keeps back every vote and
every acknowledgement until the write it speaks of is reported durable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from quorate.consensus.raft import admission, election, replication
from quorate.consensus.raft.admission import offer
from quorate.consensus.raft.duties import Duties
from quorate.consensus.raft.log import LogStorage, RaftLog
from quorate.consensus.raft.messages import (
    NOBODY,
    TERM_MAX,
    Append,
    AppendAck,
    AppendReject,
    Commit,
    ConfChange,
    ConfState,
    Entry,
    EntryKind,
    Forward,
    ForwardRefused,
    HardState,
    Heartbeat,
    HeartbeatAck,
    ImpossibleMessage,
    InstallSnapshot,
    Message,
    PreVote,
    PreVoteResp,
    RaftConfig,
    ReadReq,
    ReadResp,
    Ready,
    Refusal,
    Role,
    TimeoutNow,
    Vote,
    VoteResp,
)
from quorate.consensus.raft.progress import Progress
from quorate.consensus.raft.state import Dice, State

_NEW = HardState()
_NO_MEMBERS = ConfState()

# Only the leader of a term sends these in it.
_FROM_LEADER = (Append, Heartbeat, Commit, InstallSnapshot, TimeoutNow, ReadResp)


class RaftCore:
    """One member's share in the agreement on the order of writes."""

    __slots__ = ("_duties", "_state")

    def __init__(
        self,
        config: RaftConfig,
        rng: Dice,
        *,
        hard_state: HardState = _NEW,
        conf_state: ConfState = _NO_MEMBERS,
        base_index: int = 0,
        base_term: int = 0,
        entries: Sequence[Entry] = (),
        storage: LogStorage | None = None,
        applied_index: int = 0,
    ):
        """Starts as a follower from what the disk holds.

        `entries` is the end of the log, after (base_index, base_term), where base_index is committed: at
        least everything after hard_state.commit. `conf_state` is the configuration in force at base_index:
        from the snapshot, from `conf_state_at`, or for a new cluster its founders (the same on each of them)
        with an empty log. A member that joins starts with no voters at all and learns them from the leader.
        Committed entries are handed out from applied_index + 1 on; applied_index >= base_index unless
        `storage` has what is between.
        """
        log = RaftLog(storage, base_index, base_term, entries)
        self._state = State(config, hard_state, log, conf_state, applied_index, rng)
        self._duties = Duties(self._state, hard_state)

    # What the host may look at at any time

    @property
    def id(self) -> int:
        """This member."""
        return self._state.id

    @property
    def term(self) -> int:
        """The current term."""
        return self._state.term

    @property
    def role(self) -> Role:
        """What this member is."""
        return self._state.role

    @property
    def leader_id(self) -> int:
        """Who leads as far as known here; NOBODY if unknown."""
        return self._state.leader_id

    @property
    def first_index(self) -> int:
        """The oldest entry that can still be sent to a follower."""
        return self._state.log.first_index()

    @property
    def last_index(self) -> int:
        """The newest entry, durable or not."""
        return self._state.log.last_index

    @property
    def stable_index(self) -> int:
        """The newest entry reported durable."""
        return self._state.durability.stable_index

    @property
    def commit_index(self) -> int:
        """The newest entry known to be committed."""
        return self._state.commit_index

    @property
    def awaits_commit(self) -> bool:
        """A leader that has not committed in its term yet: more may be committed than it knows (paper 8)."""
        return self._state.role is Role.LEADER and self._state.commit_index < self._state.term_start_index

    @property
    def applied_index(self) -> int:
        """The newest entry storage reported applied."""
        return self._state.applied_index

    @property
    def is_restoring(self) -> bool:
        """A snapshot is to replace the log in the next Ready."""
        return self._state.restored is not None

    @property
    def uncommitted_bytes(self) -> int:
        """Payload bytes the leader waits for a quorum with; 0 elsewhere."""
        return self._state.uncommitted_bytes

    @property
    def transferee(self) -> int:
        """Whom this leader is handing over to; NOBODY outside a hand-over."""
        return self._state.transferee

    @property
    def conf_state(self) -> ConfState:
        """The configuration in force."""
        return self._state.conf

    def conf_state_at(self, index: int) -> ConfState:
        """The configuration in force at `index`, for a snapshot there; not before what was compacted."""
        return self._state.confs.at(index)

    def term_at(self, index: int) -> int | None:
        """Term of the entry at `index`; None if it is not (any longer) in the log."""
        return self._state.log.term(index)

    def progress(self) -> dict[int, Progress]:
        """On a leader every member as it sees it, itself included; empty elsewhere. To be read only."""
        return self._state.progress

    # Time and messages

    def tick(self) -> None:
        """One tick has passed."""
        state = self._state
        if state.role is not Role.LEADER:
            election.tick_follower(state)
            state.read_requests.tick(state.config.election_ticks // 2)
            return
        election.tick_leader(state)
        state.heartbeat_elapsed += 1
        if state.role is Role.LEADER and state.heartbeat_elapsed >= state.config.heartbeat_ticks:
            state.heartbeat_elapsed = 0
            replication.send_heartbeats(state)

    def step(self, message: Message) -> None:
        """Takes one message of another member. Loss, repetition and disorder of messages are harmless.

        Messages must be from members of this cluster and addressed to this member; the host has checked both. Raises
        ImpossibleMessage for one that contradicts what is known here: it has changed nothing but the term, if that.
        """
        state = self._state
        if message.term != state.term and not self._admit(message):
            return
        _STEPS[type(message)](state, message)

    def _admit(self, message: Message) -> bool:
        """Settles a difference of terms (paper 5.1); False if the message has nothing more to say."""
        state = self._state
        kind = type(message)
        if message.term > state.term:
            if message.term > TERM_MAX:
                raise ImpossibleMessage(f"term {message.term} is beyond all terms")
            if kind is PreVote or kind is Vote:
                # A member that heard of its leader lately helps nobody to replace it (thesis 4.2.3).
                if election.has_lease(state) and not (isinstance(message, Vote) and message.transfer):
                    return False
                if kind is PreVote:
                    return True
            elif isinstance(message, PreVoteResp) and message.granted:
                return True
            leader_id = message.from_id if kind in _FROM_LEADER else NOBODY
            state.become_follower(message.term, leader_id)
            return True
        if message.term == 0:
            return kind in (Forward, ForwardRefused, ReadReq)
        if kind is Append or kind is Heartbeat:
            # The sender no longer leads, or we are ahead after an isolation: either way it has to learn the term.
            state.messages.append(HeartbeatAck(state.id, message.from_id, state.term, 0))
        elif kind is PreVote:
            state.messages.append(PreVoteResp(state.id, message.from_id, state.term, False))
        return False

    # Wishes

    def propose(self, payload: bytes, kind: int = EntryKind.BATCH, ref: int = 0) -> Refusal | None:
        """Appends an entry, on a follower by way of its leader.

        None means it is on its way, not that it will be committed: it is lost if the leader is, and then
        nobody is told. A refusal by a remote leader comes as (ref, why) in Ready.refused_proposals.
        """
        state = self._state
        if state.role is Role.LEADER:
            return offer(state, kind, payload)
        if state.leader_id == NOBODY:
            return Refusal.NO_LEADER
        state.messages.append(Forward(state.id, state.leader_id, 0, ref, kind, payload))
        return None

    def read_index(self, ctx: int) -> Refusal | None:
        """Asks for an index at which a linearizable read is safe; on any member, learners included.

        The answer comes in Ready.read_states, or in Ready.refused_reads if the leader changed meanwhile. On a
        leader that has not yet committed in its term the read waits for it. `ctx` never leaves this member, but it
        names one read until that is answered or refused: asking again takes a new one (etcd #20418).
        """
        state = self._state
        if state.role is Role.LEADER:
            if len(state.read_rounds) >= state.config.reads_waiting_max:
                return Refusal.OVERLOADED
            state.read_rounds.add(ctx, NOBODY)
            return None
        if state.leader_id == NOBODY:
            return Refusal.NO_LEADER
        if len(state.read_requests) >= state.config.reads_waiting_max:
            return Refusal.OVERLOADED
        state.read_requests.add(ctx)
        return None

    def campaign(self) -> None:
        """Starts an election now, with a pre-vote; does nothing on a leader or a member without a vote."""
        election.campaign(self._state)

    def transfer_leader(self, to_id: int) -> Refusal | None:
        """Hands over to a voter; proposals are refused until it leads or an election timeout passed."""
        return election.transfer_leader(self._state, to_id)

    def propose_conf_change(self, changes: Sequence[ConfChange], context: bytes = b"") -> Refusal | None:
        """Changes the membership, on the leader only, one change at a time.

        If the set of voters changes, the leader enters a joint configuration and leaves it when that is committed.
        `context` travels in the first entry (confchange.decode). Ready.conf_state tells when a configuration comes into
        force; it is final when its entry is committed.
        """
        return admission.offer_conf_change(self._state, changes, context)

    # What the host reports

    def on_persisted(self, number: int) -> None:
        """Ready `number` and all before it are durable."""
        state = self._state
        state.messages += state.durability.persisted(number)
        if state.role is Role.LEADER:
            own = state.progress[state.id]
            if own.maybe_advance(state.durability.stable_index):
                replication.maybe_commit(state)
        elif state.role is Role.CANDIDATE:
            election.note_durable_vote(state)

    def on_applied(self, index: int) -> None:
        """Storage has applied everything up to `index`, which was handed to it."""
        state = self._state
        assert index <= state.handed_index, "applied what was never committed"
        state.applied_index = max(state.applied_index, index)
        handed = state.handed
        while handed and handed[0][0] <= index:
            state.handed_bytes -= handed.popleft()[1]

    def replay_from(self, applied_index: int) -> None:
        """Storage came back with everything up to `applied_index`: hand out again what follows.

        Raises ValueError if the log no longer has it, or storage is ahead of what is committed; then only a
        snapshot helps.
        """
        state = self._state
        if not state.log.first_index() - 1 <= applied_index <= state.commit_index:
            raise ValueError(f"the log cannot continue a storage at index {applied_index}")
        state.applied_index = state.handed_index = applied_index
        state.handed.clear()
        state.handed_bytes = 0

    def report_snapshot(self, member_id: int, ok: bool, index: int = 0) -> None:
        """A snapshot asked for in Ready.snapshot_peers was taken over by the member, or failed.

        `index` is the one of the snapshot sent. Until this report the member gets no entries.
        """
        replication.report_snapshot(self._state, member_id, ok, index)

    def compact(self, index: int) -> None:
        """Drops entries up to `index` from memory, as far as they are durable and committed.

        Without a storage that reads them back they are gone for followers too, so then applied ones only.
        """
        state = self._state
        settled = state.commit_index if state.log.has_storage else state.applied_index
        index = min(index, settled, state.durability.stable_index)
        state.log.compact(index)
        state.confs.compact(index)

    # Duties

    def ready(self) -> Ready | None:
        """Takes everything there is to do, or None.

        A leader's reads and sends are batched here: call it once after each batch of inputs, then until it
        returns None.
        """
        state = self._state
        if state.role is Role.LEADER:
            self._lead()
        else:
            if state.ack_due:
                replication.maybe_acknowledge(state)
            if len(state.read_requests):
                replication.ask_leader(state)
        return self._duties.take()

    def _lead(self) -> None:
        state = self._state
        if len(state.read_rounds):
            replication.start_reads(state)
        if state.send_due:
            replication.send_appends(state)
        if state.conf_finished:
            _finish_conf_change(state)


def _finish_conf_change(state: State) -> None:
    """The new configuration is committed and everybody was told: leavers go, a removed leader steps down."""
    state.conf_finished = False
    members = state.conf.members()
    for member_id in [m for m in state.progress if m not in members and m != state.id]:
        del state.progress[member_id]
    if not state.conf.is_voter(state.id):
        state.become_follower(state.term, NOBODY)
    else:
        replication.confirm_reads(state)  # whoever left answers no more


_STEPS: dict[type[Any], Callable[[State, Any], None]] = {
    Append: replication.on_append,
    AppendAck: replication.on_append_ack,
    AppendReject: replication.on_append_reject,
    Heartbeat: replication.on_heartbeat,
    HeartbeatAck: replication.on_heartbeat_ack,
    Commit: replication.on_commit,
    PreVote: election.on_pre_vote,
    PreVoteResp: election.on_pre_vote_resp,
    Vote: election.on_vote,
    VoteResp: election.on_vote_resp,
    TimeoutNow: election.on_timeout_now,
    ReadReq: replication.on_read_req,
    ReadResp: replication.on_read_resp,
    Forward: admission.on_forward,
    ForwardRefused: admission.on_forward_refused,
    InstallSnapshot: replication.on_install_snapshot,
}
