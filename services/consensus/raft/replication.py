"""How entries reach the followers and become committed (paper 5.3, 5.4.2).

Sending is lazy: proposals and acknowledgements only mark work, and one pass per Ready sends what each
follower's window allows. So everything that happened during one turn of the host's loop travels in one
message. A follower acknowledges in the same way, at most once per Ready and only what its disk has.
"""

from __future__ import annotations

from collections.abc import Sequence

from quorate.consensus.raft import confchange, election
from quorate.consensus.raft.messages import (
    INDEX_MAX,
    NOBODY,
    Append,
    AppendAck,
    AppendReject,
    Commit,
    Entry,
    EntryKind,
    Heartbeat,
    HeartbeatAck,
    ImpossibleMessage,
    InstallSnapshot,
    ReadReq,
    ReadResp,
    ReadState,
    Role,
)
from quorate.consensus.raft.progress import Progress, ProgressState
from quorate.consensus.raft.quorum import agreed_value
from quorate.consensus.raft.state import State

# Leader


def send_appends(state: State) -> None:
    """Sends every follower what it lacks, as far as its window allows."""
    state.send_due = False
    for member_id, progress in state.progress.items():
        if member_id != state.id:
            _send_to(state, member_id, progress)


def _send_to(state: State, member_id: int, progress: Progress) -> None:
    if progress.state is ProgressState.PROBE:
        if not progress.is_paused:
            _send_append(state, member_id, progress)
            progress.is_paused = True
        return
    if progress.state is ProgressState.SNAPSHOT:
        return
    config = state.config
    while (
        progress.next_index <= state.log.last_index
        and len(progress.inflights) < config.inflight_appends_max
        and progress.inflight_bytes < config.inflight_bytes_max
    ):
        if not _send_append(state, member_id, progress):
            return
    commit = min(state.commit_index, progress.match_index)
    if commit > progress.commit_sent:
        progress.commit_sent = commit
        state.messages.append(Commit(state.id, member_id, state.term, commit))


def _send_append(state: State, member_id: int, progress: Progress, is_question: bool = False) -> bool:
    """One Append from next_index on, without entries where there are none or as a mere question; False if a snapshot
    is needed instead."""
    log = state.log
    prev_index = progress.next_index - 1
    prev_term = log.term(prev_index)
    if prev_term is None or (prev_index < log.cached_index and prev_index + 1 < log.first_index()):
        if progress.is_active:
            progress.become_snapshot()
            state.snapshot_peers.append(member_id)
        return False
    last_index = log.last_index
    if is_question or prev_index == last_index:
        state.messages.append(Append(state.id, member_id, state.term, prev_index, prev_term, state.commit_index, ()))
        return True
    entries = log.entries(prev_index + 1, last_index, state.config.append_bytes_max)
    state.messages.append(Append(state.id, member_id, state.term, prev_index, prev_term, state.commit_index, entries))
    if progress.state is ProgressState.REPLICATE:
        sent_index = entries[-1].index
        progress.sent(sent_index, sum([len(entry.payload) for entry in entries]))
        progress.commit_sent = max(progress.commit_sent, min(state.commit_index, sent_index))
    return True


def on_append_ack(state: State, message: AppendAck) -> None:
    """A follower's disk has the log up to there."""
    progress = state.progress.get(message.from_id)
    if progress is None or state.role is not Role.LEADER:
        return
    match_index = message.match_index
    if match_index > state.log.last_index:
        raise ImpossibleMessage(f"index {match_index} is acknowledged, but the log ends at {state.log.last_index}")
    progress.is_active = True
    advanced = progress.maybe_advance(match_index)
    if progress.state is ProgressState.REPLICATE:
        progress.free_to(match_index)
    elif progress.state is ProgressState.PROBE:
        if advanced or match_index == progress.match_index:
            progress.become_replicate()
    elif match_index + 1 >= state.log.first_index():
        progress.become_replicate()
    state.send_due = True
    if advanced:
        if match_index > state.commit_index:
            maybe_commit(state)
        if message.from_id == state.transferee:
            election.maybe_hand_over(state)


def maybe_commit(state: State) -> None:
    """Commits what a quorum has on disk, but counts only entries of this term (paper 5.4.2, figure 8)."""
    index = agreed_value(state.conf, {m: progress.match_index for m, progress in state.progress.items()})
    if index > state.commit_index and index >= state.term_start_index:
        state.advance_commit(index)
        state.send_due = True


