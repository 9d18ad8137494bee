"""Leader election: candidates queue under a name, the oldest leads, anybody may observe."""

from collections.abc import AsyncIterator

from quorate.client import methods
from quorate.client.connection import Connection
from quorate.client.errors import CompactedError, NotLeaderError
from quorate.client.lease import AsyncLease
from quorate.client.ranges import Key, as_bytes, prefix_end
from quorate.client.waiters import Hold, Queue, oldest
from quorate.client.watching import AsyncWatch
from quorate.proto import rpc_pb2 as rpc
from quorate.proto.kv_pb2 import Event, KeyValue


class AsyncElection:
    """A candidate of the election `name`, standing on a lease."""

    def __init__(self, connection: Connection, name: Key, lease: AsyncLease) -> None:
        self._queue = Queue(connection, name, lease)
        self._hold: Hold | None = None

    async def campaign(self, value: Key) -> Hold:
        """Stand with this value and wait for leadership; LeaseExpiredError when the lease is lost first."""
        self._hold = await self._queue.enter(as_bytes(value))
        return self._hold

    async def proclaim(self, value: Key) -> None:
        """Change the value without a new election; NotLeaderError when leadership is lost."""
        if self._hold is None or not (await self._queue.update(self._hold, as_bytes(value))).succeeded:
            self._hold = None
            raise NotLeaderError

    async def resign(self) -> None:
        """Let the next candidate lead; nothing when this one does not."""
        if self._hold is not None:
            await self._queue.leave(self._hold)
            self._hold = None


async def leader(connection: Connection, name: Key) -> KeyValue | None:
    """The leader's key and value, None when nobody leads."""
    answer = await connection.call(methods.RANGE, oldest(as_bytes(name) + b"/"))
    return answer.kvs[0] if answer.kvs else None


async def observe(connection: Connection, name: Key) -> AsyncIterator[KeyValue]:
    """Every leader from now on, and every value each proclaims; a leader that lasts too short may be left out."""
    prefix = as_bytes(name) + b"/"
    while True:
        found = await connection.call(methods.RANGE, oldest(prefix))
        try:
            if not found.kvs:
                await _wait_for_candidate(connection, prefix, found.header.revision + 1)
                continue
            yield found.kvs[0]
            async for kv in _proclaimed(connection, found.kvs[0].key, found.header.revision + 1):
                yield kv
        except CompactedError:
            continue  # fell behind: look again


async def _wait_for_candidate(connection: Connection, prefix: bytes, start_revision: int) -> None:
    create = rpc.WatchCreateRequest(
        key=prefix,
        range_end=prefix_end(prefix),
        start_revision=start_revision,
        filters=[rpc.WatchCreateRequest.NODELETE],
    )
    async with AsyncWatch(connection, create) as watch:
        await anext(watch)


async def _proclaimed(connection: Connection, key: bytes, start_revision: int) -> AsyncIterator[KeyValue]:
    create = rpc.WatchCreateRequest(key=key, start_revision=start_revision)
    async with AsyncWatch(connection, create) as watch:
        async for response in watch:
            for event in response.events:
                if event.type == Event.DELETE:
                    return
                yield event.kv
