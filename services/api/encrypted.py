"""TLS on the client port: a connection's octets through OpenSSL in memory, and who may come in.

uvloop's own TLS hangs up on a client it refuses without saying why; here the alert is sent ("certificate required"),
the reason is logged, and the common name of a verified certificate reaches the calls. One object is both ends: the
protocol of the TCP transport below, and the transport of the application's protocol above. What arrives together is
handed up together, and what the application writes in one go leaves in one go.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import Any, Final, cast

from quorate.node import logs, tls
from quorate.node.tls import CLIENT_ALPN, PeerRefused, TlsFiles
from quorate.node.tls_failures import CLOSED, HANDSHAKE_TIMEOUT, NOT_TLS, Refusals, explain

log = logs.named()

HANDSHAKE_TIMEOUT_S: Final = 10.0  # etcd 3.6.14
LINGER_S: Final = 1.0
HANDSHAKES_MAX: Final = 2_048  # of one worker at a time; a further one ends the oldest, which is not in earnest
RECORD_BYTES_MAX: Final = 16_384  # RFC 8446, 5.1
HANDSHAKE_RECORD: Final = 0x16
HTTP_METHODS: Final = (b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"DELE")
WRONG_PORT: Final = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"

# Makes the protocol of a client whose certificate has this common name; "" when calls are not to be made in its name.
MakeProtocol = Callable[[str], asyncio.Protocol]


class TlsPort:
    """What the TLS connections of a worker share: certificates, who was refused, handshakes in progress."""

    def __init__(self, files: TlsFiles) -> None:
        """OSError, ssl.SSLError or ValueError when the files are not usable."""
        self.context = tls.server_context(files, CLIENT_ALPN)
        self.refusals = Refusals(log, "rejected connection on client endpoint")
        self.handshakes: dict[Encrypted, None] = {}  # oldest first
        self._files = files

    def begin(self, connection: Encrypted) -> None:
        if len(self.handshakes) >= HANDSHAKES_MAX:
            next(iter(self.handshakes)).refuse("too many handshakes at once")
        self.handshakes[connection] = None

    def admit(self, connection: ssl.SSLObject, address: str) -> str:
        """The name calls are made in; raises PeerRefused. Only --client-cert-auth makes names of certificates count."""
        name = tls.check_peer(self._files, connection, address)
        return name if self._files.client_cert_auth else ""

    def abort(self) -> None:
        """End the handshakes in progress."""
        for connection in list(self.handshakes):
            connection.abort()


class Encrypted(asyncio.Transport, asyncio.Protocol):
    """One TLS connection, from its first octet to its last."""

    __slots__ = (
        "_app",
        "_closing",
        "_incoming",
        "_make",
        "_outgoing",
        "_port",
        "_ready",
        "_silent",
        "_timer",
        "_tls",
        "_transport",
    )

    def __init__(self, port: TlsPort, make: MakeProtocol) -> None:
        super().__init__()
        self._port = port
        self._make = make
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = port.context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._transport: asyncio.Transport | None = None
        self._app: asyncio.BaseProtocol | None = None  # once the handshake is done
        self._silent = True  # nothing has been received
        self._ready = False  # the handshake is done
        self._closing = False
        self._timer: asyncio.TimerHandle | None = None

    # --- the protocol of the TCP transport ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._port.begin(self)
        self._timer = asyncio.get_running_loop().call_later(HANDSHAKE_TIMEOUT_S, self.refuse, HANDSHAKE_TIMEOUT)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._incoming.write(data)
        if self._ready or self._shake(data):
            self._read()

    def eof_received(self) -> None:
        """The transport closes itself after this, unless TLS has something to say first."""
        if not self._ready and not self._closing:
            # Probes that connect and say nothing are common and no news.
            if self._silent:
                log.debug("a connection ended before it said anything")
            else:
                self._tell(CLOSED)
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._end_handshake()
        app, self._app = self._app, None
        self._transport = None
        if app is not None:
            app.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._app is not None:
            self._app.pause_writing()

    def resume_writing(self) -> None:
        if self._app is not None:
            self._app.resume_writing()

    # --- the handshake -----------------------------------------------------------------------------------------------

    def refuse(self, cause: str, linger: bool = False) -> None:
        """End a handshake, with a line in the log. `linger` lets the client read why before the connection is gone."""
        self._tell(cause)
        self._closing = True
        self._end_handshake()
        if self._transport is None or self._transport.is_closing():
            return
        self._flush()  # the alert, if OpenSSL made one
        if linger:  # closed at once, what the client is still sending would make the kernel discard the alert
            self._transport.write_eof()
            self._timer = asyncio.get_running_loop().call_later(LINGER_S, self._transport.close)
        else:
            self._transport.close()

    def _shake(self, data: bytes) -> bool:
        """Go on with the handshake; true when it is done and the client may come in."""
        transport = self._transport
        assert transport is not None, "octets came before the connection"
        if self._silent:
            self._silent = False
            if data[0] != HANDSHAKE_RECORD:
                if data.startswith(HTTP_METHODS):
                    transport.write(WRONG_PORT)
                self.refuse(NOT_TLS, linger=True)
                return False
        try:
            self._tls.do_handshake()
            self._flush()
            name = self._port.admit(self._tls, self._address)
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError as error:
            self.refuse(explain(error), linger=True)
            return False
        except PeerRefused as refused:
            self.refuse(str(refused))
            return False
        self._end_handshake()
        self._ready = True
        self._app = self._make(name)
        self._app.connection_made(self)
        return not self._closing

    def _end_handshake(self) -> None:
        self._port.handshakes.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell(self, cause: str) -> None:
        self._port.refusals.tell(self._address, cause)

    @property
    def _address(self) -> str:
        peer = self._transport.get_extra_info("peername") if self._transport is not None else None
        if isinstance(peer, tuple):
            return f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"
        return "@"

    # --- octets ------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Hand up all that can be decrypted, at once."""
        connection, incoming = self._tls, self._incoming
        chunks: list[bytes] = []
        ended = False
        try:
            while chunk := connection.read(RECORD_BYTES_MAX):
                chunks.append(chunk)
                if not incoming.pending and not connection.pending():  # spares OpenSSL an error and us an exception
                    break
            else:
                ended = True  # the client's close_notify
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            log.debug("a TLS connection failed", error=explain(error))
            ended = True
        if self._outgoing.pending:  # an alert, or the answer to a change of keys
            self._flush()
        if chunks and self._app is not None:
            received = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            cast(asyncio.Protocol, self._app).data_received(received)
        if ended:
            self.close()

    def _flush(self) -> None:
        if self._outgoing.pending and self._transport is not None and not self._transport.is_closing():
            self._transport.write(self._outgoing.read())

    # --- the transport of the application ----------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        transport = self._transport
        if transport is None or self._closing or not data:
            return
        connection = self._tls
        written = connection.write(data)
        if written < len(data):  # OpenSSL takes a record at a time
            rest = memoryview(data)
            while written < len(data):
                written += connection.write(rest[written:])
        transport.write(self._outgoing.read())

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if self._transport is not None:
            if self._ready:
                with contextlib.suppress(ssl.SSLError):  # it wants the client's close_notify, which nobody waits for
                    self._tls.unwrap()
                self._flush()
            self._transport.close()

    def abort(self) -> None:
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def is_reading(self) -> bool:
        return self._transport is not None and self._transport.is_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def can_write_eof(self) -> bool:
        return False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._app = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._app is not None, "there is no protocol before the handshake is done"
        return self._app

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        match name:
            case "ssl_object":
                return self._tls
            case "sslcontext":
                return self._port.context
        return self._transport.get_extra_info(name, default) if self._transport is not None else default
