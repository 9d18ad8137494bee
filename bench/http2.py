"""One HTTP/2 connection of the load generator: request bytes out, finished calls in, nothing else.

A general HTTP/2 library costs more per call than the servers under test, so this file speaks just what a
gRPC client needs: header blocks are encoded once and then sent as table indexes (as Go's and C's clients
do), response header blocks are decoded once and remembered as long as the dynamic table stays what it was,
windows are granted in few large steps. It does no I/O of its own: the caller moves bytes between `receive`,
`request` and a socket.
"""

import struct
from collections.abc import Callable
from typing import Final

from hpack import Decoder, Encoder

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
WINDOW_MAX: Final = 2**31 - 1
FRAME_MAX: Final = 16_384  # what every server accepts without being asked
REFILL_AT: Final = 2**30  # bytes received after which a window is topped up
DEFAULT_WINDOW: Final = 65_535

_FRAME = struct.Struct(">HBBBL")
_unpack_frame = _FRAME.unpack_from
_WORD = struct.Struct(">L")


class ProtocolError(Exception):
    """The server closed the connection or sent what this client does not understand."""


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame."""
    length = len(payload)
    return _FRAME.pack(length >> 8, length & 0xFF, kind, flags, stream_id) + payload


def grpc_message(message: bytes) -> bytes:
    """A protobuf message with gRPC's five-byte prefix, uncompressed."""
    return b"\0" + _WORD.pack(len(message)) + message


def metadata(token: str) -> tuple[tuple[str, str], ...]:
    """What a caller with this token sends beside each call."""
    return (("token", token),) if token else ()


def _header_blocks(path: str, authority: str, extra: tuple[tuple[str, str], ...]) -> tuple[bytes, bytes]:
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("user-agent", "quorate-bench"),
        ("te", "trailers"),
        *extra,
    ]
    encoder = Encoder()
    first = encoder.encode(headers)
    return first, encoder.encode(headers)


