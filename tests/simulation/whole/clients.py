"""Clients of a simulated cluster: one call at a time, and a note of what they saw.

A client talks to one node until that fails it; then it goes on at another. A call whose connection ends, or whose
client gives up, has an unknown fate. Times are those of the world, which no clock of the cluster knows.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from quorate.proto import rpc_pb2 as rpc
from quorate.proto.kv_pb2 import KeyValue
from quorate.wire import errors
from quorate.wire.errors import CallFailed
from quorate.wire.messages import Op
from tests.checking.history import Fate, Kind, Operation, Txn
from tests.checking.leases import Fenced, Leasing, Renewal
from tests.checking.rights import NEVER, Grant, Visit
from tests.simulation.whole.people import UNAUTHORIZED, WORKER, Person
from tests.simulation.whole.world import MS, SECOND

if TYPE_CHECKING:
    from tests.simulation.whole.cluster import SimCluster
    from tests.simulation.whole.node import SimNode
    from tests.simulation.whole.plan import Visitor

PATIENCE = (SECOND // 5, SECOND, 12 * SECOND)
OK = 0
LOST = -1  # the connection ended, or the client did not wait any longer
WITHOUT_EFFECT = UNAUTHORIZED | {errors.TOO_MANY_REQUESTS.text}

Answered = Callable[[int, str, bytes], None]


class Histories:
    """What all clients together did and saw."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.txns: list[Txn] = []
        self.leasings: list[Leasing] = []
        self.fences: list[Fenced] = []
        self.leased: set[bytes] = set()  # keys that were put under a lease
        self.grants: list[Grant] = [Grant(b"nobody/")]
        self.visits: list[Visit] = []
        self.users_since = NEVER
        self.answered = 0
        self.failed: dict[str, int] = {}


class Client:
    """What all clients have in common: a node, and calls that end exactly once."""

    def __init__(self, cluster: SimCluster, visitor: Visitor, histories: Histories) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.histories = histories
        self.number = visitor.number
        self.think = visitor.think
        self.rng = random.Random(visitor.seed)
        self.node: SimNode = self.rng.choice(cluster.nodes)
        self.calls = 0
        self.is_over = False
        self.person = Person(WORKER, self.rng) if cluster.plan.users else None
        self._values = 0

    @property
    def connection(self) -> int:
        """This client on this node, until the api process ends: what a serializable read must not go back on."""
        return (self.number * 1000 + self.node.number) * 1000 + self.node.api.process.life % 1000

    def begin(self) -> None:
        self._next()

    def act(self) -> None:
        """One call; `_next` when it has ended."""
        raise AssertionError("a client knows what it does")

    def _next(self) -> None:
        if not self.is_over:
            self.world.after(1 + int(self.rng.expovariate(1.0) * self.think), self._act)

    def _act(self) -> None:
        if self.is_over:
            return
        if not self.node.api.is_open:
            self.move()
            self.world.after(20 * MS, self._act)
            return
        self.act()

    def move(self) -> None:
        """To another node."""
        self.node = self.rng.choice(self.cluster.members())

    def value(self) -> bytes:
        """One that nobody wrote before."""
        self._values += 1
        return b"%d/%d" % (self.number, self._values)

    def key(self) -> bytes:
        return b"key/%02d" % self.rng.randrange(self.cluster.plan.keys)

    def call(self, op: Op, request: bytes, answered: Answered, lane: str = "writes") -> None:
        """Asks; `answered(code, text, body)` once, with LOST when nothing was heard."""
        api = self.node.api
        self.calls += 1
        is_done = False

        def done(code: int, text: str, body: bytes) -> None:
            nonlocal is_done
            if not is_done:
                is_done = True
                api.on_end.pop(self.number, None)
                if code == OK:
                    self.histories.answered += 1
                else:
                    if self.person is not None:
                        self.person.refused(text)
                    self.histories.failed[text] = self.histories.failed.get(text, 0) + 1
                    if self.rng.random() < 0.5:
                        self.move()
                self.world.process, before = None, self.world.process
                answered(code, text, body)
                self.world.process = before

        def ask() -> None:
            ring = api.ring
            assert ring is not None
            expires_at = ring.now() + patience / SECOND if patience < 5 * SECOND else None

            def send(code: int, text: str, identity: bytes) -> None:
                if code:
                    done(code, text, b"")
                    return
                try:
                    ring.add(getattr(ring, lane), op, request, done, expires_at, identity)
                except CallFailed as failure:
                    done(failure.error.code, failure.error.text, b"")

            if self.person is None:
                send(OK, "", b"")
            else:
                self.person.enter(api, send)

        patience = self.rng.choice(PATIENCE)
        api.on_end[self.number] = lambda: done(LOST, "connection lost", b"")
        api.process.at(self.world.now, ask)
        self.world.after(patience + 5 * SECOND, done, LOST, "gave up", b"")


