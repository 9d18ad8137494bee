"""The client for programs without an event loop: the same, run by a thread of its own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, Unpack

from quorate.client.aio import LOCK_TTL_S, TIMEOUT_S, AsyncClient
from quorate.client.election import AsyncElection
from quorate.client.endpoints import ChannelOptions
from quorate.client.lease import AsyncLease
from quorate.client.methods import A, Method, Q
from quorate.client.portal import Portal
from quorate.client.ranges import Key, prefix_range
from quorate.client.requests import GetOptions, PutOptions, WatchOptions
from quorate.client.tls import TlsFiles
from quorate.client.txn import Txn
from quorate.client.waiters import Hold
from quorate.client.watching import AsyncWatch
from quorate.proto import rpc_pb2 as rpc
from quorate.proto.kv_pb2 import KeyValue


class Watch:
    """Responses of one watcher; see AsyncWatch. `close` from another thread ends the iteration."""

    def __init__(self, portal: Portal, watch: AsyncWatch) -> None:
        self._portal = portal
        self._watch = watch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[rpc.WatchResponse]:
        return self._portal.iterate(self._watch)

    def request_progress(self) -> None:
        """Ask for a response that says how far this watcher is."""
        self._portal.run(self._watch.request_progress())

    def close(self) -> None:
        """Stop watching."""
        self._portal.run(self._watch.close())


class Lease:
    """A lease that is kept alive; see AsyncLease. As a context manager it is revoked at the end."""

    def __init__(self, portal: Portal, lease: AsyncLease) -> None:
        self._portal = portal
        self.within = lease

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._portal.run(self.within.__aexit__(*exception))

    @property
    def lease_id(self) -> int:
        """What keys are put with."""
        return self.within.lease_id

    @property
    def ttl_s(self) -> int:
        """Seconds, as granted."""
        return self.within.ttl_s

    def check(self) -> None:
        """Return while the lease is alive; LeaseExpiredError afterwards."""
        self.within.check()

    def wait_lost(self) -> None:
        """Return when the lease is lost."""
        self._portal.run(_wait_lost(self.within))

    def close(self) -> None:
        """Stop renewing; the lease expires by itself."""
        self._portal.run(self.within.close())

    def revoke(self) -> None:
        """Stop renewing and delete the lease and its keys at once."""
        self._portal.run(self.within.revoke())


class Election:
    """A candidate of an election; see AsyncElection."""

    def __init__(self, portal: Portal, election: AsyncElection) -> None:
        self._portal = portal
        self._election = election

    def campaign(self, value: Key) -> Hold:
        """Stand with this value and wait for leadership."""
        return self._portal.run(self._election.campaign(value))

    def proclaim(self, value: Key) -> None:
        """Change the value without a new election; NotLeaderError when leadership is lost."""
        self._portal.run(self._election.proclaim(value))

    def resign(self) -> None:
        """Let the next candidate lead."""
        self._portal.run(self._election.resign())


class Client:
    """A client of one cluster, for any number of threads; see AsyncClient for what every call promises."""

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
        self._portal = Portal()
        try:
            self._client = self._portal.run(_connect(endpoints, user, password, tls, timeout_s, channel))
        except BaseException:
            self._portal.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; watchers and leases of this client end."""
        self._portal.run(self._client.close())
        self._portal.close()

    def call(self, method: Method[Q, A], request: Q, timeout_s: float | None = None) -> A:
        """Any call of etcd's API, from `quorate.client.methods`."""
        return self._portal.run(self._client.call(method, request, timeout_s))

    def get(self, key: Key, range_end: bytes = b"", **options: Unpack[GetOptions]) -> rpc.RangeResponse:
        """A key, or the keys from `key` up to, not including, `range_end`."""
        return self._portal.run(self._client.get(key, range_end, **options))

    def get_prefix(self, prefix: Key, **options: Unpack[GetOptions]) -> rpc.RangeResponse:
        """All keys that start with the prefix."""
        return self.get(*prefix_range(prefix), **options)

    def put(self, key: Key, value: Key, **options: Unpack[PutOptions]) -> rpc.PutResponse:
        """Store a value."""
        return self._portal.run(self._client.put(key, value, **options))

    def delete(self, key: Key, range_end: bytes = b"", prev_kv: bool = False) -> rpc.DeleteRangeResponse:
        """Delete a key or a range; the answer says how many there were."""
        return self._portal.run(self._client.delete(key, range_end, prev_kv))

    def delete_prefix(self, prefix: Key, prev_kv: bool = False) -> rpc.DeleteRangeResponse:
        """Delete all keys that start with the prefix."""
        return self.delete(*prefix_range(prefix), prev_kv=prev_kv)

    def commit(self, txn: Txn) -> rpc.TxnResponse:
        """Do a transaction."""
        return self._portal.run(self._client.commit(txn))

    def compact(self, revision: int, physical: bool = False) -> rpc.CompactionResponse:
        """Forget history before a revision."""
        return self._portal.run(self._client.compact(revision, physical))

    def watch(self, key: Key, range_end: bytes = b"", **options: Unpack[WatchOptions]) -> Watch:
        """Watch a key or a range; the watcher starts when it is iterated."""
        return Watch(self._portal, self._client.watch(key, range_end, **options))

    def watch_prefix(self, prefix: Key, **options: Unpack[WatchOptions]) -> Watch:
        """Watch all keys that start with the prefix."""
        return self.watch(*prefix_range(prefix), **options)

    def lease(self, ttl_s: int, lease_id: int = 0) -> Lease:
        """Grant a lease and keep it alive: `with client.lease(10) as lease`."""
        return Lease(self._portal, self._portal.run(self._client.lease(ttl_s, lease_id)))

    def grant(self, ttl_s: int, lease_id: int = 0) -> rpc.LeaseGrantResponse:
        """Grant a lease that nobody keeps alive."""
        return self._portal.run(self._client.grant(ttl_s, lease_id))

    def renew(self, lease_id: int) -> rpc.LeaseKeepAliveResponse:
        """Renew a lease once; LeaseExpiredError when it is gone."""
        return self._portal.run(self._client.renew(lease_id))

    def revoke(self, lease_id: int) -> rpc.LeaseRevokeResponse:
        """Delete a lease and its keys."""
        return self._portal.run(self._client.revoke(lease_id))

    def time_to_live(self, lease_id: int, keys: bool = False) -> rpc.LeaseTimeToLiveResponse:
        """Seconds left to a lease, -1 when it is gone, and its keys."""
        return self._portal.run(self._client.time_to_live(lease_id, keys))

    @contextmanager
    def lock(self, name: Key, ttl_s: int = LOCK_TTL_S) -> Iterator[Hold]:
        """Hold a lock for the block; `hold.guard()` fences writes against having lost it."""
        with self.lease(ttl_s) as lease:
            yield self._portal.run(self._client.lock_on(name, lease.within).acquire())

    def election(self, name: Key, lease: Lease) -> Election:
        """A candidate of an election, standing on a lease of one's own."""
        return Election(self._portal, self._client.election(name, lease.within))

    def leader(self, name: Key) -> KeyValue | None:
        """Who leads an election."""
        return self._portal.run(self._client.leader(name))

    def observe(self, name: Key) -> Iterator[KeyValue]:
        """Every leader of an election from now on."""
        return self._portal.iterate(self._client.observe(name))


async def _connect(endpoints: str | Sequence[str], *options: Any) -> AsyncClient:
    user, password, tls, timeout_s, channel = options
    return AsyncClient(endpoints, user=user, password=password, tls=tls, timeout_s=timeout_s, channel=channel)


async def _wait_lost(lease: AsyncLease) -> None:
    await lease.lost.wait()
