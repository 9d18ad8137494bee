"""The rules of leases and locks, judged against the log and the moments at which clients saw things.

A lease ends because it was revoked or because its time was over, counted from the grant or from the last renewal that
was acknowledged; its keys go with it, in one revision. A lock belongs to the oldest key below its name, and whoever is
told to hold it has a key that is there and is the oldest; what is written under a lock, on the condition that its key
is there, carries tokens that never go back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tests.checking.history import Change, Fate
from tests.checking.model import Model


class Renewal(NamedTuple):
    """A grant or a renewal that was acknowledged."""

    invoked_ns: int
    returned_ns: int
    ttl_s: int


class Leasing(NamedTuple):
    """One lease and the keys put under it, by one client. Values of the keys are written once in a history."""

    lease: int
    renewals: Sequence[Renewal]  # the grant first
    keys: Sequence[bytes]
    revoked: Fate | None = None  # None: nobody asked for it
    revoke_invoked_ns: int = 0


class Holding(NamedTuple):
    """One answer of Lock: the key that stands for the claim, and the header's revision."""

    name: bytes  # the prefix, with its slash
    key: bytes
    revision: int


class Fenced(NamedTuple):
    """A write that was done on the condition that the lock's key was there: the key's create revision is its token."""

    name: bytes
    key: bytes
    token: int
    revision: int


MARGIN_NS = 50_000_000  # clocks of one machine, read by two processes


def check_leases(
    leasings: Sequence[Leasing], log: Sequence[Change], seen_ns: dict[int, int], margin_ns: int = MARGIN_NS
) -> Iterable[str]:
    """`seen_ns` says when some watcher was told a revision: it was before that; `margin_ns`: how far clocks differ."""
    gone: dict[bytes, int] = {}
    for revision, key, value in log:
        if value is None:
            gone[key] = revision
    for leasing in leasings:
        ends = {gone[key] for key in leasing.keys if key in gone}
        if len(ends) > 1:
            yield f"the keys of lease {leasing.lease:x} went at {sorted(ends)}, not together"
        if not ends or leasing.revoked is not None:
            continue
        end = min(ends)
        for renewal in leasing.renewals:
            early = renewal.invoked_ns + renewal.ttl_s * 10**9 - seen_ns.get(end, renewal.invoked_ns + 10**18)
            if early > margin_ns:
                yield (
                    f"lease {leasing.lease:x} was good for {renewal.ttl_s} s and ended {early / 1e9:.3f} s early, "
                    f"at revision {end}"
                )


def check_locks(holdings: Sequence[Holding], fences: Sequence[Fenced], log: Sequence[Change]) -> Iterable[str]:
    """Who held each lock is the log's word."""
    model = Model(log)
    claims: dict[bytes, dict[bytes, list[tuple[int, int]]]] = {}  # name -> key -> (created, gone)
    names = {holding.name for holding in holdings} | {fence.name for fence in fences}
    for revision, key, value in log:
        name = key[: key.rfind(b"/") + 1]
        if name not in names:
            continue
        lives = claims.setdefault(name, {}).setdefault(key, [])
        if value is None:
            lives[-1] = (lives[-1][0], revision)
        elif not lives or lives[-1][1] <= revision:
            lives.append((revision, 1 << 62))
    for holding in holdings:
        oldest = _oldest(claims.get(holding.name, {}), holding.revision)
        if oldest != holding.key:
            there = model.at(holding.key, holding.revision)[0] is not None
            yield f"{holding} was told to hold the lock; its key is {'' if there else 'not '}there, {oldest!r} holds it"
    last: dict[bytes, int] = {}
    for fence in sorted(fences, key=lambda fence: fence.revision):
        if fence.token < last.get(fence.name, 0):
            yield f"{fence} wrote after token {last[fence.name]}"
        last[fence.name] = fence.token
        if _oldest(claims.get(fence.name, {}), fence.revision - 1) != fence.key:
            yield f"{fence} wrote without holding the lock"


def _oldest(claims: dict[bytes, list[tuple[int, int]]], revision: int) -> bytes | None:
    alive = [(created, key) for key, lives in claims.items() for created, gone in lives if created <= revision < gone]
    return min(alive)[1] if alive else None