class Connection:
    """The client side of one connection on which every call goes to the same method.

    `receive` answers with the ids of the streams that ended well; failures are counted in `errors` and the
    first one is kept in `first_error`. `out` holds protocol bytes (acknowledgements, window grants) to send
    with the next write.
    """

    __slots__ = (
        "_block",
        "_block_first",
        "_blocks_seen",
        "_decoder",
        "_heads",
        "_message",
        "_received",
        "_rest",
        "_send_window",
        "_stream_received",
        "errors",
        "failed",
        "first_error",
        "next_stream_id",
        "out",
        "sink",
        "stream_window",
        "streams_max",
    )

    def __init__(
        self,
        path: str,
        authority: str,
        sink: Callable[[int, bytes], None] | None = None,
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self._block_first, self._block = _header_blocks(path, authority, metadata)
        self._heads: dict[int, bytes] = {}
        self._decoder = Decoder()
        self._blocks_seen: dict[bytes, tuple[str | None, str]] = {}
        self._rest = b""
        self._received = 0
        self._stream_received: dict[int, int] = {}
        self._send_window = DEFAULT_WINDOW
        self._message = ""
        self.stream_window = DEFAULT_WINDOW
        self.streams_max = WINDOW_MAX
        self.next_stream_id = 1
        self.errors = 0
        self.failed: list[int] = []  # streams that ended badly, for callers who wait for one of them
        self.first_error = ""
        self.sink = sink
        settings = struct.pack(">HLHL", 0x2, 0, 0x4, WINDOW_MAX)
        grant = _WORD.pack(WINDOW_MAX - DEFAULT_WINDOW)
        self.out = PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, grant)

    def can_send(self, size: int) -> bool:
        """Whether the server's connection window has room for a message of `size` bytes."""
        return self._send_window >= size

    def request(self, body: bytes) -> bytes:
        """The frames of one unary call; its stream id is `next_stream_id` as it was before the call."""
        stream_id = self.next_stream_id.to_bytes(4)
        self.next_stream_id += 2
        size = len(body)
        self._send_window -= size
        head = self._heads.get(size)
        if head is None:
            if size > FRAME_MAX:
                return self._long_request(stream_id, body)
            return self._first_request(stream_id, body)
        return b"".join((self._heads[-1], stream_id, head, stream_id, body))

    def _first_request(self, stream_id: bytes, body: bytes) -> bytes:
        data_head = frame(DATA, END_STREAM, 0, body)[:5]
        first = -1 not in self._heads
        block = self._block_first if first else self._block
        self._heads[-1] = frame(HEADERS, END_HEADERS, 0, self._block)[:5]
        self._heads[len(body)] = self._block + data_head
        head = frame(HEADERS, END_HEADERS, 0, block)[:5]
        return b"".join((head, stream_id, block, data_head, stream_id, body))

    def _long_request(self, stream_id: bytes, body: bytes) -> bytes:
        number = int.from_bytes(stream_id)
        block = self._block if self._heads else self._block_first
        self._heads.setdefault(-1, frame(HEADERS, END_HEADERS, 0, self._block)[:5])
        frames = [frame(HEADERS, END_HEADERS, number, block)]
        for start in range(0, len(body), FRAME_MAX):
            last = start + FRAME_MAX >= len(body)
            frames.append(frame(DATA, END_STREAM if last else 0, number, body[start : start + FRAME_MAX]))
        return b"".join(frames)

    def open_stream(self) -> tuple[int, bytes]:
        """The frames that open a client-streaming call; follow with `stream_data`."""
        stream_id = self.next_stream_id
        self.next_stream_id += 2
        block = self._block if self._heads else self._block_first
        self._heads.setdefault(-1, frame(HEADERS, END_HEADERS, 0, self._block)[:5])
        return stream_id, frame(HEADERS, END_HEADERS, stream_id, block)

    def stream_data(self, stream_id: int, body: bytes) -> bytes:
        """One message on an open client stream."""
        self._send_window -= len(body)
        return frame(DATA, 0, stream_id, body)

    def take_out(self) -> bytes:
        """Protocol bytes waiting to be sent."""
        out, self.out = self.out, b""
        return out

    def receive(self, data: bytes) -> list[int]:
        """Digest what the socket gave; the ids of streams that ended with status 0."""
        done: list[int] = []
        if self._rest:
            data = self._rest + data
        position, end = 0, len(data)
        while end - position >= 9:
            high, low, kind, flags, stream_id = _unpack_frame(data, position)
            start = position + 9
            following = start + (high << 8 | low)
            if following > end:
                break
            if kind == DATA:
                self._received += following - start
                if self.sink is not None:
                    self.sink(stream_id, data[start:following])
                    self._grant_stream(stream_id, following - start)
            elif kind == HEADERS:
                self._headers(stream_id, flags, data[start:following], done)
            else:
                self._control(kind, flags, stream_id, data[start:following])
            position = following
        self._rest = data[position:] if position < end else b""
        if self._received >= REFILL_AT:
            self.out += frame(WINDOW_UPDATE, 0, 0, _WORD.pack(self._received))
            self._received = 0
        return done

    def _grant_stream(self, stream_id: int, size: int) -> None:
        total = self._stream_received.get(stream_id, 0) + size
        if total >= REFILL_AT:
            self.out += frame(WINDOW_UPDATE, 0, stream_id, _WORD.pack(total))
            total = 0
        self._stream_received[stream_id] = total

    def _headers(self, stream_id: int, flags: int, block: bytes, done: list[int]) -> None:
        known = self._blocks_seen.get(block)
        if known is None:
            known = self._decode(flags, block)
        if not flags & END_STREAM:
            return
        self._stream_received.pop(stream_id, None)
        if known[0] == "0":
            done.append(stream_id)
        else:
            self._fail(stream_id, f"grpc-status {known[0]}: {known[1]}")

    def _decode(self, flags: int, block: bytes) -> tuple[str | None, str]:
        if flags & (PADDED | PRIORITY) or not flags & END_HEADERS:
            raise ProtocolError("padded, prioritised or continued header block")
        table = self._decoder.header_table
        before = list(table.dynamic_entries)
        headers = {str(name): str(value) for name, value in self._decoder.decode(block)}
        if list(table.dynamic_entries) != before:
            self._blocks_seen.clear()  # an index now means something else
            return headers.get("grpc-status"), headers.get("grpc-message", "")
        known = headers.get("grpc-status"), headers.get("grpc-message", "")
        self._blocks_seen[block] = known
        return known

    def _fail(self, stream_id: int, reason: str) -> None:
        self.errors += 1
        self.failed.append(stream_id)
        self.first_error = self.first_error or reason

    def _control(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == WINDOW_UPDATE:
            if stream_id == 0:
                self._send_window += _WORD.unpack(payload)[0]
        elif kind == SETTINGS and not flags & ACK:
            self._settings(payload)
            self.out += frame(SETTINGS, ACK, 0)
        elif kind == PING and not flags & ACK:
            self.out += frame(PING, ACK, 0, payload)
        elif kind == RST_STREAM:
            self._fail(stream_id, f"RST_STREAM {_WORD.unpack(payload)[0]}")
        elif kind == GOAWAY:
            raise ProtocolError(f"GOAWAY {payload[4:]!r}")

    def _settings(self, payload: bytes) -> None:
        for name, value in struct.iter_unpack(">HL", payload):
            if name == 0x3:
                self.streams_max = value
            elif name == 0x4:
                self.stream_window = value
