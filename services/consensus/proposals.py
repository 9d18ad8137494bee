"""Commands on their way into the log: a turn's chunks become one entry, and whoever is refused hears of it.

A chunk is opaque here but for its header, which says whom a refusal goes to. Without a leader chunks wait, as etcd's
clients do, within bounds of time and bytes; a forwarded entry is remembered until its leader could have refused it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from quorate.consensus.raft.messages import Refusal
from quorate.wire import errors
from quorate.wire.errors import EtcdError
from quorate.wire.messages import CHUNK, CHUNK_BYTES_MAX, COMMANDS_MAX, REFUSE, Kind
from quorate.wire.sockets import Channel

HELD_BYTES_MAX: Final = 64 * 1024 * 1024
FORWARDED_BYTES_MAX: Final = 16 * 1024 * 1024  # a leader's refusal comes within a round trip; older ones are let go

# Proposes an entry under a reference: None if it is on its way.
Propose = Callable[[bytes, int], Refusal | None]

_WAITS: Final = (Refusal.NO_LEADER, Refusal.TRANSFERRING, Refusal.NOT_LEADER)


class Waiting(NamedTuple):
    """A chunk and who said it."""

    channel: Channel
    body: bytes
    deadline: float  # monotonic seconds: beyond it nobody waits for the answer any more


class Proposals:
    """The open batch, what waits for a leader, and what a leader may still refuse."""

    def __init__(self, timeout_s: float, first_ref: int) -> None:
        """References are counted from `first_ref`: a refusal may come after a restart of this member."""
        self.failed = 0  # chunks refused or given up
        self.proposed = 0  # entries
        self._timeout_s = timeout_s
        self._open: list[Waiting] = []
        self._held: deque[Waiting] = deque()
        self._held_bytes = 0
        self._ref = first_ref
        self._forwarded: dict[int, list[Waiting]] = {}  # by reference, oldest first
        self._forwarded_bytes = 0

    @property
    def waiting(self) -> int:
        """Chunks that wait for a leader."""
        return len(self._held)

    def add(self, channel: Channel, body: bytes, now: float) -> None:
        """A chunk for the next entry."""
        self._open.append(Waiting(channel, body, now + self._timeout_s))

    def propose_open(self, propose: Propose, remember: bool) -> None:
        """Proposes what came in since the last time; with `remember` a refusal may come later, by reference."""
        if self._held:
            for waiting in self._open:
                self._hold(waiting)
            self._open = []
            return
        if self._open:
            chunks, self._open = self._open, []
            self._propose(chunks, propose, remember)

    def propose_held(self, propose: Propose, remember: bool) -> None:
        """There is a leader again: everything that waited is proposed, in its order."""
        if self._held:
            chunks = list(self._held)
            self._held.clear()
            self._held_bytes = 0
            self._propose(chunks, propose, remember)

    def refused(self, ref: int, refusal: Refusal) -> None:
        """The leader did not take the entry forwarded under `ref`."""
        for waiting in self._forget(ref):
            self._turn_down(waiting, refusal)

    def expire(self, now: float) -> None:
        """Gives up what nobody waits for any more."""
        while self._held and self._held[0].deadline < now:
            waiting = self._held.popleft()
            self._held_bytes -= len(waiting.body)
            self.refuse(waiting, errors.TIMEOUT)
        for ref in list(self._forwarded):
            if self._forwarded[ref][0].deadline >= now:
                break
            self._forget(ref)

    def refuse_open(self, error: EtcdError) -> None:
        """Refuses what came in since the last time."""
        for waiting in self._open:
            self.refuse(waiting, error)
        self._open = []

    def refuse(self, waiting: Waiting, error: EtcdError) -> None:
        """Tells the worker that the whole chunk is refused."""
        self.failed += 1
        _, incarnation, _, _, number, _ = CHUNK.unpack_from(waiting.body)
        waiting.channel.send(Kind.REFUSE, REFUSE.pack(number, incarnation, error.id))

    def _propose(self, chunks: list[Waiting], propose: Propose, remember: bool) -> None:
        start = commands = size = 0
        for end, waiting in enumerate(chunks):
            body = waiting.body
            count = CHUNK.unpack_from(body)[3]
            if end > start and (commands + count > COMMANDS_MAX or size + len(body) > CHUNK_BYTES_MAX):
                self._propose_entry(chunks[start:end], propose, remember)
                start, commands, size = end, 0, 0
            commands += count
            size += len(body)
        self._propose_entry(chunks[start:], propose, remember)

    def _propose_entry(self, chunks: list[Waiting], propose: Propose, remember: bool) -> None:
        payload = chunks[0].body if len(chunks) == 1 else b"".join([waiting.body for waiting in chunks])
        self._ref += 1
        refusal = propose(payload, self._ref)
        if refusal is not None:
            for waiting in chunks:
                self._turn_down(waiting, refusal)
            return
        self.proposed += 1
        if remember:
            self._forwarded[self._ref] = chunks
            self._forwarded_bytes += len(payload)
            while self._forwarded_bytes > FORWARDED_BYTES_MAX:
                self._forget(next(iter(self._forwarded)))

    def _forget(self, ref: int) -> list[Waiting]:
        chunks = self._forwarded.pop(ref, [])
        self._forwarded_bytes -= sum([len(waiting.body) for waiting in chunks])
        return chunks

    def _turn_down(self, waiting: Waiting, refusal: Refusal) -> None:
        if refusal in _WAITS:
            self._hold(waiting)
        else:
            self.refuse(waiting, errors.TOO_MANY_REQUESTS)

    def _hold(self, waiting: Waiting) -> None:
        if self._held_bytes + len(waiting.body) > HELD_BYTES_MAX:
            self.refuse(waiting, errors.TOO_MANY_REQUESTS)
            return
        self._held.append(waiting)
        self._held_bytes += len(waiting.body)
