"""Reads on their way: confirmed by the quorum, behind what they must see, refused in time."""

from __future__ import annotations

import pytest

from quorate.consensus.raft.messages import Refusal
from quorate.consensus.reads import Reads
from quorate.wire import errors
from quorate.wire.messages import Kind
from tests.consensus.waiting import Listener, chunk, numbers

TIMEOUT_S = 5.0
LATE = errors.TIMEOUT.id


class Member:
    """Reads of one worker, a leader that says what a test wants, and storage."""

    def __init__(self) -> None:
        self.reads = Reads(TIMEOUT_S)
        self.worker, self.storage = Listener(), Listener()
        self.refusal: Refusal | None = None
        self.asked: list[int] = []

    def read_index(self, ctx: int) -> Refusal | None:
        self.asked.append(ctx)
        return self.refusal

    def read(self, number: int, now: float = 0.0) -> int:
        """A read that is asked for at once; under which number."""
        self.reads.add(self.worker.channel, chunk(number), now)
        self.reads.ask(self.read_index)
        return self.asked[-1]

    def released(self, handed_index: int, is_open: bool = True) -> list[int]:
        """What storage has been sent so far."""
        self.reads.release(handed_index, self.storage.channel, is_open)
        assert all(kind == Kind.READ for kind, _ in self.storage.sent)
        return [number for _, body in self.storage.sent for number in numbers(body)]


@pytest.fixture
def member() -> Member:
    return Member()


def test_a_read_follows_what_it_must_see_and_nothing_less(member: Member) -> None:
    member.reads.confirm(member.read(1), 10)
    assert member.released(9) == []
    assert member.released(10) == [1]
    assert member.released(11) == [1]


def test_an_index_that_is_older_than_the_one_before_holds_nothing_up_and_lets_nothing_pass(member: Member) -> None:
    first, second = member.read(1), member.read(2)
    member.reads.confirm(second, 12)
    member.reads.confirm(first, 10)
    assert member.released(11) == []
    assert member.released(12) == [2, 1]


def test_an_answer_counts_once_and_only_for_its_question(member: Member) -> None:
    ctx = member.read(1)
    member.reads.confirm(ctx + 1, 1)
    assert member.released(100) == []
    member.reads.confirm(ctx, 2)
    member.reads.confirm(ctx, 3)
    assert member.released(100) == [1]


def test_reads_whose_leader_is_gone_are_asked_again_under_another_number_and_first(member: Member) -> None:
    ctx = member.read(1)
    member.reads.add(member.worker.channel, chunk(2), 0.0)
    member.reads.ask_again(ctx)
    member.reads.ask(member.read_index)
    assert len(set(member.asked)) == 2
    member.reads.confirm(ctx, 1)
    assert member.released(1) == []
    member.reads.confirm(member.asked[-1], 1)
    assert member.released(1) == [1, 2]


def test_reads_wait_for_a_leader_and_are_asked_when_there_is_one(member: Member) -> None:
    member.refusal = Refusal.NO_LEADER
    member.read(1)
    member.refusal = None
    member.reads.ask(member.read_index)
    member.reads.confirm(member.asked[-1], 1)
    assert member.released(1) == [1]


def test_an_overloaded_leader_refuses_all_that_was_asked(member: Member) -> None:
    member.refusal = Refusal.OVERLOADED
    member.read(1)
    assert member.worker.refused() == [(1, errors.TOO_MANY_REQUESTS.id)]
    member.refusal = None
    member.reads.ask(member.read_index)
    assert len(member.asked) == 1


def test_what_is_confirmed_waits_for_storage_to_come_back(member: Member) -> None:
    member.reads.confirm(member.read(1), 1)
    assert member.released(1, is_open=False) == []
    assert member.released(1) == [1]


@pytest.mark.parametrize("state", ["new", "asked", "confirmed"])
def test_a_read_is_refused_after_its_time_once_and_wherever_it_waits(member: Member, state: str) -> None:
    member.refusal = Refusal.NO_LEADER if state == "new" else None
    ctx = member.read(1)
    if state == "confirmed":
        member.reads.confirm(ctx, 10)
    member.reads.expire(TIMEOUT_S)
    assert member.worker.refused() == []
    for _ in range(2):
        member.reads.expire(TIMEOUT_S + 0.1)
    assert member.worker.refused() == [(1, LATE)]
    assert (member.reads.failed, member.reads.late) == (1, 1)
    member.reads.confirm(ctx, 10)
    assert member.released(10) == []


def test_of_reads_that_wait_only_the_late_ones_are_refused(member: Member) -> None:
    member.refusal = Refusal.NO_LEADER
    member.read(1, now=0.0)
    member.read(2, now=3.0)
    member.reads.expire(TIMEOUT_S + 1)
    assert member.worker.refused() == [(1, LATE)]
    member.refusal = None
    member.reads.ask(member.read_index)
    member.reads.confirm(member.asked[-1], 1)
    assert member.released(1) == [2]


def test_a_question_of_our_own_calls_back_when_everything_before_it_was_handed_on(member: Member) -> None:
    called: list[str] = []
    member.reads.when_current(lambda: called.append("now"), 0.0)
    member.reads.ask(member.read_index)
    member.reads.confirm(member.asked[-1], 7)
    member.released(6)
    assert called == []
    member.released(7)
    assert called == ["now"]
