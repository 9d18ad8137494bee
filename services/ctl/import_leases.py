"""The leases of an import: granted anew under their ids when all keys are there, and the keys put on them.

Until then keys have none, so that nothing ends at the destination while clients renew their leases at the source.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from quorate.client import methods
from quorate.client.errors import EtcdError
from quorate.client.ranges import FROM_KEY
from quorate.ctl.import_keys import EVERY_KEY
from quorate.ctl.import_mark import Destination, Side
from quorate.proto import rpc_pb2 as rpc

PAGE_KEYS: Final = 10_000  # without values
AT_ONCE: Final = 64
RENEW_S: Final = 1.0
EXISTS: Final = "etcdserver: lease already exists"


class Leases:
    """Leases on their way from one cluster to another."""

    def __init__(self, source: Side, destination: Destination, operations_max: int, keep_remaining: bool) -> None:
        self._source = source
        self._destination = destination
        self._operations_max = operations_max - 1
        self._keep_remaining = keep_remaining
        self.granted: dict[int, int] = {}  # TTLs in seconds by id

    async def attach(self) -> None:
        """Grant all leases and put the keys of the mark's revision on them; CompactedError when that is gone."""
        mark = self._destination.mark
        assert mark is not None
        keys = await self._leased_keys(mark.revision)
        listed = await self._source.ask(methods.LEASE_LEASES, rpc.LeaseLeasesRequest())
        ids = sorted({lease.ID for lease in listed.leases} | keys.keys())
        renewing = asyncio.create_task(self._renew())
        try:
            for start in range(0, len(ids), AT_ONCE):
                await asyncio.gather(*(self._grant(lease_id) for lease_id in ids[start : start + AT_ONCE]))
            for lease_id in ids:
                await self._put_on(lease_id, keys.get(lease_id, []))
        finally:
            renewing.cancel()

    async def _leased_keys(self, revision: int) -> dict[int, list[bytes]]:
        found: dict[int, list[bytes]] = {}
        start = EVERY_KEY
        while True:
            request = rpc.RangeRequest(
                key=start, range_end=FROM_KEY, limit=PAGE_KEYS, revision=revision, keys_only=True
            )
            page = await self._source.ask(methods.RANGE, request)
            for pair in page.kvs:
                if pair.lease:
                    found.setdefault(pair.lease, []).append(pair.key)
            if not page.more:
                return found
            start = page.kvs[-1].key + b"\0"

    async def _grant(self, lease_id: int) -> None:
        left = await self._source.ask(methods.LEASE_TIME_TO_LIVE, rpc.LeaseTimeToLiveRequest(ID=lease_id))
        # One that ended after the revision of the mark ends here, too, with the keys it then had.
        ttl_s = max(left.TTL if self._keep_remaining or left.TTL < 0 else left.grantedTTL, 1)
        request = rpc.LeaseGrantRequest(ID=lease_id, TTL=ttl_s)
        if await self._destination.call(methods.LEASE_GRANT, request, unless=(EXISTS,)) is None:
            with suppress(EtcdError):
                await self._destination.client.renew(lease_id)  # granted by a run that was cut short
        self.granted[lease_id] = ttl_s

    async def _put_on(self, lease_id: int, keys: Sequence[bytes]) -> None:
        for start in range(0, len(keys), self._operations_max):
            puts = [
                rpc.RequestOp(request_put=rpc.PutRequest(key=key, lease=lease_id, ignore_value=True))
                for key in keys[start : start + self._operations_max]
            ]
            mark = self._destination.mark
            assert mark is not None
            await self._destination.write(puts, replace(mark, part=mark.part + 1))

    async def _renew(self) -> None:
        """None ends before the last has its keys."""
        loop = asyncio.get_running_loop()
        due: dict[int, float] = {}
        while True:
            await asyncio.sleep(RENEW_S)
            for lease_id, ttl_s in list(self.granted.items()):
                if loop.time() >= due.setdefault(lease_id, loop.time() + ttl_s / 3):
                    due[lease_id] = loop.time() + ttl_s / 3
                    with suppress(EtcdError):
                        await self._destination.client.renew(lease_id)
