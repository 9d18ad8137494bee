"""Membership changes: which configuration follows a request, how the log holds it, and its history.

A CONF entry holds the whole resulting configuration, not the steps to it, so a member needs no earlier entry
to understand one. Any change of the voters goes through a joint configuration; a change of learners only does
not touch any majority and takes one entry. A configuration is in force on a member from the moment the entry
is in its log (paper section 6), hence the history: a truncated log takes its configuration back. Decision and
consequences: docs/adr, "A configuration is in force when appended".
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from quorate.consensus.raft.messages import ConfChange, ConfChangeKind, ConfState, Refusal

_HEADER = struct.Struct("<BBHHH")  # version, flags, numbers of voters, outgoing voters, learners
_VERSION = 1
_FLAGS = 1  # "left by itself", as every joint configuration is; 0.1.0 minds the bit


def encode(conf: ConfState, context: bytes = b"") -> bytes:
    """The payload of a CONF entry. `context` is the host's, for example the addresses of an added member."""
    ids = (*conf.voters, *conf.outgoing, *conf.learners)
    header = _HEADER.pack(_VERSION, _FLAGS, len(conf.voters), len(conf.outgoing), len(conf.learners))
    return header + struct.pack(f"<{len(ids)}Q", *ids) + context


def decode(payload: bytes) -> tuple[ConfState, bytes]:
    """What `encode` was given. Raises ValueError for anything else."""
    if len(payload) < _HEADER.size or payload[0] != _VERSION:
        raise ValueError("not a configuration entry of a known version")
    _, _, voters, outgoing, learners = _HEADER.unpack_from(payload)
    count = voters + outgoing + learners
    end = _HEADER.size + 8 * count
    if len(payload) < end:
        raise ValueError("configuration entry is cut short")
    ids = struct.unpack_from(f"<{count}Q", payload, _HEADER.size)
    conf = ConfState(
        voters=ids[:voters],
        outgoing=ids[voters : voters + outgoing],
        learners=ids[voters + outgoing :],
    )
    return conf, bytes(payload[end:])


def replacement(lost_id: int, fresh_id: int) -> tuple[ConfChange, ConfChange]:
    """The change by which a member that forgot its log or its vote comes back: under a new id, without a vote.

    Nothing may be counted on what it says for its former self: a vote or an acknowledgement it gave and forgot could be
    given a second time, to somebody else. To the others the former self has crashed for good. The change is committed
    by a majority without it, so every later leader has a log with everything that was committed with its help: any
    majority that elects has a member in common, which forgot nothing, with the majority that acknowledged an entry and
    with the one that committed this change. What the former self promised to candidates of any term is worth nothing
    from then on, as none of them has this change in its log. The new id has promised nothing. It votes after a second
    change, when it has caught up.
    """
    return ConfChange(ConfChangeKind.REMOVE, lost_id), ConfChange(ConfChangeKind.ADD_LEARNER, fresh_id)


def enter(conf: ConfState, changes: Sequence[ConfChange]) -> ConfState | Refusal:
    """The configuration that follows `conf`: joint if the set of voters changes.

    Refused: a change that changes nothing, the removal of the last voter, and anything while `conf` is joint.
    """
    if conf.is_joint:
        return Refusal.CONF_CHANGE_PENDING
    voters, learners = set(conf.voters), set(conf.learners)
    for change in changes:
        voters.discard(change.member_id)
        learners.discard(change.member_id)
        if change.kind == ConfChangeKind.ADD_VOTER:
            voters.add(change.member_id)
        elif change.kind == ConfChangeKind.ADD_LEARNER:
            learners.add(change.member_id)
    new_voters, new_learners = tuple(sorted(voters)), tuple(sorted(learners))
    if not new_voters or (new_voters, new_learners) == (conf.voters, conf.learners):
        return Refusal.INVALID_CONF_CHANGE
    outgoing = () if new_voters == conf.voters else conf.voters
    return ConfState(new_voters, outgoing, new_learners)


def leave(conf: ConfState) -> ConfState:
    """The configuration after a joint one."""
    assert conf.is_joint
    return ConfState(conf.voters, (), conf.learners)


class ConfHistory:
    """The configurations of the log that may still be needed: in force, and what it could fall back to."""

    __slots__ = ("_history", "current", "current_index")

    def __init__(self, conf: ConfState, index: int):
        """`conf` is in force at `index`, whichever entry it stems from."""
        self._history: list[tuple[int, ConfState]] = [(index, conf)]
        self.current = conf
        self.current_index = index  # the entry it stems from, or the index the history begins with

    def append(self, index: int, conf: ConfState) -> None:
        """The entry at `index` brought `conf`."""
        assert index > self.current_index
        self._history.append((index, conf))
        self.current_index, self.current = index, conf

    def maybe_truncate(self, index: int) -> bool:
        """The log lost `index` and everything after it; True if an older configuration is in force again."""
        if self.current_index < index:
            return False
        while self._history[-1][0] >= index:
            self._history.pop()
            assert self._history, "a committed configuration was truncated"
        self.current_index, self.current = self._history[-1]
        return True

    def compact(self, index: int) -> None:
        """Nobody will ask or truncate before `index` again."""
        while len(self._history) > 1 and self._history[1][0] <= index:
            del self._history[0]

    def at(self, index: int) -> ConfState:
        """The configuration in force at `index`, which must not be before what was compacted."""
        for start, conf in reversed(self._history):
            if start <= index:
                return conf
        raise AssertionError(f"configuration at index {index} is no longer known")
