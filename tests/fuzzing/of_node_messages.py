"""Every gRPC method of a live node, with messages that are nearly right: octets as they are, on HTTP/2 by hand."""

from __future__ import annotations

import socket
import struct
from typing import Final

from hpack import Decoder

from quorate.api.http2 import frames
from quorate.proto import health_pb2, rpc_pb2, v3election_pb2, v3lock_pb2
from quorate.wire import errors
from tests.api.http2.peer import message
from tests.fuzzing.node import live
from tests.fuzzing.node import world as world
from tests.fuzzing.octets import Octets
from tests.fuzzing.of_json import filled
from tests.support import floods

METHODS: Final = [
    method
    for file in (rpc_pb2, v3lock_pb2, v3election_pb2, health_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
WAITING: Final = ("Lock", "Campaign")  # end when somebody else lets go
CALLS_MAX: Final = 8


def seeds() -> list[bytes]:
    """A call of every method with a filled message, an empty one, and rows of calls."""
    one = [
        bytes((number,)) + struct.pack(">H", len(body)) + body
        for number, method in enumerate(METHODS)
        for body in (filled(method.input_type, 2).SerializeToString(), b"")
    ]
    return [*one, *(b"".join(one[at : at + 6]) for at in range(0, len(one), 6))]


def run(data: bytes) -> None:
    """Some calls on one connection: each that does not wait is answered, with a code and no fault."""
    octets = Octets(data)
    head = frames.PREFACE + frames.settings({})
    said = b""
    due: set[int] = set()
    for stream_id in range(1, 2 * CALLS_MAX, 2):
        if octets.is_empty:
            break
        method = octets.choice(METHODS)
        body = octets.take(octets.number(2))
        path = f"/{method.containing_service.full_name}/{method.name}".encode()
        said += floods.call_head_frame(stream_id, path) + frames.frame(frames.DATA, 1, stream_id, message(body))
        if method.name not in WAITING and not method.server_streaming:
            due.add(stream_id)
    with live().client() as connection:
        connection.sendall(head + said)
        _hear(connection, due)
    live().count()


def _hear(connection: socket.socket, due: set[int]) -> None:
    """Read until every due stream has ended with a status."""
    decoder, rest = Decoder(), b""
    decoder.max_header_list_size = 1 << 20
    while due:
        data = connection.recv(1 << 16)
        assert data, f"hung up with calls {due} not answered"
        rest += data
        while len(rest) >= 9:
            word, flags, stream_id = frames.frame_header.unpack_from(rest)
            stop = 9 + (word >> 8)
            if len(rest) < stop:
                break
            kind, payload, rest = word & 0xFF, rest[9:stop], rest[stop:]
            if kind == frames.HEADERS:
                fields = {bytes(name): bytes(value) for name, value in decoder.decode(payload, raw=True)}
                assert errors.INTERNAL_FAULT.text.encode() not in fields.get(b"grpc-message", b"")
                if flags & frames.END_STREAM:
                    assert b"grpc-status" in fields
                    due.discard(stream_id)
            elif kind == frames.RST_STREAM:
                raise AssertionError(f"call {stream_id} was reset with {payload.hex()}")
            elif kind == frames.DATA and payload:
                returned = len(payload).to_bytes(4, "big")
                connection.sendall(frames.frame(frames.WINDOW_UPDATE, 0, 0, returned))
