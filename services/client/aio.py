"""The client for asyncio."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Self, Unpack

from quorate.client import election, methods, requests
from quorate.client.connection import Connection
from quorate.client.election import AsyncElection
from quorate.client.endpoints import ChannelOptions, Channels, parse_all
from quorate.client.lease import AsyncLease, KeepAlive
from quorate.client.lock import AsyncLock
from quorate.client.methods import A, Method, Q
from quorate.client.ranges import Key, as_bytes, prefix_range
from quorate.client.requests import GetOptions, PutOptions, WatchOptions
from quorate.client.tls import TlsFiles
from quorate.client.txn import Txn
from quorate.client.waiters import Hold
from quorate.client.watching import AsyncWatch
from quorate.proto import rpc_pb2 as rpc
from quorate.proto.kv_pb2 import KeyValue

TIMEOUT_S = 5.0
LOCK_TTL_S = 60


class AsyncClient:
    """A client of one cluster, for one event loop.

    Every call asks the next endpoint in turn. Reads are repeated at another endpoint when one is lost; a write whose
    answer was lost raises OutcomeUnknownError. Answers are etcd's protobuf messages. Times are in seconds;
    `timeout_s` bounds a call with all its repetitions, None waits for ever.
    """

    def __init__(
        self,
        endpoints: str | Sequence[str] = "127.0.0.1:2379",
        *,
        user: str | None = None,
        password: str | None = None,
        tls: TlsFiles | None = None,
        timeout_s: float | None = TIMEOUT_S,
        channel: ChannelOptions | None = None,
    ) -> None:
        channels = Channels(parse_all(endpoints), tls, channel or ChannelOptions())
        self.connection = Connection(channels, user, password, timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; watchers and leases of this client end."""
        await self.connection.close()

    async def call(self, method: Method[Q, A], request: Q, timeout_s: float | None = None) -> A:
        """Any call of etcd's API, from `quorate.client.methods`."""
        return await self.connection.call(method, request, timeout_s)

    async def get(self, key: Key, range_end: bytes = b"", **options: Unpack[GetOptions]) -> rpc.RangeResponse:
        """A key, or the keys from `key` up to, not including, `range_end`."""
        return await self.call(methods.RANGE, requests.range_request(key, range_end, options))

    async def get_prefix(self, prefix: Key, **options: Unpack[GetOptions]) -> rpc.RangeResponse:
        """All keys that start with the prefix."""
        return await self.get(*prefix_range(prefix), **options)

    async def put(self, key: Key, value: Key, **options: Unpack[PutOptions]) -> rpc.PutResponse:
        """Store a value."""
        return await self.call(methods.PUT, requests.put_request(key, value, **options))

    async def delete(self, key: Key, range_end: bytes = b"", prev_kv: bool = False) -> rpc.DeleteRangeResponse:
        """Delete a key or a range; the answer says how many there were."""
        request = rpc.DeleteRangeRequest(key=as_bytes(key), range_end=range_end, prev_kv=prev_kv)
        return await self.call(methods.DELETE_RANGE, request)

    async def delete_prefix(self, prefix: Key, prev_kv: bool = False) -> rpc.DeleteRangeResponse:
        """Delete all keys that start with the prefix."""
        return await self.delete(*prefix_range(prefix), prev_kv=prev_kv)

    async def commit(self, txn: Txn) -> rpc.TxnResponse:
        """Do a transaction."""
        return await self.call(methods.TXN, txn.request)

    async def compact(self, revision: int, physical: bool = False) -> rpc.CompactionResponse:
        """Forget history before a revision; `physical` waits until it is gone from the disk."""
        return await self.call(methods.COMPACT, rpc.CompactionRequest(revision=revision, physical=physical))

    def watch(self, key: Key, range_end: bytes = b"", **options: Unpack[WatchOptions]) -> AsyncWatch:
        """Watch a key or a range; the watcher starts when it is iterated."""
        return AsyncWatch(self.connection, requests.watch_request(key, range_end, options))

    def watch_prefix(self, prefix: Key, **options: Unpack[WatchOptions]) -> AsyncWatch:
        """Watch all keys that start with the prefix."""
        return self.watch(*prefix_range(prefix), **options)

    async def lease(self, ttl_s: int, lease_id: int = 0) -> AsyncLease:
        """Grant a lease and keep it alive: `async with await client.lease(10) as lease`."""
        return await AsyncLease.grant(self.connection, ttl_s, lease_id)

    async def grant(self, ttl_s: int, lease_id: int = 0) -> rpc.LeaseGrantResponse:
        """Grant a lease that nobody keeps alive."""
        return await self.call(methods.LEASE_GRANT, rpc.LeaseGrantRequest(TTL=ttl_s, ID=lease_id))

    async def renew(self, lease_id: int) -> rpc.LeaseKeepAliveResponse:
        """Renew a lease once; LeaseExpiredError when it is gone."""
        stream = KeepAlive(self.connection, lease_id)
        try:
            return await stream.renew(TIMEOUT_S)
        finally:
            stream.close()

    async def revoke(self, lease_id: int) -> rpc.LeaseRevokeResponse:
        """Delete a lease and its keys."""
        return await self.call(methods.LEASE_REVOKE, rpc.LeaseRevokeRequest(ID=lease_id))

    async def time_to_live(self, lease_id: int, keys: bool = False) -> rpc.LeaseTimeToLiveResponse:
        """Seconds left to a lease, -1 when it is gone, and its keys."""
        return await self.call(methods.LEASE_TIME_TO_LIVE, rpc.LeaseTimeToLiveRequest(ID=lease_id, keys=keys))

    @asynccontextmanager
    async def lock(self, name: Key, ttl_s: int = LOCK_TTL_S) -> AsyncIterator[Hold]:
        """Hold a lock for the block; `hold.guard()` fences writes against having lost it."""
        async with await self.lease(ttl_s) as lease:
            yield await AsyncLock(self.connection, name, lease).acquire()

    def lock_on(self, name: Key, lease: AsyncLease) -> AsyncLock:
        """A lock to be held on a lease of one's own."""
        return AsyncLock(self.connection, name, lease)

    def election(self, name: Key, lease: AsyncLease) -> AsyncElection:
        """A candidate of an election, standing on a lease of one's own."""
        return AsyncElection(self.connection, name, lease)

    async def leader(self, name: Key) -> KeyValue | None:
        """Who leads an election."""
        return await election.leader(self.connection, name)

    def observe(self, name: Key) -> AsyncIterator[KeyValue]:
        """Every leader of an election from now on."""
        return election.observe(self.connection, name)
