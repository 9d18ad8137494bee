"""Commands on their way into the log: in their order, within bounds, refused where nobody takes them."""

from __future__ import annotations

import pytest

from quorate.consensus import proposals as under_test
from quorate.consensus.proposals import Proposals
from quorate.consensus.raft.messages import Refusal
from quorate.wire import errors
from quorate.wire.messages import CHUNK_BYTES_MAX, COMMANDS_MAX
from tests.consensus.waiting import Listener, chunk, numbers

TIMEOUT_S = 5.0
FULL = errors.TOO_MANY_REQUESTS.id
LATE = errors.TIMEOUT.id


class Member:
    """Proposals of one worker, and a leader that says what a test wants."""

    def __init__(self) -> None:
        self.proposals = Proposals(TIMEOUT_S, 100)
        self.worker = Listener()
        self.refusal: Refusal | None = None
        self.entries: list[tuple[int, list[int]]] = []  # reference, chunks

    def propose(self, payload: bytes, ref: int) -> Refusal | None:
        if self.refusal is None:
            self.entries.append((ref, numbers(payload)))
        return self.refusal

    def add(self, *chunks: bytes, now: float = 0.0) -> None:
        for one in chunks:
            self.proposals.add(self.worker.channel, one, now)

    def turn(self, is_remote: bool = False) -> None:
        self.proposals.propose_open(self.propose, is_remote)

    def find_leader(self, is_remote: bool = False) -> None:
        self.refusal = None
        self.proposals.propose_held(self.propose, is_remote)

    @property
    def proposed(self) -> list[list[int]]:
        return [chunks for _, chunks in self.entries]


@pytest.fixture
def member() -> Member:
    return Member()


def test_what_comes_in_one_turn_is_one_entry(member: Member) -> None:
    member.add(chunk(1), chunk(2))
    member.turn()
    member.turn()
    member.add(chunk(3))
    member.turn()
    assert member.proposed == [[1, 2], [3]]
    assert member.entries[0][0] == 101


def test_an_entry_has_no_more_commands_and_bytes_than_a_chunk_may_have(member: Member) -> None:
    member.add(chunk(1, COMMANDS_MAX - 1), chunk(2), chunk(3))
    member.turn()
    member.add(chunk(4, size=CHUNK_BYTES_MAX - 100), chunk(5, size=100), chunk(6))
    member.turn()
    assert member.proposed == [[1, 2], [3], [4], [5, 6]]


@pytest.mark.parametrize("refusal", [Refusal.NO_LEADER, Refusal.TRANSFERRING, Refusal.NOT_LEADER])
def test_without_a_leader_chunks_wait_and_none_overtakes_another(member: Member, refusal: Refusal) -> None:
    member.refusal = refusal
    member.add(chunk(1), chunk(2))
    member.turn()
    assert member.proposals.waiting == 2
    member.refusal = None
    member.add(chunk(3))
    member.turn()
    assert member.proposed == []
    member.find_leader()
    assert member.proposed == [[1, 2, 3]]
    assert member.proposals.waiting == 0
    assert member.worker.sent == []


def test_an_overloaded_leader_refuses_at_once(member: Member) -> None:
    member.refusal = Refusal.OVERLOADED
    member.add(chunk(1), chunk(2))
    member.turn()
    assert member.worker.refused() == [(1, FULL), (2, FULL)]
    member.find_leader()
    assert member.proposed == []


@pytest.mark.parametrize("ended_by", ["a leader", "time"])
def test_what_waits_is_bounded_and_what_waited_before_does_not_count(
    member: Member, monkeypatch: pytest.MonkeyPatch, ended_by: str
) -> None:
    monkeypatch.setattr(under_test, "HELD_BYTES_MAX", 2 * len(chunk(1)))
    for _ in range(2):
        member.worker.sent.clear()
        member.refusal = Refusal.NO_LEADER
        member.add(chunk(1), chunk(2), chunk(3))
        member.turn()
        assert member.worker.refused() == [(3, FULL)]
        if ended_by == "time":
            member.proposals.expire(TIMEOUT_S + 1)
        member.find_leader()
    assert member.proposed == ([[1, 2]] * 2 if ended_by == "a leader" else [])


def test_what_nobody_waits_for_any_more_is_refused_and_never_proposed(member: Member) -> None:
    member.refusal = Refusal.NO_LEADER
    member.add(chunk(1), now=0.0)
    member.add(chunk(2), now=3.0)
    member.turn()
    member.proposals.expire(TIMEOUT_S)
    assert member.worker.refused() == []
    member.proposals.expire(TIMEOUT_S + 1)
    assert member.worker.refused() == [(1, LATE)]
    member.find_leader()
    assert member.proposed == [[2]]


@pytest.mark.parametrize(("refusal", "told"), [(Refusal.OVERLOADED, [(1, FULL), (2, FULL)]), (Refusal.NOT_LEADER, [])])
def test_a_leader_elsewhere_may_refuse_an_entry_later(
    member: Member, refusal: Refusal, told: list[tuple[int, int]]
) -> None:
    member.add(chunk(1), chunk(2))
    member.turn(is_remote=True)
    ((ref, _),) = member.entries
    for _ in range(2):
        member.proposals.refused(ref, refusal)
    assert member.worker.refused() == told
    member.find_leader()
    assert member.proposed[1:] == ([] if told else [[1, 2]])


def test_a_refusal_of_what_was_not_forwarded_or_is_too_old_changes_nothing(member: Member) -> None:
    member.add(chunk(1))
    member.turn()
    member.proposals.refused(member.entries[0][0], Refusal.OVERLOADED)
    member.add(chunk(2))
    member.turn(is_remote=True)
    member.proposals.expire(TIMEOUT_S + 1)
    member.proposals.refused(member.entries[1][0], Refusal.OVERLOADED)
    assert member.worker.sent == []


def test_so_many_bytes_are_remembered_of_what_was_forwarded(member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "FORWARDED_BYTES_MAX", 2 * len(chunk(1)))
    for number in (1, 2, 3):
        member.add(chunk(number))
        member.turn(is_remote=True)
    for ref, _ in member.entries:
        member.proposals.refused(ref, Refusal.OVERLOADED)
    assert member.worker.refused() == [(2, FULL), (3, FULL)]


def test_what_came_in_is_refused_when_there_is_no_room(member: Member) -> None:
    member.add(chunk(1))
    member.proposals.refuse_open(errors.NO_SPACE)
    member.turn()
    assert member.worker.refused() == [(1, errors.NO_SPACE.id)]
    assert member.proposed == []
