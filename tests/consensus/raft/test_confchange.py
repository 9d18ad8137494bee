"""Which configuration follows which, and how it is written and remembered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.consensus.raft.confchange import ConfHistory, decode, encode, enter, leave
from quorate.consensus.raft.messages import ConfChange, ConfChangeKind, ConfState, Refusal

ADD, LEARN, REMOVE = ConfChangeKind.ADD_VOTER, ConfChangeKind.ADD_LEARNER, ConfChangeKind.REMOVE
IDS = st.lists(st.integers(1, 2**64 - 1), unique=True, max_size=6).map(lambda ids: tuple(sorted(ids)))
THREE = ConfState((1, 2, 3))


@given(st.builds(ConfState, IDS, IDS, IDS), st.binary(max_size=20))
def test_decoding_gives_back_what_was_encoded(conf: ConfState, context: bytes) -> None:
    assert (conf, context) == decode(encode(conf, context))


@pytest.mark.parametrize("payload", [b"", b"\x02" + bytes(7), encode(THREE)[:-1]])
def test_other_bytes_are_no_configuration(payload: bytes) -> None:
    with pytest.raises(ValueError, match="configuration entry"):
        decode(payload)


def test_a_configuration_that_says_it_stays_joint_is_taken_for_any_other() -> None:
    joint = encode(ConfState((1, 2), (1, 2, 3)))
    assert decode(joint[:1] + b"\0" + joint[2:]) == decode(joint)


def test_change_of_voters_is_joint() -> None:
    assert ConfState((1, 2, 3, 4), (1, 2, 3)) == enter(THREE, [ConfChange(ADD, 4)])
    assert ConfState((1, 2), (1, 2, 3)) == enter(THREE, [ConfChange(REMOVE, 3)])


def test_demoted_voter_is_a_learner_afterwards_and_votes_meanwhile() -> None:
    joint = enter(THREE, [ConfChange(LEARN, 3)])
    assert joint == ConfState((1, 2), (1, 2, 3), (3,))
    assert joint.is_voter(3)
    assert leave(joint) == ConfState((1, 2), (), (3,))


def test_change_of_learners_needs_no_joint_configuration() -> None:
    grown = enter(THREE, [ConfChange(LEARN, 9)])
    assert grown == ConfState((1, 2, 3), (), (9,))
    assert THREE == enter(grown, [ConfChange(REMOVE, 9)])


def test_replacement_is_one_change() -> None:
    assert ConfState((1, 2, 4), (1, 2, 3)) == enter(THREE, [ConfChange(REMOVE, 3), ConfChange(ADD, 4)])


@pytest.mark.parametrize(
    "changes",
    [[], [ConfChange(ADD, 1)], [ConfChange(REMOVE, 7)], [ConfChange(REMOVE, member) for member in (1, 2, 3)]],
)
def test_empty_changes_and_the_last_voter_are_refused(changes: list[ConfChange]) -> None:
    assert Refusal.INVALID_CONF_CHANGE is enter(THREE, changes)


def test_history_falls_back_when_the_log_is_truncated() -> None:
    history = ConfHistory(THREE, 5)
    four = ConfState((1, 2, 3, 4))
    history.append(8, four)
    assert not history.maybe_truncate(9)
    assert (history.current, history.at(7), history.at(8)) == (four, THREE, four)
    assert history.maybe_truncate(8)
    assert (history.current, history.current_index) == (THREE, 5)


def test_compacted_history_still_knows_what_was_in_force() -> None:
    history = ConfHistory(THREE, 0)
    four = ConfState((1, 2, 3, 4))
    history.append(8, four)
    history.compact(9)
    assert history.at(9) == four
    with pytest.raises(AssertionError):
        history.at(7)
