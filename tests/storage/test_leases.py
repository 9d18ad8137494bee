"""Leases: the lessor on a clock of the test's, and its commands through the log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from struct import pack, unpack
from typing import Any

import pytest

from quorate.node import logs
from quorate.proto import rpc_pb2
from quorate.storage import txn
from quorate.storage.apply import CHECKPOINT, EXPIRE
from quorate.storage.auto_compaction import policy
from quorate.storage.corruption import Corruption
from quorate.storage.lessor import EXPIRE_RETRY_SECONDS, RENEWALS_KEPT, TTL_MAX, Lessor
from quorate.storage.proposer import Proposer
from quorate.wire import errors
from quorate.wire.errors import CallFailed, EtcdError
from quorate.wire.messages import Op, commands_of
from tests.storage.member import Member


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Member]:
    made = Member(tmp_path / "db")
    yield made
    made.close()


def fails_with(error: EtcdError, call: Any, *arguments: Any, **options: Any) -> None:
    with pytest.raises(CallFailed) as failure:
        call(*arguments, **options)
    assert error == failure.value.error


def grant(member: Member, lease_id: int, ttl: int) -> rpc_pb2.LeaseGrantResponse:
    response: rpc_pb2.LeaseGrantResponse = member.apply(Op.LEASE_GRANT, rpc_pb2.LeaseGrantRequest(ID=lease_id, TTL=ttl))
    return response


def revoke(member: Member, lease_id: int) -> None:
    member.apply(Op.LEASE_REVOKE, rpc_pb2.LeaseRevokeRequest(ID=lease_id))


def keep_alive(member: Member, lease_id: int) -> rpc_pb2.LeaseKeepAliveResponse:
    response: rpc_pb2.LeaseKeepAliveResponse = member.apply(
        Op.LEASE_KEEP_ALIVE, rpc_pb2.LeaseKeepAliveRequest(ID=lease_id)
    )
    return response


def time_to_live(member: Member, lease_id: int, keys: bool = False) -> rpc_pb2.LeaseTimeToLiveResponse:
    response: rpc_pb2.LeaseTimeToLiveResponse = member.ask(
        Op.LEASE_TIME_TO_LIVE, rpc_pb2.LeaseTimeToLiveRequest(ID=lease_id, keys=keys)
    )
    return response


def packed(*lease_ids: int) -> bytes:
    """As LEASE_RENEW names leases."""
    return pack(f"<{len(lease_ids)}q", *lease_ids)


def renew_together(member: Member, *lease_ids: int) -> list[int]:
    """The TTLs that one command for all of them answers."""
    answer: bytes = member.apply(Op.LEASE_RENEW, packed(*lease_ids))
    return list(unpack(f"<{len(lease_ids)}q", answer[-8 * len(lease_ids) :]))


def propose_expiries(member: Member) -> list[bytes]:
    """What the leader's loop would propose now."""
    due = member.state.lessor.overdue(member.now, 500)
    return [EXPIRE.pack(lease.lease_id, lease.renewed_index) for lease in due]


@pytest.mark.parametrize(("asked", "granted"), [(60, 60), (1, 2), (0, 2), (-5, 2), (TTL_MAX, TTL_MAX)])
def test_a_ttl_below_the_minimum_is_raised_to_it(member: Member, asked: int, granted: int) -> None:
    response = grant(member, 7, asked)
    assert (7, granted, 1) == (response.ID, response.TTL, response.header.revision)


def test_a_grant_is_refused_for_a_known_id_and_for_too_long_a_time(member: Member) -> None:
    grant(member, 7, 10)
    fails_with(errors.LEASE_EXIST, grant, member, 7, 10)
    fails_with(errors.LEASE_TTL_TOO_LARGE, grant, member, 8, TTL_MAX + 1)
    assert [7] == list(member.state.lessor.leases)


def test_a_negative_id_is_a_lease_like_any_other(member: Member) -> None:
    grant(member, -3, 10)
    member.put(b"a", lease=-3)
    assert -3 == member.range(b"a").kvs[0].lease
    member.state.commit()
    member.restart()
    assert [b"a"] == list(time_to_live(member, -3, keys=True).keys)


