"""An api worker in the event loop of a test, on a fake ring, and real clients to talk to it."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import grpc
import grpc.aio
import uvloop
from google.protobuf.message import Message

from quorate.api import assembly
from quorate.api.asgi import Receive, Scope, Send, respond
from quorate.api.callers import Callers
from quorate.api.calls import CallLimits, Calls
from quorate.api.encrypted import TlsPort
from quorate.api.grpc_connection import GrpcServer
from quorate.api.http2.limits import Limits
from quorate.api.listener import HttpServer, Listener, ListenSocket, open_socket
from quorate.api.passwords import Passwords
from quorate.api.quota import Quota
from quorate.api.ring import Ring
from quorate.api.v3rpc import kv
from quorate.api.v3rpc.auth import Auth
from quorate.api.v3rpc.cluster import Cluster
from quorate.api.v3rpc.election import Election
from quorate.api.v3rpc.health import Health
from quorate.api.v3rpc.lease import Lease, LeaseIds
from quorate.api.v3rpc.lock import Lock
from quorate.api.v3rpc.maintenance import Maintenance
from quorate.api.v3rpc.recipes import Recipes
from quorate.api.v3rpc.watch import Watch
from quorate.proto import rpc_pb2
from quorate.wire.messages import Part
from quorate.wire.sockets import Address, Endpoint
from tests.fakes.ring import FakeRing

TIMEOUT_S = 20.0
T = TypeVar("T")


async def hello_app(scope: Scope, receive: Receive, send: Send) -> None:
    """The smallest ASGI application."""
    await respond(send, 200, [(b"content-type", b"text/plain"), (b"scheme", scope["scheme"].encode())], b"hello")


@dataclass
class Worker:
    """The parts of the process under test."""

    fake: FakeRing
    ring: Ring
    calls: Calls
    listener: Listener
    server: GrpcServer
    address: str

    def channel(self, **options: int) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self.address, options=[(f"grpc.{k}", v) for k, v in options.items()])


@contextlib.asynccontextmanager
async def worker(
    *,
    limits: Limits | None = None,
    call_limits: CallLimits | None = None,
    election_timeout_s: float = 1.0,
    request_timeout_s: float = 5.0,
    slow_s: float = float("inf"),
    url: str = "http://127.0.0.1:0",
    tls: TlsPort | None = None,
) -> AsyncIterator[Worker]:
    with tempfile.TemporaryDirectory(prefix="q") as directory:
        run_directory = Path(directory)
        fake = FakeRing(run_directory)
        ring = Ring(Endpoint(run_directory, Address(Part.API)), election_timeout_s, request_timeout_s, slow_s)
        bounds = call_limits or CallLimits()
        callers = Callers(ring)
        health = Health(ring)
        maintenance = Maintenance(ring, "3.6.14", callers)
        lease = Lease(ring, LeaseIds(0, 0), Quota(ring), callers)
        watches = assembly.make_watches(ring)
        recipes = Recipes(ring, watches, lease, callers)
        watch = Watch(ring, watches, bounds, 600.0, Random(1), callers)
        election = Election(recipes)
        routes = {
            **kv.KV(ring, bounds, Quota(ring), callers).routes(),
            **Cluster(ring).routes(),
            **maintenance.routes(),
            **health.routes(),
            **Auth(ring, Passwords(4)).routes(),
            **Lock(recipes).routes(),
            **election.routes(),
        }
        streams = {**health.streams(), **maintenance.streams(), **election.streams(), **watch.streams()}
        calls = Calls(ring, routes, streams, callers)
        server = GrpcServer(calls, limits or Limits())
        listener = Listener(server, HttpServer(hello_app))
        clock = asyncio.ensure_future(listener.run_clock())
        try:
            address = await listener.serve(ListenSocket(open_socket(url), tls))
            await until(lambda: ring.is_ready)
            yield Worker(fake, ring, calls, listener, server, address)
        finally:
            clock.cancel()
            await listener.close(0.0)
            ring.close()
            fake.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, not for a time."""
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + TIMEOUT_S
    while not condition():
        assert loop.time() < ends_at, "the condition did not come true in time"
        await asyncio.sleep(0.001)


def run(scenario: Callable[[], Coroutine[Any, Any, T]]) -> T:
    async def bounded() -> T:
        return await asyncio.wait_for(scenario(), 2 * TIMEOUT_S)

    return uvloop.run(bounded())


def unary(channel: grpc.aio.Channel, method: str, request: Message | bytes, **options: Any) -> Awaitable[bytes]:
    """Start a call; its bytes are not looked at on the way."""
    body = request if isinstance(request, bytes) else request.SerializeToString()
    call: Awaitable[bytes] = channel.unary_unary(method)(body, timeout=options.pop("timeout", TIMEOUT_S), **options)
    return call


async def put(channel: grpc.aio.Channel, key: bytes, value: bytes, **options: Any) -> rpc_pb2.PutResponse:
    body = await unary(channel, "/etcdserverpb.KV/Put", rpc_pb2.PutRequest(key=key, value=value), **options)
    return rpc_pb2.PutResponse.FromString(body)


async def get(channel: grpc.aio.Channel, key: bytes, **options: Any) -> rpc_pb2.RangeResponse:
    request = rpc_pb2.RangeRequest(key=key, serializable=options.pop("serializable", False))
    return rpc_pb2.RangeResponse.FromString(await unary(channel, "/etcdserverpb.KV/Range", request, **options))


async def failure(call: Awaitable[Any]) -> tuple[int, str]:
    """Code and text a call ends with."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().value[0], error.details() or ""
    raise AssertionError("the call succeeded")
