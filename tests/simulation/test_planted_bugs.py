"""The simulation finds bugs: each of these is planted into the core, and some seed has to notice.

A simulation that never fails proves nothing. Every entry is a mistake made in some Raft implementation before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from quorate.consensus.raft import core, election, quorum, replication
from quorate.consensus.raft.durability import Durability
from quorate.consensus.raft.log import RaftLog
from quorate.consensus.raft.messages import (
    Append,
    AppendAck,
    ConfState,
    Entry,
    HeartbeatAck,
    InstallSnapshot,
    Message,
    ReadReq,
    ReadResp,
    Role,
    Vote,
    VoteResp,
)
from quorate.consensus.raft.state import State
from tests.simulation.test_raft_cluster import run_seed

SEEDS_MAX = 500

Plant = Callable[[pytest.MonkeyPatch], None]


def commits_old_terms_by_counting(patch: pytest.MonkeyPatch) -> None:
    def maybe_commit(state: State) -> None:
        index = quorum.agreed_value(state.conf, {m: p.match_index for m, p in state.progress.items()})
        state.advance_commit(index)

    patch.setattr(replication, "maybe_commit", maybe_commit)


def sends_votes_before_they_are_durable(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(State, "hold", lambda state, message: state.messages.append(message))


def acknowledges_before_the_disk_is_done(patch: pytest.MonkeyPatch) -> None:
    def maybe_acknowledge(state: State) -> None:
        state.messages.append(AppendAck(state.id, state.leader_id, state.term, state.verified_index))
        state.ack_due = False

    patch.setattr(replication, "maybe_acknowledge", maybe_acknowledge)


def leader_counts_itself_before_its_disk_is_done(patch: pytest.MonkeyPatch) -> None:
    original = State.append_own

    def append_own(state: State, kind: int, payload: bytes) -> int:
        index = original(state, kind, payload)
        state.progress[state.id].maybe_advance(index)
        return index

    patch.setattr(State, "append_own", append_own)


def confirms_reads_without_asking(patch: pytest.MonkeyPatch) -> None:
    original = replication.start_reads

    def start_reads(state: State) -> None:
        original(state)
        for progress in state.progress.values():
            progress.read_seq = state.read_rounds.seq
        replication.confirm_reads(state)

    patch.setattr(replication, "start_reads", start_reads)


def takes_any_late_answer_for_a_confirmation(patch: pytest.MonkeyPatch) -> None:
    original = replication.on_heartbeat_ack

    def on_heartbeat_ack(state: State, message: HeartbeatAck) -> None:
        original(state, message._replace(read_seq=state.read_rounds.seq))

    patch.setitem(core._STEPS, HeartbeatAck, on_heartbeat_ack)


def serves_reads_before_the_no_op_is_committed(patch: pytest.MonkeyPatch) -> None:
    original = replication.start_reads

    def start_reads(state: State) -> None:
        start, state.term_start_index = state.term_start_index, 0
        original(state)
        state.term_start_index = start

    patch.setattr(replication, "start_reads", start_reads)


def answers_followers_without_a_quorum(patch: pytest.MonkeyPatch) -> None:
    def on_read_req(state: State, message: ReadReq) -> None:
        if state.role is Role.LEADER and state.commit_index >= state.term_start_index:
            answer = ReadResp(state.id, message.from_id, state.term, message.ctx, state.commit_index)
            state.messages.append(answer)

    patch.setitem(core._STEPS, ReadReq, on_read_req)


def votes_for_incomplete_logs(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(election, "_is_up_to_date", lambda state, message: True)


def votes_twice_in_a_term(patch: pytest.MonkeyPatch) -> None:
    def on_vote(state: State, message: Message) -> None:
        state.hold(VoteResp(state.id, message.from_id, state.term, True))

    patch.setitem(core._STEPS, Vote, on_vote)
    patch.setattr("tests.simulation.invariants.check_promise", lambda member, message: None)


def replaces_entries_that_are_equal(patch: pytest.MonkeyPatch) -> None:
    def new_entries(log: RaftLog, entries: Sequence[Entry]) -> Sequence[Entry]:
        return entries

    patch.setattr(RaftLog, "new_entries", new_entries)


def commits_what_it_has_not_compared(patch: pytest.MonkeyPatch) -> None:
    original = replication.on_append

    def on_append(state: State, message: Any) -> None:
        original(state, message)
        state.advance_commit(min(message.commit, state.log.last_index))

    patch.setitem(core._STEPS, Append, on_append)


def old_write_vouches_for_a_new_entry(patch: pytest.MonkeyPatch) -> None:
    def truncate(durability: Durability, index: int) -> None:
        durability.written_index = min(durability.written_index, index - 1)
        durability.stable_index = min(durability.stable_index, index - 1)

    patch.setattr(Durability, "truncate", truncate)


def ignores_the_old_half_of_a_joint_configuration(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(replication, "agreed_value", lambda c, v: quorum.agreed_value(ConfState(c.voters), v))
    patch.setattr(election, "vote_result", lambda c, v: quorum.vote_result(ConfState(c.voters), v))


def takes_over_old_snapshots(patch: pytest.MonkeyPatch) -> None:
    def on_install_snapshot(state: State, message: InstallSnapshot) -> None:
        replication.hear_leader(state, message.from_id)
        state.commit_index = min(state.commit_index, message.snapshot.index - 1)
        state.restore(message.snapshot)
        state.verified_index = message.snapshot.index
        state.ack_due = True

    patch.setitem(core._STEPS, InstallSnapshot, on_install_snapshot)


MEMBERSHIP = ("change", "partition", "crash")

PLANTED: list[tuple[Plant, tuple[str, ...]]] = [
    (commits_old_terms_by_counting, ()),
    (sends_votes_before_they_are_durable, ()),
    (acknowledges_before_the_disk_is_done, ()),
    (leader_counts_itself_before_its_disk_is_done, ()),
    (confirms_reads_without_asking, ()),
    (takes_any_late_answer_for_a_confirmation, ()),
    (serves_reads_before_the_no_op_is_committed, ()),
    (answers_followers_without_a_quorum, ("partition",)),
    (votes_for_incomplete_logs, ()),
    (votes_twice_in_a_term, ()),
    (replaces_entries_that_are_equal, ()),
    (commits_what_it_has_not_compared, ()),
    (old_write_vouches_for_a_new_entry, ()),
    (ignores_the_old_half_of_a_joint_configuration, MEMBERSHIP),
    (takes_over_old_snapshots, ()),
]


@pytest.mark.parametrize(("plant", "kinds"), PLANTED, ids=lambda value: getattr(value, "__name__", ""))
def test_planted_bug_is_found(plant: Plant, kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    for seed in range(SEEDS_MAX):
        try:
            run_seed(seed, kinds)
        except AssertionError:
            return
    pytest.fail(f"no seed of {SEEDS_MAX} noticed")
