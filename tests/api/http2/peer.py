"""The other end of a connection under test: frames written by hand, and a client made of the `h2` library."""

import struct
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from hpack import Decoder, Encoder

from quorate.api.http2 import frames
from quorate.api.http2.connection import Connection
from quorate.api.http2.events import CALL, Event
from quorate.api.http2.limits import Limits

PUT = "/etcdserverpb.KV/Put"
WATCH = "/etcdserverpb.Watch/Watch"
UNARY = frozenset((PUT.encode(), b"/etcdserverpb.KV/Range"))

HeaderList = list[tuple[str, str]]


def request_headers(path: str = PUT, *extra: tuple[str, str]) -> HeaderList:
    """What a gRPC client sends."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost:2379"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *extra,
    ]


def without(headers: HeaderList, *names: str) -> HeaderList:
    return [header for header in headers if header[0] not in names]


def message(body: bytes, *, compressed: int = 0) -> bytes:
    """`body` in gRPC's framing."""
    return struct.pack(">BI", compressed, len(body)) + body


def split_frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """(kind, flags, stream id, payload) of each frame; whole ones only."""
    found = []
    position = 0
    while position < len(data):
        word, flags, stream_id = frames.frame_header.unpack_from(data, position)
        stop = position + 9 + (word >> 8)
        assert stop <= len(data), "output ends within a frame"
        found.append((word & 0xFF, flags, stream_id, data[position + 9 : stop]))
        position = stop
    return found


@dataclass
class RawClient:
    """Writes frames, right or wrong, and reads what comes back."""

    limits: Limits = field(default_factory=Limits)
    greeted: bool = True

    def __post_init__(self) -> None:
        self.server = Connection(self.limits, UNARY, now=0.0)
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.sent: list[tuple[int, int, int, bytes]] = []
        self.now = 0.0
        if self.greeted:
            self.give(frames.PREFACE + frames.settings({}))
            self.take()

    def give(self, data: bytes) -> list[Event]:
        return self.server.receive(data, self.now)

    def take(self) -> list[tuple[int, int, int, bytes]]:
        """The frames the server has to say now."""
        return split_frames(self.server.output())

    def headers(self, stream_id: int, headers: HeaderList, flags: int = frames.END_HEADERS) -> bytes:
        return frames.frame(frames.HEADERS, flags, stream_id, self.encoder.encode(headers))

    def call(self, stream_id: int, body: bytes, path: str = PUT, *extra: tuple[str, str]) -> bytes:
        """A whole unary request in its common shape."""
        return self.headers(stream_id, request_headers(path, *extra)) + frames.frame(
            frames.DATA, frames.END_STREAM, stream_id, message(body)
        )

    def goaway(self) -> tuple[int, bytes] | None:
        """Error code and text of the GOAWAY among what the server has to say."""
        for kind, _, _, payload in self.take():
            if kind == frames.GOAWAY:
                return frames.uint32(payload[4:]), payload[8:]
        return None

    def resets(self) -> list[tuple[int, int]]:
        """(stream id, error code) of each RST_STREAM the server has to say."""
        return [
            (stream_id, frames.uint32(payload))
            for kind, _, stream_id, payload in self.take()
            if kind == frames.RST_STREAM
        ]

    def answer(self) -> dict[str, str]:
        """The headers of the one header block among what the server has to say."""
        blocks = [payload for kind, _, _, payload in self.take() if kind == frames.HEADERS]
        assert len(blocks) == 1
        return dict(self.decoder.decode(blocks[0]))  # type: ignore[arg-type]


class H2Client:
    """A client built on the `h2` library, joined to a server without a socket."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.server = Connection(limits or Limits(), UNARY, now=0.0)
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.bodies: dict[int, bytearray] = {}
        self.headers: dict[int, dict[str, str]] = {}
        self.trailers: dict[int, dict[str, str]] = {}
        self.resets: dict[int, int] = {}
        self.events: list[Event] = []
        self.acknowledges = True  # gives back the window for what it reads

    def open(self, path: str = PUT, *extra: tuple[str, str]) -> int:
        stream_id = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream_id, request_headers(path, *extra))
        self.bodies[stream_id] = bytearray()
        return stream_id

    def send(self, stream_id: int, body: bytes, *, end: bool = True) -> None:
        self.h2.send_data(stream_id, message(body), end_stream=end)

    def call(self, body: bytes, path: str = PUT) -> int:
        stream_id = self.open(path)
        self.send(stream_id, body)
        return stream_id

    def exchange(self, turns: int = 1_000, budget: int = 262_144) -> list[Event]:
        """Carry octets both ways until nobody has any left; the server's events of this exchange."""
        new: list[Event] = []
        for _ in range(turns):
            upwards = self.h2.data_to_send()
            new += self.server.receive(upwards, 0.0) if upwards else []
            downwards = self.server.output(budget)
            if not upwards and not downwards:
                break
            for event in self.h2.receive_data(downwards):
                self._note(event)
        self.events += new
        return new

    def reply_all(self, reply: bytes) -> None:
        """Answer every call of the last exchange."""
        for kind, stream_id, _, _ in self.events:
            if kind == CALL:
                self.server.respond(stream_id, reply)
        self.events.clear()

    def _note(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived():
                self.headers[event.stream_id] = dict(event.headers)  # type: ignore[arg-type]
            case h2.events.TrailersReceived():
                self.trailers[event.stream_id] = dict(event.headers)  # type: ignore[arg-type]
            case h2.events.DataReceived():
                self.bodies[event.stream_id] += event.data
                if self.acknowledges and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamReset():
                self.resets[event.stream_id] = int(event.error_code or 0)
