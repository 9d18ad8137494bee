"""A lease without a server: what it does when its stream misbehaves."""

import asyncio
from typing import cast

import pytest

from quorate.client import EtcdError, lease
from quorate.client.connection import Connection
from quorate.client.errors import UNAVAILABLE


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
