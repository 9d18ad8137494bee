"""The cluster behind the proxy: one channel to each endpoint, and which of them is used next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

import grpc

from quorate.client import methods
from quorate.client.connection import NOT_CONNECTED
from quorate.client.endpoints import ChannelOptions, Channels, parse_all
from quorate.client.errors import NoEndpointsError
from quorate.client.methods import Method
from quorate.client.tls import TlsFiles
from quorate.node import logs
from quorate.proto import rpc_pb2 as rpc

log = logs.named("upstream")

Metadata = list[tuple[str, str | bytes]]

READS: Final = frozenset(
    method.path for method in vars(methods).values() if isinstance(method, Method) and method.is_read
)
UNUSABLE: Final = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)


class Upstream:
    """Endpoints taken in turn; those that are down are passed over."""

    def __init__(self, endpoints: Sequence[str], tls: TlsFiles | None, options: ChannelOptions) -> None:
        self.endpoints = list(endpoints)
        self._channels = Channels(parse_all(endpoints), tls, options)
        self._dial_s = options.dial_timeout_s

    async def channel(self, within_s: float | None = None) -> grpc.aio.Channel:
        """A connected channel; NoEndpointsError when no endpoint answers in time."""
        deadline = time.monotonic() + min(within_s or self._dial_s, self._dial_s)
        candidates = [self._channels.next() for _ in self._channels.endpoints]
        for channel in candidates:
            if channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY:
                return channel
        waiting = {asyncio.ensure_future(_connected(channel)) for channel in candidates}
        try:
            while waiting:
                left_s = max(deadline - time.monotonic(), 0)
                done, waiting = await asyncio.wait(waiting, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                for connected in done:
                    if (channel := connected.result()) is not None:
                        return channel
                if not done:
                    break
        finally:
            for unfinished in waiting:
                unfinished.cancel()
        raise NoEndpointsError

    async def ask(self, path: str, request: bytes, metadata: Metadata, timeout_s: float | None) -> bytes:
        """The answer to a unary call. What cannot have been done is tried at the other endpoints too.

        Raises grpc.aio.AioRpcError, or NoEndpointsError when no endpoint answers.
        """
        attempts = len(self._channels.endpoints)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            channel = await self.channel(left_s)
            attempts -= 1
            try:
                answer: bytes = await channel.unary_unary(path)(request, timeout=left_s, metadata=metadata)
                return answer
            except grpc.aio.AioRpcError as error:
                if attempts <= 0 or not _may_repeat(path, error):
                    raise

    async def stream(self, path: str, metadata: Metadata, timeout_s: float | None) -> Any:
        """A call that streams both ways (a grpc.aio.StreamStreamCall); NoEndpointsError when no endpoint answers."""
        channel = await self.channel(timeout_s)
        return channel.stream_stream(path)(metadata=metadata, timeout=timeout_s)

    async def follow_members(self, interval_s: float) -> None:
        """Take the members' client URLs as endpoints again and again, for ever."""
        while True:
            await asyncio.sleep(interval_s)
            request = rpc.MemberListRequest().SerializeToString()
            try:
                answer = rpc.MemberListResponse.FromString(
                    await self.ask(methods.MEMBER_LIST.path, request, [], self._dial_s)
                )
            except (grpc.aio.AioRpcError, NoEndpointsError) as error:
                log.warn("failed to list the members", error=str(error))
                continue
            found = [url for member in answer.members if not member.isLearner for url in member.clientURLs]
            if found and found != self.endpoints:
                log.info("endpoints changed", endpoints=found)
                self.endpoints = found
                self._channels.endpoints = parse_all(found)

    async def close(self) -> None:
        """Close all channels; calls still running fail."""
        await self._channels.close()


async def _connected(channel: grpc.aio.Channel) -> grpc.aio.Channel | None:
    """The channel once it is connected; None when its endpoint refuses."""
    state = channel.get_state(try_to_connect=True)
    has_tried = state is grpc.ChannelConnectivity.CONNECTING
    while state is not grpc.ChannelConnectivity.READY:
        if state in UNUSABLE and has_tried:
            return None
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)
        has_tried = True
    return channel


def _may_repeat(path: str, error: grpc.aio.AioRpcError) -> bool:
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return False
    return path in READS or str(error.details()).startswith(NOT_CONNECTED)