def on_append_reject(state: State, message: AppendReject) -> None:
    """Goes back to where the logs can be equal (paper 5.3, last paragraphs)."""
    progress = state.progress.get(message.from_id)
    if progress is None or state.role is not Role.LEADER:
        return
    progress.is_active = True
    if message.prev_index <= progress.match_index:
        return  # an old one: since then the follower acknowledged that position
    if progress.state is ProgressState.REPLICATE:
        progress.become_probe(progress.match_index + 1)
    elif progress.state is ProgressState.PROBE:
        if message.prev_index != progress.next_index - 1:
            return
        agreed = message.hint_index
        if message.hint_term:
            agreed = state.log.last_index_within_term(agreed, message.hint_term)
        progress.become_probe(min(agreed + 1, message.prev_index))
    state.send_due = True


def send_heartbeats(state: State) -> None:
    """The tick's heartbeat; its answers also uncover Appends that were lost."""
    for member_id, progress in state.progress.items():
        if member_id != state.id:
            progress.probe_due = True
            _send_heartbeat(state, member_id, progress)


def _send_heartbeat(state: State, member_id: int, progress: Progress) -> None:
    commit = min(progress.match_index, state.commit_index)
    state.messages.append(Heartbeat(state.id, member_id, state.term, commit, state.read_rounds.seq))


def on_heartbeat_ack(state: State, message: HeartbeatAck) -> None:
    """A follower is alive and knew no newer leader when that heartbeat arrived."""
    progress = state.progress.get(message.from_id)
    if progress is None or state.role is not Role.LEADER:
        return
    progress.is_active = True
    if progress.probe_due:
        progress.probe_due = False
        _look_for_losses(state, message.from_id, progress)
    if message.read_seq > progress.read_seq:
        if message.read_seq > state.read_rounds.seq:
            raise ImpossibleMessage(f"read round {message.read_seq} is confirmed before it began")
        progress.read_seq = message.read_seq
        if state.read_rounds.awaits(message.read_seq):
            confirm_reads(state)


def _look_for_losses(state: State, member_id: int, progress: Progress) -> None:
    progress.is_paused = False
    state.send_due = True
    if progress.state is not ProgressState.REPLICATE or progress.match_index >= state.log.last_index:
        return
    if len(progress.inflights) >= state.config.inflight_appends_max:
        progress.free_first()
    if progress.next_index > state.log.last_index or progress.inflight_bytes >= state.config.inflight_bytes_max:
        _send_append(state, member_id, progress, is_question=True)  # a follower that missed something rejects it


def report_snapshot(state: State, member_id: int, ok: bool, index: int) -> None:
    """Resumes sending after a snapshot, behind it if it arrived; the next answer or tick unpauses."""
    progress = state.progress.get(member_id)
    if progress is None or progress.state is not ProgressState.SNAPSHOT:
        return
    progress.become_probe(index + 1 if ok else progress.match_index + 1)
    progress.is_paused = True


# Reads


def start_reads(state: State) -> None:
    """Starts a round for the waiting reads; not before the term's no-op is committed (etcd #7331)."""
    if state.commit_index < state.term_start_index:
        return
    if not state.read_rounds.maybe_start(state.commit_index):
        return
    for member_id, progress in state.progress.items():
        if member_id != state.id and state.conf.is_voter(member_id):
            _send_heartbeat(state, member_id, progress)
    if len(state.conf.voters) == 1:
        confirm_reads(state)  # nobody else will


def confirm_reads(state: State) -> None:
    """Releases the reads of the rounds that a quorum has answered; the quorum may have changed since they began."""
    rounds = state.read_rounds
    seqs = {member: progress.read_seq for member, progress in state.progress.items()}
    seqs[state.id] = rounds.seq
    for confirmed in rounds.confirm(agreed_value(state.conf, seqs)):
        for read in confirmed.reads:
            if read.from_id == NOBODY:
                state.read_states.append(ReadState(read.ctx, confirmed.read_index))
            else:
                state.messages.append(ReadResp(state.id, read.from_id, state.term, read.ctx, confirmed.read_index))


def ask_leader(state: State) -> None:
    """A follower's question for its waiting reads."""
    if state.leader_id == NOBODY:
        return
    ctx = state.read_requests.maybe_ask(state.config.read_rounds_max)
    if ctx is not None:
        state.messages.append(ReadReq(state.id, state.leader_id, state.term, ctx))


def on_read_req(state: State, message: ReadReq) -> None:
    """Answers at once if this member and the asker are a quorum; otherwise the question joins the waiting reads.

    The asker was in this term when it asked, so after its reads began, and this member is now: no newer leader was
    elected by a quorum they belong to before the reads began. Who does not lead keeps silent: the asker learns of the
    leader and asks again.
    """
    if state.role is not Role.LEADER:
        return
    is_ready = message.term == state.term and state.commit_index >= state.term_start_index
    if is_ready and agreed_value(state.conf, {state.id: 1, message.from_id: 1}):
        answer = ReadResp(state.id, message.from_id, state.term, message.ctx, state.commit_index)
        state.messages.append(answer)
    elif len(state.read_rounds) < state.config.reads_waiting_max:
        state.read_rounds.add(message.ctx, message.from_id)


