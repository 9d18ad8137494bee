"""Clients that hold leases: keys that live as long as somebody renews, and locks whose holders write under a token."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from quorate.proto import rpc_pb2, v3lock_pb2
from tests.chaos.calls import AsyncCaller, refusal
from tests.chaos.crowd import Crowd, never_sent, surely_without_effect
from tests.checking.history import Fate, Kind, Operation
from tests.checking.leases import Fenced, Holding, Leasing, Renewal

TTL_S: Final = (2, 3, 5)
LEASED: Final = b"leased/"
LOCKS: Final = (b"lock/a", b"lock/b")
LOCK_TTL_S: Final = 3
LOCK_S_MAX: Final = 6.0
ANSWER_S_MAX: Final = 3.0


class Tenant:
    """What both kinds have: one client, one call at a time, at one member."""

    def __init__(self, crowd: Crowd, number: int, caller: AsyncCaller) -> None:
        self.operations: list[Operation] = []
        self.leasings: list[Leasing] = []
        self._crowd = crowd
        self._number = number
        self._caller = caller
        self._dice = random.Random(f"tenant {crowd.seed} {number}")
        self._count = 0

    async def run(self) -> None:
        while not self._crowd.stopping.is_set():
            self._count += 1
            try:
                await self._life()
            except grpc.RpcError as error:
                await self._crowd.failed(refusal(error))
            except TimeoutError:
                await self._crowd.failed(("DEADLINE_EXCEEDED", "no answer to a renewal"))

    async def _life(self) -> None:
        raise AssertionError("what a tenant does is its own")

    async def _call(self, name: str, request: Any, timeout_s: float = ANSWER_S_MAX) -> Any:
        answer = await self._caller.unary(name, request, timeout_s)
        self._crowd.done += 1
        return answer

    async def _grant(self, ttl_s: int) -> tuple[int, list[Renewal]]:
        invoked = time.monotonic_ns()
        answer = await self._call("Lease/LeaseGrant", rpc_pb2.LeaseGrantRequest(TTL=ttl_s))
        return int(answer.ID), [Renewal(invoked, time.monotonic_ns(), answer.TTL)]

    async def _renew(self, lease: int) -> Renewal | None:
        """None when the lease is gone."""
        await self._caller.person.come_in(self._caller, ANSWER_S_MAX)
        token, invoked = self._caller.person.token, time.monotonic_ns()
        call = self._caller.stream("Lease/LeaseKeepAlive", [rpc_pb2.LeaseKeepAliveRequest(ID=lease)], ANSWER_S_MAX)
        try:
            answer = await call.read()
        except grpc.RpcError as error:
            self._caller.person.refused(token, refusal(error)[1])
            raise
        finally:
            call.cancel()
        if answer is grpc.aio.EOF:
            raise TimeoutError
        self._crowd.done += 1
        return Renewal(invoked, time.monotonic_ns(), answer.TTL) if answer.TTL > 0 else None

    async def _put(self, key: bytes, value: bytes, lease: int) -> bool:
        """Whether it was acknowledged; False when the lease is gone."""
        invoked = time.monotonic_ns()
        request = rpc_pb2.PutRequest(key=key, value=value, lease=lease)
        try:
            answer = await self._call("KV/Put", request)
        except grpc.RpcError as error:
            if never_sent(refusal(error)):
                raise
            gone = surely_without_effect(refusal(error))
            fate = Fate.REFUSED if gone else Fate.UNKNOWN
            self.operations.append(Operation(self._number, Kind.PUT, key, value, 0, invoked, time.monotonic_ns(), fate))
            if gone:
                return False
            raise
        returned, revision = time.monotonic_ns(), answer.header.revision
        self.operations.append(Operation(self._number, Kind.PUT, key, value, 0, invoked, returned, Fate.DONE, revision))
        return True


class Lodger(Tenant):
    """Puts some keys under a lease, renews it for a while, then forgets or revokes it."""

    async def _life(self) -> None:
        ttl_s = self._dice.choice(TTL_S)
        lease, renewals = await self._grant(ttl_s)
        keys: list[bytes] = []
        revoked: Fate | None = None
        revoke_invoked = 0
        try:
            for part in range(self._dice.randrange(1, 4)):
                key = LEASED + b"%d/%d/%d" % (self._number, self._count, part)
                keys.append(key)
                await self._put(key, key, lease)
            for _ in range(self._dice.randrange(6)):
                await asyncio.sleep(self._dice.random() * ttl_s * 0.5)
                renewal = await self._renew(lease)
                if renewal is None:
                    return
                renewals.append(renewal)
            if self._dice.random() < 0.5:
                revoked, revoke_invoked = Fate.UNKNOWN, time.monotonic_ns()
                await self._call("Lease/LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=lease))
                revoked = Fate.DONE
        finally:
            self.leasings.append(Leasing(lease, renewals, keys, revoked, revoke_invoked))


class Locker(Tenant):
    """Takes a lock, writes under its token, and lets go, or forgets to."""

    def __init__(self, crowd: Crowd, number: int, caller: AsyncCaller) -> None:
        super().__init__(crowd, number, caller)
        self.holdings: list[Holding] = []
        self.fences: list[Fenced] = []

    async def _life(self) -> None:
        lease, renewals = await self._grant(LOCK_TTL_S)
        name = self._dice.choice(LOCKS)
        revoked: Fate | None = None
        keys: list[bytes] = []
        renewing = asyncio.create_task(self._keep(lease, renewals))
        try:
            request = v3lock_pb2.LockRequest(name=name, lease=lease)
            answer = await self._call("Lock/Lock", request, LOCK_S_MAX)
            keys.append(answer.key)
            self.holdings.append(Holding(name + b"/", answer.key, answer.header.revision))
            for _ in range(self._dice.randrange(1, 5)):
                if not await self._write(name, answer.key):
                    return
                await asyncio.sleep(self._dice.random() * 0.1)
            if self._dice.random() < 0.8:
                await self._call("Lock/Unlock", v3lock_pb2.UnlockRequest(key=answer.key))
                revoked = Fate.UNKNOWN  # its key is gone otherwise
        except grpc.RpcError:
            revoked = Fate.UNKNOWN  # Lock that gives up takes its key away
            raise
        finally:
            renewing.cancel()
            self.leasings.append(Leasing(lease, list(renewals), keys, revoked))

    async def _keep(self, lease: int, renewals: list[Renewal]) -> None:
        """Renew now and then; some holders are too slow."""
        while True:
            await asyncio.sleep(self._dice.choice((0.5, 1.0, 4.0)))
            try:
                renewal = await self._renew(lease)
            except (grpc.RpcError, TimeoutError):
                continue
            if renewal is None:
                return
            renewals.append(renewal)

    async def _write(self, name: bytes, key: bytes) -> bool:
        """Whether the claim was still there."""
        created = (await self._call("KV/Range", rpc_pb2.RangeRequest(key=key))).kvs
        if not created:
            return False
        token = created[0].create_revision
        compare = rpc_pb2.Compare(key=key, target=rpc_pb2.Compare.CREATE, create_revision=token)
        fence = b"fence/" + name
        put = rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=fence, value=b"%d" % token))
        answer = await self._call("KV/Txn", rpc_pb2.TxnRequest(compare=[compare], success=[put]))
        if answer.succeeded:
            self.fences.append(Fenced(name + b"/", key, token, answer.header.revision))
        return bool(answer.succeeded)


async def one(request: rpc_pb2.WatchRequest, ended: asyncio.Event) -> AsyncIterator[rpc_pb2.WatchRequest]:
    """A stream of requests that stays open."""
    yield request
    await ended.wait()
