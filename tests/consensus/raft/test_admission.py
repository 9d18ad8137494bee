"""What a leader takes into its log, and what it refuses."""

from __future__ import annotations

from quorate.consensus.raft.messages import (
    AppendAck,
    ConfChange,
    ConfChangeKind,
    EntryKind,
    Forward,
    ForwardRefused,
    Refusal,
)
from tests.consensus.raft.cores import make_core, make_leader, reply, settle


def test_leader_refuses_proposals_when_its_storage_is_far_behind() -> None:
    leader = make_leader(apply_lag_entries_max=3)
    for _ in range(4):
        assert leader.propose(b"x") is None
    ready = leader.ready()
    assert ready is not None
    leader.on_persisted(ready.number)
    leader.step(AppendAck(2, 1, 1, 5))
    leader.ready()
    assert leader.propose(b"x") is Refusal.OVERLOADED
    leader.on_applied(5)
    assert leader.propose(b"x") is None


def test_uncommitted_bytes_are_given_back_when_committed() -> None:
    leader = make_leader(uncommitted_bytes_max=10)
    assert leader.propose(b"x" * 8) is None
    assert leader.propose(b"x" * 8) is Refusal.OVERLOADED
    settle(leader)
    leader.step(AppendAck(2, 1, 1, 2))
    assert leader.uncommitted_bytes == 0
    assert leader.propose(b"x" * 8) is None


def test_forwarded_proposal_is_appended_or_refused() -> None:
    leader = make_leader()
    leader.step(Forward(2, 1, 0, 77, EntryKind.ATTR, b"x"))
    settle(leader)
    assert leader.last_index == 2
    follower = make_core(term=1)
    assert reply(follower, Forward(2, 1, 0, 77, EntryKind.BATCH, b"x")) == [
        ForwardRefused(1, 2, 0, 77, Refusal.NOT_LEADER)
    ]
    follower.step(ForwardRefused(2, 1, 0, 9, Refusal.OVERLOADED))
    assert [ready.refused_proposals for ready in settle(follower)] == [[(9, Refusal.OVERLOADED)]]


def test_configuration_changes_wait_for_the_no_op_of_the_term() -> None:
    leader = make_leader()
    change = [ConfChange(ConfChangeKind.ADD_LEARNER, 4)]
    assert leader.propose_conf_change(change) is Refusal.NOT_READY
    leader.step(AppendAck(2, 1, 1, 1))
    assert leader.propose_conf_change(change) is None
    assert leader.propose_conf_change(change) is Refusal.CONF_CHANGE_PENDING
