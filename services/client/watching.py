"""A watcher that outlives its stream: after a loss it goes on at the revision after the last one it has seen."""

import asyncio
from typing import Any, Final, Self

import grpc

from quorate.client import errors, methods
from quorate.client.connection import Connection, translated
from quorate.client.errors import CompactedError, EtcdError
from quorate.proto.rpc_pb2 import WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse

REOPEN_S: Final = 0.1
INTERNAL: Final = 13
GO_ERROR: Final = "rpc error: code = "


class AsyncWatch:
    """Responses of one watcher, in the order of their revisions, none lost and none twice.

    Iterate it; each response has at least one event, except for progress notifications, which have none and say by
    their header's revision that everything up to it was told. Iteration ends with CompactedError when history that was
    not yet told has been compacted, and with EtcdError when the server refuses the watcher. Losing the connection
    ends nothing: the watcher goes on through another endpoint.
    """

    def __init__(self, connection: Connection, create: WatchCreateRequest, hasleader: bool = False) -> None:
        self._connection = connection
        self._create = create
        self._hasleader = hasleader
        self._stream: Any = None
        self._created = asyncio.Event()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchResponse:
        while not self._closed:
            try:
                response = await self._read()
            except grpc.aio.AioRpcError as lost:
                if self._closed:
                    break
                await self._lost(translated(lost))
                continue
            except asyncio.CancelledError:
                if self._closed:
                    break
                raise
            if self._closed:
                break
            if response is None:
                await self._lost(EtcdError(errors.UNAVAILABLE, "the stream has ended"))
            elif response.canceled:
                await self._canceled(response)
            elif response.created:
                self._created.set()
                if not self._create.start_revision:
                    self._create.start_revision = response.header.revision + 1
            else:
                self._create.start_revision = response.header.revision + 1
                if response.events:
                    self._create.start_revision = response.events[-1].kv.mod_revision + 1
                return response
        raise StopAsyncIteration

    async def request_progress(self) -> None:
        """Ask for a response that says how far this watcher is; it comes only when it is not behind."""
        if self._stream is not None:
            await self._stream.write(WatchRequest(progress_request=WatchProgressRequest()))

    async def close(self) -> None:
        """Stop watching; a reader that waits is told the end."""
        self._closed = True
        self._drop()

    async def _read(self) -> WatchResponse | None:
        stream = self._stream
        if stream is None:
            stream = self._stream = await self._connection.stream(
                methods.WATCH_PATH, WatchResponse.FromString, hasleader=self._hasleader
            )
            if self._closed:
                self._drop()
                return None
            await stream.write(WatchRequest(create_request=self._create))
        response = await stream.read()
        return None if response is grpc.aio.EOF else response

    async def _canceled(self, response: WatchResponse) -> None:
        self._drop()
        if response.compact_revision:
            raise CompactedError(response.compact_revision)
        reason = response.cancel_reason
        error = EtcdError(errors.CANCELLED, reason or "etcdserver: mvcc: required revision is a future revision")
        if reason.startswith(GO_ERROR):
            error = EtcdError(errors.CANCELLED, reason.partition(" desc = ")[2])
        if error.text == errors.COMPACTED_TEXT:
            raise CompactedError
        if not self._connection.forget_token(error):
            raise error
        await asyncio.sleep(REOPEN_S)

    async def _lost(self, error: EtcdError) -> None:
        self._drop()
        if self._closed:
            return
        if error.code not in (errors.UNAVAILABLE, INTERNAL) and not self._connection.forget_token(error):
            raise error
        await asyncio.sleep(REOPEN_S)

    def _drop(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None
