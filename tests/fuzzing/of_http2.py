"""The HTTP/2 engine: octets and frames of a grammar, whole and in pieces, and beside the `h2` library."""

from __future__ import annotations

from typing import Final

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import hyperframe.exceptions

from quorate.api.http2 import frames
from quorate.api.http2.connection import Connection
from quorate.api.http2.events import CALL, CANCELLED, HALF_CLOSED, MESSAGE, OPENED, Event
from quorate.api.http2.limits import Limits
from tests.api.http2.peer import PUT, UNARY, WATCH, RawClient, message, request_headers, split_frames
from tests.api.http2.test_fuzz import SESSION
from tests.fuzzing.octets import Octets

START: Final = frames.PREFACE + frames.settings({})
GRAMMAR, RAW, AFTER_START = range(3)
STREAMS: Final = (1, 3, 5, 7, 9, 0, 2, 0x7FFFFFFF, 0x80000001, 11, 13)
LENGTHS: Final = (0, 1, 5, 0x4000, 0x4001, 0xFFFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
FIELDS: Final = (
    ("x", "y"), ("grpc-timeout", "5S"), ("grpc-timeout", "x"), ("grpc-encoding", "gzip"), ("grpc-encoding", "br"),
    ("content-length", "5"), ("content-length", "9"), ("token", "t" * 40), ("a-bin", "AAA"), ("a-bin", "%"),
    ("connection", "close"), ("X", "y"), (":path", "/"), ("te", "gzip"), ("content-type", "text/plain"),
    ("x-long", "v" * 9000), ("", ""), ("host", "h"), ("cookie", "a"), ("transfer-encoding", "chunked"),
)  # fmt: skip


def seeds() -> list[bytes]:
    """A session with frames of every kind, and walks through the grammar."""
    walks = [bytes((GRAMMAR, kind, n, 5, *range(12))) * 3 for kind in range(14) for n in (0, 1)]
    everything = bytes((GRAMMAR, *(octet for kind in range(14) for octet in (kind, 0, 1, 4, 5, 0, 0, 0, 2))))
    return [bytes((RAW,)) + SESSION, bytes((AFTER_START,)) + SESSION[len(frames.PREFACE) :], everything, *walks]


def run(data: bytes) -> bool:
    """Read a conversation in every way."""
    said = spoken(Octets(data))
    whole, whole_events = _read(said, len(said) + 1)
    cut = 1 + (data[-1] if data else 0) % 60
    pieces, piece_events = _read(said, cut)
    assert whole_events == piece_events, f"events differ when cut to {cut}"
    assert whole == pieces
    _answer(said, cut)
    _compare_with_h2(said, whole_events, whole)
    return not whole


def spoken(octets: Octets) -> bytes:
    """What the client says."""
    match octets.choice((GRAMMAR, RAW, AFTER_START)):
        case 0:
            return START + _conversation(octets)
        case 1:
            return octets.rest()
        case _:
            return START + octets.rest()


def _conversation(octets: Octets) -> bytes:
    client = RawClient()
    parts: list[bytes] = []
    while not octets.is_empty and len(parts) < 200:
        parts.append(_part(octets, client))
    return b"".join(parts)


def _part(octets: Octets, client: RawClient) -> bytes:
    kind = octets.number() % 14
    stream_id = octets.choice(STREAMS)
    match kind:
        case 0:
            return client.call(stream_id, octets.some())
        case 1:
            path = octets.choice((PUT, WATCH, "/x", ""))
            extra = [octets.choice(FIELDS) for _ in range(octets.number() % 4)]
            return client.headers(stream_id, request_headers(path, *extra))
        case 2:
            flags = octets.choice((0, frames.END_STREAM))
            return frames.frame(frames.DATA, flags, stream_id, message(octets.some()))
        case 3:  # a length or a flag of a message that is not as it should be
            prefix = bytes((octets.choice((0, 1, 2, 255)),)) + octets.choice(LENGTHS).to_bytes(4, "big")
            return frames.frame(frames.DATA, octets.choice((0, 1, 8, 9)), stream_id, prefix + octets.some())
        case 4:
            block = client.encoder.encode(request_headers(PUT, octets.choice(FIELDS)))
            cut = octets.number() % (len(block) + 1)
            last = octets.choice((frames.END_HEADERS, 0))
            return frames.frame(frames.HEADERS, octets.choice((0, 1, 8, 0x20)), stream_id, block[:cut]) + frames.frame(
                frames.CONTINUATION, last, octets.choice((stream_id, 3)), block[cut:]
            )
        case 5:
            padding = octets.number()
            return frames.frame(frames.DATA, 8 | octets.choice((0, 1)), stream_id, bytes((padding,)) + octets.some())
        case 6:
            pairs = b"".join(
                octets.choice((1, 2, 3, 4, 5, 6, 99)).to_bytes(2, "big") + octets.choice(LENGTHS).to_bytes(4, "big")
                for _ in range(octets.number() % 4)
            )
            return frames.frame(frames.SETTINGS, octets.choice((0, 0, 1)), octets.choice((0, 0, 1)), pairs)
        case 7:
            return frames.frame(frames.WINDOW_UPDATE, 0, stream_id, octets.choice(LENGTHS).to_bytes(4, "big"))
        case 8:
            return frames.rst_stream(stream_id, octets.number())
        case 9:
            return frames.frame(frames.PING, octets.choice((0, 1)), octets.choice((0, 1)), octets.take(8))
        case 10:
            return frames.frame(frames.GOAWAY, 0, octets.choice((0, 1)), octets.take(8 + octets.number() % 4))
        case 11:
            return frames.frame(frames.PRIORITY, 0, stream_id, octets.take(5))
        case 12:  # a frame that says another length than it has
            return (
                octets.choice(LENGTHS).to_bytes(4, "big")[1:]
                + bytes((octets.number() % 12, octets.number()))
                + stream_id.to_bytes(4, "big")
                + octets.some()
            )
        case _:
            return frames.frame(octets.number() % 12, octets.number(), stream_id, octets.some())


Seen = list[tuple[int, int, bytes, bytes]]


def _read(said: bytes, cut: int) -> tuple[str, Seen]:
    """What the engine reports when nothing is answered, and how it ends."""
    server = Connection(Limits(), UNARY, now=0.0)
    events: Seen = []
    output = server.output()
    for at in range(0, len(said), cut):
        events += [
            (kind, stream_id, head.path, body)
            for kind, stream_id, head, body in server.receive(said[at : at + cut], 0.0)
        ]
        output += server.output()
    goodbye = next((payload for kind, _, _, payload in split_frames(output) if kind == frames.GOAWAY), b"")
    _check_books(events, server)
    return (goodbye[4:].hex() if server.closed else ""), events


def _check_books(events: Seen, server: Connection) -> None:
    """A call is opened once, ended once, and silent afterwards; what is still open is told when the client is gone."""
    open_calls: set[int] = set()
    for kind, stream_id, _, _ in events:
        if kind in (CALL, OPENED):
            assert stream_id not in open_calls
            open_calls.add(stream_id)
        else:
            assert stream_id in open_calls
            if kind == CANCELLED:
                open_calls.remove(stream_id)
    assert server.queued_bytes >= 0
    assert server.partial_bytes >= 0
    assert {event[1] for event in server.lost()} == open_calls
    assert server.queued_bytes == server.partial_bytes == 0


def _answer(said: bytes, cut: int) -> None:
    """The same with answers, and time that passes."""
    server = Connection(Limits(), UNARY, now=0.0)
    output = server.output()
    now = 0.0
    for at in range(0, len(said), cut):
        for event in server.receive(said[at : at + cut], now):
            _answer_event(server, event)
        now += 0.5
        server.tick(now)
        server.take_unblocked()
        output += server.output()
    split_frames(output)
    server.drain()
    server.lost()
    assert server.queued_bytes == server.partial_bytes == 0


def _answer_event(server: Connection, event: Event) -> None:
    kind, stream_id, _, body = event
    if kind == CALL and len(body) % 3 == 0:
        server.respond(stream_id, b"reply" * len(body))
    elif kind == CALL and len(body) % 3 == 1:
        server.finish(stream_id, 5, "not found \xe9\n")
    elif kind == MESSAGE:
        server.send(stream_id, body * 5)
    elif kind == HALF_CLOSED and stream_id % 4 == 1:
        server.finish(stream_id, 0, "")


def _compare_with_h2(said: bytes, events: Seen, goodbye: str) -> None:
    """Where the library follows to the end, what the engine reports is what the library read."""
    if goodbye:
        return
    settings = Limits()
    twin = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
    twin.local_settings.initial_window_size = settings.stream_window_bytes
    twin.local_settings.max_concurrent_streams = settings.concurrent_streams_max
    twin.initiate_connection()
    bodies: dict[int, bytes] = {}
    ended: set[int] = set()
    reset: set[int] = set()
    try:
        for event in twin.receive_data(said):
            if isinstance(event, h2.events.RequestReceived):
                bodies[event.stream_id] = b""
            elif isinstance(event, h2.events.DataReceived):
                bodies[event.stream_id] += event.data
            elif isinstance(event, h2.events.StreamEnded):
                ended.add(event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                reset.add(event.stream_id)
    except (h2.exceptions.H2Error, hyperframe.exceptions.HyperframeError, ValueError, IndexError, KeyError):
        return
    for kind, stream_id, _, body in events:
        if kind == CALL and stream_id not in reset:
            assert stream_id in ended
            assert bodies[stream_id] == message(body) or bodies[stream_id][:1] == b"\x01"
        elif kind == HALF_CLOSED:
            assert stream_id in ended
        elif kind == OPENED:
            assert stream_id in bodies
