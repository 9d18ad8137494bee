"""Nothing waits for ever: lost Appends of every size, lost questions, rounds whose voters have left."""

from __future__ import annotations

import pytest

from quorate.consensus.raft.core import RaftCore
from quorate.consensus.raft.messages import (
    Append,
    AppendAck,
    AppendReject,
    ConfChange,
    ConfChangeKind,
    ConfState,
    Heartbeat,
    HeartbeatAck,
    ReadReq,
    ReadResp,
    Ready,
    Role,
    VoteResp,
)
from quorate.consensus.raft.progress import ProgressState
from tests.consensus.raft.cores import make_core, make_leader, messages_of, reply, settle


def appends_of(readys: list[Ready]) -> list[Append]:
    return [message for message in messages_of(readys) if isinstance(message, Append)]


@pytest.mark.parametrize(("entries", "size"), [(5, 100), (1, 400), (8, 60)])
def test_a_window_that_is_full_of_lost_bytes_opens_again(entries: int, size: int) -> None:
    leader = make_leader(append_bytes_max=100, inflight_bytes_max=300)
    reply(leader, AppendAck(2, 1, 1, 1))
    for _ in range(entries + 5):
        leader.propose(b"x" * size)
        settle(leader)  # each entry travels alone, and none arrives
    assert leader.progress()[2].state is ProgressState.REPLICATE
    assert leader.progress()[2].next_index <= leader.last_index
    heard: list[Append] = []
    for _ in range(entries + 2):
        leader.tick()
        settle(leader)
        leader.step(HeartbeatAck(2, 1, 1, 0))
        heard += [append for append in appends_of(settle(leader)) if append.to_id == 2]
        if heard:
            break
    assert heard, "the follower never hears of what it missed"
    answer = reply(leader, AppendReject(2, 1, 1, heard[0].prev_index, 1, 1))
    assert [message.prev_index for message in answer if isinstance(message, Append) and message.to_id == 2] == [1]


def leader_of(conf: ConfState, voter: int) -> RaftCore:
    leader = make_core(conf=conf)
    leader.campaign()
    settle(leader)
    leader.step(VoteResp(voter, 1, leader.term, True))
    settle(leader)
    if leader.role is not Role.LEADER:
        leader.step(VoteResp(voter + 1, 1, leader.term, True))
        settle(leader)
    return leader


def test_reads_that_waited_for_a_voter_that_left_are_released() -> None:
    leader = leader_of(ConfState((1, 2)), 2)
    reply(leader, AppendAck(2, 1, 1, 1))
    for ctx in (1, 2, 3):
        leader.read_index(ctx)
        settle(leader)
    assert leader.propose_conf_change([ConfChange(ConfChangeKind.REMOVE, 2)]) is None
    settle(leader)
    leader.step(AppendAck(2, 1, 1, 2))  # the last that is heard of it
    done = settle(leader)
    assert leader.conf_state == ConfState((1,))
    leader.tick()
    done += settle(leader)
    assert [state.ctx for ready in done for state in ready.read_states] == [1, 2, 3]


def test_reads_that_a_smaller_majority_confirmed_already_are_released() -> None:
    leader = leader_of(ConfState((1, 2, 3, 4)), 2)
    for member in (2, 3):
        reply(leader, AppendAck(member, 1, 1, 1))
    for ctx in (1, 2):
        leader.read_index(ctx)
        settle(leader)
        reply(leader, HeartbeatAck(2, 1, 1, ctx))
    assert leader.propose_conf_change([ConfChange(ConfChangeKind.REMOVE, 4)]) is None
    settle(leader)
    done: list[Ready] = []
    for index in (2, 3):
        for member in (2, 3):
            leader.step(AppendAck(member, 1, 1, index))
            done += settle(leader)
    assert leader.conf_state == ConfState((1, 2, 3))
    assert [state.ctx for ready in done for state in ready.read_states] == [1, 2]


def test_a_lost_question_is_asked_again_however_many_others_are_answered_meanwhile() -> None:
    follower = make_core(term=1)
    follower.step(Heartbeat(2, 1, 1, 0, 0))
    follower.read_index(1)
    (lost,) = [message for message in messages_of(settle(follower)) if isinstance(message, ReadReq)]
    answered = 0
    for ctx in range(2, 40):
        follower.read_index(ctx)
        for message in messages_of(settle(follower)):
            if isinstance(message, ReadReq):
                answered += 1
                assert message.ctx != lost.ctx
                follower.step(Heartbeat(2, 1, 1, 0, 0))
                follower.step(ReadResp(2, 1, 1, message.ctx, 0))
        if 1 in [state.ctx for ready in settle(follower) for state in ready.read_states]:
            break
        follower.tick()
    else:
        raise AssertionError(f"{answered} questions were answered and the first was not asked again")
