"""Sockets between members: dialling and answering with deadlines in threads, then non-blocking in the loop.

A handshake is rare and waits for the other side, so it runs in a thread with plain blocking calls. Afterwards the
socket belongs to the loop, which sends and receives without waiting. A raw socket rather than a transport, because a
transport of uvloop sends at the end of the loop's turn, and the leader's messages must be on their way *before* its
own disk write.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from struct import Struct
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from quorate.consensus.frames import Decoder, FrameDamaged, PeerMessage
from quorate.consensus.handshake import HEAD_BYTES_MAX, BadRequest, Hello, pack_hello, parse_status
from quorate.node.lifecycle import OperatorError
from quorate.node.tls_failures import CLOSED, explain

if TYPE_CHECKING:
    from http.client import HTTPConnection

HANDSHAKE_RECORD: Final = b"\x16"  # how TLS begins
BODY_BYTES_MAX: Final = 4096  # of a request that is no stream
REASON_BYTES_MAX: Final = 512  # of an answer to a connection that is not taken
SILENCE_S_MAX: Final = 5  # of a new connection
LINGER_S: Final = 1.0
RECEIVE_BYTES: Final = 256 * 1024
RECEIVES_MAX: Final = 8  # of one connection in a row, so that the others get their turn
_RTT: Final = Struct("=I")
_RTT_OFFSET: Final = 68  # tcpi_rtt in Linux' struct tcp_info, microseconds
Contexts = Callable[[], ssl.SSLContext]
Judge = Callable[[ssl.SSLSocket, str | None], object]  # raises PeerRefused; with no address for who was dialled


class Refused(Exception):  # noqa: N818 - it names an outcome
    """The other member did not take our connection."""

    def __init__(self, status: HTTPStatus, reason: str = "") -> None:
        super().__init__(f"the peer answered {status.value} {status.phrase}" + f": {reason}" * bool(reason))
        self.status = status


@contextlib.contextmanager
def to_peer(url: str, timeout_s: float, context: Contexts) -> Iterator[HTTPConnection]:
    """A connection for plain requests to a peer url; `context` is for https. OSError, or ValueError where the answer
    is no HTTP."""
    from http.client import HTTPConnection, HTTPException, HTTPSConnection  # only members that join or heal ask

    parts = urlsplit(url)
    if parts.scheme == "https":
        connection: HTTPConnection = HTTPSConnection(parts.netloc, timeout=timeout_s, context=context())
    else:
        connection = HTTPConnection(parts.netloc, timeout=timeout_s)
    try:
        yield connection
    except HTTPException as error:
        raise ValueError(f"{url} does not answer as a member: {str(error) or type(error).__name__}") from error
    finally:
        connection.close()


def tune(connection: socket.socket, silence_ms: int) -> None:
    """Small messages at once; a peer that does not answer for `silence_ms` is gone."""
    if connection.family == socket.AF_UNIX:
        return
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    seconds = max(1, silence_ms // 1000 // 4)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, seconds)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, silence_ms)


def read_head(connection: socket.socket, deadline: float) -> bytes:
    """Up to and with the empty line of an HTTP head. Byte by byte at its end: what follows are frames."""
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no whole request in time")
        connection.settimeout(left)
        data = connection.recv(1)
        if not data or len(head) >= HEAD_BYTES_MAX:
            raise BadRequest(CLOSED if not data else "no whole request")
        if not head and data == HANDSHAKE_RECORD:
            raise BadRequest("a TLS handshake on a port without TLS")
        head += data
    return bytes(head)


def read_body(connection: socket.socket, length: str, deadline: float) -> bytes:
    """The body of a request by its Content-Length (empty: none); OSError or BadRequest."""
    if not length:
        return b""
    if not length.isdigit() or int(length) > BODY_BYTES_MAX:
        raise BadRequest("a body that is too large")
    body = b""
    while len(body) < int(length):
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        data = connection.recv(int(length) - len(body))
        if not data:
            raise BadRequest(CLOSED)
        body += data
    return body


def dial(
    url: str, hello: Hello, context: Contexts, judge: Judge, timeout_s: float, local_host: str = ""
) -> socket.socket:
    """A connection the other member has accepted, from `local_host` if given; blocks. OSError, ValueError, BadRequest,
    Refused or PeerRefused."""
    parts = urlsplit(url)
    deadline = time.monotonic() + timeout_s
    connection: socket.socket
    if parts.scheme in ("unix", "unixs"):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout_s)
        connection.connect(unix_path(url))
    else:
        source = (local_host, 0) if local_host else None
        connection = socket.create_connection((parts.hostname or "", parts.port or 80), timeout_s, source)
    try:
        if parts.scheme in ("https", "unixs"):
            encrypted = context().wrap_socket(connection, server_hostname=parts.hostname or "localhost")
            connection = encrypted
            judge(encrypted, None)
        with contextlib.suppress(ConnectionError):  # why is to be read
            connection.sendall(pack_hello(hello, parts.netloc))
        status = parse_status(read_head(connection, deadline))
        if status is not HTTPStatus.SWITCHING_PROTOCOLS:
            raise Refused(status, _reason_of(connection, deadline))
    except BaseException:
        connection.close()
        raise
    return connection


def _reason_of(connection: socket.socket, deadline: float) -> str:
    """The first line of what a member says to a connection it does not take; empty if it does not say it in time."""
    body = bytearray()
    with contextlib.suppress(OSError):
        while b"\n" not in body and len(body) < REASON_BYTES_MAX and (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            data = connection.recv(REASON_BYTES_MAX)
            if not data:
                break
            body += data
    line = body[:REASON_BYTES_MAX].partition(b"\n")[0].decode("ascii", "replace")
    return "".join(filter(str.isprintable, line)).strip()


def shake_hands(connection: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    """The server's side of TLS; blocks. OSError, after the other side has had time to read why."""
    encrypted = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
    try:
        encrypted.do_handshake()
    except ssl.SSLError:
        _let_read(encrypted)
        encrypted.close()
        raise
    except BaseException:
        encrypted.close()
        raise
    return encrypted


