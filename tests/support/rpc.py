"""etcd's API through grpcio, as any application calls it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from quorate.proto import health_pb2, rpc_pb2, v3election_pb2, v3lock_pb2

TIMEOUT_S: Final = 20.0
FILES: Final = (rpc_pb2, v3lock_pb2, v3election_pb2, health_pb2)


@cache
def method_of(name: str) -> MethodDescriptor:
    """The method `KV/Put`."""
    service_name, _, method_name = name.partition("/")
    for file in FILES:
        service = file.DESCRIPTOR.services_by_name.get(service_name)
        if service is not None:
            method: MethodDescriptor = service.methods_by_name[method_name]
            return method
    raise KeyError(name)


class Caller:
    """Calls methods of one endpoint by name, as `KV/Put`; `grpc.RpcError` carries the server's code and text."""

    def __init__(
        self,
        endpoint: str,
        metadata: tuple[tuple[str, str], ...] = (),
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        if credentials is None:
            self.channel = grpc.insecure_channel(endpoint, options=options)
        else:
            self.channel = grpc.secure_channel(endpoint, credentials, options=options)
        self.endpoint = endpoint
        self.metadata = metadata

    def unary(self, name: str, request: Message, timeout_s: float = TIMEOUT_S) -> Any:
        """The answer to one call."""
        method = method_of(name)
        call = self.channel.unary_unary(
            f"/{method.containing_service.full_name}/{method.name}",
            type(request).SerializeToString,
            GetMessageClass(method.output_type).FromString,
        )
        return call(request, timeout=timeout_s, metadata=self.metadata)

    def raw(self, path: str, request: bytes, timeout_s: float = TIMEOUT_S) -> bytes:
        """The bytes that answer these bytes, whatever they mean."""
        answer: bytes = self.channel.unary_unary(path)(request, timeout=timeout_s, metadata=self.metadata)
        return answer

    def stream(self, name: str, requests: Iterable[Message], timeout_s: float | None = None) -> Any:
        """A call that streams both ways: iterate it for the answers, `cancel()` it in the end."""
        method = method_of(name)
        call = self.channel.stream_stream(
            f"/{method.containing_service.full_name}/{method.name}",
            lambda message: message.SerializeToString(),
            GetMessageClass(method.output_type).FromString,
        )
        return call(iter(requests), timeout=timeout_s, metadata=self.metadata)


@contextmanager
def calling(
    endpoint: str,
    metadata: tuple[tuple[str, str], ...] = (),
    credentials: grpc.ChannelCredentials | None = None,
) -> Iterator[Caller]:
    """A caller whose channel is closed afterwards."""
    caller = Caller(endpoint, metadata, credentials)
    try:
        yield caller
    finally:
        caller.channel.close()


def refusal(error: grpc.RpcError) -> tuple[str, str]:
    """Name of the code and the text of a failed call."""
    assert isinstance(error, grpc.Call)
    return error.code().name, error.details() or ""
