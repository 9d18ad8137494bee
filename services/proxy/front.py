"""The proxy's listeners: TLS ends here, HTTP/2 goes to the gRPC server inside, HTTP/1.1 to the pages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from uvicorn.config import Config as PagesConfig
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from quorate.node import logs
from quorate.proxy.pipe import End

log = logs.named("front")

PREFACE: Final = b"PRI "  # how HTTP/2 begins, and no request of HTTP/1.1 does
FIRST_WORD_S: Final = 10.0

Judge = Callable[[Any], None]  # of a TLS connection; raises PeerRefused


class Front(asyncio.Protocol):
    """A connection of which it is not known yet what it speaks."""

    def __init__(self, pages: PagesConfig, state: ServerState, grpc_path: str | None, judge: Judge) -> None:
        """Without `grpc_path`, the gRPC server's Unix socket, only pages are served."""
        self._pages = pages
        self._state = state
        self._grpc_path = grpc_path
        self._judge = judge
        self._first = b""
        self._joining: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(FIRST_WORD_S, self._transport.abort)
        connection = transport.get_extra_info("ssl_object")
        if connection is None:
            return
        try:
            self._judge(connection)
        except Exception as refusal:  # PeerRefused, or a list of revoked certificates that cannot be read
            log.warn("rejected connection on client endpoint", error=str(refusal))
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._first += data
        if self._joining is not None:
            return
        if len(self._first) < len(PREFACE) and PREFACE.startswith(self._first):
            return
        self._timer.cancel()
        if self._grpc_path is not None and self._first.startswith(PREFACE):
            self._transport.pause_reading()
            self._joining = asyncio.get_running_loop().create_task(self._join(self._grpc_path))
            return
        http = HttpToolsProtocol(self._pages, self._state, {})
        self._transport.set_protocol(http)
        http.connection_made(self._transport)
        http.data_received(self._first)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()

    async def _join(self, path: str) -> None:
        try:
            _, inner = await asyncio.get_running_loop().create_unix_connection(End, path)
        except OSError as error:
            log.error("the gRPC server inside does not answer", error=str(error))
            self._transport.abort()
            return
        outer = End.of(self._transport, self._first)
        self._transport.set_protocol(outer)
        outer.join(inner)
