"""A lock that one owner holds at a time, across processes and clients."""

from quorate.client.connection import Connection
from quorate.client.lease import AsyncLease
from quorate.client.ranges import Key
from quorate.client.waiters import Hold, Queue


class AsyncLock:
    """The lock `name`, to be held on a lease. Locking twice on one lease is the same hold."""

    def __init__(self, connection: Connection, name: Key, lease: AsyncLease) -> None:
        self._queue = Queue(connection, name, lease)
        self._hold: Hold | None = None

    async def acquire(self) -> Hold:
        """Wait for the lock; the hold carries the fencing token. LeaseExpiredError when the lease is lost first."""
        self._hold = await self._queue.enter()
        return self._hold

    async def release(self) -> None:
        """Give the lock to the next in line; nothing when it is not held."""
        if self._hold is not None:
            await self._queue.leave(self._hold)
            self._hold = None
