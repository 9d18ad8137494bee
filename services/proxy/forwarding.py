"""Calls passed on as bytes: decoded only where a namespace has to be put before their keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

import grpc

from quorate.client.errors import NoEndpointsError
from quorate.proto import health_pb2, rpc_pb2, v3election_pb2, v3lock_pb2
from quorate.proxy.namespace import Rewriting
from quorate.proxy.tallies import Outcome, Tallies
from quorate.proxy.upstream import Metadata, Upstream
from quorate.wire.errors import Code

UNCHANGED: Final = Rewriting(bytes, bytes)
NOT_PASSED_ON: Final = ("grpc-", ":", "user-agent", "content-type")  # of a connection rather than of a call

Local = Callable[[bytes], Awaitable[bytes]]  # a method the proxy answers itself


def _unary_paths() -> frozenset[str]:
    return frozenset(
        f"/{service.full_name}/{method.name}"
        for file in (rpc_pb2, v3lock_pb2, v3election_pb2, health_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if not (method.client_streaming or method.server_streaming)
    )


UNARY: Final = _unary_paths()


class Forwarding(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    """Every method there is, also those a later etcd will have."""

    def __init__(
        self, upstream: Upstream, rewritings: Mapping[str, Rewriting], local: Mapping[str, Local], tallies: Tallies
    ) -> None:
        self._upstream = upstream
        self._rewritings = rewritings
        self._local = local
        self._tallies = tallies

    def service(self, details: Any) -> Any:
        """What grpcio calls with each request's path."""
        path: str = details.method
        if path in self._local:
            return grpc.unary_unary_rpc_method_handler(self._answer(path))
        if path in UNARY:
            return grpc.unary_unary_rpc_method_handler(self._ask(path))
        return grpc.stream_stream_rpc_method_handler(self._converse(path))

    def _answer(self, path: str) -> Callable[[bytes, Any], Awaitable[bytes]]:
        async def answer(request: bytes, context: Any) -> bytes:
            with self._tallies.call(path):
                return await self._local[path](request)

        return answer

    def _ask(self, path: str) -> Callable[[bytes, Any], Awaitable[bytes]]:
        rewriting = self._rewritings.get(path, UNCHANGED)

        async def ask(request: bytes, context: Any) -> bytes:
            with self._tallies.call(path) as outcome:
                try:
                    changed = rewriting.request(request)
                    answer = await self._upstream.ask(path, changed, passed_on(context), context.time_remaining())
                except (grpc.aio.AioRpcError, NoEndpointsError) as error:
                    await _abort(context, error, outcome)
                    raise
                return rewriting.answer(answer)

        return ask

    def _converse(self, path: str) -> Callable[[AsyncIterator[bytes], Any], AsyncIterator[bytes]]:
        rewriting = self._rewritings.get(path, UNCHANGED)

        async def converse(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            with self._tallies.call(path) as outcome:
                call = None
                sending = None
                try:
                    call = await self._upstream.stream(path, passed_on(context), context.time_remaining())
                    sending = asyncio.ensure_future(_send(requests, call, rewriting))
                    async for answer in call:
                        yield rewriting.answer(answer)
                except (grpc.aio.AioRpcError, NoEndpointsError) as error:
                    await _abort(context, error, outcome)
                finally:
                    if sending is not None:
                        sending.cancel()
                    if call is not None:
                        call.cancel()

        return converse


async def _send(requests: AsyncIterator[bytes], call: Any, rewriting: Rewriting) -> None:
    """What the client says, as long as the cluster listens; what ends the call is seen by who reads its answers."""
    try:
        async for request in requests:
            await call.write(rewriting.request(request))
        await call.done_writing()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        return


async def _abort(context: Any, error: grpc.aio.AioRpcError | NoEndpointsError, outcome: Outcome) -> None:
    """End a call as the cluster ended it; does not return."""
    if isinstance(error, NoEndpointsError):
        code, text = grpc.StatusCode.UNAVAILABLE, error.text
    else:
        code, text = error.code(), error.details() or ""
    outcome.code = Code(code.value[0])
    await context.abort(code, text)


def passed_on(context: Any) -> Metadata:
    """The metadata of a call that is the client's own: its token, hasleader, its version."""
    return [(key, value) for key, value in context.invocation_metadata() or () if not key.startswith(NOT_PASSED_ON)]
