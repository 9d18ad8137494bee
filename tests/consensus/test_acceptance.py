"""What no member could apply does not get into the log: it would end them all, and again after each restart."""

from __future__ import annotations

import pytest

from quorate.consensus import acceptance
from quorate.consensus.membership import Member, Membership, pack_attributes, pack_newcomer
from quorate.consensus.raft import confchange
from quorate.consensus.raft.messages import Append, Entry, EntryKind, Forward, ImpossibleMessage, Message

CLUSTER = Membership.founded([Member(1, ("http://a:1",)), Member(2, ("http://b:1",))])
CONF = confchange.encode(CLUSTER.conf)


def carriers(kind: int, payload: bytes) -> list[Message]:
    """The ways in which such an entry comes."""
    append = Append(2, 1, 1, 0, 0, 0, [Entry(1, 1, EntryKind.BATCH, b"any"), Entry(2, 1, kind, payload)])
    return [append, Forward(2, 1, 0, 1, kind, payload)] if kind == EntryKind.ATTR else [append]


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (EntryKind.ATTR, b""),
        (EntryKind.ATTR, b"[]"),
        (EntryKind.ATTR, b"{}"),
        (EntryKind.ATTR, b'{"id": "2"}'),
        (EntryKind.ATTR, b'{"id": 2, "clientURLs": 5}'),
        (EntryKind.ATTR, b'{"id": 2, "name": "\\ud800"}'),
        (EntryKind.ATTR, b"[" * 100_000),
        (EntryKind.CONF, b""),
        (EntryKind.CONF, CONF + b"no member"),
        (EntryKind.CONF, CONF + b'{"id": 3}'),
        (EntryKind.CONF, CONF + b'{"id": 3, "peerURLs": ["\\udfff"]}'),
    ],
)
def test_a_change_that_cannot_be_read_is_refused(kind: int, payload: bytes) -> None:
    for message in carriers(kind, payload):
        with pytest.raises(ImpossibleMessage, match="cannot be read"):
            acceptance.check(message, CLUSTER)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (EntryKind.ATTR, pack_attributes(2, "two", ["http://b:2"])),
        (EntryKind.ATTR, b'{"id": 99}'),
        (EntryKind.ATTR, b'{"clusterVersion": "3.6.0"}'),
        (EntryKind.CONF, CONF),
        (EntryKind.CONF, CONF + pack_newcomer(Member(3, ("http://c:1",)))),
    ],
)
def test_a_change_that_can_be_read_is_taken(kind: int, payload: bytes) -> None:
    for message in carriers(kind, payload):
        acceptance.check(message, CLUSTER)
        change = CLUSTER.with_conf if kind == EntryKind.CONF else CLUSTER.with_attributes
        assert change(7, payload).index == 7
