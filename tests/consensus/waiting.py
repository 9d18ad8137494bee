"""Chunks of a worker, and what it is told of them, without a socket."""

from __future__ import annotations

from typing import cast

from quorate.wire.messages import CHUNK, REFUSE, Kind, Op, Origin, pack_chunk, pack_command
from quorate.wire.sockets import Channel


class Listener:
    """Notes what would be sent to a neighbour."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, bytes]] = []

    def send(self, kind: int, *parts: bytes) -> None:
        self.sent.append((kind, b"".join(parts)))

    @property
    def channel(self) -> Channel:
        return cast(Channel, self)

    def refused(self) -> list[tuple[int, int]]:
        """(number of the chunk, error) so far."""
        found = []
        for kind, body in self.sent:
            if kind == Kind.REFUSE:
                number, _, error = REFUSE.unpack(body)
                found.append((number, error))
        return found


def chunk(number: int, commands: int = 1, size: int = 1) -> bytes:
    """A chunk of so many commands, each of so many bytes."""
    return pack_chunk(Origin(1, 5, 0), number, [pack_command(Op.PUT, b"x" * size)] * commands)


def numbers(payload: bytes) -> list[int]:
    """The chunks in an entry, or in what storage was sent."""
    found = []
    while payload:
        _, _, _, _, number, length = CHUNK.unpack_from(payload)
        found.append(number)
        payload = payload[CHUNK.size + length :]
    return found
