"""Rounds of the leader and questions of a follower."""

from quorate.consensus.raft.messages import NOBODY
from quorate.consensus.raft.read_index import Read, ReadRequests, ReadRounds, Round


def test_reads_that_wait_share_a_round() -> None:
    rounds = ReadRounds(2)
    rounds.add(1, NOBODY)
    rounds.add(2, 7)
    assert rounds.maybe_start(10)
    assert not rounds.maybe_start(10)
    assert [Round(1, 10, [Read(1, NOBODY), Read(2, 7)])] == rounds.confirm(1)


def test_answers_to_an_older_round_confirm_nothing_newer() -> None:
    rounds = ReadRounds(2)
    rounds.add(1, NOBODY)
    rounds.maybe_start(10)
    rounds.add(2, NOBODY)
    rounds.maybe_start(11)
    assert [r.seq for r in rounds.confirm(1)] == [1]
    assert not rounds.awaits(1)
    assert rounds.awaits(2)
    assert [r.read_index for r in rounds.confirm(2)] == [11]


def test_later_confirmation_includes_earlier_rounds() -> None:
    rounds = ReadRounds(2)
    for ctx in (1, 2):
        rounds.add(ctx, NOBODY)
        rounds.maybe_start(ctx)
    assert [r.seq for r in rounds.confirm(2)] == [1, 2]


def test_reads_wait_while_enough_rounds_are_under_way() -> None:
    rounds = ReadRounds(1)
    rounds.add(1, NOBODY)
    rounds.maybe_start(1)
    rounds.add(2, NOBODY)
    assert not rounds.maybe_start(1)
    rounds.confirm(1)
    assert rounds.maybe_start(2)


def test_lost_leadership_gives_back_the_reads_asked_here() -> None:
    rounds = ReadRounds(1)
    for ctx, asker in ((1, NOBODY), (2, 7)):
        rounds.add(ctx, asker)
    rounds.maybe_start(1)
    rounds.add(3, NOBODY)
    assert rounds.reset() == [1, 3]
    assert rounds.seq == 0


def test_unanswered_question_is_asked_again_under_another_number() -> None:
    requests = ReadRequests(first_ctx=100)
    requests.add(1)
    assert requests.maybe_ask(1) == 101
    for _ in range(3):
        requests.tick(patience_ticks=3)
    assert requests.maybe_ask(1) == 102
    assert requests.answer(101) == []
    assert requests.answer(102) == [1]
    assert requests.answer(102) == []


def test_change_of_the_leader_gives_back_all_reads() -> None:
    requests = ReadRequests(0)
    requests.add(1)
    requests.maybe_ask(1)
    requests.add(2)
    assert requests.reset() == [1, 2]
