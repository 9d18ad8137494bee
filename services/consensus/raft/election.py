"""Who leads: timeouts, pre-votes, votes, the leader's check of its quorum, the hand-over (paper 5.2)."""

from __future__ import annotations

from quorate.consensus.raft.messages import (
    NOBODY,
    TERM_MAX,
    PreVote,
    PreVoteResp,
    Refusal,
    Role,
    TimeoutNow,
    Vote,
    VoteResp,
)
from quorate.consensus.raft.quorum import VoteResult, vote_result
from quorate.consensus.raft.state import State


def tick_follower(state: State) -> None:
    """One tick on anybody who does not lead."""
    state.election_elapsed += 1
    if state.election_elapsed >= state.election_timeout and state.is_promotable():
        state.election_elapsed = 0
        campaign(state)


def tick_leader(state: State) -> None:
    """One tick of a leader's clock of office:

    it steps down if a quorum was silent for an election timeout.
    """
    state.election_elapsed += 1
    if state.election_elapsed < state.config.election_ticks:
        return
    state.election_elapsed = 0
    state.transferee = NOBODY  # the successor had its chance (thesis 3.10)
    active = {member: progress.is_active or member == state.id for member, progress in state.progress.items()}
    if vote_result(state.conf, active) is not VoteResult.WON:
        state.become_follower(state.term, NOBODY)
        return
    for progress in state.progress.values():
        progress.is_active = False


def has_lease(state: State) -> bool:
    """True while this member has a live leader, whom nobody may replace without its leave (thesis 4.2.3)."""
    return state.leader_id != NOBODY and state.election_elapsed < state.config.election_ticks


def campaign(state: State, transfer: bool = False) -> None:
    """Starts an election, with a pre-vote first unless the leader itself ordered it."""
    if state.role is Role.LEADER or not state.is_promotable() or state.term >= TERM_MAX:
        return
    if state.config.pre_vote and not transfer:
        _ask_before(state)
    else:
        _stand(state, transfer)


def _ask_before(state: State) -> None:
    state.become_pre_candidate()
    state.votes = {state.id: True}
    log = state.log
    for voter in _other_voters(state):
        state.messages.append(PreVote(state.id, voter, state.term + 1, log.last_index, log.last_term))
    _count(state)


def _stand(state: State, transfer: bool) -> None:
    """Asks for votes. Everything in it waits for the disk.

    The request too: a candidate that forgot in a crash how long its log was must not collect the votes it got
    for the longer one. Its own vote is counted by `note_durable_vote`.
    """
    state.become_candidate()
    log = state.log
    for voter in _other_voters(state):
        state.hold(Vote(state.id, voter, state.term, log.last_index, log.last_term, transfer))


def _other_voters(state: State) -> list[int]:
    voters = {*state.conf.voters, *state.conf.outgoing}
    return sorted(voters - {state.id})


def note_durable_vote(state: State) -> None:
    """Counts a candidate's vote for itself once it is on its disk."""
    durability = state.durability
    if (durability.term, durability.vote) == (state.term, state.id) and state.id not in state.votes:
        state.votes[state.id] = True
        _count(state)


def _count(state: State) -> None:
    result = vote_result(state.conf, state.votes)
    if result is VoteResult.LOST:
        state.become_follower(state.term, NOBODY)
    elif result is VoteResult.WON:
        if state.role is Role.PRE_CANDIDATE:
            _stand(state, transfer=False)
        else:
            state.become_leader()


def _is_up_to_date(state: State, message: Vote | PreVote) -> bool:
    """The candidate's log is at least as complete as ours (paper 5.4.1)."""
    return (message.last_term, message.last_index) >= (state.log.last_term, state.log.last_index)


def on_pre_vote(state: State, message: PreVote) -> None:
    """Answers at once: nothing changes here, so nothing has to be durable."""
    free = state.vote == NOBODY and state.leader_id == NOBODY
    granted = (message.term > state.term or free or state.vote == message.from_id) and _is_up_to_date(state, message)
    term = message.term if granted else state.term
    state.messages.append(PreVoteResp(state.id, message.from_id, term, granted))


def on_vote(state: State, message: Vote) -> None:
    """One vote per term, first come first served, for a complete log only (paper 5.2, 5.4.1)."""
    free = state.vote == NOBODY and state.leader_id == NOBODY
    granted = (free or state.vote == message.from_id) and _is_up_to_date(state, message)
    if granted:
        state.vote = message.from_id
        state.election_elapsed = 0
    state.hold(VoteResp(state.id, message.from_id, state.term, granted))


def on_pre_vote_resp(state: State, message: PreVoteResp) -> None:
    """Counts an answer to the pre-vote under way."""
    if state.role is not Role.PRE_CANDIDATE or message.term != state.term + message.granted:
        return
    state.votes.setdefault(message.from_id, message.granted)
    _count(state)


def on_vote_resp(state: State, message: VoteResp) -> None:
    """Counts an answer to the election under way."""
    if state.role is Role.CANDIDATE:
        state.votes.setdefault(message.from_id, message.granted)
        _count(state)


def transfer_leader(state: State, transferee: int) -> Refusal | None:
    """Begins the hand-over: no more proposals, and TimeoutNow as soon as the successor has everything."""
    if state.role is not Role.LEADER:
        return Refusal.NOT_LEADER
    if transferee not in state.conf.voters:
        return Refusal.UNKNOWN_MEMBER
    if transferee == state.id or transferee == state.transferee:
        return None
    state.transferee = transferee
    state.election_elapsed = 0
    state.send_due = True
    maybe_hand_over(state)
    return None


def maybe_hand_over(state: State) -> None:
    """Tells the successor to campaign if its log is complete."""
    progress = state.progress.get(state.transferee)
    if progress is not None and progress.match_index == state.log.last_index:
        state.messages.append(TimeoutNow(state.id, state.transferee, state.term))


def on_timeout_now(state: State, message: TimeoutNow) -> None:
    """The leader chose this member as its successor."""
    if state.role is Role.FOLLOWER:
        campaign(state, transfer=True)
