"""What is looked at in a peer's message before the Raft core takes it.

Every member applies an entry, and again after each restart: one that nobody can read would end them all, for good. So
what concerns the membership is read before it gets into the log.
"""

from __future__ import annotations

from quorate.consensus.membership import Membership
from quorate.consensus.raft.messages import Append, EntryKind, Forward, ImpossibleMessage, Message


def check(message: Message, membership: Membership) -> None:
    """ImpossibleMessage for an entry that could not be applied."""
    if isinstance(message, Append):
        for entry in message.entries:
            if entry.kind > EntryKind.NOOP:
                _check_entry(entry.kind, entry.payload, membership)
    elif isinstance(message, Forward) and message.kind == EntryKind.ATTR:
        _check_entry(message.kind, message.payload, membership)


def _check_entry(kind: int, payload: bytes, membership: Membership) -> None:
    try:
        if kind == EntryKind.CONF:
            membership.with_conf(0, payload)
        elif kind == EntryKind.ATTR:
            membership.with_attributes(0, payload)
    except ValueError as error:
        raise ImpossibleMessage(f"a change of the membership that cannot be read: {error}") from error
