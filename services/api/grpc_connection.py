"""One client's HTTP/2 connection: the engine's events become calls, answers become octets, one write a turn.

Reading stops while the client does not take what it was sent (its TCP window is full), and calls are held back while
large answers wait for its HTTP/2 windows, so that one client's appetite is bounded by what it reads.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import Final, cast

from quorate.api import faults
from quorate.api.calling import CallStream, Cancel
from quorate.api.calls import NO_CONTEXT, Calls, Context, Route
from quorate.api.http2.connection import Connection
from quorate.api.http2.events import CALL, CANCELLED, HALF_CLOSED, MESSAGE, OPENED, Event
from quorate.api.http2.heads import RequestHead
from quorate.api.http2.limits import Limits
from quorate.api.tally import Tally
from quorate.node import logs
from quorate.wire import errors
from quorate.wire.errors import Code

WRITE_BUFFER_BYTES: Final = 1 << 20  # of the transport; above it the connection is not read
STREAMS_MAX: Final = 100_000  # of one worker: watches, renewals, downloads; some kilobytes each
HOLD_BYTES: Final = 32 << 20  # of answers waiting in the engine; above it no further call is started
CALLS_BYTES_MAX: Final = 64 << 20  # of calls held back; above it the connection is closed
HELD_BYTES_MAX: Final = 1 << 30  # of unfinished requests and waiting answers, of all connections of a worker
EVENT_BYTES: Final = 512

log = logs.named("api")


class GrpcServer:
    """What all gRPC connections of a worker share."""

    def __init__(self, calls: Calls, limits: Limits) -> None:
        self.calls = calls
        self.limits = limits
        self.unary = frozenset(method.encode() for method in calls.routes)
        self.connections: set[GrpcConnection] = set()
        self.streams = 0  # calls in progress that are not unary, of all connections
        self.received_bytes = 0
        self.sent_bytes = 0
        self.is_draining = False
        self._due: list[GrpcConnection] = []  # have something to write at the end of this turn of the loop

    def flush_soon(self, connection: GrpcConnection) -> None:
        """Have what a connection was given written at the end of this turn, with one callback for all of them."""
        due = self._due
        if not due:
            asyncio.get_running_loop().call_soon(self._flush)
        due.append(connection)

    def _flush(self) -> None:
        due, self._due = self._due, []
        for connection in due:
            try:
                connection.flush()
            except Exception as fault:  # whatever it is, it is this connection's alone
                faults.report(fault)
                connection.abort()

    def tick(self, now: float) -> None:
        """Let time pass on every connection: about once a second."""
        for connection in list(self.connections):
            connection.tick(now)
        self._relieve()

    def _relieve(self) -> None:
        """Part with the connections that hold most, while all of them hold too much."""
        held_bytes = sum(connection.held_bytes for connection in self.connections)
        if held_bytes <= HELD_BYTES_MAX:
            return
        for connection in sorted(self.connections, key=lambda connection: -connection.held_bytes):
            log.warn("closing the connection that holds most memory", held_bytes=connection.held_bytes)
            held_bytes -= connection.held_bytes
            connection.abort()
            if held_bytes <= HELD_BYTES_MAX:
                return

    def drain(self) -> None:
        """Ask every client to go elsewhere; each connection closes when its last call is answered. Streams that would
        not end by themselves are ended, of the gateway's clients too."""
        self.is_draining = True
        self.calls.end_lasting()
        for connection in list(self.connections):
            connection.drain()

    def abort(self) -> None:
        """Close what is still open."""
        for connection in list(self.connections):
            connection.abort()


class GrpcStream:
    """One stream of a connection: where its responses go, and its other end in this node."""

    __slots__ = ("_connection", "call", "is_lasting", "stream_id", "tally")

    def __init__(self, connection: GrpcConnection, stream_id: int, tally: Tally, is_lasting: bool) -> None:
        self._connection = connection
        self.is_lasting = is_lasting
        self.stream_id = stream_id
        self.tally = tally
        self.call: CallStream | None = None  # from right after the start until the end

    def send(self, message: bytes) -> None:
        self.tally.sent += 1
        self._connection.respond(self, self._connection.engine.send(self.stream_id, message))

    def send_framed(self, messages: bytes) -> None:
        self.tally.sent += 1
        self._connection.respond(self, self._connection.engine.send_framed(self.stream_id, messages))

    def finish(self, code: int, message: str) -> None:
        self._connection.finish(self, code, message)