def fate_of(code: int, text: str) -> Fate:
    if code == OK:
        return Fate.DONE
    return Fate.REFUSED if text in WITHOUT_EFFECT else Fate.UNKNOWN


class Keys(Client):
    """Single calls on a few keys."""

    KINDS: tuple[Kind, ...] = (
        *(Kind.PUT,) * 40, *(Kind.GET,) * 25, *(Kind.CAS,) * 20, *(Kind.STALE_GET,) * 10, *(Kind.DELETE,) * 5
    )  # fmt: skip

    def __init__(self, cluster: SimCluster, visitor: Visitor, histories: Histories) -> None:
        super().__init__(cluster, visitor, histories)
        self._known: dict[bytes, int] = {}

    def act(self) -> None:
        kind, key = self.rng.choice(self.KINDS), self.key()
        value = self.value() if kind in (Kind.PUT, Kind.CAS) else b""
        expected = self._known.get(key, 0)
        connection, invoked = self.connection, self.world.now

        def answered(code: int, text: str, body: bytes) -> None:
            fate = fate_of(code, text)
            at = (connection, kind, key, value, expected, invoked, self.world.now, fate)
            if fate is Fate.DONE:
                revision, succeeded, pair = read_answer(kind, body)
                seen = (pair.value, pair.mod_revision) if pair is not None else (None, 0)
                self._known[key] = revision if succeeded or kind is Kind.PUT else seen[1]
                self.histories.operations.append(Operation(*at, revision, succeeded, *seen))
            elif kind not in (Kind.GET, Kind.STALE_GET):
                self.histories.operations.append(Operation(*at))
            self._next()

        op, request, lane = make_request(kind, key, value, expected)
        self.call(op, request.SerializeToString(), answered, lane)


class Stale(Keys):
    """Reads of whatever one member has, close to one another: they must not go back, whatever happens to storage."""

    KINDS = (Kind.STALE_GET,) * 9 + (Kind.PUT,)

    def __init__(self, cluster: SimCluster, visitor: Visitor, histories: Histories) -> None:
        super().__init__(cluster, visitor._replace(think=visitor.think // 4 + 1), histories)

    def move(self) -> None:
        """It waits for its member to come back, most of the time."""
        if self.node.is_gone or self.rng.random() < 0.1:
            super().move()


def make_request(
    kind: Kind, key: bytes, value: bytes, expected: int
) -> tuple[Op, rpc.PutRequest | rpc.DeleteRangeRequest | rpc.TxnRequest | rpc.RangeRequest, str]:
    match kind:
        case Kind.PUT:
            return Op.PUT, rpc.PutRequest(key=key, value=value), "writes"
        case Kind.DELETE:
            return Op.DELETE_RANGE, rpc.DeleteRangeRequest(key=key), "writes"
        case Kind.CAS:
            put = rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=value))
            return (
                Op.TXN,
                rpc.TxnRequest(compare=[stands_at(key, expected)], success=[put], failure=[get(key)]),
                "writes",
            )
        case _:
            is_stale = kind is Kind.STALE_GET
            return Op.RANGE, rpc.RangeRequest(key=key, serializable=is_stale), "local" if is_stale else "reads"


def read_answer(kind: Kind, body: bytes) -> tuple[int, bool, KeyValue | None]:
    """(revision, succeeded, pair seen)."""
    match kind:
        case Kind.PUT:
            return rpc.PutResponse.FromString(body).header.revision, False, None
        case Kind.DELETE:
            deleted = rpc.DeleteRangeResponse.FromString(body)
            return deleted.header.revision, deleted.deleted > 0, None
        case Kind.CAS:
            swapped = rpc.TxnResponse.FromString(body)
            kvs = [] if swapped.succeeded else swapped.responses[0].response_range.kvs
            return swapped.header.revision, swapped.succeeded, kvs[0] if kvs else None
        case _:
            found = rpc.RangeResponse.FromString(body)
            return found.header.revision, False, found.kvs[0] if found.kvs else None


