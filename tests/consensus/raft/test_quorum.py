"""Majorities against counting."""

from hypothesis import given
from hypothesis import strategies as st

from quorate.consensus.raft.messages import ConfState
from quorate.consensus.raft.quorum import VoteResult, agreed_value, vote_result

MEMBERS = st.integers(1, 7)
VOTERS = st.sets(MEMBERS, max_size=7).map(lambda ids: tuple(sorted(ids)))
CONFS = st.builds(ConfState, voters=VOTERS.filter(bool), outgoing=VOTERS)


def has_majority(voters: tuple[int, ...], ids: set[int]) -> bool:
    return len(ids & set(voters)) * 2 > len(voters)


def is_quorum(conf: ConfState, ids: set[int]) -> bool:
    halves = [half for half in (conf.voters, conf.outgoing) if half]
    return all(has_majority(half, ids) for half in halves)


@given(CONFS, st.dictionaries(MEMBERS, st.integers(0, 9)))
def test_agreed_value_is_the_greatest_that_a_quorum_reached(conf: ConfState, values: dict[int, int]) -> None:
    reached = [v for v in range(1, 10) if is_quorum(conf, {m for m, value in values.items() if value >= v})]
    assert max(reached, default=0) == agreed_value(conf, values)


@given(CONFS, st.dictionaries(MEMBERS, st.booleans()))
def test_votes_are_won_or_lost_as_soon_as_nothing_can_change_it(conf: ConfState, votes: dict[int, bool]) -> None:
    yes = {member for member, vote in votes.items() if vote}
    missing = set(range(1, 8)) - votes.keys()
    if is_quorum(conf, yes):
        expected = VoteResult.WON
    elif is_quorum(conf, yes | missing):
        expected = VoteResult.PENDING
    else:
        expected = VoteResult.LOST
    assert expected is vote_result(conf, votes)


def test_nobody_agrees_on_anything_without_voters() -> None:
    assert agreed_value(ConfState(), {1: 5}) == 0


def test_two_quorums_of_a_configuration_and_its_successor_always_meet() -> None:
    old, new = ConfState((1, 2, 3)), ConfState((4, 5))
    joint = ConfState(new.voters, old.voters)
    assert vote_result(joint, {1: True, 2: True}) is VoteResult.PENDING
    assert vote_result(joint, {4: True, 5: True}) is VoteResult.PENDING
    assert vote_result(joint, {1: True, 2: True, 4: True, 5: True}) is VoteResult.WON