class GrpcConnection(asyncio.Protocol):
    """The asyncio end of one engine."""

    def __init__(self, server: GrpcServer, common_name: str = "") -> None:
        """`common_name` is of the client's verified certificate; its calls without a token are made in that name."""
        self._server = server
        self._common_name = common_name
        self._calls = server.calls
        self._loop = asyncio.get_running_loop()
        self.engine = Connection(server.limits, server.unary, self._loop.time())
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, GrpcStream] = {}
        self._cancels: dict[int, Cancel] = {}  # of unary calls that can wait long
        self._held: deque[Event] = deque()
        self._calls_bytes = 0  # of those
        self._is_flush_scheduled = False
        self._is_paused = False  # the transport takes no more

    # --- asyncio -----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        accepted = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._transport = accepted
        accepted.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._server.connections.add(self)
        if self._server.is_draining:
            self.engine.drain()
        self._flush_soon()

    def data_received(self, data: bytes) -> None:
        self._server.received_bytes += len(data)
        now = self._loop.time()
        engine = self.engine
        events = engine.receive(data, now)
        if events:
            if self._held or engine.queued_bytes > HOLD_BYTES:
                self._hold(events)
            else:
                self._take(events, now)
        if not self._is_flush_scheduled and (engine.has_output or engine.closed):
            self._is_flush_scheduled = True
            self._server.flush_soon(self)

    def pause_writing(self) -> None:
        self._is_paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_paused = False
        if self._transport is not None:
            self._transport.resume_reading()
        self._flush_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._transport = None
        self._held.clear()
        self._calls_bytes = 0
        for event in self.engine.lost():
            self._take_other(event)

    @property
    def queued_bytes(self) -> int:
        """Octets of answers that wait for the client's windows."""
        return self.engine.queued_bytes

    @property
    def held_bytes(self) -> int:
        """Octets kept for this client: unfinished requests, those held back, and answers it does not take."""
        return self.engine.queued_bytes + self.engine.partial_bytes + self._calls_bytes

    # --- the server --------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        if self.engine.closed:  # and the client does not even take the goodbye
            self.abort()
            return
        self.engine.tick(now)
        if self.engine.has_output or self.engine.closed:
            self._flush_soon()

    def drain(self) -> None:
        self.engine.drain()
        for stream in list(self._streams.values()):
            if stream.is_lasting and stream.call is not None:
                stream.call.cancel()
                self.finish(stream, errors.STOPPED.code, errors.STOPPED.text)
        self._flush_soon()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # --- calls -------------------------------------------------------------------------------------------------------

    def _take(self, events: list[Event], now: float) -> None:
        calls = self._calls
        for event in events:
            kind, stream_id, head, message = event
            if kind != CALL:
                self._take_other(event)
                continue
            known = head.kept.context
            route, context, tally = known if type(known) is tuple else self._recognize(head)
            timeout_s = head.timeout_s
            tally.started += 1
            cancel = calls.start(
                route,
                message,
                context,
                partial(self._answer, stream_id, tally),
                None if timeout_s is None else now + timeout_s,
            )
            if cancel is not None:
                self._cancels[stream_id] = cancel

    def _take_other(self, event: Event) -> None:
        """An event of a call that is not unary, or the end of one that is."""
        kind, stream_id, head, message = event
        if kind == MESSAGE:
            stream = self._streams.get(stream_id)
            if stream is not None and stream.call is not None:
                self._send_request(stream, stream.call, message)
        elif kind == OPENED:
            self._open(stream_id, head)
        elif kind == CANCELLED:
            stream = self._streams.pop(stream_id, None)
            if stream is not None:
                self._server.streams -= 1
                call, stream.call = stream.call, None
                if call is not None:
                    stream.tally.finished(Code.CANCELLED)
                    call.cancel()
            cancel = self._cancels.pop(stream_id, None)
            if cancel is not None:
                cancel()
        else:
            assert kind == HALF_CLOSED, "calls are taken elsewhere"
            stream = self._streams.get(stream_id)
            if stream is not None and stream.call is not None:
                stream.call.half_close()

    def _recognize(self, head: RequestHead) -> tuple[Route, Context, Tally]:
        """The route and the metadata of calls with these headers, kept there for the next one."""
        method = head.path.decode()
        known = (self._calls.routes[method], _context_of(head, self._common_name), self._calls.tallies[method])
        head.kept.context = known
        return known

    def _open(self, stream_id: int, head: RequestHead) -> None:
        method = head.path.decode("utf-8", "replace")
        route = self._calls.streams.get(method)
        if route is None:
            self.engine.finish(stream_id, Code.UNIMPLEMENTED, self._calls.unknown_text(method))
            return
        is_going = self._server.is_draining and route.is_lasting
        if is_going or self._server.streams >= STREAMS_MAX:
            error = errors.STOPPED if is_going else errors.TOO_MANY_REQUESTS
            self.engine.finish(stream_id, error.code, error.text)
            return
        self._server.streams += 1
        expires_at = None if head.timeout_s is None else self._loop.time() + head.timeout_s
        stream = self._streams[stream_id] = GrpcStream(self, stream_id, self._calls.tallies[method], route.is_lasting)
        stream.tally.started += 1
        stream.call = self._calls.open(route, _context_of(head, self._common_name), stream, stream.finish, expires_at)

    def _send_request(self, stream: GrpcStream, call: CallStream, message: bytes) -> None:
        stream.tally.received += 1
        try:
            call.send(message)
            return
        except Exception as reason:  # whatever it is, it is this stream's alone
            code, text = faults.outcome(reason)
        call.cancel()
        self.finish(stream, code, text)

    def _answer(self, stream_id: int, tally: Tally, code: int, message: str, body: bytes) -> None:
        """The end of a unary call."""
        if code:
            tally.finished(code)
            self.engine.finish(stream_id, code, message)
        else:
            tally.ok += 1
            self.engine.respond(stream_id, body)
        if self._cancels:
            self._cancels.pop(stream_id, None)
        if not self._is_flush_scheduled:
            self._is_flush_scheduled = True
            self._server.flush_soon(self)

    def respond(self, stream: GrpcStream, takes_more: bool) -> None:
        """Something was queued for a stream."""
        if not takes_more and stream.call is not None:
            stream.call.pause()
        self._flush_soon()

    def finish(self, stream: GrpcStream, code: int, message: str) -> None:
        """The end of a stream; harmless when it is over."""
        if self._streams.pop(stream.stream_id, None) is not None:
            self._server.streams -= 1
            stream.call = None
            stream.tally.finished(code)
            self.engine.finish(stream.stream_id, code, message)
            self._flush_soon()

    def _hold(self, events: list[Event]) -> None:
        """Keep calls back until the client reads its answers; one that only goes on asking is not kept."""
        self._held.extend(events)
        self._calls_bytes += sum(map(_cost, events))
        self._start_held()
        if self._calls_bytes > CALLS_BYTES_MAX:
            self.abort()

    def _start_held(self) -> None:
        """Start calls that were held back, while the client reads its answers."""
        while self._held and self.engine.queued_bytes <= HOLD_BYTES:
            event = self._held.popleft()
            self._calls_bytes -= _cost(event)
            self._take([event], self._loop.time())

    # --- output ------------------------------------------------------------------------------------------------------

    def _flush_soon(self) -> None:
        if not self._is_flush_scheduled:
            self._is_flush_scheduled = True
            self._server.flush_soon(self)

    def flush(self) -> None:
        """Write what there is."""
        self._is_flush_scheduled = False
        transport, engine = self._transport, self.engine
        if transport is None or (self._is_paused and not engine.closed):
            return
        data = engine.output()
        if data:
            self._server.sent_bytes += len(data)
            transport.write(data)
        if engine.is_settled and not self._held:
            return
        if engine.closed:
            transport.close()
            return
        for stream_id in engine.take_unblocked():
            stream = self._streams.get(stream_id)
            if stream is not None and stream.call is not None:
                stream.call.resume()
        if self._held:
            self._start_held()
        if engine.has_output:
            if not self._is_paused:
                self._flush_soon()
        elif engine.is_drained:
            transport.close()


def _cost(event: Event) -> int:
    """About what an event takes that waits."""
    return len(event[3]) + EVENT_BYTES


def _context_of(head: RequestHead, common_name: str) -> Context:
    if not head.metadata and not common_name:
        return NO_CONTEXT
    metadata = {  # of values of one name the first counts
        name.decode(): value.decode("utf-8", "surrogateescape") for name, value in reversed(head.metadata)
    }
    return Context(metadata, common_name)