def test_revoking_deletes_its_keys_in_one_revision(member: Member) -> None:
    grant(member, 7, 10)
    for key in (b"b", b"a", b"c"):
        member.put(key, lease=7)
    revoke(member, 7)
    assert (0, 5) == (member.range(b"\0", b"\0").count, member.state.store.revision)
    fails_with(errors.LEASE_NOT_FOUND, revoke, member, 7)


def test_a_revision_never_takes_more_deletions_than_it_can_number(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(txn, "DELETIONS_MAX", 3)
    grant(member, 1, 10)
    for number in range(7):
        member.put(b"k%d" % number, lease=1)
    before = member.state.store.revision
    revoke(member, 1)
    assert (before + 3, 0) == (member.state.store.revision, member.range(b"k", b"l").count)


def test_revoking_a_lease_without_keys_makes_no_revision(member: Member) -> None:
    grant(member, 7, 10)
    revoke(member, 7)
    assert 1 == member.state.store.revision


def test_a_put_moves_keeps_or_ends_the_attachment(member: Member) -> None:
    grant(member, 7, 10)
    grant(member, 8, 10)
    member.put(b"a", lease=7)
    member.put(b"a", b"x", ignore_lease=True)
    assert [b"a"] == list(time_to_live(member, 7, keys=True).keys)
    assert 7 == member.range(b"a").kvs[0].lease
    member.put(b"a", lease=8)
    assert [[], [b"a"]] == [list(time_to_live(member, each, keys=True).keys) for each in (7, 8)]
    member.put(b"a", b"free")
    assert [] == list(time_to_live(member, 8, keys=True).keys)
    revoke(member, 8)
    assert 1 == member.range(b"a").count


def test_a_deleted_key_is_no_longer_attached(member: Member) -> None:
    grant(member, 7, 10)
    member.put(b"a", lease=7)
    member.delete(b"a")
    assert [] == list(time_to_live(member, 7, keys=True).keys)
    member.put(b"a")
    revoke(member, 7)
    assert 1 == member.range(b"a").count


def test_a_put_under_an_unknown_lease_is_refused_before_the_missing_key_is_noticed(member: Member) -> None:
    fails_with(errors.LEASE_NOT_FOUND, member.put, b"a", lease=9)
    fails_with(errors.LEASE_NOT_FOUND, member.put, b"a", lease=9, ignore_value=True)


def test_time_to_live_counts_down_and_a_renewal_starts_it_anew(member: Member) -> None:
    grant(member, 7, 10)
    member.now += 3.5
    answer = time_to_live(member, 7)
    assert (7, 6, 10) == (answer.ID, answer.TTL, answer.grantedTTL)
    assert 10 == keep_alive(member, 7).TTL
    assert 10 == time_to_live(member, 7).TTL


def test_an_unknown_lease_has_the_answers_etcd_gives(member: Member) -> None:
    assert 0 == keep_alive(member, 9).TTL
    answer = time_to_live(member, 9)
    assert (-1, 0) == (answer.TTL, answer.grantedTTL)


def test_an_overdue_lease_is_proposed_once_and_again_after_a_while(member: Member) -> None:
    grant(member, 7, 10)
    member.now += 9.9
    assert [] == propose_expiries(member)
    member.now += 0.2
    assert [EXPIRE.pack(7, 1)] == propose_expiries(member)
    member.now += 1
    assert [] == propose_expiries(member)
    member.now += EXPIRE_RETRY_SECONDS
    assert [EXPIRE.pack(7, 1)] == propose_expiries(member)


def test_a_renewal_ordered_before_the_expiry_makes_it_void(member: Member) -> None:
    grant(member, 7, 10)
    member.put(b"a", lease=7)
    member.now += 11
    (proposal,) = propose_expiries(member)
    keep_alive(member, 7)
    member.applier.expire(proposal)
    assert 1 == member.range(b"a").count
    member.now += 11
    assert [EXPIRE.pack(7, 3)] == propose_expiries(member)


def test_a_renewal_takes_a_proposal_to_expire_back_until_the_lease_is_overdue_again(member: Member) -> None:
    grant(member, 7, 60)
    member.now += 61
    assert [EXPIRE.pack(7, 1)] == propose_expiries(member)
    keep_alive(member, 7)
    member.now += EXPIRE_RETRY_SECONDS + 1
    assert [] == propose_expiries(member)
    member.now += 60
    assert [EXPIRE.pack(7, 2)] == propose_expiries(member)


def test_an_expired_lease_takes_its_keys_along(member: Member) -> None:
    grant(member, 7, 10)
    member.put(b"a", lease=7)
    member.now += 11
    (proposal,) = propose_expiries(member)
    member.applier.expire(proposal)
    assert (0, 3) == (member.range(b"a").count, member.state.store.revision)
    assert -1 == time_to_live(member, 7).TTL


def test_leases_survive_a_restart_with_their_keys_and_their_whole_time(member: Member) -> None:
    grant(member, 7, 10)
    member.put(b"a", lease=7)
    keep_alive(member, 7)
    member.state.commit()
    member.now += 8
    member.restart()
    answer = time_to_live(member, 7, keys=True)
    assert (10, [b"a"]) == (answer.TTL, list(answer.keys))
    assert 3 == member.state.lessor.leases[7].renewed_index


def test_a_restart_finds_no_key_under_a_lease_that_was_revoked_after_a_commit(member: Member) -> None:
    grant(member, 7, 10)
    member.put(b"a", lease=7)
    member.state.commit()
    revoke(member, 7)
    member.put(b"a")
    member.state.commit()
    member.restart()
    assert not member.state.lessor.lease_of
    assert not member.state.lessor.leases
    assert 0 == member.range(b"a").kvs[0].lease


def test_many_leases_are_renewed_by_one_command_and_the_unknown_have_no_time(member: Member) -> None:
    grant(member, 7, 10)
    grant(member, -8, 20)
    member.now += 5
    assert [10, 0, 20, 10] == renew_together(member, 7, 9, -8, 7)
    assert [10, 20] == [time_to_live(member, lease_id).TTL for lease_id in (7, -8)]


def test_a_member_that_comes_back_judges_a_proposal_to_expire_as_the_others_do(member: Member) -> None:
    """What it knows of renewals decides that, and no row of a lease says it."""
    for lease_id in (1, 2, 3):
        grant(member, lease_id, 10)
    member.state.commit()
    renew_together(member, 1, 2)
    member.state.commit()
    renew_together(member, 2)
    member.state.commit()
    revoke(member, 3)
    grant(member, 3, 10)
    before = {each.lease_id: each.renewed_index for each in member.state.lessor.leases.values()}
    assert {1: 4, 2: 5, 3: 7} == before
    member.state.commit()
    member.restart()
    assert before == {each.lease_id: each.renewed_index for each in member.state.lessor.leases.values()}
    member.applier.expire(EXPIRE.pack(2, 4))
    member.applier.expire(EXPIRE.pack(1, 4))
    assert {2, 3} == set(member.state.lessor.leases)


def test_records_of_renewals_do_not_pile_up(member: Member) -> None:
    for lease_id in (1, 2, 3):
        grant(member, lease_id, 10)
    rows = []
    for _ in range(3):
        for _ in range(2):
            renew_together(member, *[1, 2] * (RENEWALS_KEPT // 4))
            member.state.commit()
        rows.append(member.state.database.connection.execute("SELECT count(*), sum(length(leases)) FROM renewal"))
    counts = [each.fetchone() for each in rows]
    assert all(count <= 3 for count, _ in counts), counts
    before = {each.lease_id: each.renewed_index for each in member.state.lessor.leases.values()}
    member.restart()
    assert before == {each.lease_id: each.renewed_index for each in member.state.lessor.leases.values()}


def test_leases_are_listed_by_the_time_they_have_left(member: Member) -> None:
    for lease_id, ttl in ((1, 30), (2, 10), (3, 20)):
        grant(member, lease_id, ttl)
    listed: rpc_pb2.LeaseLeasesResponse = member.ask(Op.LEASE_LEASES, rpc_pb2.LeaseLeasesRequest())
    assert [2, 3, 1] == [each.ID for each in listed.leases]


def test_many_overdue_leases_are_proposed_in_portions() -> None:
    lessor = Lessor(2)
    for lease_id in range(1, 1201):
        lessor.grant(lease_id, 5, 0.0, 1)
    portions = [len(lessor.overdue(10.0, 500)) for _ in range(4)]
    assert [500, 500, 200, 0] == portions


def test_leases_that_are_gone_leave_nothing_behind_on_a_member_that_does_not_lead() -> None:
    lessor = Lessor(2)
    for lease_id in range(1, 101):
        lessor.grant(lease_id, 5, 0.0, 1)
    overdue = {lease.lease_id for lease in lessor.overdue(10.0, 7)}
    for index in range(2, 20_000):
        lessor.grant(101, 86_400, 10.0, index)
        lessor.revoke(101)
    assert len(lessor._deadlines) < 3_000
    lessor.renew(packed(min(overdue)), 10.0, 20_000)
    due = {lease.lease_id for lease in lessor.overdue(16.0, 500)}
    assert set(range(1, 101)) - overdue | {min(overdue)} == due


# --- checkpoints -----------------------------------------------------------------------------------------------------


def test_long_leases_are_checkpointed_and_short_or_renewed_ones_are_not() -> None:
    lessor = Lessor(2)
    lessor.grant(1, 3600, 0.0, 1)
    lessor.grant(2, 300, 0.0, 1)
    lessor.grant(3, 3600, 0.0, 1)
    assert [] == lessor.checkpoints(1.0, 100)
    lessor.renew(packed(3), 250.0, 2)
    assert [(1, 1, 3299)] == lessor.checkpoints(301.0, 100)
    assert [] == lessor.checkpoints(302.0, 100)


def test_a_restart_begins_with_what_was_left_and_a_renewal_with_all_of_it(member: Member) -> None:
    member.apply(Op.LEASE_GRANT, rpc_pb2.LeaseGrantRequest(ID=1, TTL=3600))
    member.apply(Op.LEASE_GRANT, rpc_pb2.LeaseGrantRequest(ID=2, TTL=3600))
    checkpoint = b"".join(CHECKPOINT.pack(lease_id, index, 600) for lease_id, index in ((1, 1), (2, 2), (3, 3)))
    applier = member.applier
    member.now = applier.now = member.now + 3000
    applier.checkpoint(checkpoint)
    member.apply(Op.LEASE_KEEP_ALIVE, rpc_pb2.LeaseKeepAliveRequest(ID=2))
    member.state.commit()
    member.now += 100
    member.restart()
    leases = member.state.lessor.leases
    assert (600, 3600) == tuple(round(leases[lease_id].remaining(member.now)) for lease_id in (1, 2))
    assert 3600 == leases[1].granted_ttl


def test_a_lease_of_centuries_is_not_checkpointed_and_holds_up_nothing(member: Member) -> None:
    grant(member, 1, TTL_MAX)
    grant(member, 2, 3600)
    proposer = Proposer(
        member.applier, policy("periodic", "0", 0.0), Corruption(0, 0, False, 0.0), logs.named("storage")
    )
    proposer.commands(member.now, is_leader=True)
    ((_, _, body),) = commands_of(b"".join(proposer.commands(member.now + 301, is_leader=True)))
    assert [(2, 2, 3299)] == list(CHECKPOINT.iter_unpack(body))


def test_a_checkpoint_of_a_lease_that_was_renewed_since_is_void() -> None:
    lessor = Lessor(2)
    lessor.grant(1, 3600, 0.0, 1)
    lessor.renew(packed(1), 10.0, 2)
    lessor.checkpoint(1, 1, 600, 11.0)
    assert 3599 == lessor.leases[1].remaining(11.0)


def test_a_member_that_counts_longer_than_the_leader_follows_it() -> None:
    lessor = Lessor(2)
    lessor.load([(1, 3600, 3600)], [], [], 1000.0)
    lessor.checkpoint(1, 0, 60, 1000.0)
    assert [] == lessor.overdue(1059.0, 10)
    assert [1] == [lease.lease_id for lease in lessor.overdue(1060.0, 10)]


def test_a_checkpoint_never_makes_a_lease_live_longer() -> None:
    lessor = Lessor(2)
    lessor.grant(1, 1000, 0.0, 5)
    lessor.checkpoint(1, 5, 900, 500.0)
    assert [1] == [lease.lease_id for lease in lessor.overdue(1000.0, 10)]
