"""One port, two protocols: the first octets decide, plain or inside TLS.

The HTTP/2 preface goes to the gRPC connection, anything else is handed, with the octets read, to uvicorn's HTTP/1.1
protocol running the ASGI application.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, cast
from urllib.parse import urlsplit

from quorate.api.asgi import App
from quorate.api.encrypted import Encrypted, TlsPort
from quorate.api.grpc_connection import GrpcConnection, GrpcServer
from quorate.api.http2.frames import PREFACE

if TYPE_CHECKING:
    from quorate.api.http1 import Uvicorn

BACKLOG: Final = 4_096
CONNECTIONS_MAX: Final = 50_000  # of one worker; further ones are closed at once
FIRST_OCTETS_TIMEOUT_S: Final = 60.0  # for a client to say anything at all
TICK_S: Final = 1.0
PREFACE_START: Final = PREFACE[:3]  # no HTTP/1.1 method begins so

Kind = Literal["both", "grpc", "http", "metrics"]


class ListenSocket(NamedTuple):
    """Where clients come in: a bound socket, TLS if any, and what is spoken: gRPC, HTTP, both, or the metrics pages."""

    bound: socket.socket
    tls: TlsPort | None = None
    kind: Kind = "both"


class HttpServer:
    """HTTP/1.1 for one application. uvicorn is loaded when the first client speaks it: many never have one."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._uvicorn: Uvicorn | None = None

    def protocol(self, common_name: str = "") -> asyncio.Protocol:
        """`common_name`, of the client's certificate, is in the state of each request's scope."""
        if self._uvicorn is None:
            from quorate.api.http1 import Uvicorn

            self._uvicorn = Uvicorn(self._app)
        return self._uvicorn.protocol(common_name)

    @property
    def connections(self) -> int:
        return 0 if self._uvicorn is None else len(self._uvicorn.state.connections)

    def tick(self) -> None:
        """A second has passed."""
        if self._uvicorn is not None:
            self._uvicorn.tick()

    def drain(self) -> None:
        """Close idle connections, and the others after the response in progress."""
        if self._uvicorn is not None:
            self._uvicorn.drain()

    def abort(self) -> None:
        """Close what is still open."""
        if self._uvicorn is not None:
            self._uvicorn.abort()


class FirstOctets(asyncio.Protocol):
    """A connection whose protocol is not known yet."""

    def __init__(self, listener: Listener, kind: Kind, common_name: str = "") -> None:
        self._listener = listener
        self._kind = kind
        self._common_name = common_name
        self._transport: asyncio.Transport | None = None
        self._data = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        accepted = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        if self._listener.connections >= CONNECTIONS_MAX or self._listener.is_closing:
            accepted.abort()
            return
        self._transport = accepted
        self._listener.undecided.add(self)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(FIRST_OCTETS_TIMEOUT_S, accepted.abort)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if self._transport is None:
            return
        if len(self._data) < len(PREFACE_START) and PREFACE_START.startswith(self._data):
            return
        is_grpc = self._data.startswith(PREFACE_START)
        protocol = self._listener.protocol(self._kind, is_grpc, self._common_name)
        if protocol is None:
            self._transport.abort()
            return
        self._hand_over(protocol)

    def connection_lost(self, exc: Exception | None) -> None:
        self._let_go()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _hand_over(self, protocol: asyncio.Protocol) -> None:
        transport, data = self._transport, self._data
        assert transport is not None, "data came before the connection"
        self._let_go()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(data)

    def _let_go(self) -> None:
        self._transport = None
        self._data = b""
        self._listener.undecided.discard(self)
        if self._timer is not None:
            self._timer.cancel()


class Listener:
    """The client side of a worker: its sockets and everything that came in by them."""

    def __init__(self, grpc: GrpcServer, http: HttpServer, metrics: HttpServer | None = None) -> None:
        self.grpc = grpc
        self.http = http
        self.metrics = metrics or http
        self.undecided: set[FirstOctets] = set()
        self.is_closing = False
        self._ports: set[TlsPort] = set()
        self._servers: list[asyncio.Server] = []
        self._unix_paths: list[Path] = []

    @property
    def connections(self) -> int:
        decided = len(self.grpc.connections) + self.http.connections + self.metrics.connections
        return decided + len(self.undecided) + sum(len(port.handshakes) for port in self._ports)

    def protocol(self, kind: Kind, is_grpc: bool, common_name: str) -> asyncio.Protocol | None:
        """What speaks with a client whose first octets are known; None where they are not welcome."""
        if is_grpc:
            return GrpcConnection(self.grpc, common_name) if kind in ("both", "grpc") else None
        if kind == "grpc":
            return None
        return (self.metrics if kind == "metrics" else self.http).protocol(common_name)

    async def serve(self, one: ListenSocket) -> str:
        """Accept clients on a bound socket. Returns where that is, with the port that was chosen for 0."""
        first = partial(FirstOctets, self, one.kind)
        factory: Callable[[], asyncio.Protocol] = first
        if one.tls is not None:
            self._ports.add(one.tls)
            factory = partial(Encrypted, one.tls, first)
        loop = asyncio.get_running_loop()
        if one.bound.family == socket.AF_UNIX:
            path = str(one.bound.getsockname())
            self._unix_paths.append(Path(path))
            server = await loop.create_unix_server(factory, sock=one.bound, backlog=BACKLOG)
            self._servers.append(server)
            return path
        server = await loop.create_server(factory, sock=one.bound, backlog=BACKLOG)
        self._servers.append(server)
        host, port = one.bound.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def run_clock(self) -> None:
        """Keepalive, flood meters and the Date header need somebody to tell them that time passes."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK_S)
            self.grpc.tick(loop.time())
            self.http.tick()
            self.metrics.tick()

    async def close(self, grace_s: float) -> None:
        """Accept nobody any more, let calls in progress end for `grace_s` seconds, then cut what is left."""
        self.is_closing = True
        for server in self._servers:
            server.close()
        for first in list(self.undecided):
            first.abort()
        for port in self._ports:
            port.abort()
        self.grpc.drain()
        self.http.drain()
        self.metrics.drain()
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + grace_s
        while (self.grpc.connections or self.http.connections or self.metrics.connections) and loop.time() < ends_at:  # noqa: ASYNC110 - uvicorn has no event to wait for
            await asyncio.sleep(0.02)
        self.grpc.abort()
        self.http.abort()
        self.metrics.abort()
        for path in self._unix_paths:
            path.unlink(missing_ok=True)
        await asyncio.sleep(0)  # the aborted transports tell their protocols


def open_socket(url: str, *, share_port: bool = False) -> socket.socket:
    """A bound socket for a listen URL: http, https, unix or unixs. OSError as `bind` raises it."""
    parts = urlsplit(url)
    if parts.scheme in ("unix", "unixs"):
        return _unix_socket(Path(parts.netloc + parts.path))
    found = socket.getaddrinfo(
        parts.hostname or None, parts.port or 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, kind, protocol, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share_port:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


def _unix_socket(path: Path) -> socket.socket:
    """A socket file left over by a process that is gone is replaced; anything else in the way is an error."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket() and not _answers(path):
            path.unlink()
        bound.bind(str(path))
        bound.listen(BACKLOG)
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
