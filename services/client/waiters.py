"""The queue behind locks and elections: one key for each waiter under a common prefix, served by creation.

Layout and order are those of etcd's own recipes, so waiters of any client stand in one queue. A waiter's key is
`name/<lease id in hex>` and lives on its lease. The one whose key was created first holds; everybody else watches
only the key created just before its own, so a release wakes one waiter.

The pair (key, create revision) is the fencing token: `Hold.guard` as a condition of a transaction makes a write that
happens only while the place is still held, whatever the writer believes.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from quorate.client import methods, txn
from quorate.client.connection import Connection
from quorate.client.errors import CompactedError, EtcdError, LeaseExpiredError, OutcomeUnknownError
from quorate.client.lease import AsyncLease
from quorate.client.ranges import Key, as_bytes, prefix_end
from quorate.client.watching import AsyncWatch
from quorate.proto import rpc_pb2 as rpc
from quorate.proto.kv_pb2 import Event, KeyValue
from quorate.proto.rpc_pb2 import Compare, RangeRequest

EXPIRED_TEXT: Final = "mutex: session is expired"


@dataclass(frozen=True, slots=True)
class Hold:
    """A place at the head of a queue: the fencing token. `header` is that of the answer that granted it."""

    key: bytes
    create_revision: int  # grows from holder to holder
    lease_id: int
    header: rpc.ResponseHeader

    def guard(self) -> Compare:
        """A condition that holds exactly as long as the place is held."""
        return txn.create_revision(self.key).equals(self.create_revision)


class Queue:
    """One waiter's view of a queue."""

    def __init__(self, connection: Connection, name: Key, lease: AsyncLease) -> None:
        self._connection = connection
        self._lease = lease
        self.prefix = as_bytes(name) + b"/"
        self.key = self.prefix + f"{lease.lease_id:x}".encode()

    async def enter(self, value: bytes = b"") -> Hold:
        """Stand in line with this value and wait for the head.

        LeaseExpiredError when the lease is lost meanwhile. When the wait is cancelled the place is given up.
        """
        hold, is_first, kept = await self._stand(value)
        if kept is not None and kept != value:
            await self.update(hold, value)
        if is_first:
            return hold
        try:
            return await self._wait(hold)
        except BaseException:
            with suppress(EtcdError):
                await asyncio.shield(self.leave(hold))
            raise

    async def update(self, hold: Hold, value: bytes) -> rpc.TxnResponse:
        """Change the value of a place; the answer says by `succeeded` whether it was still held."""
        request = txn.Txn().when(hold.guard()).then(txn.put(hold.key, value, hold.lease_id))
        return await self._connection.call(methods.TXN, request.request)

    async def leave(self, hold: Hold) -> rpc.TxnResponse:
        """Give up the place; nothing when it is lost already."""
        request = txn.Txn().when(hold.guard()).then(txn.delete(hold.key))
        return await self._connection.call(methods.TXN, request.request)

    async def head(self) -> rpc.RangeResponse:
        """The holder's key, if there is one."""
        return await self._connection.call(methods.RANGE, self._oldest())

    async def _stand(self, value: bytes) -> tuple[Hold, bool, bytes | None]:
        request = (
            txn.Txn()
            .when(txn.create_revision(self.key).equals(0))
            .then(txn.put(self.key, value, self._lease.lease_id), txn.reading(self._oldest()))
            .otherwise(txn.get(self.key), txn.reading(self._oldest()))
        )
        while True:
            self._lease.check()
            with suppress(OutcomeUnknownError):  # the condition makes it harmless to try again
                answer = await self._connection.call(methods.TXN, request.request)
                break
        created, kept = answer.header.revision, None
        if not answer.succeeded:
            own = answer.responses[0].response_range.kvs[0]
            created, kept = own.create_revision, own.value
        oldest: Sequence[KeyValue] = answer.responses[1].response_range.kvs
        hold = Hold(self.key, created, self._lease.lease_id, answer.header)
        return hold, not oldest or oldest[0].create_revision == created, kept

    async def _wait(self, hold: Hold) -> Hold:
        waiting = asyncio.create_task(self._wait_for_older(hold.create_revision))
        losing = asyncio.create_task(self._lease.lost.wait())
        try:
            await asyncio.wait((waiting, losing), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise LeaseExpiredError(EXPIRED_TEXT)
            waiting.result()
        finally:
            for task in (waiting, losing):
                task.cancel()
            await asyncio.gather(waiting, losing, return_exceptions=True)
        own = await self._connection.call(methods.RANGE, RangeRequest(key=self.key))
        if not own.kvs or own.kvs[0].create_revision != hold.create_revision:
            raise LeaseExpiredError(EXPIRED_TEXT)
        return Hold(hold.key, hold.create_revision, hold.lease_id, own.header)

    async def _wait_for_older(self, created: int) -> None:
        request = RangeRequest(
            key=self.prefix,
            range_end=prefix_end(self.prefix),
            limit=1,
            sort_order=RangeRequest.DESCEND,
            sort_target=RangeRequest.CREATE,
            max_create_revision=created - 1,
            keys_only=True,
        )
        while (found := await self._connection.call(methods.RANGE, request)).kvs:
            with suppress(CompactedError):  # look again
                await wait_deleted(self._connection, found.kvs[0].key, found.header.revision + 1)

    def _oldest(self) -> RangeRequest:
        return oldest(self.prefix)


def oldest(prefix: bytes) -> RangeRequest:
    """Asks for the key of a prefix that was created first."""
    return RangeRequest(
        key=prefix,
        range_end=prefix_end(prefix),
        limit=1,
        sort_order=RangeRequest.ASCEND,
        sort_target=RangeRequest.CREATE,
    )


async def wait_deleted(connection: Connection, key: bytes, start_revision: int) -> None:
    """Return when the key is deleted at that revision or later."""
    create = rpc.WatchCreateRequest(key=key, start_revision=start_revision, filters=[rpc.WatchCreateRequest.NOPUT])
    async with AsyncWatch(connection, create, hasleader=True) as watch:
        async for response in watch:
            if any(event.type == Event.DELETE for event in response.events):
                return