def stands_at(key: bytes, revision: int) -> rpc.Compare:
    return rpc.Compare(key=key, target=rpc.Compare.MOD, mod_revision=revision)


def get(key: bytes) -> rpc.RequestOp:
    return rpc.RequestOp(request_range=rpc.RangeRequest(key=key))


class Transactions(Client):
    """Several keys at once."""

    def __init__(self, cluster: SimCluster, visitor: Visitor, histories: Histories) -> None:
        super().__init__(cluster, visitor, histories)
        self._known: dict[bytes, int] = {}

    def act(self) -> None:
        keys = [b"key/%02d" % number for number in range(self.cluster.plan.keys)]
        chosen = self.rng.sample(keys, self.rng.randint(1, min(4, len(keys))))
        cut = self.rng.randint(0, len(chosen))
        writes = tuple((key, None if self.rng.random() < 0.2 else self.value()) for key in chosen[:cut])
        compares = tuple((key, self._known.get(key, 0)) for key in self.rng.sample(keys, self.rng.randint(0, 2)))
        self.transact(compares, writes, tuple(chosen[cut:]), lambda _txn: self._next())

    def transact(
        self,
        compares: tuple[tuple[bytes, int], ...],
        writes: tuple[tuple[bytes, bytes | None], ...],
        reads: tuple[bytes, ...],
        then: Callable[[Txn], None],
        lease: int = 0,
    ) -> None:
        """One transaction, noted; `then` gets the note."""
        request = rpc.TxnRequest(compare=[stands_at(key, revision) for key, revision in compares])
        for key, value in writes:
            if value is None:
                request.success.add(request_delete_range=rpc.DeleteRangeRequest(key=key))
            else:
                request.success.add(request_put=rpc.PutRequest(key=key, value=value, lease=lease))
        request.success.extend(get(key) for key in reads)
        request.failure.extend(get(key) for key in reads)
        if lease:
            self.histories.leased.update(key for key, _ in writes)
        connection, invoked = self.connection, self.world.now

        def answered(code: int, text: str, body: bytes) -> None:
            fate = fate_of(code, text)
            txn = Txn(connection, compares, writes, reads, invoked, self.world.now, fate)
            if fate is Fate.DONE:
                answer = rpc.TxnResponse.FromString(body)
                found = [one.response_range.kvs for one in list(answer.responses)[-len(reads) :]] if reads else []
                seen = tuple((kvs[0].value, kvs[0].mod_revision) if kvs else (None, 0) for kvs in found)
                changed = answer.succeeded and any(
                    one.HasField("response_put") or one.response_delete_range.deleted for one in answer.responses
                )
                txn = txn._replace(
                    revision=answer.header.revision, succeeded=answer.succeeded, seen=seen, changed=changed
                )
                self._known.update(dict(zip(reads, (mod for _, mod in seen), strict=True)))
            self.histories.txns.append(txn)
            then(txn)

        self.call(Op.TXN, request.SerializeToString(), answered, "writes" if writes else "reads")


