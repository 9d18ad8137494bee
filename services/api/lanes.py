"""Commands on their way: chunks with those who wait for their answers, and lanes of one kind to one neighbour."""

from __future__ import annotations

from quorate.api.calling import Done
from quorate.wire.messages import Kind
from quorate.wire.sockets import Channel


class Waiting:
    """One chunk and who waits for its answers; a call to consensus is a chunk of one."""

    __slots__ = ("commands", "dones", "earliest", "kind", "left", "number", "packed", "sooner", "started_at")

    def __init__(self, kind: int, number: int, started_at: float) -> None:
        self.kind = kind
        self.number = number
        self.started_at = started_at
        self.commands: list[bytes] = []  # until it is sent
        self.packed = b""  # once it is sent, where it may be sent again
        self.dones: list[Done | None] = []  # None: answered
        self.left = 0  # commands without an answer
        self.sooner: dict[int, float] = {}  # position: when a client with a deadline of its own gives up
        self.earliest = float("inf")  # the least of them


class Lane:
    """Commands of one kind on their way to one neighbour."""

    __slots__ = ("bytes", "channel", "full", "is_patient", "kind", "open", "unsent_bytes")

    def __init__(self, kind: Kind, channel: Channel, is_patient: bool = False) -> None:
        self.kind = int(kind)
        self.channel = channel
        self.is_patient = is_patient  # answers may take minutes: only the client's own deadline ends the wait
        self.open: Waiting | None = None  # the chunk that still takes commands
        self.full: list[Waiting] = []  # chunks that take no more and have not left
        self.bytes = 0  # of the open chunk
        self.unsent_bytes = 0  # of all chunks here

    def drop(self, waiting: Waiting) -> None:
        """Do not send a chunk that nobody waits for any more, if it is here."""
        if self.open is waiting:
            self.open = None
            self.bytes = 0
        elif waiting in self.full:
            self.full.remove(waiting)
        else:
            return
        self.unsent_bytes -= sum(map(len, waiting.commands))