def on_read_resp(state: State, message: ReadResp) -> None:
    """The leader's answer releases the reads that waited for exactly this question."""
    for ctx in state.read_requests.answer(message.ctx):
        state.read_states.append(ReadState(ctx, message.read_index))


# Follower


def hear_leader(state: State, leader_id: int) -> None:
    """A message only the leader of this term can have sent."""
    if state.role is not Role.FOLLOWER:
        if state.role is Role.LEADER:
            raise ImpossibleMessage(f"two leaders in term {state.term}")
        state.become_follower(state.term, leader_id)
    state.election_elapsed = 0
    state.follow(leader_id)


def _check_entries(message: Append) -> None:
    """ImpossibleMessage unless these entries can stand in a log."""
    term = message.prev_term
    for entry in message.entries:
        if not term <= entry.term <= message.term or not entry.term:
            raise ImpossibleMessage(f"entry {entry.index} of term {entry.term} follows one of term {term}")
        term = entry.term
        if entry.kind != EntryKind.BATCH:
            try:
                EntryKind(entry.kind)
                if entry.kind == EntryKind.CONF:
                    confchange.decode(entry.payload)
            except ValueError as error:
                raise ImpossibleMessage(f"entry {entry.index} cannot be read: {error}") from error


def on_append(state: State, message: Append) -> None:
    """Takes over the leader's entries if the log agrees with it before them."""
    _check_entries(message)
    hear_leader(state, message.from_id)
    log = state.log
    entries: Sequence[Entry] = message.entries
    last_index = message.prev_index + len(entries)
    if message.prev_index < state.commit_index:
        settled = state.commit_index - message.prev_index
        if settled <= len(entries) and entries[settled - 1].term != log.term(state.commit_index):
            raise ImpossibleMessage(f"the committed entry {state.commit_index} is another one")
        entries = entries[settled:]
        last_index = max(last_index, state.commit_index)
    elif log.term(message.prev_index) != message.prev_term:
        hint = log.last_index_within_term(message.prev_index, message.prev_term)
        state.messages.append(
            AppendReject(state.id, message.from_id, state.term, message.prev_index, hint, log.term(hint) or 0)
        )
        return
    entries = log.new_entries(entries)
    if entries:
        state.append_received(entries)
    state.verified_index = max(state.verified_index, last_index)
    if not state.ack_due:
        # What was durable before is no news worth an answer of its own while the new entries are written.
        state.acked_index = max(state.acked_index, state.durability.stable_index)
        state.ack_due = True
    state.advance_commit(min(message.commit, last_index))


def maybe_acknowledge(state: State) -> None:
    """Tells the leader what is equal and durable; in a term that is durable too."""
    durability = state.durability
    if state.leader_id == NOBODY or durability.term != state.term:
        return
    match_index = min(durability.stable_index, state.verified_index)
    complete = match_index == state.verified_index
    if complete or match_index > state.acked_index:
        state.acked_index = match_index
        state.messages.append(AppendAck(state.id, state.leader_id, state.term, match_index))
    if complete:
        state.ack_due = False


def on_heartbeat(state: State, message: Heartbeat) -> None:
    """The leader lives; answered at once, because the answer promises nothing about the log."""
    hear_leader(state, message.from_id)
    state.advance_commit(min(message.commit, state.log.last_index))
    state.messages.append(HeartbeatAck(state.id, message.from_id, state.term, message.read_seq))


def on_commit(state: State, message: Commit) -> None:
    """More of what this member acknowledged is committed."""
    hear_leader(state, message.from_id)
    state.advance_commit(min(message.commit, state.log.last_index))


def on_install_snapshot(state: State, message: InstallSnapshot) -> None:
    """Replaces the log by a snapshot, unless the log already has what it stands for (paper section 7)."""
    hear_leader(state, message.from_id)
    snapshot = message.snapshot
    if snapshot.index > INDEX_MAX or snapshot.term > message.term:
        raise ImpossibleMessage(f"a snapshot at index {snapshot.index} of term {snapshot.term}")
    if snapshot.index > state.commit_index:
        if state.log.term(snapshot.index) == snapshot.term:
            state.advance_commit(snapshot.index)
        else:
            state.restore(snapshot)
    state.verified_index = max(state.verified_index, snapshot.index)
    state.ack_due = True
