"""What the host relies on: the disk, storage's pace, replay, limits, the log below the cache."""

from __future__ import annotations

import random

import pytest

from quorate.consensus.raft.core import RaftCore
from quorate.consensus.raft.messages import (
    Append,
    AppendAck,
    AppendReject,
    ConfChange,
    ConfChangeKind,
    Entry,
    EntryKind,
    HardState,
    Heartbeat,
    HeartbeatAck,
    RaftConfig,
    ReadReq,
    ReadResp,
    Refusal,
    Role,
    VoteResp,
)
from quorate.consensus.raft.progress import ProgressState
from tests.consensus.raft.cores import THREE, entries_of, make_core, make_leader, messages_of, reply, settle
from tests.consensus.raft.test_log import ListStorage


def test_same_index_written_three_times_is_acknowledged_only_by_the_last_write() -> None:
    core = make_core([1])
    numbers = []
    for term, entry_term in ((1, 1), (2, 2), (3, 1)):
        # A leader of term 3 whose log has the entry of term 1 replaces that of term 2.
        core.step(Append(2, 1, term, 1, 1, 0, entries_of([entry_term], 2)))
        ready = core.ready()
        assert ready is not None
        assert [entry.term for entry in ready.entries] == [entry_term]
        numbers.append(ready.number)
    sent = []
    for number in numbers:
        core.on_persisted(number)
        sent.append(messages_of(settle(core)))
    assert sent == [[], [], [AppendAck(1, 2, 3, 2)]]


def test_leader_counts_itself_only_when_its_disk_is_done() -> None:
    leader = make_leader()
    leader.propose(b"x")
    ready = leader.ready()
    assert ready is not None
    leader.step(AppendAck(2, 1, 1, 2))
    assert leader.commit_index == 1
    leader.on_persisted(ready.number)
    assert leader.commit_index == 2


def test_two_followers_are_a_quorum_without_the_leaders_disk_but_nothing_is_applied_before_it() -> None:
    leader = make_leader()
    leader.propose(b"x")
    ready = leader.ready()
    assert ready is not None
    leader.step(AppendAck(2, 1, 1, 2))
    leader.step(AppendAck(3, 1, 1, 2))
    assert leader.commit_index == 2
    assert [e.index for r in settle(leader) for e in r.committed] == [1]
    leader.on_persisted(ready.number)
    assert [e.index for r in settle(leader) for e in r.committed] == [2]


def test_several_appends_are_acknowledged_by_one_message() -> None:
    core = make_core()
    core.step(Append(2, 1, 1, 0, 0, 0, entries_of([1])))
    core.step(Append(2, 1, 1, 1, 1, 0, entries_of([1], 2)))
    assert messages_of(settle(core)) == [AppendAck(1, 2, 1, 2)]


def test_restarted_storage_gets_everything_again() -> None:
    core = make_core([1, 1, 1], commit=3)
    assert core.applied_index == 3
    core.replay_from(1)
    assert [e.index for r in settle(core) for e in r.committed] == [2, 3]
    with pytest.raises(ValueError, match="cannot continue"):
        core.replay_from(4)


def test_replay_reads_what_is_no_longer_cached() -> None:
    entries = entries_of([1, 1, 2, 2])
    core = RaftCore(
        RaftConfig(id=1),
        random.Random(1),
        hard_state=HardState(2, 0, 4),
        conf_state=THREE,
        base_index=2,
        base_term=1,
        entries=entries[2:],
        storage=ListStorage(entries),
        applied_index=0,
    )
    assert [e.index for r in settle(core) for e in r.committed] == [1, 2, 3, 4]
    core.compact(4)
    core.replay_from(1)
    assert [e.index for r in settle(core) for e in r.committed] == [2, 3, 4]


def test_follower_far_behind_is_served_from_the_disk_and_by_snapshot_when_that_ends() -> None:
    entries = entries_of([1, 1, 1, 1])
    storage = ListStorage(entries, base=1)
    core = RaftCore(
        RaftConfig(id=1, pre_vote=False),
        random.Random(1),
        hard_state=HardState(1, 0, 4),
        conf_state=THREE,
        base_index=4,
        base_term=1,
        storage=storage,
        applied_index=4,
    )
    core.campaign()
    settle(core)
    core.step(VoteResp(2, 1, core.term, True))
    settle(core)
    sent = reply(core, AppendReject(2, 1, core.term, 4, 2, 1))
    assert [[e.index for e in m.entries] for m in sent if isinstance(m, Append)] == [[3, 4]]
    core.step(AppendReject(3, 1, core.term, 4, 0, 0))
    assert [ready.snapshot_peers for ready in settle(core)] == [[3]]


