"""Random requests, sensible and senseless, that mean the same to any server of the API."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from google.protobuf.message import Message

from quorate.proto import rpc_pb2 as rpc

KEYS: Final = (b"a", b"a/1", b"a/2", b"b", b"b\0", b"c", b"d/x", b"\xff", b"")
ENDS: Final = (b"", b"", b"", b"\0", b"a0", b"b", b"c", b"e", b"\xff\xff", b"a")
FEW: Final = ((b"a", b"b"), (b"b", b"e"))  # etcd 3.5 keeps the order of equals in small answers only
LEASES: Final = (0, 0, 0, 0, 1, 2, 3, 77)
DEPTH_MAX: Final = 2

Request = tuple[str, Message]


@dataclass
class Requests:
    """`next` gives a method and its request; tell it the revision of each answer."""

    rng: Random
    revision: int = 1
    depth_max: int = DEPTH_MAX  # of transactions in transactions
    put_revisions: list[int] = field(default_factory=list)  # etcd 3.5.1 forgets a tombstone at the compact revision
    _number: int = field(default=0, init=False)

    def next(self) -> Request:
        kinds: tuple[tuple[int, str, Any], ...] = (
            (8, "KV/Put", self.put),
            (8, "KV/Range", self.range),
            (3, "KV/DeleteRange", self.delete),
            (8, "KV/Txn", self.txn),
            (1, "KV/Compact", self.compact),
            (2, "Lease/LeaseGrant", self.grant),
            (1, "Lease/LeaseRevoke", self.revoke),
            (2, "Lease/LeaseTimeToLive", self.time_to_live),
            (1, "Lease/LeaseLeases", rpc.LeaseLeasesRequest),
        )
        (chosen,) = self.rng.choices(kinds, [weight for weight, _, _ in kinds])
        return chosen[1], chosen[2]()

    def put(self) -> rpc.PutRequest:
        self._number += 1
        rng = self.rng
        is_kept = rng.random() < 0.1
        return rpc.PutRequest(
            key=rng.choice(KEYS[:8] if rng.random() < 0.95 else KEYS),
            value=b"" if is_kept and rng.random() < 0.8 else b"v%d" % self._number,
            lease=rng.choice(LEASES),
            prev_kv=rng.random() < 0.3,
            ignore_value=is_kept,
            ignore_lease=rng.random() < 0.1,
        )

    def range(self) -> rpc.RangeRequest:
        rng = self.rng
        target = rng.choice(rpc.RangeRequest.SortTarget.values())
        can_tie = target not in (rpc.RangeRequest.KEY, rpc.RangeRequest.VALUE)
        key, range_end = rng.choice(FEW) if can_tie else (rng.choice(KEYS), rng.choice(ENDS))
        request = rpc.RangeRequest(
            key=key,
            range_end=range_end,
            limit=rng.choice((0, 0, 0, 1, 2, 5, -1)),
            revision=rng.choice((0, 0, 0, 0, -1, *self._revisions())),
            sort_order=rng.choice(rpc.RangeRequest.SortOrder.values()),
            sort_target=target,
            serializable=rng.random() < 0.3,
            keys_only=rng.random() < 0.2,
            count_only=rng.random() < 0.1,
        )
        if rng.random() < 0.2:
            name = rng.choice(("min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"))
            setattr(request, name, rng.choice(self._revisions()))
        return request

    def delete(self) -> rpc.DeleteRangeRequest:
        rng = self.rng
        return rpc.DeleteRangeRequest(key=rng.choice(KEYS), range_end=rng.choice(ENDS), prev_kv=rng.random() < 0.4)

    def txn(self, depth: int = 0) -> rpc.TxnRequest:
        rng = self.rng
        request = rpc.TxnRequest(compare=[self._compare() for _ in range(rng.choice((0, 1, 1, 2, 3)))])
        for side in (request.success, request.failure):
            side.extend(self._operation(depth) for _ in range(rng.choice((0, 1, 1, 2, 3))))
        return request

    def compact(self) -> rpc.CompactionRequest:
        senseless = (0, -3, self.revision + 9)
        known = self.put_revisions[-9:-1]
        revision = self.rng.choice(known if known and self.rng.random() < 0.8 else senseless)
        return rpc.CompactionRequest(revision=revision, physical=True)

    def grant(self) -> rpc.LeaseGrantRequest:
        rng = self.rng
        ttl = rng.choice((1000, 1000, 2000, 9_000_000_001))  # none that ends meanwhile
        return rpc.LeaseGrantRequest(ID=rng.choice((1, 2, 3, 4, -1)), TTL=ttl)

    def revoke(self) -> rpc.LeaseRevokeRequest:
        return rpc.LeaseRevokeRequest(ID=self.rng.choice((0, 1, 2, 3, 4, -1)))

    def time_to_live(self) -> rpc.LeaseTimeToLiveRequest:
        return rpc.LeaseTimeToLiveRequest(ID=self.rng.choice((0, 1, 2, 3, 4, -1)), keys=self.rng.random() < 0.6)

    def watch(self) -> rpc.WatchCreateRequest:
        """One that sees the end of the key space, from any revision that may still be there."""
        rng = self.rng
        return rpc.WatchCreateRequest(
            key=rng.choice((b"\0", b"a", b"b", b"zz")),
            range_end=b"\0",
            start_revision=rng.choice((1, *self._revisions()[:-1])),
            prev_kv=rng.random() < 0.5,
            filters=rng.choice(((), (), (rpc.WatchCreateRequest.NOPUT,), (rpc.WatchCreateRequest.NODELETE,))),
        )

    def _revisions(self) -> tuple[int, ...]:
        now = self.revision
        return (*(max(1, now - back) for back in (30, 20, 12, 6, 3, 2, 1, 0)), now + 1)

    def _compare(self) -> rpc.Compare:
        rng = self.rng
        compare = rpc.Compare(key=rng.choice(KEYS), result=rng.choice(rpc.Compare.CompareResult.values()))
        if rng.random() < 0.15:
            compare.range_end = rng.choice(ENDS)
        match rng.randrange(6):
            case 0:
                compare.target, compare.version = rpc.Compare.VERSION, rng.randrange(4)
            case 1:
                compare.target, compare.create_revision = rpc.Compare.CREATE, rng.choice((0, *self._revisions()))
            case 2:
                compare.target, compare.mod_revision = rpc.Compare.MOD, rng.choice((0, *self._revisions()))
            case 3:
                compare.target, compare.value = rpc.Compare.VALUE, b"v%d" % (self._number - rng.randrange(5))
            case 4:
                compare.target, compare.lease = rpc.Compare.LEASE, rng.choice(LEASES)
            case _:
                compare.target = rng.choice(rpc.Compare.CompareTarget.values())
        return compare

    def _operation(self, depth: int) -> rpc.RequestOp:
        chance = self.rng.random()
        if chance < 0.4:
            return rpc.RequestOp(request_put=self.put())
        if chance < 0.7:
            return rpc.RequestOp(request_range=self.range())
        if chance < 0.85 or depth == self.depth_max:
            return rpc.RequestOp(request_delete_range=self.delete())
        return rpc.RequestOp(request_txn=self.txn(depth + 1))
