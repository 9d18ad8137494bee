"""A lease without a server: what it does when its stream misbehaves."""

import asyncio
from typing import cast

import pytest

from quorate.client import EtcdError, lease
from quorate.client.connection import Connection
from quorate.client.errors import DEADLINE_EXCEEDED, UNAVAILABLE
from quorate.proto import rpc_pb2 as rpc


class Swallowing:
    """A stream whose call fails at the moment it is cancelled, so that the cancellation is lost."""

    def __init__(self, *_: object) -> None:
        self.cancellations = 0

    async def renew(self, timeout_s: float | None = None) -> object:
        try:
            return await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancellations += 1
            if self.cancellations == 1:
                raise EtcdError(UNAVAILABLE, "gone") from None
            raise

    def close(self) -> None:
        pass


class SilentAtFirst:
    """A stream to an endpoint that hangs; when it is closed, the next endpoint answers."""

    def __init__(self, *_: object) -> None:
        self.is_silent = True
        self.renewed = asyncio.Event()

    async def renew(self, timeout_s: float | None = None) -> rpc.LeaseKeepAliveResponse:
        if self.is_silent:
            self.is_silent = False
            await asyncio.sleep(timeout_s or 0)
            raise EtcdError(DEADLINE_EXCEEDED, "context deadline exceeded")
        self.renewed.set()
        return rpc.LeaseKeepAliveResponse(TTL=60)

    def close(self) -> None:
        pass


def test_an_endpoint_that_hangs_does_not_cost_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = SilentAtFirst()
    monkeypatch.setattr(lease, "KeepAlive", lambda *_: stream)

    async def hold() -> None:
        held = lease.AsyncLease(cast(Connection, None), 7, 3)
        async with asyncio.timeout(10):
            await asyncio.wait(
                [asyncio.create_task(event.wait()) for event in (stream.renewed, held.lost)],
                return_when=asyncio.FIRST_COMPLETED,
            )
        assert not held.lost.is_set()
        await held.close()

    asyncio.run(hold())


def test_closing_ends_although_a_cancellation_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "KeepAlive", Swallowing)

    async def close() -> None:
        held = lease.AsyncLease(cast(Connection, None), 7, 60)
        held.check()
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await held.close()
        assert held.lost.is_set()

    asyncio.run(close())
