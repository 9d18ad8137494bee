"""Leases: a promise to delete keys when nobody renews it in time. Pure; time arrives as seconds of a monotonic clock.

Grants, renewals and revocations are commands in the log. Every member counts the time to live from its own apply of
the last grant or renewal, so whoever leads next knows the deadlines already. The leader proposes to expire what is
overdue, naming the renewal it saw last; a renewal that was ordered first makes that proposal void, on every member
alike. After a restart the time starts anew: a lease may live longer than granted, never shorter. So that it is not much
longer for a lease of hours or days, the leader has what is left of long leases ordered every few minutes (etcd's
lease checkpoints), and a restart begins with that.

A renewal is known by its place in the log. It changes no row of its lease: what was renewed since the last commit is
written as one record (`RENEWED`), and all records are replaced by a single one when they say the same often enough.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from math import ceil
from struct import Struct, unpack_from
from typing import Final

from quorate.storage.buckets import Buckets
from quorate.wire import errors
from quorate.wire.errors import CallFailed

TTL_MAX: Final = 9_000_000_000  # seconds; contract 7.1
EXPIRE_RETRY_SECONDS: Final = 7.0  # a proposal to expire that had no effect by then was lost
NO_LEASE: Final = 0
RENEWED: Final = Struct("<QI")  # log index and how many leases were granted or renewed there; their ids (i64) follow
DEADLINES_SPARE: Final = 1_000  # of leases that are gone, besides as many as there are leases
RENEWALS_KEPT: Final = 50_000  # written one record after the other, and four of each lease
CHECKPOINT_SECONDS: Final = 300  # etcd's interval; shorter leases end or are renewed before it matters
CHECKPOINT_TTL_MAX: Final = (1 << 32) - 1  # what a checkpoint can say: a lease of centuries begins anew instead


class Lease:
    """One lease. `renewed_index` is part of the state, `deadline` is this member's own."""

    __slots__ = ("deadline", "granted_ttl", "keys", "lease_id", "remaining_ttl", "renewed_index")

    def __init__(
        self, lease_id: int, granted_ttl: int, renewed_index: int, remaining_ttl: int, deadline: float
    ) -> None:
        self.lease_id = lease_id
        self.granted_ttl = granted_ttl  # seconds
        self.renewed_index = renewed_index  # log index of its grant or last renewal
        self.remaining_ttl = remaining_ttl  # seconds a restart begins with
        self.deadline = deadline
        self.keys: set[bytes] = set()

    def remaining(self, now: float) -> float:
        """Seconds left; negative when overdue."""
        return self.deadline - now