def test_old_answers_neither_slow_a_follower_down_nor_ask_for_its_snapshot_again() -> None:
    leader = make_leader([1, 1, 1])
    settle(leader)
    for member_id in (2, 3):
        leader.step(AppendAck(member_id, 1, leader.term, leader.last_index))
    settle(leader)
    leader.step(AppendReject(2, 1, leader.term, 2, 1, 1))
    assert leader.progress()[2].state is ProgressState.REPLICATE
    storage = ListStorage(entries_of([1, 1, 1, 1]), base=3)
    behind = RaftCore(
        RaftConfig(id=1, pre_vote=False),
        random.Random(1),
        hard_state=HardState(1, 0, 4),
        conf_state=THREE,
        base_index=4,
        base_term=1,
        storage=storage,
        applied_index=4,
    )
    behind.campaign()
    settle(behind)
    behind.step(VoteResp(2, 1, behind.term, True))
    settle(behind)
    behind.step(AppendReject(3, 1, behind.term, 4, 0, 0))
    assert [ready.snapshot_peers for ready in settle(behind)] == [[3]]
    behind.step(AppendAck(3, 1, behind.term, 1))
    assert (behind.progress()[3].state, settle(behind)) == (ProgressState.SNAPSHOT, [])
    behind.step(AppendAck(3, 1, behind.term, 3))
    assert behind.progress()[3].state is ProgressState.REPLICATE


def test_memory_keeps_what_is_committed_and_not_yet_on_the_own_disk() -> None:
    core = RaftCore(
        RaftConfig(id=1, pre_vote=False), random.Random(1), conf_state=THREE, storage=ListStorage(entries_of([]))
    )
    core.campaign()
    settle(core)
    core.step(VoteResp(2, 1, core.term, True))
    slow = core.ready()
    assert slow is not None
    for member_id in (2, 3):
        core.step(AppendAck(member_id, 1, core.term, core.last_index))
    assert core.commit_index == core.last_index
    core.compact(core.last_index)
    core.on_persisted(slow.number)
    assert [entry.kind for ready in settle(core) for entry in ready.committed] == [EntryKind.NOOP]


def test_a_storage_is_continued_from_the_beginning_of_the_log_and_not_from_before() -> None:
    core = RaftCore(
        RaftConfig(id=1),
        random.Random(1),
        hard_state=HardState(1, 0, 4),
        conf_state=THREE,
        base_index=2,
        base_term=1,
        entries=entries_of([1, 1], first=3),
        applied_index=2,
    )
    settle(core)
    core.replay_from(2)
    assert [entry.index for ready in settle(core) for entry in ready.committed] == [3, 4]
    for index in (1, 5):
        with pytest.raises(ValueError, match="cannot continue"):
            core.replay_from(index)


def test_removed_member_hears_of_its_removal_before_it_is_left_alone() -> None:
    leader = make_leader()
    for index in (1, 2, 3):
        if index == 2:
            leader.propose_conf_change([ConfChange(ConfChangeKind.REMOVE, 3)])
        settle(leader)
        leader.step(AppendAck(3, 1, 1, index))
        leader.step(AppendAck(2, 1, 1, index))
    told = [message for message in messages_of(settle(leader)) if message.to_id == 3]
    assert [type(message).__name__ for message in told] == ["Commit"]
    assert 3 not in leader.progress()


def test_leader_without_contact_steps_down_and_refuses_its_reads() -> None:
    leader = make_leader()
    leader.step(AppendAck(2, 1, 1, 1))
    settle(leader)
    leader.read_index(4)
    for _ in range(20):
        leader.tick()
    assert leader.role is Role.FOLLOWER
    assert (4, Refusal.LEADER_CHANGED) in [pair for r in settle(leader) for pair in r.refused_reads]


def test_question_of_a_voter_is_answered_at_once_where_two_are_a_quorum() -> None:
    leader = make_leader()
    leader.step(AppendAck(2, 1, 1, 1))
    settle(leader)
    leader.step(ReadReq(3, 1, 1, 7))
    assert [m for r in settle(leader) for m in r.messages] == [ReadResp(1, 3, 1, 7, 1)]


def test_question_that_promises_nothing_waits_for_a_round() -> None:
    leader = make_leader()
    leader.step(AppendAck(2, 1, 1, 1))
    settle(leader)
    leader.step(ReadReq(3, 1, 0, 7))
    assert {type(m) for r in settle(leader) for m in r.messages} == {Heartbeat}


def test_question_before_the_no_op_is_committed_waits() -> None:
    leader = make_leader()
    settle(leader)
    leader.step(ReadReq(3, 1, 1, 7))
    assert not any(r.messages for r in settle(leader))
    leader.step(AppendAck(2, 1, 1, 1))
    settle(leader)
    leader.step(HeartbeatAck(2, 1, 1, 1))
    assert ReadResp(1, 3, 1, 7, 1) in [m for r in settle(leader) for m in r.messages]


def test_leader_with_contact_stays() -> None:
    leader = make_leader()
    for _ in range(50):
        leader.tick()
        leader.step(HeartbeatAck(3, 1, 1, 0))
    assert leader.role is Role.LEADER


def test_entries_are_plain_values() -> None:
    assert Entry(1, 2, EntryKind.BATCH, b"x") == Entry(1, 2, 1, b"x")
