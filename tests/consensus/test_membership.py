"""Ids as etcd computes them, members as entries change them, and the files that keep them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from quorate.consensus.calls import Rules, check_add, check_remove, check_urls_free, checked_urls
from quorate.consensus.membership import (
    Member,
    Membership,
    Meta,
    cluster_id,
    member_id,
    membership_from_json,
    membership_json,
    pack_attributes,
    pack_cluster_version,
    pack_meta,
    pack_newcomer,
    pack_peer_urls,
    unpack_meta,
)
from quorate.consensus.meta import MetaFiles
from quorate.consensus.raft.confchange import encode
from quorate.consensus.raft.messages import ConfState
from quorate.consensus.wal_format import DamagedLog
from quorate.wire import errors
from quorate.wire.errors import CallFailed, EtcdError

A, B, C, D = (Member(number, (f"http://10.0.0.{number}:2380",), f"m{number}") for number in (1, 2, 3, 4))


def test_the_default_single_member_has_etcds_ids() -> None:
    number = member_id(["http://localhost:2380"], "etcd-cluster")
    assert 0x8E9E05C52164694D == number
    assert 0xCDF818194E3A8C32 == cluster_id([number])


def test_ids_do_not_depend_on_order() -> None:
    assert member_id(["http://a:1", "http://b:2"], "t") == member_id(["http://b:2", "http://a:1"], "t")
    assert cluster_id([1, 2, 3]) == cluster_id([3, 1, 2])


def test_a_member_added_later_has_an_id_of_its_moment() -> None:
    assert member_id(["http://a:1"], "", 1) != member_id(["http://a:1"], "", 2)


def test_a_member_comes_as_a_learner_is_promoted_and_leaves_for_good() -> None:
    now = Membership.founded([A, B, C])
    newcomer = Member(4, D.peer_urls, is_learner=True)
    now = now.with_conf(5, encode(ConfState((1, 2, 3), (), (4,)), pack_newcomer(newcomer)))
    assert newcomer == now.members[4]
    assert not now.members[4].is_started
    now = now.with_conf(6, encode(ConfState((1, 2, 3, 4), (1, 2, 3), ())))
    now = now.with_conf(7, encode(ConfState((1, 2, 3, 4), (), ())))
    assert not now.members[4].is_learner
    now = now.with_conf(8, encode(ConfState((2, 3, 4), (1, 2, 3, 4), ())))
    assert 1 in now.members
    now = now.with_conf(9, encode(ConfState((2, 3, 4), (), ())))
    assert ({2, 3, 4}, frozenset({1}), 9) == (set(now.members), now.removed, now.index)


def test_a_member_has_its_vote_until_it_has_left_the_old_half() -> None:
    now = Membership.founded([A, B, C])
    now = now.with_conf(5, encode(ConfState((1, 2), (1, 2, 3), (3,))))
    assert not now.members[3].is_learner
    now = now.with_conf(6, encode(ConfState((1, 2), (), (3,))))
    assert now.members[3].is_learner


def test_what_a_member_says_of_itself_outlives_the_entry_that_brought_it() -> None:
    known = replace(A, name="known", client_urls=("http://a:9",))
    now = Membership(7, 0, ConfState(), {known.id: known})
    assert known == now.with_conf(2, encode(ConfState((A.id,)), pack_newcomer(A))).members[A.id]


def test_one_that_is_joining_is_no_learner_and_has_no_vote_yet() -> None:
    newcomer = Member(9, ("http://n:1",), is_joining=True)
    alone = Membership.founded([Member(1, ("http://a:1",))])
    payload = encode(ConfState((1,), (), (9,)), pack_newcomer(newcomer))
    added = alone.with_conf(5, payload)
    assert (added.members[9].is_learner, added.members[9].is_joining) == (False, True)
    assert membership_from_json(json.loads(json.dumps(membership_json(added)))) == added
    joint = added.with_conf(6, encode(ConfState((1, 9), (1,), ())))
    assert (joint.members[9].is_learner, joint.members[9].is_joining) == (False, False)


def test_one_that_joins_does_not_take_itself_for_removed_while_it_reads_old_configurations() -> None:
    now = Membership(7, 0, ConfState(), {m.id: m for m in (A, B, C)})
    now = now.with_conf(2, encode(ConfState((1, 2), (), ()), pack_newcomer(B)))
    assert {1, 2, 3} == set(now.members)
    now = now.with_conf(3, encode(ConfState((1, 2, 3), (), ()), pack_newcomer(C)))
    assert ({1, 2, 3}, frozenset()) == (set(now.members), now.removed)


def test_attributes_change_what_a_member_says_of_itself() -> None:
    now = Membership.founded([A, B])
    now = now.with_attributes(3, pack_attributes(1, "new", ["http://c:2379"]))
    assert ("new", ("http://c:2379",), A.peer_urls) == (
        now.members[1].name,
        now.members[1].client_urls,
        now.members[1].peer_urls,
    )
    now = now.with_attributes(4, pack_peer_urls(1, ["https://moved:2380"]))
    assert (("https://moved:2380",), "new") == (now.members[1].peer_urls, now.members[1].name)
    now = now.with_attributes(5, pack_cluster_version("3.6.0"))
    assert ("3.6.0", 5) == (now.cluster_version, now.index)
    assert now.members == now.with_attributes(6, pack_attributes(99, "gone", [])).members


def example() -> Meta:
    membership = Membership(2**64 - 1, 9, ConfState((1, 2), (1, 3), (4,)), {1: A, 4: D}, frozenset({7, 2**63}), "3.6.0")
    return Meta(1, membership, 8, 2)


def test_meta_is_read_back() -> None:
    assert (3, example()) == unpack_meta(pack_meta(3, example()))
    assert example().membership == membership_from_json(membership_json(example().membership))


def test_0_1_0_can_read_a_membership() -> None:
    assert membership_json(example().membership)["autoLeave"] is True


def test_a_changed_byte_of_meta_is_noticed() -> None:
    data = bytearray(pack_meta(3, example()))
    data[-5] ^= 1
    with pytest.raises(ValueError, match="checksum"):
        unpack_meta(bytes(data))


@pytest.mark.parametrize("name", ["meta.a", "meta.b"])
@pytest.mark.parametrize("content", [None, b"", b"garbage"])
def test_one_copy_of_meta_may_be_lost(tmp_path: Path, name: str, content: bytes | None) -> None:
    MetaFiles(tmp_path).write(example())
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    assert example() == MetaFiles(tmp_path).read()


def test_the_newer_copy_of_meta_counts(tmp_path: Path) -> None:
    files = MetaFiles(tmp_path)
    files.write(Meta(5, example().membership))
    old = (tmp_path / "meta.b").read_bytes()
    files.write(example())
    (tmp_path / "meta.b").write_bytes(old)  # a crash between the two
    assert example() == MetaFiles(tmp_path).read()


def test_two_damaged_copies_of_meta_are_refused(tmp_path: Path) -> None:
    assert MetaFiles(tmp_path).read() is None
    MetaFiles(tmp_path).write(example())
    for name in ("meta.a", "meta.b"):
        (tmp_path / name).write_bytes(b"garbage")
    with pytest.raises(DamagedLog, match="neither copy"):
        MetaFiles(tmp_path).read()


@pytest.mark.parametrize(
    "urls", [[], ["10.0.0.1:2380"], ["http://10.0.0.1"], ["http://a:1/path"], ["ftp://a:1"], ["http://a:x"]]
)
def test_bad_urls_of_a_new_member_are_refused(urls: list[str]) -> None:
    with pytest.raises(CallFailed) as raised:
        checked_urls(urls)
    assert errors.MEMBER_BAD_URLS == raised.value.error


STRICT = Rules(strict=True, learners_max=1)
LAX = Rules(strict=False, learners_max=1)
THREE = Membership.founded([A, B, C])
ONE = Membership.founded([A])
UNSTARTED = Membership.founded([A, B, Member(3, C.peer_urls)])
HALF_STARTED = Membership.founded([A, Member(2, B.peer_urls)])
WITH_LEARNER = Membership(1, 1, ConfState((1,), (), (2,)), {1: A, 2: Member(2, B.peer_urls, is_learner=True)})


@pytest.mark.parametrize(
    ("membership", "is_learner", "rules", "active", "expected"),
    [
        (THREE, False, STRICT, {1, 2, 3}, None),
        (THREE, False, STRICT, {1, 2}, errors.UNHEALTHY),
        (THREE, False, LAX, {1}, None),
        (ONE, False, STRICT, {1}, None),
        (UNSTARTED, False, STRICT, {1, 2, 3}, errors.MEMBER_NOT_ENOUGH_STARTED),
        (HALF_STARTED, False, STRICT, {1, 2}, errors.MEMBER_NOT_ENOUGH_STARTED),
        (HALF_STARTED, True, STRICT, {1}, None),
        (WITH_LEARNER, True, STRICT, {1}, errors.TOO_MANY_LEARNERS),
        (WITH_LEARNER, False, STRICT, {1}, None),
    ],
)
def test_conditions_for_a_new_member(
    membership: Membership, is_learner: bool, rules: Rules, active: set[int], expected: EtcdError | None
) -> None:
    found = None
    try:
        check_add(membership, ["http://new:2380"], is_learner, rules, active)
    except CallFailed as failed:
        found = failed.error
    assert expected == found


def test_a_voter_is_added_while_one_of_five_is_away_and_not_while_one_of_three_is() -> None:
    """etcd #21640: who answered had to be connected to everybody; a majority with the new member is what it takes."""
    five = Membership.founded([A, B, C, Member(4, ("http://d:2380",), "d"), Member(5, ("http://e:2380",), "e")])
    check_add(five, ["http://new:2380"], False, STRICT, {1, 2, 3, 4})
    for membership, active in ((five, {1, 2, 3}), (THREE, {1, 2})):
        with pytest.raises(CallFailed) as raised:
            check_add(membership, ["http://new:2380"], False, STRICT, active)
        assert errors.UNHEALTHY == raised.value.error


