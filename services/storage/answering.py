"""What the api workers are owed: answers that are there, and places of those that come later.

An answer goes to the incarnation of the worker that asked; where that is gone, so are its clients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from quorate.storage.headers import OutOfSpace, answered, failed
from quorate.storage.reads import Answer, Compacting, Defragment, Readers, result_of
from quorate.storage.vacuum import Vacuum
from quorate.wire import errors
from quorate.wire.messages import CONSENSUS_WORKER, STORAGE_WORKER, Kind, Origin, Part, pack_results
from quorate.wire.sockets import Address, Channel, Endpoint

EARLY_RESULTS_MAX: Final = 4096
LATE_BACKLOG_BYTES: Final = 1024 * 1024  # of a channel; a further large answer waits above it

NO_ROOM: Final = failed(errors.NO_SPACE)

Place = tuple[Origin, int, int]  # who waits, chunk number, position in the chunk


class Answers:
    """Sends results to the workers of an endpoint, and to consensus where that asked."""

    def __init__(self, endpoint: Endpoint, readers: Readers, vacuum: Vacuum) -> None:
        self.dropped_results = 0
        self._endpoint = endpoint
        self._readers = readers
        self._vacuum = vacuum
        self._early: list[tuple[Channel, int, bytes]] = []  # of a replay, for workers not met again yet
        self._late: list[tuple[Origin, int, int, bytes]] = []  # large answers that are ready
        self._defragmenting: list[Place] = []
        self._compacting: list[tuple[Place, int]] = []
        self._unalarmed: list[Place] = []

    @property
    def is_late(self) -> bool:
        """Large answers wait for room."""
        return bool(self._late)

    def reply(self, origin: Origin, number: int, results: Sequence[Answer]) -> None:
        """Answer a chunk; what is not there yet follows by itself."""
        if origin.worker == STORAGE_WORKER:
            return
        first = 0
        ready: list[bytes] = []
        for position, result in enumerate(results):
            if isinstance(result, bytes):
                ready.append(result)
                continue
            self._send(origin, number, first, ready)
            first, ready = position + 1, []
            if isinstance(result, OutOfSpace):
                self._unalarmed.append((origin, number, position))
            elif isinstance(result, Compacting):
                self._compacting.append(((origin, number, position), result.revision))
            elif isinstance(result, Defragment):
                self._defragmenting.append((origin, number, position))
                self._vacuum.request()
            else:
                place = (origin, number, position)
                self._readers.submit(self._deliver_to(*place), result.work, partial(self._send, *place, [NO_ROOM]))
        self._send(origin, number, first, ready)

    def meet(self, worker: Channel) -> None:
        """A worker is there: it gets what was answered before."""
        early, self._early = self._early, []
        for channel, incarnation, results in early:
            if channel is not worker:
                self._early.append((channel, incarnation, results))
            elif incarnation == channel.peer_incarnation:
                channel.send(Kind.RESULTS, results)

    def wait_for_compaction(self, finished_revision: int) -> bool:
        """Somebody waits for the end of a compaction that has come."""
        return bool(self._compacting) and any(revision <= finished_revision for _, revision in self._compacting)

    def compacted(self, finished_revision: int) -> None:
        """What was compacted up to a revision is gone from the disk."""
        done = [each for each in self._compacting if each[1] <= finished_revision]
        self._compacting = [each for each in self._compacting if each[1] > finished_revision]
        for (origin, number, position), _ in done:
            self._send(origin, number, position, [answered(b"")])

    def without_room(self) -> None:
        """The disk is full: nobody is left waiting for what takes room."""
        places = [*self._defragmenting, *(place for place, _ in self._compacting)]
        self._defragmenting = []
        self._compacting = []
        for place in places:
            self._send(*place, [NO_ROOM])

    @property
    def waits_for_alarm(self) -> bool:
        """Somebody is to be refused for want of room."""
        return bool(self._unalarmed)

    def alarmed(self) -> None:
        """The alarm is on, or has been waited for in vain."""
        places, self._unalarmed = self._unalarmed, []
        for place in places:
            self._send(*place, [NO_ROOM])

    def defragmented(self) -> None:
        """All free space was given back."""
        places, self._defragmenting = self._defragmenting, []
        for origin, number, position in places:
            self._send(origin, number, position, [answered(b"")])

    def send_late(self) -> None:
        """Send each worker its large answers one at a time, so that the small ones beside them never wait behind a full
        channel. Those of a worker that takes nothing stay; nobody else waits for them."""
        if not self._late:
            return
        late, self._late = self._late, []
        for each in late:
            origin, number, position, body = each
            channel = self._endpoint.channels.get(_address(origin))
            if channel is not None and channel.backlog_bytes > LATE_BACKLOG_BYTES:
                self._late.append(each)
            else:
                self._send(origin, number, position, [result_of(body)])

    def _deliver_to(self, origin: Origin, number: int, position: int) -> Callable[[bytes], None]:
        return lambda body: self._late.append((origin, number, position, body))

    def _send(self, origin: Origin, number: int, first: int, results: list[bytes]) -> None:
        if not results:
            return
        channel = self._endpoint.channels.get(_address(origin))
        if channel is not None and not channel.opened and len(self._early) < EARLY_RESULTS_MAX:
            self._early.append((channel, origin.incarnation, pack_results(number, origin.incarnation, first, results)))
            return
        if channel is None or channel.peer_incarnation != origin.incarnation:
            return  # the worker is gone, and its clients with it
        if channel.full:
            self.dropped_results += len(results)
            return
        channel.send(Kind.RESULTS, pack_results(number, origin.incarnation, first, results))


def _address(origin: Origin) -> Address:
    return Address(Part.CONSENSUS) if origin.worker == CONSENSUS_WORKER else Address(Part.API, origin.worker)