class Lessor:
    """All leases of the store. `dirty_leases`, `dirty_keys` and the renewals collect what is to be written."""

    def __init__(self, ttl_min: int) -> None:
        self.leases: dict[int, Lease] = {}
        self.lease_of: dict[bytes, int] = {}  # keys under a lease
        self.dirty_leases: set[int] = set()
        self.dirty_keys: set[bytes] = set()
        self.granted = self.revoked = self.renewed = self.expired = 0
        self.ttls = Buckets(1.0, 2, 24)  # of those granted, in seconds
        self._ttl_min = ttl_min
        self._deadlines: list[tuple[float, int]] = []  # a heap; deadlines in it may be outdated, and their leases gone
        self._expiring: dict[int, float] = {}  # proposed to expire, and when
        self._next_round = 0.0
        self._round: list[int] = []  # leases to be looked at for a checkpoint
        self._renewed: list[bytes] = []  # since the last commit: RENEWED and ids in turn
        self._renewals_written = 0  # in all records

    def load(
        self,
        leases: Iterable[tuple[int, int, int]],
        renewed: Iterable[bytes],
        attachments: Iterable[tuple[bytes, int]],
        now: float,
    ) -> None:
        """Take over (lease id, granted TTL, remaining TTL), records of renewals and (key, lease id) as written."""
        for lease_id, granted_ttl, remaining_ttl in leases:
            self.leases[lease_id] = Lease(lease_id, granted_ttl, 0, remaining_ttl, now + remaining_ttl)
        for record in renewed:
            self._load_renewals(record)
        for key, lease_id in attachments:
            self.leases[lease_id].keys.add(key)
            self.lease_of[key] = lease_id
        self._deadlines = [(lease.deadline, lease.lease_id) for lease in self.leases.values()]
        heapify(self._deadlines)

    def _load_renewals(self, record: bytes) -> None:
        position = 0
        while position < len(record):
            index, count = RENEWED.unpack_from(record, position)
            position += RENEWED.size
            for lease_id in unpack_from(f"<{count}q", record, position):
                lease = self.leases.get(lease_id)
                if lease is not None:
                    lease.renewed_index = index
            position += 8 * count
            self._renewals_written += count

    # --- commands ----------------------------------------------------------------------------------------------------

    def grant(self, lease_id: int, ttl: int, now: float, index: int) -> Lease:
        """Make a lease; a TTL below the minimum is raised to it."""
        if ttl > TTL_MAX:
            raise CallFailed(errors.LEASE_TTL_TOO_LARGE)
        if lease_id == NO_LEASE:
            raise CallFailed(errors.LEASE_NOT_FOUND)
        if lease_id in self.leases:
            raise CallFailed(errors.LEASE_EXIST)
        ttl = max(ttl, self._ttl_min)
        lease = self.leases[lease_id] = Lease(lease_id, ttl, index, ttl, now + ttl)
        self._note_deadline(lease)
        self.dirty_leases.add(lease_id)
        self._renewed += (RENEWED.pack(index, 1), lease_id.to_bytes(8, "little", signed=True))
        self.granted += 1
        self.ttls.add(ttl)
        return lease

    def renew(self, packed_ids: bytes, now: float, index: int) -> list[int]:
        """Start the time of leases (ids as i64, one after the other) anew: their TTLs, 0 for a lease that is not."""
        count = len(packed_ids) // 8
        leases = self.leases
        expiring = self._expiring
        ttls = []
        for lease_id in unpack_from(f"<{count}q", packed_ids):
            lease = leases.get(lease_id)
            if lease is None:
                ttls.append(0)
                continue
            ttl = lease.granted_ttl
            lease.renewed_index = index
            lease.deadline = now + ttl
            if lease.remaining_ttl != ttl:
                lease.remaining_ttl = ttl
                self.dirty_leases.add(lease_id)
            if expiring and expiring.pop(lease_id, None) is not None:
                self._note_deadline(lease)
            ttls.append(ttl)
        self._renewed += (RENEWED.pack(index, count), packed_ids)
        self.renewed += count
        return ttls

    def revoke(self, lease_id: int) -> list[bytes]:
        """End the lease; its keys in byte order, which the caller deletes."""
        lease = self.leases.pop(lease_id, None)
        if lease is None:
            raise CallFailed(errors.LEASE_NOT_FOUND)
        for key in lease.keys:
            del self.lease_of[key]
        self.dirty_keys |= lease.keys
        self.dirty_leases.add(lease_id)
        self._expiring.pop(lease_id, None)
        self.revoked += 1
        return sorted(lease.keys)

    def expire(self, lease_id: int, renewed_index: int) -> list[bytes]:
        """End the lease if it was not renewed since the proposal; the keys to delete."""
        lease = self.leases.get(lease_id)
        if lease is None or lease.renewed_index != renewed_index:
            return []
        self.expired += 1
        return self.revoke(lease_id)

    def checkpoint(self, lease_id: int, renewed_index: int, remaining_ttl: int, now: float) -> None:
        """Note what the leader said is left of a lease; void if it was renewed since."""
        lease = self.leases.get(lease_id)
        if lease is None or lease.renewed_index != renewed_index:
            return
        lease.remaining_ttl = remaining_ttl
        self.dirty_leases.add(lease_id)
        if now + remaining_ttl < lease.deadline - 1:  # this member has counted from its own start
            lease.deadline = now + remaining_ttl
            self._note_deadline(lease)

    # --- keys --------------------------------------------------------------------------------------------------------

    def check(self, lease_id: int) -> None:
        """CallFailed unless the lease is there (or none is meant)."""
        if lease_id != NO_LEASE and lease_id not in self.leases:
            raise CallFailed(errors.LEASE_NOT_FOUND)

    def attach(self, key: bytes, lease_id: int) -> None:
        """Put a key under a lease, or under none; it leaves the one it was under."""
        before = self.lease_of.get(key, NO_LEASE)
        if before == lease_id:
            return
        if before != NO_LEASE:
            self.leases[before].keys.discard(key)
            del self.lease_of[key]
        if lease_id != NO_LEASE:
            self.leases[lease_id].keys.add(key)
            self.lease_of[key] = lease_id
        self.dirty_keys.add(key)

    def keys_of(self, lease_id: int) -> list[bytes]:
        """The keys under a lease in byte order; none for an unknown lease."""
        lease = self.leases.get(lease_id)
        return sorted(lease.keys) if lease else []

    # --- expiry ------------------------------------------------------------------------------------------------------

    def overdue(self, now: float, most: int) -> list[Lease]:
        """Leases the leader has to propose to expire, `most` at a time; again after a while if nothing came of it."""
        due: list[Lease] = []
        for lease_id, proposed in self._expiring.items():
            if now - proposed < EXPIRE_RETRY_SECONDS or len(due) == most:
                break
            due.append(self.leases[lease_id])
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= now and len(due) < most:
            _, lease_id = heappop(deadlines)
            lease = self.leases.get(lease_id)
            if lease is None or lease_id in self._expiring:
                continue
            if lease.deadline > now:
                heappush(deadlines, (lease.deadline, lease_id))
                continue
            due.append(lease)
        for lease in due:
            self._expiring.pop(lease.lease_id, None)
            self._expiring[lease.lease_id] = now
        return due

    def _note_deadline(self, lease: Lease) -> None:
        """Have `overdue` look at it. Only the leader asks that, and long leases may be revoked early: what is left of
        those that are gone goes when it is the most."""
        heappush(self._deadlines, (lease.deadline, lease.lease_id))
        if len(self._deadlines) > 2 * len(self.leases) + DEADLINES_SPARE:
            kept = (one for one in self.leases.values() if one.lease_id not in self._expiring)
            self._deadlines = [(one.deadline, one.lease_id) for one in kept]
            heapify(self._deadlines)

    def checkpoints(self, now: float, most: int) -> list[tuple[int, int, int]]:
        """(lease id, renewed index, seconds left) of long leases that were not renewed for minutes, for the leader to
        propose; asked often, it goes round all leases every five minutes."""
        if not self._round and now >= self._next_round:
            self._next_round = now + CHECKPOINT_SECONDS
            self._round = list(self.leases)
        due: list[tuple[int, int, int]] = []
        for _ in range(min(most, len(self._round))):
            lease = self.leases.get(self._round.pop())
            if lease is None or lease.granted_ttl <= CHECKPOINT_SECONDS:
                continue
            remaining_ttl = ceil(lease.remaining(now))
            if (
                0 < remaining_ttl <= CHECKPOINT_TTL_MAX
                and lease.remaining_ttl - remaining_ttl >= CHECKPOINT_SECONDS / 2
            ):
                due.append((lease.lease_id, lease.renewed_index, remaining_ttl))
        return due

    # --- writing -----------------------------------------------------------------------------------------------------

    def take_renewals(self) -> tuple[bytes, bool]:
        """The record of what was granted or renewed since the last time (empty: nothing), and whether it says
        everything, so that all records before it are to be dropped."""
        if not self._renewed:
            return b"", False
        record = b"".join(self._renewed)
        self._renewed = []
        self._renewals_written += len(record) // 8  # or a little less
        if self._renewals_written <= RENEWALS_KEPT + 4 * len(self.leases):
            return record, False
        self._renewals_written = len(self.leases)
        parts: list[bytes] = []
        for lease in self.leases.values():
            parts += (RENEWED.pack(lease.renewed_index, 1), lease.lease_id.to_bytes(8, "little", signed=True))
        return b"".join(parts), True

    def by_remaining_time(self) -> list[int]:
        """All lease ids, the one that ends first in front."""
        return [lease.lease_id for lease in sorted(self.leases.values(), key=lambda lease: lease.deadline)]
