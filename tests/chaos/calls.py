"""etcd's calls from an event loop, one channel an endpoint, that connects again at once after whatever happened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tests.support.rpc import method_of

OPTIONS: Final = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_retries", 0),
]


class AsyncCaller:
    """Calls methods of one endpoint by name, as `KV/Put`; `grpc.RpcError` carries the server's code and text."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._channel = grpc.aio.insecure_channel(endpoint, options=OPTIONS)
        self._unary: dict[str, Any] = {}

    async def __aenter__(self) -> AsyncCaller:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._channel.close()

    async def unary(self, name: str, request: Message, timeout_s: float) -> Any:
        """The answer to one call."""
        call = self._unary.get(name)
        if call is None:
            path, serialize, parse = _described(name)
            call = self._unary[name] = self._channel.unary_unary(path, serialize, parse)
        return await call(request, timeout=timeout_s)

    def stream(self, name: str, requests: AsyncIterator[Message] | Iterable[Message], timeout_s: float | None) -> Any:
        """A call that streams both ways: iterate it for the answers, `cancel()` it in the end."""
        path, serialize, parse = _described(name)
        return self._channel.stream_stream(path, serialize, parse)(requests, timeout=timeout_s)

    def told(self, name: str, request: Message, timeout_s: float) -> Any:
        """A call that is answered by a stream."""
        path, serialize, parse = _described(name)
        return self._channel.unary_stream(path, serialize, parse)(request, timeout=timeout_s)


def _described(name: str) -> tuple[str, Any, Any]:
    method = method_of(name)
    path = f"/{method.containing_service.full_name}/{method.name}"
    return path, lambda message: message.SerializeToString(), GetMessageClass(method.output_type).FromString


def refusal(error: grpc.RpcError) -> tuple[str, str]:
    """Name of the code and the text of a failed call."""
    assert isinstance(error, grpc.aio.AioRpcError)
    return error.code().name, error.details() or ""
