"""Linearizable reads on their way: one question to the quorum for all that wait, then into storage's ordered stream.

Reads wait here twice: for the read index, and until the entries they must see were handed to storage. A read whose
leader is gone is asked again under a new number; numbers are never used twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from quorate.consensus.raft.messages import Refusal
from quorate.wire import errors
from quorate.wire.messages import CHUNK, REFUSE, Kind
from quorate.wire.sockets import Channel

WAITING_MAX: Final = 100_000  # chunks and questions


class Read(NamedTuple):
    """A chunk of reads, or a question of our own that calls back."""

    channel: Channel | None
    body: bytes
    deadline: float
    then: Callable[[], None] | None


class Reads:
    """Every read that is not with storage yet."""

    def __init__(self, timeout_s: float) -> None:
        self.failed = 0
        self.late = 0  # of them: nobody confirmed them in time
        self._timeout_s = timeout_s
        self._ctx = 0
        self._new: list[Read] = []
        self._asked: dict[int, list[Read]] = {}
        self._confirmed: deque[tuple[int, list[Read]]] = deque()  # by read index, ascending

    def add(self, channel: Channel, body: bytes, now: float) -> None:
        """A chunk of reads."""
        if len(self._new) >= WAITING_MAX:
            self._refuse(Read(channel, body, 0.0, None), errors.TOO_MANY_REQUESTS.id)
            return
        self._new.append(Read(channel, body, now + self._timeout_s, None))

    def when_current(self, then: Callable[[], None], now: float) -> None:
        """Calls `then` once everything committed before now has been seen here; never if that takes too long."""
        self._new.append(Read(None, b"", now + self._timeout_s, then))

    def ask(self, read_index: Callable[[int], Refusal | None]) -> None:
        """Asks for an index for everything new."""
        if not self._new:
            return
        self._ctx += 1
        refusal = read_index(self._ctx)
        if refusal is Refusal.OVERLOADED:
            for read in self._new:
                self._refuse(read, errors.TOO_MANY_REQUESTS.id)
        elif refusal is None:
            self._asked[self._ctx] = self._new
        else:
            return
        self._new = []

    def confirm(self, ctx: int, index: int) -> None:
        """The reads asked with `ctx` must see everything up to `index`."""
        reads = self._asked.pop(ctx, None)
        if reads is None:
            return
        if self._confirmed and self._confirmed[-1][0] > index:
            index = self._confirmed[-1][0]  # a later index is as good, and keeps the row in order
        self._confirmed.append((index, reads))

    def ask_again(self, ctx: int) -> None:
        """The leader that was asked is gone."""
        self._new = self._asked.pop(ctx, []) + self._new

    def release(self, handed_index: int, storage: Channel, storage_open: bool) -> None:
        """Passes on what must not see more than storage was handed."""
        confirmed = self._confirmed
        while confirmed and confirmed[0][0] <= handed_index:
            if not storage_open:
                return
            for read in confirmed.popleft()[1]:
                if read.then is not None:
                    read.then()
                else:
                    storage.send(Kind.READ, read.body)

    def expire(self, now: float) -> None:
        """Gives up what nobody waits for any more."""
        if self._new and self._new[0].deadline < now:
            for read in self._new:
                if read.deadline < now:
                    self._refuse(read, errors.TIMEOUT.id)
            self._new = [read for read in self._new if read.deadline >= now]
        for ctx in list(self._asked):
            if self._asked[ctx][0].deadline >= now:
                break
            for read in self._asked.pop(ctx):
                self._refuse(read, errors.TIMEOUT.id)
        while self._confirmed and self._confirmed[0][1][0].deadline < now:
            for read in self._confirmed.popleft()[1]:
                self._refuse(read, errors.TIMEOUT.id)

    def _refuse(self, read: Read, error_id: int) -> None:
        self.failed += 1
        self.late += error_id == errors.TIMEOUT.id
        if read.channel is not None:
            _, incarnation, _, _, number, _ = CHUNK.unpack_from(read.body)
            read.channel.send(Kind.REFUSE, REFUSE.pack(number, incarnation, error_id))
