"""Majorities: what a set of voters has agreed on, in simple and in joint configurations (paper section 6)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from quorate.consensus.raft.messages import ConfState


class VoteResult(Enum):
    """What a set of votes means so far."""

    WON = "won"
    LOST = "lost"
    PENDING = "pending"


def agreed_value(conf: ConfState, values: Mapping[int, int]) -> int:
    """The greatest value that a quorum has reached; a voter without a value counts as 0.

    In a joint configuration both halves must have reached it. Without voters nothing is ever agreed: 0.
    """
    agreed = _majority_value(conf.voters, values)
    if conf.outgoing:
        return min(agreed, _majority_value(conf.outgoing, values))
    return agreed


def _majority_value(voters: tuple[int, ...], values: Mapping[int, int]) -> int:
    if not voters:
        return 0
    ascending = sorted([values.get(voter, 0) for voter in voters])
    return ascending[(len(ascending) - 1) // 2]


def vote_result(conf: ConfState, votes: Mapping[int, bool]) -> VoteResult:
    """Counts votes: WON with a majority of yes in each half, LOST when one half can no longer reach it."""
    result = _majority_votes(conf.voters, votes)
    if not conf.outgoing:
        return result
    other = _majority_votes(conf.outgoing, votes)
    if result is other:
        return result
    if VoteResult.LOST in (result, other):
        return VoteResult.LOST
    return VoteResult.PENDING


def _majority_votes(voters: tuple[int, ...], votes: Mapping[int, bool]) -> VoteResult:
    needed = len(voters) // 2 + 1
    given = [votes[voter] for voter in voters if voter in votes]
    yes = sum(given)
    if yes >= needed:
        return VoteResult.WON
    missing = len(voters) - len(given)
    return VoteResult.PENDING if yes + missing >= needed else VoteResult.LOST
