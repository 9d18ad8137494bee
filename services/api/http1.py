"""HTTP/1.1 as uvicorn speaks it, with bounds on what a client may say before its request is known.

uvicorn waits for the end of a request's head as long as it takes and however large it grows, which is all that a slow
loris needs. A head in time and of a usual size costs two assignments.
"""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from typing import Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from quorate.api.asgi import App

HEAD_BYTES_MAX: Final = 64 * 1024  # request line and headers; as much as on HTTP/2
HEAD_TIMEOUT_S: Final = 30.0  # from the first octet of a head to its end
_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 26\r\nconnection: close\r\n\r\nrequest headers too large\r\n"
)


class Http1(HttpToolsProtocol):
    """One connection."""

    _is_in_head = False
    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None
    _earlier: tuple[RequestResponseCycle, ...] = ()  # requests before the newest that are not answered yet

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._is_in_head or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES_MAX:
            self.transport.write(_TOO_LARGE)
            self.transport.close()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.abort)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        if self._head_timer is not None:
            self._stop_timer()
        before = self.cycle
        super().on_headers_complete()
        if self.pipeline:
            self._earlier = tuple(cycle for cycle in (*self._earlier, before) if not cycle.response_complete)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        for cycle in self._earlier:  # uvicorn tells the newest alone that the client is gone
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class Uvicorn:
    """What all HTTP/1.1 connections to one application share: uvicorn without its own server."""

    def __init__(self, app: App) -> None:
        self.config = uvicorn.Config(
            app,
            http="httptools",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=3600,
        )
        self.config.load()
        self.state = ServerState()
        self.tick()

    def protocol(self, common_name: str = "") -> asyncio.Protocol:
        """`common_name`, of the client's certificate, is in the state of each request's scope."""
        app_state = {"common_name": common_name}
        return Http1(config=self.config, server_state=self.state, app_state=app_state)

    def tick(self) -> None:
        """Keep the Date header right."""
        date = (b"date", formatdate(usegmt=True).encode())
        self.state.default_headers = [date, *self.config.encoded_headers]

    def drain(self) -> None:
        """Close idle connections, and the others after the response in progress."""
        for connection in list(self.state.connections):
            connection.shutdown()

    def abort(self) -> None:
        """Close what is still open."""
        for task in list(self.state.tasks):
            task.cancel()
        for connection in list(self.state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()
