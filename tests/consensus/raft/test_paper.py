"""Rules of the Raft paper (and Ongaro's thesis), each test with its section."""

from __future__ import annotations

import pytest

from quorate.consensus.raft.messages import (
    Append,
    AppendAck,
    AppendReject,
    Commit,
    ConfState,
    EntryKind,
    Heartbeat,
    HeartbeatAck,
    InstallSnapshot,
    PreVote,
    PreVoteResp,
    Role,
    SnapshotMeta,
    TimeoutNow,
    Vote,
    VoteResp,
)
from tests.consensus.raft.cores import (
    THREE,
    entries_of,
    make_core,
    make_leader,
    messages_of,
    reply,
    settle,
)


def test_5_1_higher_term_turns_everybody_into_a_follower() -> None:
    leader = make_leader()
    leader.step(Append(2, 1, 5, 0, 0, 0, ()))
    assert (leader.role, leader.term, leader.leader_id) == (Role.FOLLOWER, 5, 2)


def test_5_1_message_of_an_older_term_is_not_obeyed() -> None:
    core = make_core(term=4)
    assert reply(core, Append(2, 1, 3, 0, 0, 0, entries_of([3]))) == [HeartbeatAck(1, 2, 4, 0)]
    assert core.last_index == 0


def test_5_1_term_and_vote_are_durable_before_the_answer() -> None:
    core = make_core()
    core.step(Vote(2, 1, 3, 0, 0, False))
    ready = core.ready()
    assert ready is not None
    assert ready.must_sync
    assert ready.hard_state is not None
    assert (ready.hard_state.term, ready.hard_state.vote) == (3, 2)
    assert ready.messages == []
    core.on_persisted(ready.number)
    assert messages_of(settle(core)) == [VoteResp(1, 2, 3, True)]


def test_5_2_follower_campaigns_after_its_election_timeout() -> None:
    core = make_core()
    ticks = 0
    while core.role is Role.FOLLOWER:
        core.tick()
        ticks += 1
    assert 10 <= ticks < 20
    assert core.term == 1


def test_5_2_election_timeouts_are_spread() -> None:
    def timeout(core_seed: int) -> int:
        core = make_core()
        for _ in range(core_seed):
            core.step(Heartbeat(2, 1, core.term + 1, 0, 0))  # a new term draws a new timeout
        ticks = 0
        while core.role is Role.FOLLOWER:
            core.tick()
            ticks += 1
        return ticks

    assert len({timeout(seed) for seed in range(1, 30)}) > 5


def test_5_2_heartbeats_keep_a_follower_quiet() -> None:
    core = make_core(term=1)
    for _ in range(50):
        core.tick()
        core.step(Heartbeat(2, 1, 1, 0, 0))
    assert core.role is Role.FOLLOWER


def test_5_2_one_vote_per_term_first_come_first_served() -> None:
    core = make_core()
    assert reply(core, Vote(2, 1, 1, 0, 0, False)) == [VoteResp(1, 2, 1, True)]
    assert reply(core, Vote(3, 1, 1, 0, 0, False)) == [VoteResp(1, 3, 1, False)]
    assert reply(core, Vote(2, 1, 1, 0, 0, False)) == [VoteResp(1, 2, 1, True)]


def test_5_2_who_has_voted_waits_a_whole_timeout_for_the_candidate() -> None:
    core = make_core(term=1)
    for _ in range(9):
        core.tick()
    assert reply(core, Vote(2, 1, 1, 0, 0, False)) == [VoteResp(1, 2, 1, True)]
    for _ in range(9):
        core.tick()
    assert (core.role, core.term) == (Role.FOLLOWER, 1)


def test_5_2_vote_survives_a_restart() -> None:
    core = make_core(term=1, vote=2)
    assert reply(core, Vote(3, 1, 1, 0, 0, False)) == [VoteResp(1, 3, 1, False)]


