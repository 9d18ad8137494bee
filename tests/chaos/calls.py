"""etcd's calls from an event loop, one channel an endpoint, that connects again at once after whatever happened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from quorate.proto import rpc_pb2
from tests.chaos.people import Person
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

    def __init__(self, endpoint: str, person: Person) -> None:
        self.endpoint = endpoint
        self.person = person
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
        await self.person.come_in(self, timeout_s)
        token = self.person.token
        try:
            return await self._called(name)(request, timeout=timeout_s, metadata=self.person.metadata)
        except grpc.aio.AioRpcError as error:
            self.person.refused(token, error.details() or "")
            raise

    async def login(self, request: rpc_pb2.AuthenticateRequest, timeout_s: float) -> Any:
        """The answer to a call without a token."""
        return await self._called("Auth/Authenticate")(request, timeout=timeout_s)

    def stream(self, name: str, requests: AsyncIterator[Message] | Iterable[Message], timeout_s: float | None) -> Any:
        """A call that streams both ways: iterate it for the answers, `cancel()` it in the end."""
        path, serialize, parse = _described(name)
        metadata = self.person.metadata
        return self._channel.stream_stream(path, serialize, parse)(requests, timeout=timeout_s, metadata=metadata)

    def told(self, name: str, request: Message, timeout_s: float) -> Any:
        """A call that is answered by a stream."""
        path, serialize, parse = _described(name)
        metadata = self.person.metadata
        return self._channel.unary_stream(path, serialize, parse)(request, timeout=timeout_s, metadata=metadata)

    def _called(self, name: str) -> Any:
        call = self._unary.get(name)
        if call is None:
            path, serialize, parse = _described(name)
            call = self._unary[name] = self._channel.unary_unary(path, serialize, parse)
        return call


def _described(name: str) -> tuple[str, Any, Any]:
    method = method_of(name)
    path = f"/{method.containing_service.full_name}/{method.name}"
    return path, lambda message: message.SerializeToString(), GetMessageClass(method.output_type).FromString


def refusal(error: grpc.RpcError) -> tuple[str, str]:
    """Name of the code and the text of a failed call."""
    assert isinstance(error, grpc.aio.AioRpcError)
    return error.code().name, error.details() or ""
