"""The rules of leases and locks: a lawful history passes, and every planted violation is found."""

from tests.checking.history import Change, Fate
from tests.checking.leases import Fenced, Holding, Leasing, Renewal, check_leases, check_locks

S = 10**9
LOG = [
    Change(2, b"a", b"1"),
    Change(3, b"b", b"2"),
    Change(4, b"a", None),
    Change(4, b"b", None),
]


def leasing(*renewals: Renewal, revoked: Fate | None = None) -> Leasing:
    return Leasing(7, [Renewal(1 * S, 2 * S, 5), *renewals], [b"a", b"b"], revoked)


def test_a_lease_that_ends_when_its_time_is_over_is_lawful() -> None:
    assert [] == list(check_leases([leasing()], LOG, {4: 6 * S}))


def test_a_lease_that_ends_early_is_found() -> None:
    assert [] != list(check_leases([leasing()], LOG, {4: 5 * S}))


def test_a_renewal_that_was_acknowledged_counts() -> None:
    renewed = leasing(Renewal(4 * S, 5 * S, 5))
    assert [] != list(check_leases([renewed], LOG, {4: 6 * S}))
    assert [] == list(check_leases([renewed], LOG, {4: 9 * S}))


def test_a_lease_that_was_revoked_may_end_at_any_time() -> None:
    assert [] == list(check_leases([leasing(revoked=Fate.UNKNOWN)], LOG, {4: 2 * S}))


def test_keys_that_do_not_go_together_are_found() -> None:
    apart = [*LOG[:3], Change(5, b"b", None)]
    assert [] != list(check_leases([leasing()], apart, {4: 9 * S, 5: 9 * S}))


LOCKED = [
    Change(2, b"l/1", b""),
    Change(3, b"l/2", b""),
    Change(4, b"fence", b"2"),
    Change(5, b"l/1", None),
    Change(6, b"fence", b"3"),
]
FENCES = [Fenced(b"l/", b"l/1", 2, 4), Fenced(b"l/", b"l/2", 3, 6)]


def test_the_oldest_claim_holds_the_lock() -> None:
    assert [] == list(check_locks([Holding(b"l/", b"l/1", 2), Holding(b"l/", b"l/2", 5)], FENCES, LOCKED))


def test_a_second_holder_is_found() -> None:
    assert [] != list(check_locks([Holding(b"l/", b"l/2", 3)], [], LOCKED))


def test_a_holder_whose_lease_had_ended_is_found() -> None:
    """etcd granted the lock to a waiter whose lease had run out (Jepsen, etcd 3.4.3)."""
    assert [] != list(check_locks([Holding(b"l/", b"l/1", 5)], [], LOCKED))


def test_a_write_without_the_lock_is_found() -> None:
    assert [] != list(check_locks([], [Fenced(b"l/", b"l/2", 3, 4)], LOCKED))


def test_a_token_that_goes_back_is_found() -> None:
    assert [] != list(check_locks([], [*FENCES, Fenced(b"l/", b"l/1", 2, 7)], LOCKED))
