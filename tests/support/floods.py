"""What HTTP/2 clients that mean no good send: octets as they are, written by hand."""

import socket
import struct
from collections.abc import Iterator
from typing import Final

from quorate.api.http2 import frames
from quorate.wire.varints import varint

FLOOD: Final = 20_000
NAMES: Final = ("rapid reset", "ping", "settings", "empty data", "continuation", "window", "giant headers")
POST: Final = b"\x83\x86\x84"  # POST http /


def call_head(path: bytes) -> bytes:
    """The headers of a gRPC call, as literals."""
    fields = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"x"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    )
    return b"".join(b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value for name, value in fields)


def nested_txn(depth: int) -> bytes:
    """A TxnRequest in a transaction in a transaction, deeper than the library would write it."""
    inner = b"\x12\x06\x12\x04\x0a\x02ab"  # success: request_put
    for _ in range(depth):
        for tag in (b"\x22", b"\x12"):  # RequestOp.request_txn, TxnRequest.success
            inner = tag + varint(len(inner)) + inner
    return inner


def call_head_frame(stream_id: int, path: bytes) -> bytes:
    """The HEADERS of a gRPC call whose messages follow."""
    return frames.frame(frames.HEADERS, frames.END_HEADERS, stream_id, call_head(path))


def call(stream_id: int, head: bytes, body: bytes) -> bytes:
    """A whole unary call."""
    framed = b"\0" + len(body).to_bytes(4, "big") + body
    return frames.frame(frames.HEADERS, 4, stream_id, head) + frames.frame(frames.DATA, 1, stream_id, framed)


def flood(name: str) -> Iterator[bytes]:
    """All that one connection says."""
    head = frames.PREFACE + frames.settings({})
    start = frames.frame(frames.HEADERS, 4, 1, POST)
    match name:
        case "rapid reset":
            for number in range(FLOOD):
                stream_id = 2 * number + 1
                opened = frames.frame(frames.HEADERS, 5, stream_id, POST)
                yield (b"" if number else head) + opened + frames.rst_stream(stream_id, 8)
        case "ping":
            yield head + frames.frame(frames.PING, 0, 0, b"12345678") * FLOOD
        case "settings":
            yield head + frames.settings({}) * FLOOD
        case "empty data":
            yield head + start + frames.frame(frames.DATA, 0, 1, b"") * FLOOD
        case "continuation":
            yield head + frames.frame(frames.HEADERS, 0, 1, b"") + frames.frame(frames.CONTINUATION, 0, 1, b"") * FLOOD
        case "window":
            yield head + start + frames.window_update(1, 1) * 2 * FLOOD
        case "giant headers":
            field = b"\x00\x05x-big\x7f\x80\x7f" + b"v" * (127 + 16256)
            yield head + frames.frame(frames.HEADERS, 0, 1, POST)
            for _ in range(1000):
                yield frames.frame(frames.CONTINUATION, 0, 1, field[:16_000])
        case _:
            raise AssertionError(name)


class Pouring:
    """A connection with one stream, on which messages are sent as fast as the server's windows allow."""

    STREAM: Final = 1

    def __init__(self, host: str, port: int, path: bytes, timeout_s: float) -> None:
        self._socket = socket.create_connection((host, port), timeout_s)
        self._rest = b""
        self._credit = {0: frames.WINDOW_DEFAULT, self.STREAM: 0}
        self.is_over = False  # the server has ended the stream or the connection
        self.answer_bytes = 0
        start = frames.frame(frames.HEADERS, 4, self.STREAM, call_head(path))
        self._socket.sendall(frames.PREFACE + frames.settings({}) + start)
        while not self._credit[self.STREAM]:
            self._hear()

    def pour(self, messages: bytes) -> None:
        """Send framed messages, at most 16 KiB at once; nothing when it is over."""
        while min(self._credit.values()) < len(messages) and not self.is_over:
            self._hear()
        if not self.is_over:
            for stream_id in self._credit:
                self._credit[stream_id] -= len(messages)
            try:
                self._socket.sendall(frames.frame(frames.DATA, 0, self.STREAM, messages))
            except OSError:
                self.is_over = True

    def drain(self) -> None:
        """Read until it is over."""
        while not self.is_over:
            self._hear()

    def close(self) -> None:
        self._socket.close()

    def _hear(self) -> None:
        try:
            data = self._socket.recv(1 << 18)
        except ConnectionError:
            data = b""
        if not data:
            self.is_over = True
            return
        data = self._rest + data
        position, taken = 0, 0
        while len(data) - position >= 9:
            word, flags, stream_id = frames.frame_header.unpack_from(data, position)
            stop = position + 9 + (word >> 8)
            if stop > len(data):
                break
            taken += self._take(word & 0xFF, flags, stream_id, data[position + 9 : stop])
            position = stop
        self._rest = data[position:]
        if taken and not self.is_over:
            self._socket.sendall(frames.window_update(0, taken) + frames.window_update(self.STREAM, taken))

    def _take(self, kind: int, flags: int, stream_id: int, payload: bytes) -> int:
        """Octets of the frame that the windows have to give back."""
        if kind == frames.WINDOW_UPDATE:
            self._credit[stream_id] += struct.unpack(">I", payload)[0]
        elif kind == frames.SETTINGS and not flags & frames.ACK:
            settings = dict(frames.setting_pairs(payload))
            self._credit[self.STREAM] += settings[frames.INITIAL_WINDOW_SIZE]
        elif kind in (frames.GOAWAY, frames.RST_STREAM) or (kind == frames.HEADERS and flags & frames.END_STREAM):
            self.is_over = True
        elif kind == frames.DATA:
            self.answer_bytes += len(payload)
            return len(payload)
        return 0