@pytest.mark.parametrize(
    ("membership", "number", "rules", "active", "expected"),
    [
        (THREE, 3, STRICT, {1, 2, 3}, None),
        (THREE, 9, STRICT, {1, 2, 3}, errors.MEMBER_NOT_FOUND),
        (THREE, 3, STRICT, {1, 2}, None),
        (THREE, 2, STRICT, {1, 2}, errors.UNHEALTHY),
        (ONE, 1, STRICT, {1}, errors.MEMBER_NOT_ENOUGH_STARTED),
        (WITH_LEARNER, 2, STRICT, {1}, None),
        (UNSTARTED, 2, STRICT, {1, 2}, errors.MEMBER_NOT_ENOUGH_STARTED),
        (UNSTARTED, 3, STRICT, {1, 2}, None),
    ],
)
def test_conditions_for_a_removal(
    membership: Membership, number: int, rules: Rules, active: set[int], expected: EtcdError | None
) -> None:
    found = None
    try:
        check_remove(membership, number, rules, active)
    except CallFailed as failed:
        found = failed.error
    assert expected == found


def test_an_address_belongs_to_one_member() -> None:
    check_urls_free(THREE, ["http://10.0.0.1:2380"], but=1)
    with pytest.raises(CallFailed) as raised:
        check_urls_free(THREE, ["http://10.0.0.1:2380"], but=2)
    assert errors.PEER_URL_EXIST == raised.value.error
