"""A session: a lease that is kept alive for as long as its owner lives, and says when it was lost."""

import asyncio
import time
from contextlib import suppress
from typing import Any, Final, Self

import grpc

from quorate.client import errors, methods
from quorate.client.connection import Connection, translated
from quorate.client.errors import EtcdError, LeaseExpiredError
from quorate.proto import rpc_pb2 as rpc

CANCEL_S: Final = 0.1
RETRY_S: Final = 0.5  # after a lost stream, as etcd's client
ANSWER_S_MIN: Final = 1.0  # an election takes about as long


class KeepAlive:
    """A stream of renewals that is opened again when it is lost."""

    def __init__(self, connection: Connection, lease_id: int) -> None:
        self._connection = connection
        self._request = rpc.LeaseKeepAliveRequest(ID=lease_id)
        self._stream: Any = None

    async def renew(self, timeout_s: float | None = None) -> rpc.LeaseKeepAliveResponse:
        """The answer to one renewal; LeaseExpiredError when the lease is gone, EtcdError when there is no answer."""
        try:
            async with asyncio.timeout(timeout_s):  # wait_for of Python 3.11 may swallow a cancellation
                answer = await self._exchange()
        except grpc.aio.AioRpcError as lost:
            self.close()
            error = translated(lost)
            self._connection.forget_token(error)
            raise error from lost
        except TimeoutError:
            self.close()
            raise EtcdError(errors.DEADLINE_EXCEEDED, "context deadline exceeded") from None
        if answer is grpc.aio.EOF:
            self.close()
            raise EtcdError(errors.UNAVAILABLE, "the stream has ended")
        assert isinstance(answer, rpc.LeaseKeepAliveResponse)
        if answer.TTL <= 0:
            raise LeaseExpiredError
        return answer

    async def _exchange(self) -> object:
        if self._stream is None:
            self._stream = await self._connection.stream(
                methods.LEASE_KEEP_ALIVE_PATH, rpc.LeaseKeepAliveResponse.FromString
            )
        await self._stream.write(self._request)
        return await self._stream.read()

    def close(self) -> None:
        """End the stream; the next renewal opens another."""
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None


class AsyncLease:
    """A lease that is renewed every third of its TTL until it is closed; a context manager revokes it at the end.

    An endpoint that does not answer for another third is left for the next, so that one that hangs does not cost it.
    It counts as lost when the server says so or when no renewal was answered for a whole TTL, counted from when the
    last answered one was sent: never later than the server can have given its keys to others.
    """

    def __init__(self, connection: Connection, lease_id: int, ttl_s: int) -> None:
        self.lease_id = lease_id
        self.ttl_s = ttl_s  # as granted
        self.lost = asyncio.Event()
        self._connection = connection
        self._valid_until = time.monotonic() + ttl_s
        self._renewing = asyncio.create_task(self._renew())

    @classmethod
    async def grant(cls, connection: Connection, ttl_s: int, lease_id: int = 0) -> Self:
        """Grant a lease and start to keep it alive; `lease_id` 0 lets the server choose."""
        granted = await connection.call(methods.LEASE_GRANT, rpc.LeaseGrantRequest(TTL=ttl_s, ID=lease_id))
        return cls(connection, granted.ID, granted.TTL)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(EtcdError):  # unreachable: the lease expires by itself
            await self.revoke()

    def check(self) -> None:
        """Return while the lease is alive; LeaseExpiredError afterwards."""
        if self.lost.is_set() or time.monotonic() >= self._valid_until:
            raise LeaseExpiredError

    async def close(self) -> None:
        """Stop renewing; the lease expires by itself."""
        while not self._renewing.done():  # a call that just failed may have taken the cancellation for its own
            self._renewing.cancel()
            await asyncio.wait((self._renewing,), timeout=CANCEL_S)

    async def revoke(self) -> None:
        """Stop renewing and delete the lease and its keys at once; nothing when it is gone already."""
        await self.close()
        try:
            await self._connection.call(methods.LEASE_REVOKE, rpc.LeaseRevokeRequest(ID=self.lease_id))
        except EtcdError as error:
            if error.text != errors.LEASE_NOT_FOUND_TEXT:
                raise
        self.lost.set()

    async def _renew(self) -> None:
        stream = KeepAlive(self._connection, self.lease_id)
        try:
            while (left_s := self._valid_until - time.monotonic()) > 0:
                sent = time.monotonic()
                try:
                    answer = await stream.renew(timeout_s=min(left_s, max(self.ttl_s / 3, ANSWER_S_MIN)))
                except LeaseExpiredError:
                    return
                except EtcdError:
                    await asyncio.sleep(min(RETRY_S, self.ttl_s / 3))
                    continue
                self._valid_until = sent + answer.TTL
                await asyncio.sleep(answer.TTL / 3)
        finally:
            stream.close()
            self.lost.set()
