"""A server that answers every gRPC call with the same bytes: what the load generator itself can reach.

`python -m bench.trivial` prints its port and serves until its input closes.
"""

import asyncio
import struct
import sys
from typing import cast

import uvloop

from bench.http2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    grpc_message,
)

RESPONSE_HEADERS = b"\x88\x5f\x10application/grpc"  # :status 200, content-type as a literal outside the table
TRAILERS = b"\x00\x0bgrpc-status\x010"
ANSWER = grpc_message(b"\x0a\x04\x18\x02\x20\x02")


class Trivial(asyncio.Protocol):
    """Answers whatever stream ends; grants the connection window back at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        # uvloop's transports are no subclasses of asyncio's
        self._transport = cast(asyncio.WriteTransport, transport)
        self._rest = b""
        self._greeted = False
        self._transport.write(frame(SETTINGS, 0, 0))

    def data_received(self, data: bytes) -> None:
        """Answer each ended stream in one write."""
        data = self._rest + data
        position = 0
        if not self._greeted:
            if len(data) < len(PREFACE):
                self._rest = data
                return
            self._greeted, position = True, len(PREFACE)
        out: list[bytes] = []
        received = 0
        end = len(data)
        while end - position >= 9:
            high, low, kind, flags, stream_id = struct.unpack_from(">HBBBL", data, position)
            following = position + 9 + (high << 8 | low)
            if following > end:
                break
            if kind == DATA:
                received += following - position - 9
                if flags & END_STREAM:
                    out.append(answer(stream_id))
            position = following
        self._rest = data[position:]
        if received:
            out.append(frame(WINDOW_UPDATE, 0, 0, received.to_bytes(4)))
        self._transport.write(b"".join(out))


def answer(stream_id: int) -> bytes:
    """Headers, one message and trailers."""
    return b"".join(
        (
            frame(HEADERS, END_HEADERS, stream_id, RESPONSE_HEADERS),
            frame(DATA, 0, stream_id, ANSWER),
            frame(HEADERS, END_HEADERS | END_STREAM, stream_id, TRAILERS),
        )
    )


async def serve() -> None:
    """Listen on a free port until standard input closes."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Trivial, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    uvloop.run(serve())