def test_5_2_candidate_yields_to_the_leader_of_its_term() -> None:
    core = make_core()
    core.campaign()
    settle(core)
    core.step(Append(2, 1, core.term, 0, 0, 0, ()))
    assert (core.role, core.leader_id) == (Role.FOLLOWER, 2)


@pytest.mark.parametrize(("yes", "no", "role"), [(1, 0, "leader"), (0, 2, "follower"), (0, 1, "candidate")])
def test_5_2_majority_decides_the_election(yes: int, no: int, role: str) -> None:
    core = make_core()
    core.campaign()
    settle(core)
    for voter, granted in zip((2, 3), [True] * yes + [False] * no, strict=False):
        core.step(VoteResp(voter, 1, core.term, granted))
    assert core.role.value == role


def test_5_2_own_vote_counts_only_when_it_is_durable() -> None:
    core = make_core()
    core.campaign()
    ready = core.ready()
    assert ready is not None
    core.step(VoteResp(2, 1, core.term, True))
    assert core.role is Role.CANDIDATE
    core.on_persisted(ready.number)
    assert core.role.value == "leader"


def test_5_2_an_earlier_write_that_is_durable_says_nothing_of_the_vote() -> None:
    core = make_core(term=1)
    core.step(Append(3, 1, 1, 0, 0, 0, entries_of([1])))
    earlier = core.ready()
    assert earlier is not None
    core.campaign()
    core.step(VoteResp(2, 1, core.term, True))
    core.on_persisted(earlier.number)
    assert (core.role, core.term) == (Role.CANDIDATE, 2)
    settle(core)
    assert core.role.value == "leader"


def test_5_3_leader_sends_new_entries_to_all_and_commits_with_a_majority() -> None:
    leader = make_leader()
    leader.propose(b"x")
    sent = messages_of(settle(leader))
    assert not [m for m in sent if isinstance(m, Commit)]
    assert leader.commit_index == 0
    leader.step(AppendAck(2, 1, 1, 2))
    assert leader.commit_index == 2


def test_5_3_follower_refuses_entries_without_their_predecessor() -> None:
    core = make_core([1, 1])
    assert reply(core, Append(2, 1, 2, 5, 2, 0, ())) == [AppendReject(1, 2, 2, 5, 2, 1)]


