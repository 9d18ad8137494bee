"""Mistakes that etcd made about who belongs to a cluster, without processes; docs/testing.md has the whole list."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from quorate.consensus.alone import go_alone
from quorate.consensus.calls import Rules, check_add
from quorate.consensus.membership import (
    Member,
    Membership,
    Meta,
    membership_from_json,
    membership_json,
    pack_attributes,
    pack_meta,
    pack_newcomer,
    pack_peer_urls,
    unpack_meta,
)
from quorate.consensus.node import known_membership
from quorate.consensus.raft.confchange import encode
from quorate.consensus.raft.messages import ConfState, Entry, EntryKind, HardState
from tests.consensus.test_alone import begin

LEARNER = 9
URLS = ("http://10.0.0.9:2380",)
VOTERS = (1, 2, 3)
FOUNDED = Membership.founded([Member(number, (f"http://10.0.0.{number}:2380",), f"m{number}") for number in VOTERS])
ADDED = Entry(
    5,
    1,
    EntryKind.CONF,
    encode(ConfState(VOTERS, (), (LEARNER,)), pack_newcomer(Member(LEARNER, URLS, is_learner=True))),
)
PROMOTED = [
    Entry(6, 1, EntryKind.CONF, encode(ConfState((*VOTERS, LEARNER), VOTERS, ()))),
    Entry(7, 1, EntryKind.CONF, encode(ConfState((*VOTERS, LEARNER), (), ()))),
]


def kept(membership: Membership) -> Membership:
    """As it comes back from a member's own file, by way of a snapshot to another member."""
    _, meta = unpack_meta(pack_meta(1, Meta(1, membership)))
    return membership_from_json(json.loads(json.dumps(membership_json(meta.membership))))


@pytest.mark.parametrize("stored_at", [0, 5, 6, 7])
def test_a_promotion_is_known_wherever_a_member_begins_to_read(stored_at: int) -> None:
    """etcd #19557, #20340 and #20793: it was written to one of two stores, and snapshots carried the other."""
    log = [ADDED, *PROMOTED]
    stored = kept(known_membership(FOUNDED, log, stored_at))
    now = known_membership(stored, log, 7)
    assert now.members[LEARNER] == Member(LEARNER, URLS)
    assert now.conf == ConfState((*VOTERS, LEARNER), (), ())
    assert kept(now) == now
    check_add(now, ["http://new:2380"], True, Rules(strict=True, learners_max=1), {*VOTERS, LEARNER})


@pytest.mark.parametrize("is_joining", [False, True])
def test_a_learner_that_moves_or_says_its_name_stays_a_learner(is_joining: bool) -> None:
    """etcd #21694: an update of its addresses made it a voter in all lists, and not in Raft."""
    newcomer = Member(LEARNER, URLS, is_learner=not is_joining, is_joining=is_joining)
    now = FOUNDED.with_conf(5, encode(ConfState(VOTERS, (), (LEARNER,)), pack_newcomer(newcomer)))
    moved = now.with_attributes(6, pack_peer_urls(LEARNER, ["http://moved:2380"]))
    named = moved.with_attributes(7, pack_attributes(LEARNER, "m9", ["http://moved:2379"]))
    for after in (moved, named, kept(named)):
        member = after.members[LEARNER]
        assert member.peer_urls == ("http://moved:2380",)
        assert (member.is_learner, member.is_joining) == (not is_joining, is_joining)
        assert after.conf == now.conf


def test_a_learner_is_added_while_a_member_is_away() -> None:
    """etcd #21640: it was refused, though it changes no majority."""
    check_add(FOUNDED, ["http://new:2380"], True, Rules(strict=True, learners_max=1), {1, 2})


def lost(membership: Membership, own: int) -> list[Membership]:
    """What the file of a member may say of a cluster that is lost: learners, a change under way, one joining."""
    others = tuple(number for number in membership.conf.voters if number != own)
    learner = Member(LEARNER, URLS, "m9", is_learner=True)
    members = {**membership.members, LEARNER: learner}
    joining = {**membership.members, LEARNER: replace(learner, is_learner=False, is_joining=True)}
    voters = membership.conf.voters
    return [
        replace(membership, conf=ConfState(voters, (), (LEARNER,)), members=members),
        replace(membership, conf=ConfState((*voters, LEARNER), voters, ()), members=members),
        replace(membership, conf=ConfState(voters, (), (LEARNER,)), members=joining),
        replace(membership, conf=ConfState(others[:1], voters, (own, LEARNER)), members=members),
    ]


@pytest.mark.parametrize("case", range(4))
@pytest.mark.parametrize("has_tail", [False, True])
def test_a_member_that_goes_on_alone_takes_nobody_along(tmp_path: Path, case: int, has_tail: bool) -> None:
    """etcd #20893 and #20055: learners that only a snapshot named stayed, and in a corner case other members."""
    first = begin(tmp_path)
    own = first.meta.member_id
    membership = lost(first.meta.membership, own)[case]
    first.meta_files.write(Meta(own, membership))
    if has_tail:
        late = Member(77, ("http://10.0.0.77:2380",), "late", is_learner=True)
        conf = ConfState(tuple(sorted({own, *membership.conf.voters})), (), (77,))
        first.wal.append([Entry(1, 2, EntryKind.CONF, encode(conf, pack_newcomer(late)))], HardState(2, 0, 0))
    first.wal.close()
    start = begin(tmp_path)
    go_alone(start)
    start.wal.close()
    again = begin(tmp_path)
    now = known_membership(again.meta.membership, again.wal.recovered, again.wal.last_index)
    assert list(now.members) == [own]
    assert now.conf == ConfState(voters=(own,))
    assert not now.members[own].is_learner
    assert again.wal.hard_state.commit == again.wal.last_index
    again.wal.close()