def _let_read(connection: socket.socket) -> None:
    """Ends the sending side and waits for the other end: closed at once, what it is still sending would make the kernel
    discard the alert."""
    deadline = time.monotonic() + LINGER_S
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_WR)
        while (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            if not socket.socket.recv(connection, 4096):
                return


def unix_path(url: str) -> str:
    """etcd writes the path of a unix url where other urls have host and port."""
    parts = urlsplit(url)
    return parts.netloc + parts.path


def listen(url: str, reuse_port: bool = False) -> list[socket.socket]:
    """Listening sockets for a peer url, non-blocking; OperatorError if they cannot be had."""
    parts = urlsplit(url)
    if parts.scheme in ("unix", "unixs"):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        addresses = [(listener, unix_path(url))]
    else:
        host = parts.hostname or ""
        found = {
            (family, address[:2])
            for family, _, _, _, address in socket.getaddrinfo(host, parts.port, type=socket.SOCK_STREAM)
            if host != "localhost" or family == socket.AF_INET
        }
        addresses = [(socket.socket(family, socket.SOCK_STREAM), address) for family, address in found]  # type: ignore[misc]
    for listener, address in addresses:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if listener.family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            if listener.family != socket.AF_UNIX:  # who says nothing takes no thread: the dialling side speaks first
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, SILENCE_S_MAX)
            listener.listen(128)
            listener.setblocking(False)
        except OSError as error:
            for other, _ in addresses:
                other.close()
            reason = "address already in use" if error.errno == errno.EADDRINUSE else error.strerror
            raise OperatorError(f"listen tcp {parts.netloc}: bind: {reason}") from error
    return [listener for listener, _ in addresses]


class Stream:
    """A connection that has been accepted: frames out, messages in.

    Frames beyond `buffer_bytes_max` are dropped: Raft says it again.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: socket.socket,
        decoder: Decoder,
        buffer_bytes_max: int,
        on_messages: Callable[[list[PeerMessage]], None],
        on_close: Callable[[Stream, str], None],
    ) -> None:
        """`on_close` gets the reason, empty when this side wanted it."""
        connection.setblocking(False)
        self.sent_bytes = 0
        self.received_bytes = 0
        self.dropped_frames = 0
        self.decoder = decoder
        self._loop = loop
        self._connection = connection
        self._is_encrypted = isinstance(connection, ssl.SSLSocket)
        self._buffer_bytes_max = buffer_bytes_max
        self._on_messages = on_messages
        self._on_close = on_close
        self._queue: list[bytes] = []
        self._queued_bytes = 0
        self._blocked = memoryview(b"")  # what the socket did not take; while there is some, the loop waits to write
        self._open = True
        loop.add_reader(connection, self._receive)
        loop.call_soon(self._receive)  # TLS may hold bytes that came with the handshake

    def round_trip_s(self) -> float | None:
        """The kernel's estimate in seconds; None where it has none."""
        if not self._open or self._connection.family == socket.AF_UNIX:
            return None
        (microseconds,) = _RTT.unpack_from(
            self._connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RTT_OFFSET + _RTT.size), _RTT_OFFSET
        )
        return float(microseconds) / 1e6 if microseconds else None

    def send(self, frame: bytes) -> bool:
        """Takes `frame` for the next flush; False if it was dropped."""
        if self._queued_bytes and self._queued_bytes + len(self._blocked) + len(frame) > self._buffer_bytes_max:
            self.dropped_frames += 1
            return False
        self._queue.append(frame)
        self._queued_bytes += len(frame)
        return True

    def flush(self) -> None:
        """Gives the socket what it takes."""
        if self._blocked or not self._queue or not self._open:
            return
        queue = self._queue
        data = queue[0] if len(queue) == 1 else b"".join(queue)
        self._queue = []
        self._queued_bytes = 0
        self._push(data)
        if self._blocked and self._open:
            self._loop.add_writer(self._connection, self._resume)

    def close(self, reason: str = "") -> None:
        """Ends the connection and tells the owner, once."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._connection)
        self._loop.remove_writer(self._connection)
        with contextlib.suppress(OSError):
            self._connection.close()
        self._on_close(self, reason)

    def _push(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        try:
            while rest:
                sent = self._connection.send(rest)
                self.sent_bytes += sent
                rest = rest[sent:]
                if not self._is_encrypted:  # TLS takes a record at a time, a plain socket all there is room for
                    break
        except (BlockingIOError, InterruptedError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except OSError as error:
            self.close(explain(error))
            return
        self._blocked = rest

    def _resume(self) -> None:
        self._push(self._blocked)
        if not self._blocked and self._open:
            self._loop.remove_writer(self._connection)
            self.flush()

    def _receive(self) -> None:
        for _ in range(RECEIVES_MAX):
            if not self._open:
                return
            try:
                data = self._connection.recv(RECEIVE_BYTES)
            except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                self.close(explain(error))
                return
            if not data:
                self.close("closed by the peer")
                return
            self.received_bytes += len(data)
            try:
                messages = self.decoder.feed(data)
            except FrameDamaged as damage:
                self.close(str(damage))
                return
            if messages:
                self._on_messages(messages)
            if len(data) < RECEIVE_BYTES and not self._is_encrypted:
                return
        if self._is_encrypted:  # it may hold more than the socket shows
            self._loop.call_soon(self._receive)
