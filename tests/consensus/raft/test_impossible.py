"""A message that no member sends that keeps to the rules is refused by name, and changes nothing but the term."""

from __future__ import annotations

import pytest

from quorate.consensus.raft.core import RaftCore
from quorate.consensus.raft.messages import (
    INDEX_MAX,
    TERM_MAX,
    Append,
    AppendAck,
    Commit,
    ConfState,
    Entry,
    EntryKind,
    Forward,
    Heartbeat,
    HeartbeatAck,
    ImpossibleMessage,
    InstallSnapshot,
    Message,
    ReadReq,
    Refusal,
    Role,
    SnapshotMeta,
    Vote,
)
from tests.consensus.raft.cores import THREE, entries_of, make_core, make_leader, settle


def is_refused(core: RaftCore, message: Message) -> bool:
    """Whether the message is refused; what is known of the log stays in either case."""
    before = core.commit_index, core.last_index, core.term_at(core.last_index)
    try:
        core.step(message)
    except ImpossibleMessage:
        assert before == (core.commit_index, core.last_index, core.term_at(core.last_index))
        return True
    return False


@pytest.mark.parametrize(
    "message",
    [
        Append(2, 1, 1, 1, 1, 1, ()),
        Heartbeat(2, 1, 1, 1, 0),
        Commit(2, 1, 1, 1),
        InstallSnapshot(2, 1, 1, SnapshotMeta(9, 1, THREE)),
    ],
)
def test_a_second_leader_of_the_term_does_not_end_the_first(message: Message) -> None:
    leader = make_leader()
    assert is_refused(leader, message)
    assert leader.role is Role.LEADER


@pytest.mark.parametrize("behind", [0, 1])
def test_the_last_committed_entry_cannot_be_another_one(behind: int) -> None:
    core = make_core([1, 1], commit=2)
    assert is_refused(core, Append(2, 1, 2, 1, 1, 2, entries_of([2] * (1 + behind), first=2)))
    assert not is_refused(core, Append(2, 1, 2, 1, 1, 2, entries_of([1] + [2] * behind, first=2)))


def test_more_than_the_log_holds_cannot_be_acknowledged() -> None:
    leader = make_leader()
    assert is_refused(leader, AppendAck(2, 1, 1, 2))
    assert not is_refused(leader, AppendAck(2, 1, 1, 1))
    assert leader.commit_index == 1


def test_a_round_of_reads_cannot_be_confirmed_before_it_begins() -> None:
    leader = make_leader()
    leader.step(AppendAck(2, 1, 1, 1))
    settle(leader)
    assert is_refused(leader, HeartbeatAck(3, 1, 1, 5))
    leader.read_index(7)
    assert [] == [state for ready in settle(leader) for state in ready.read_states]


@pytest.mark.parametrize("terms", [(3, 2), (0,), (1,), (5,)])
def test_terms_of_entries_grow_up_to_that_of_the_message(terms: tuple[int, ...]) -> None:
    core = make_core([1, 2], term=4)
    assert is_refused(core, Append(2, 1, 4, 2, 2, 0, entries_of(terms, first=3)))
    assert not is_refused(core, Append(2, 1, 4, 2, 2, 0, entries_of((2, 4), first=3)))
    assert core.last_index == 4


@pytest.mark.parametrize(("kind", "payload"), [(0, b""), (5, b""), (255, b"x"), (EntryKind.CONF, b"no members")])
def test_an_entry_that_nobody_can_apply_is_not_taken(kind: int, payload: bytes) -> None:
    core = make_core([1])
    assert is_refused(core, Append(2, 1, 1, 1, 1, 0, [Entry(2, 1, kind, payload)]))


def test_a_committed_entry_cannot_be_another_one() -> None:
    core = make_core([1, 2, 2], term=3, commit=2)
    assert is_refused(core, Append(2, 1, 3, 0, 0, 0, entries_of((1, 1, 1))))
    assert not is_refused(core, Append(2, 1, 3, 0, 0, 0, entries_of((1, 2, 3))))
    assert core.term_at(3) == 3


@pytest.mark.parametrize("index", [INDEX_MAX + 1, (1 << 64) - 1])
def test_a_snapshot_beyond_all_indexes_is_not_taken(index: int) -> None:
    core = make_core([1])
    assert is_refused(core, InstallSnapshot(2, 1, 1, SnapshotMeta(index, 1, THREE)))
    assert is_refused(core, InstallSnapshot(2, 1, 1, SnapshotMeta(5, 2, THREE)))


def test_no_message_leads_beyond_the_last_term() -> None:
    core = make_core([1], pre_vote=0)
    assert is_refused(core, Vote(2, 1, TERM_MAX + 1, 9, 9, False))
    assert core.term == 1
    assert not is_refused(core, Vote(2, 1, TERM_MAX, 9, 9, False))
    assert core.term == TERM_MAX
    core.campaign()
    assert core.term == TERM_MAX, "there is no further term to stand in"


@pytest.mark.parametrize("kind", [EntryKind.CONF, EntryKind.NOOP, 0, 77])
def test_only_the_leader_makes_entries_of_its_own(kind: int) -> None:
    leader = make_leader()
    assert is_refused(leader, Forward(2, 1, 0, 1, kind, b""))


def test_entries_without_bytes_are_bounded_as_well() -> None:
    leader = make_leader(uncommitted_entries_max=20)
    for number in range(100):
        leader.step(Forward(2, 1, 0, number, EntryKind.BATCH, b""))
    refused = [message for ready in settle(leader) for message in ready.messages if message.from_id == 1]
    assert leader.last_index <= 22
    assert any(getattr(message, "refusal", None) is Refusal.OVERLOADED for message in refused)


def test_questions_of_a_member_are_bounded() -> None:
    leader = make_leader(reads_waiting_max=10)
    for number in range(100):
        leader.step(ReadReq(2, 1, 1, number))
    assert len(leader._state.read_rounds) == 10


def test_a_member_without_voters_waits() -> None:
    core = make_core([], conf=ConfState())
    for _ in range(100):
        core.tick()
    assert core.role is Role.FOLLOWER