@pytest.mark.parametrize(
    "log",
    [
        [1, 1, 1, 4, 4, 5, 5, 6, 6],
        [1, 1, 1, 4],
        [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        [1, 1, 1, 4, 4, 4, 4],
        [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ],
    ids="abcdef",
)
def test_5_3_figure_7_leader_brings_every_follower_to_its_own_log(log: list[int]) -> None:
    leader_log = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]
    leader = make_leader(leader_log, term=7)
    follower = make_core(log, term=max(log[-1], 7))
    for _ in range(20):
        leader.tick()
        for message in messages_of(settle(leader)):
            if message.to_id == 2:
                for answer in reply(follower, message):
                    leader.step(answer._replace(from_id=2))
    assert follower.last_index == leader.last_index == 11
    terms = [follower.term_at(index) for index in range(1, 12)]
    assert [*leader_log, leader.term] == terms


def test_5_3_reject_skips_a_whole_term_at_a_time() -> None:
    follower = make_core([1] + [2] * 50)
    (answer,) = reply(follower, Append(2, 1, 4, 51, 3, 0, ()))
    assert isinstance(answer, AppendReject)
    leader = make_leader([1] * 2 + [3] * 49)
    leader.step(AppendReject(2, 1, leader.term, 51, answer.hint_index, answer.hint_term))
    assert leader.progress()[2].next_index == 3


def test_5_3_conflicting_entries_are_replaced_and_equal_ones_kept() -> None:
    core = make_core([1, 1, 2, 2], term=3)
    core.step(Append(2, 1, 3, 1, 1, 0, entries_of([1, 3], 2)))
    assert [core.term_at(index) for index in range(1, 5)] == [1, 1, 3, None]


def test_5_3_old_append_does_not_shorten_the_log() -> None:
    core = make_core([1, 1, 1])
    assert reply(core, Append(2, 1, 1, 0, 0, 0, entries_of([1]))) == [AppendAck(1, 2, 1, 1)]
    assert core.last_index == 3


def test_5_3_follower_commits_no_further_than_it_agrees_with_the_leader() -> None:
    core = make_core([1, 1, 1])
    core.step(Append(2, 1, 1, 1, 1, 9, entries_of([1], 2)))
    assert core.commit_index == 2


def test_5_3_what_equals_an_earlier_leaders_log_is_not_known_to_equal_the_next_ones() -> None:
    core = make_core([1, 1, 1])
    assert reply(core, Append(2, 1, 1, 3, 1, 0, ())) == [AppendAck(1, 2, 1, 3)]
    assert reply(core, Append(3, 1, 2, 1, 1, 0, ())) == [AppendAck(1, 3, 2, 1)]


def test_5_3_acknowledgement_waits_for_the_disk() -> None:
    core = make_core()
    core.step(Append(2, 1, 1, 0, 0, 0, entries_of([1, 1])))
    ready = core.ready()
    assert ready is not None
    assert [entry.index for entry in ready.entries] == [1, 2]
    assert ready.messages == []
    core.on_persisted(ready.number)
    assert messages_of(settle(core)) == [AppendAck(1, 2, 1, 2)]


@pytest.mark.parametrize(
    ("log", "last", "granted"),
    [
        ([1], (1, 1), True),
        ([1], (2, 1), True),
        ([1, 1], (1, 1), False),
        ([1, 1, 1], (1, 2), True),
        ([2], (9, 1), False),
    ],
)
def test_5_4_1_vote_only_for_a_log_at_least_as_complete(log: list[int], last: tuple[int, int], granted: bool) -> None:
    core = make_core(log)
    assert reply(core, Vote(2, 1, 5, *last, False)) == [VoteResp(1, 2, 5, granted)]


def test_5_4_2_entries_of_older_terms_are_not_committed_by_counting() -> None:
    leader = make_leader([1, 2])
    leader.step(AppendAck(2, 1, leader.term, 2))
    leader.step(AppendAck(3, 1, leader.term, 2))
    assert leader.commit_index == 0
    leader.step(AppendAck(2, 1, leader.term, 3))
    assert leader.commit_index == 3


def test_6_joint_configuration_needs_both_majorities() -> None:
    core = make_core(conf=ConfState((1, 2, 3), (1, 4, 5)))
    core.campaign()
    settle(core)
    core.step(VoteResp(2, 1, 1, True))
    core.step(VoteResp(3, 1, 1, True))
    assert core.role is Role.CANDIDATE
    core.step(VoteResp(4, 1, 1, True))
    settle(core)
    assert core.role.value == "leader"
    core.step(AppendAck(2, 1, 1, 1))
    assert core.commit_index == 0
    core.step(AppendAck(5, 1, 1, 1))
    assert core.commit_index == 1


def test_6_votes_are_refused_while_a_leader_lives() -> None:
    core = make_core(term=1)
    reply(core, Heartbeat(2, 1, 1, 0, 0))
    assert reply(core, Vote(3, 1, 2, 0, 0, False)) == []
    assert core.term == 1
    for _ in range(9):
        core.tick()
    assert reply(core, Vote(3, 1, 2, 0, 0, False)) == []
    core.tick()
    assert reply(core, Vote(3, 1, 2, 0, 0, False)) == [VoteResp(1, 3, 2, True)]


def test_7_snapshot_replaces_the_log() -> None:
    core = make_core([1, 1])
    core.step(InstallSnapshot(2, 1, 3, SnapshotMeta(9, 2, THREE)))
    ready = core.ready()
    assert ready is not None
    assert ready.snapshot == SnapshotMeta(9, 2, THREE)
    assert ready.messages == []
    core.on_persisted(ready.number)
    core.on_applied(9)
    assert messages_of(settle(core)) == [AppendAck(1, 2, 3, 9)]
    assert (core.first_index, core.last_index, core.commit_index) == (10, 9, 9)


def test_7_snapshot_of_a_prefix_keeps_the_entries_behind_it() -> None:
    core = make_core([1, 1, 1])
    (answer,) = reply(core, InstallSnapshot(2, 1, 1, SnapshotMeta(2, 1, THREE)))
    assert answer == AppendAck(1, 2, 1, 2)
    assert (core.last_index, core.commit_index) == (3, 2)


def test_7_old_snapshot_changes_nothing() -> None:
    core = make_core([1, 1, 1], commit=3)
    reply(core, InstallSnapshot(2, 1, 1, SnapshotMeta(2, 1, ConfState((9,)))))
    assert (core.last_index, core.conf_state) == (3, THREE)


def test_8_leader_begins_its_term_with_a_no_op() -> None:
    leader = make_core([1])
    leader.campaign()
    settle(leader)
    leader.step(VoteResp(2, 1, leader.term, True))
    appends = [m for m in messages_of(settle(leader)) if isinstance(m, Append)]
    assert [(e.index, e.term, e.kind) for m in appends for e in m.entries] == [(2, 2, EntryKind.NOOP)] * 2


def test_8_reads_wait_for_the_no_op_of_the_term() -> None:
    leader = make_leader([1])
    assert leader.read_index(5) is None
    settle(leader)
    leader.step(HeartbeatAck(2, 1, leader.term, 0))
    assert all(not ready.read_states for ready in settle(leader))
    leader.step(AppendAck(2, 1, leader.term, 2))
    settle(leader)
    leader.step(HeartbeatAck(2, 1, leader.term, 1))
    assert [(r.ctx, r.read_index) for ready in settle(leader) for r in ready.read_states] == [(5, 2)]


def test_thesis_3_10_vote_for_a_chosen_successor_ignores_the_lease() -> None:
    core = make_core(term=1)
    reply(core, Heartbeat(2, 1, 1, 0, 0))
    assert reply(core, Vote(3, 1, 2, 0, 0, True)) == [VoteResp(1, 3, 2, True)]


def test_thesis_3_10_successor_campaigns_at_once() -> None:
    core = make_core(term=1, pre_vote=1)
    reply(core, Heartbeat(2, 1, 1, 0, 0))
    sent = reply(core, TimeoutNow(2, 1, 1))
    assert sent == [Vote(1, 2, 2, 0, 0, True), Vote(1, 3, 2, 0, 0, True)]


def test_thesis_9_6_pre_vote_changes_neither_term_nor_vote() -> None:
    core = make_core(term=1)
    assert reply(core, PreVote(2, 1, 7, 0, 0)) == [PreVoteResp(1, 2, 7, True)]
    assert core.term == 1
    assert reply(core, PreVote(3, 1, 7, 0, 0)) == [PreVoteResp(1, 3, 7, True)]


def test_thesis_9_6_pre_candidate_that_loses_stays_in_its_term() -> None:
    core = make_core(term=1, pre_vote=1)
    core.campaign()
    for voter in (2, 3):
        core.step(PreVoteResp(voter, 1, 1, False))
    assert (core.role, core.term) == (Role.FOLLOWER, 1)


def test_thesis_9_6_answer_to_an_earlier_pre_vote_counts_no_more() -> None:
    core = make_core(term=5, pre_vote=1)
    core.campaign()
    core.step(PreVoteResp(2, 1, 5, True))  # asked before this member came to term 5
    assert core.role is Role.PRE_CANDIDATE
    core.step(PreVoteResp(2, 1, 6, True))
    assert core.role.value == "candidate"


def test_learner_neither_campaigns_nor_counts() -> None:
    learner = make_core(conf=ConfState((2, 3), (), (1,)))
    for _ in range(40):
        learner.tick()
    learner.campaign()
    assert learner.role is Role.FOLLOWER
    leader = make_core(conf=ConfState((1, 2), (), (3,)))
    leader.campaign()
    settle(leader)
    leader.step(VoteResp(3, 1, 1, True))
    assert leader.role is Role.CANDIDATE
