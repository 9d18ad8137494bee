"""Drives many connections from one thread with epoll: closed loop, open loop, and single calls.

Bare epoll rather than an event loop library: one `recv` and one `send` per wake-up of a connection is all
that happens, however many of its calls were answered.
"""

import select
import socket
import ssl
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from bench import http1, http2

RECV_BYTES: Final = 16_384
CONNECT_TIMEOUT_S: Final = 10.0
STALL_S: Final = 30.0  # a run whose calls all stay unanswered this long is broken
NEVER: Final = 2**62

Client = http1.Connection | http2.Connection


@dataclass(slots=True)
class Channel:
    """A connected socket, its protocol state, and when each call in flight was (or should have been) sent."""

    sock: socket.socket
    client: Client
    started: dict[int, int] = field(default_factory=dict)
    unsent: bytes = b""
    held: int = 0  # calls that wait for the server's window


@dataclass(slots=True)
class Outcome:
    """What a run measured; latencies in nanoseconds, only calls that began after the warm-up."""

    latencies: "array[int]"
    seconds: float
    completed: int
    errors: int
    first_error: str


# What a socket, or TLS over one, says when it has or takes nothing now. Servers send records of at most RECV_BYTES, so
# that nothing stays behind in OpenSSL, where epoll would not see it.
NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def dial(host: str, port: int, context: ssl.SSLContext | None, timeout_s: float) -> socket.socket:
    """A connected socket, encrypted with a context."""
    sock = socket.create_connection((host, port), timeout_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock if context is None else context.wrap_socket(sock, server_hostname=host)


def connect(host: str, port: int, client: Client, context: ssl.SSLContext | None = None) -> Channel:
    """A non-blocking connection on which the preface has been sent."""
    sock = dial(host, port, context, CONNECT_TIMEOUT_S)
    sock.sendall(client.take_out())
    sock.setblocking(False)
    return Channel(sock, client)


def send(channel: Channel, data: bytes, poller: select.epoll) -> None:
    """Hand bytes to the socket; what does not fit now follows when epoll says so."""
    if channel.unsent:
        channel.unsent += data
        return
    try:
        sent = channel.sock.send(data)
    except NOT_NOW:
        sent = 0
    if sent < len(data):
        channel.unsent = data[sent:]
        poller.modify(channel.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)


def flush(channel: Channel, poller: select.epoll) -> None:
    """Send on what an earlier `send` had to leave."""
    with suppress(*NOT_NOW):
        channel.unsent = channel.unsent[channel.sock.send(channel.unsent) :]
    if not channel.unsent:
        poller.modify(channel.sock.fileno(), select.EPOLLIN)


class Engine:
    """The channels of one run. Use as a context manager: leaving it closes every socket."""

    def __init__(self, channels: list[Channel], body: Callable[[], bytes]) -> None:
        self.channels = channels
        self.poller = select.epoll()
        self._body = body
        self._by_fd: dict[int, Channel] = {}
        for channel in channels:
            self._by_fd[channel.sock.fileno()] = channel
            self.poller.register(channel.sock.fileno(), select.EPOLLIN)

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.poller.close()
        for channel in self.channels:
            channel.sock.close()

    def closed_loop(self, streams: int, seconds: float, warmup: float, count: int = 0) -> Outcome:
        """Keep `streams` calls in flight on every connection for a time, or until `count` were answered."""
        clock = time.perf_counter_ns
        begin = clock()
        measured_from = begin + int(warmup * 1e9)
        stop_at = measured_from + int(seconds * 1e9) if not count else NEVER
        limit = count or NEVER
        latencies = array("q")
        completed = answered = 0
        for channel in self.channels:
            self._issue(channel, streams, begin)
        now = last_answer = begin
        while now < stop_at and answered < limit:
            for fd, event in self.poller.poll(0.1):
                channel = self._by_fd[fd]
                if event & select.EPOLLOUT:
                    flush(channel, self.poller)
                    if event == select.EPOLLOUT:
                        continue
                done = self._read(channel)
                now = clock()
                if not done:
                    self._after_read(channel, now)
                    continue
                started = channel.started
                if now >= measured_from:
                    completed += len(done)
                    for stream_id in done:
                        began = started.pop(stream_id)
                        if began >= measured_from:
                            latencies.append(now - began)
                else:
                    for stream_id in done:
                        del started[stream_id]
                answered += len(done)
                last_answer = now
                self._issue(channel, len(done), now)
            now = clock()
            if now - last_answer > STALL_S * 1e9:
                raise http2.ProtocolError(f"no answer for {STALL_S} s: {self._errors()[1]}")
        return Outcome(latencies, (now - measured_from) / 1e9, completed, *self._errors())

    def open_loop(self, streams: int, rate: float, seconds: float, warmup: float) -> Outcome:
        """Send at a fixed rate whatever the answers do; latency counts from when a call was due.

        At most `streams` calls are in flight on a connection; calls that are due beyond that wait, and their
        waiting is part of their latency.
        """
        clock = time.perf_counter_ns
        begin = clock()
        measured_from = begin + int(warmup * 1e9)
        stop_at = measured_from + int(seconds * 1e9)
        interval = 1e9 / rate
        latencies = array("q")
        completed = issued = 0
        idle = deque(channel for _ in range(streams) for channel in self.channels)
        now = begin
        while now < stop_at:
            while idle and (due := begin + int(issued * interval)) <= now:
                self._issue(idle.popleft(), 1, due)
                issued += 1
            wait = 0.05 if not idle else max(0.0, (begin + issued * interval - clock()) / 1e9)
            for fd, event in self.poller.poll(min(wait, 0.05)):
                channel = self._by_fd[fd]
                if event & select.EPOLLOUT:
                    flush(channel, self.poller)
                done = self._read(channel) if event & ~select.EPOLLOUT else []
                now = clock()
                for stream_id in done:
                    began = channel.started.pop(stream_id)
                    idle.append(channel)
                    if began >= measured_from:
                        latencies.append(now - began)
                        completed += 1
                if not done:
                    self._after_read(channel, now)
            now = clock()
        return Outcome(latencies, (now - measured_from) / 1e9, completed, *self._errors())

    def _issue(self, channel: Channel, calls: int, now: int) -> None:
        client, started = channel.client, channel.started
        if calls == 1 and not client.out and client.can_send(len(body := self._body())):
            started[client.next_stream_id] = now
            send(channel, client.request(body), self.poller)
            return
        parts = [client.take_out()] if client.out else []
        for issued in range(calls):
            body = self._body()
            if not client.can_send(len(body)):
                channel.held += calls - issued
                break
            started[client.next_stream_id] = now
            parts.append(client.request(body))
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        if data:
            send(channel, data, self.poller)

    def _read(self, channel: Channel) -> list[int]:
        try:
            data = channel.sock.recv(RECV_BYTES)
        except NOT_NOW:
            return []
        if not data:
            raise http2.ProtocolError(f"closed by the server: {channel.client.first_error}")
        return channel.client.receive(data)

    def _after_read(self, channel: Channel, now: int) -> None:
        """Act on what a read without an answer brought: failures, window, acknowledgements to send."""
        again, channel.held = channel.held, 0
        failed = channel.client.failed
        for stream_id in failed:
            channel.started.pop(stream_id, None)
        again += len(failed)
        failed.clear()
        if again or channel.client.out:
            self._issue(channel, again, now)

    def _errors(self) -> tuple[int, str]:
        errors = sum(channel.client.errors for channel in self.channels)
        first = next((c.client.first_error for c in self.channels if c.client.first_error), "")
        return errors, first


def pipeline(
    host: str,
    port: int,
    path: str,
    messages: Iterator[bytes],
    window: int,
    timeout_s: float = 60.0,
    token: str = "",
    context: ssl.SSLContext | None = None,
) -> Iterator[bytes]:
    """Many unary calls on one connection, `window` in flight; their answers in the order they come.

    Raises `http2.ProtocolError` with the server's status, `OSError` when there is no connection.
    """
    parts: dict[int, list[bytes]] = {}

    def collect(stream_id: int, data: bytes) -> None:
        parts.setdefault(stream_id, []).append(data)

    client = http2.Connection(path, f"{host}:{port}", collect, http2.metadata(token))
    in_flight = 0
    with dial(host, port, context, timeout_s) as sock:
        waiting = next(messages, None)
        while waiting is not None or in_flight:
            out = [client.take_out()]
            while waiting is not None and in_flight < window and client.can_send(len(waiting) + 5):
                out.append(client.request(http2.grpc_message(waiting)))
                in_flight += 1
                waiting = next(messages, None)
            sock.sendall(b"".join(out))
            data = sock.recv(RECV_BYTES)
            if not data:
                raise http2.ProtocolError("closed by the server")
            for stream_id in client.receive(data):
                in_flight -= 1
                yield b"".join(parts.pop(stream_id, []))[5:]
            if client.errors:
                raise http2.ProtocolError(client.first_error)


def call(
    host: str,
    port: int,
    path: str,
    message: bytes,
    timeout_s: float = 30.0,
    token: str = "",
    context: ssl.SSLContext | None = None,
) -> bytes:
    """One blocking unary call on a connection of its own: the response message. Raises as `pipeline` does."""
    return next(pipeline(host, port, path, iter([message]), 1, timeout_s, token, context))