class Leases(Transactions):
    """Keys that live as long as somebody cares."""

    def act(self) -> None:
        lease_id, ttl = self.rng.getrandbits(62) + 1, self.rng.randint(1, self.cluster.plan.lease_ttl)
        key = b"lease/%d/%d" % (self.number, self.calls)
        invoked = self.world.now
        grants: list[Renewal] = []

        def granted(code: int, _text: str, body: bytes) -> None:
            if code != OK:
                self._next()
                return
            grants.append(renewal(invoked, self.world.now, rpc.LeaseGrantResponse.FromString(body).TTL))
            self.transact((), ((key, self.value()),), (), attached, lease_id)

        def attached(txn: Txn) -> None:
            if txn.fate is Fate.DONE:
                self._keep(Leasing(lease_id, grants, [key]), self.rng.randint(0, 4))
            else:
                self._next()

        request = rpc.LeaseGrantRequest(ID=lease_id, TTL=ttl).SerializeToString()
        self.call(Op.LEASE_GRANT, request, granted)

    def _keep(self, leasing: Leasing, times: int) -> None:
        """Renews it so many times, then lets it go or gives it back."""
        if times and not self.is_over:
            ttl = leasing.renewals[0].ttl_s * SECOND
            self.world.after(int(ttl * self.rng.uniform(0.2, 0.9)), self._renew, leasing, times)
        elif self.rng.random() < 0.3 and self.node.api.is_open:
            self._revoke(leasing)
        else:
            self._finish(leasing)

    def _finish(self, leasing: Leasing) -> None:
        self.histories.leasings.append(leasing)
        self._next()

    def _renew(self, leasing: Leasing, times: int) -> None:
        if not self.node.api.is_open:
            self.move()
            self._finish(leasing)
            return
        invoked = self.world.now

        def answered(code: int, _text: str, body: bytes) -> None:
            kept = leasing
            ttl = 0
            if code == OK:
                is_named = self.person is not None
                ttl = rpc.LeaseKeepAliveResponse.FromString(body).TTL if is_named else ttl_of(body)
            if ttl > 0:
                kept = leasing._replace(renewals=[*leasing.renewals, renewal(invoked, self.world.now, ttl)])
            self._keep(kept, times - 1)

        if self.person is None:
            self.call(Op.LEASE_RENEW, leasing.lease.to_bytes(8, "little"), answered)
        else:  # as api does for callers with a name
            request = rpc.LeaseKeepAliveRequest(ID=leasing.lease).SerializeToString()
            self.call(Op.LEASE_KEEP_ALIVE, request, answered)

    def _revoke(self, leasing: Leasing) -> None:
        invoked = self.world.now

        def answered(code: int, text: str, _body: bytes) -> None:
            self._finish(leasing._replace(revoked=fate_of(code, text), revoke_invoked_ns=invoked * 1000))

        request = rpc.LeaseRevokeRequest(ID=leasing.lease).SerializeToString()
        self.call(Op.LEASE_REVOKE, request, answered)


def ttl_of(renewed: bytes) -> int:
    """What the answer to a renewal without a name says."""
    return int.from_bytes(renewed[-8:], "little")


def renewal(invoked: int, returned: int, ttl: int) -> Renewal:
    return Renewal(invoked * 1000, returned * 1000, ttl)


class Locks(Transactions):
    """A lock under a lease, and a resource that is written only with the lock's token."""

    def act(self) -> None:
        lock, lease_id = b"lock/%d/" % self.rng.randrange(2), self.rng.getrandbits(62) + 1

        def granted(code: int, _text: str, _body: bytes) -> None:
            if code == OK:
                self.transact(((lock + b"held", 0),), ((lock + b"held", self.value()),), (), taken, lease_id)
            else:
                self._next()

        def taken(txn: Txn) -> None:
            if txn.fate is Fate.DONE and txn.succeeded:
                self._use(lock, txn.revision, lease_id, self.rng.randint(1, 5))
            else:
                self._revoke(lease_id)

        ttl = self.rng.randint(1, max(3, self.cluster.plan.lease_ttl // 4))
        request = rpc.LeaseGrantRequest(ID=lease_id, TTL=ttl).SerializeToString()
        self.call(Op.LEASE_GRANT, request, granted)

    def _use(self, lock: bytes, token: int, lease_id: int, times: int) -> None:
        if not times or self.is_over or not self.node.api.is_open:
            self._revoke(lease_id)
            return

        def written(txn: Txn) -> None:
            if txn.fate is Fate.DONE and not txn.succeeded:
                self._revoke(lease_id)  # it was lost
                return
            if txn.fate is Fate.DONE:
                self.histories.fences.append(Fenced(lock, lock + b"held", token, txn.revision))
            self.world.after(self.think, self._use, lock, token, lease_id, times - 1)

        self.transact(((lock + b"held", token),), ((b"resource/" + lock, self.value()),), (), written)

    def _revoke(self, lease_id: int) -> None:
        if not self.node.api.is_open:
            self.move()
            self._next()
            return
        request = rpc.LeaseRevokeRequest(ID=lease_id).SerializeToString()
        self.call(Op.LEASE_REVOKE, request, lambda _code, _text, _body: self._next())
