"""Neighbours of consensus with just enough behaviour: a storage that applies in memory, an api that asks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from pathlib import Path

from quorate.consensus.frames import PeerMessage
from quorate.consensus.membership import Membership
from quorate.wire.messages import (
    APPLIED,
    CLUSTER_CALL,
    CLUSTER_REPLY,
    ENTRY,
    IMAGE,
    REFUSE,
    START,
    STORAGE_HELLO,
    ClusterOp,
    EntryKind,
    Kind,
    Op,
    Origin,
    Part,
    Role,
    chunks_of,
    pack_chunk,
    pack_command,
)
from quorate.wire.sockets import Address, Channel, Endpoint, Message

DEADLINE_S = 20.0


@dataclass
class Applied:
    """A command as the storage saw it."""

    index: int
    chunk: int
    body: bytes


class Neighbour:
    """A part of the node whose inbox is served by the running loop, or by `poll`."""

    def __init__(self, run_directory: Path, address: Address) -> None:
        self.endpoint = Endpoint(run_directory, address)
        self.endpoint.when_opened(self.opened)
        self.channel = self.endpoint.connect(Address(Part.CONSENSUS), self.hello)
        self.roles: list[Role] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open = True

    def hello(self) -> bytes:
        return b""

    def opened(self, _channel: Channel, _hello: bytes) -> None:
        return

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        loop.add_reader(self.endpoint.fileno(), self.poll)
        loop.call_soon(self.poll)

    def poll(self) -> None:
        while batches := self.endpoint.receive():
            for channel, arrived in batches:
                for message in arrived:
                    if message[0] == Kind.ROLE:
                        self.roles.append(Role.unpack(message[1]))
                    else:
                        self.take(channel, message)
        self.flush()

    def flush(self) -> None:
        """Sends what is queued, again and again while the other side is slow."""
        if self._open and not self.endpoint.flush() and self._loop is not None:
            self._loop.call_later(0.001, self.flush)

    def take(self, channel: Channel, message: Message) -> None:
        raise AssertionError(f"{self.endpoint.address} got {message} from {channel.peer}")

    def close(self) -> None:
        self._open = False
        if self._loop is not None:
            self._loop.remove_reader(self.endpoint.fileno())
        self.endpoint.close()


class FakeStorage(Neighbour):
    """Applies commands to a list; `state` survives the process, `durable_index` says how far."""

    def __init__(self, run_directory: Path, state: list[Applied], durable_index: int = 0) -> None:
        self.state = state
        self.applied_index = self.durable_index = durable_index
        del state[len([one for one in state if one.index <= durable_index]) :]
        self.reads: list[tuple[int, bytes]] = []  # (applied index at that moment, chunk)
        self.is_anew = False  # as if in the place of a damaged database
        self.is_lazy = False  # applies, but makes nothing durable
        self.image_lag = 0  # entries that come while an image is being written
        self.kinds: list[int] = []
        self.starts: list[tuple[int, ...]] = []
        self.installed: list[tuple[int, int, str]] = []
        self.image_directory = run_directory
        super().__init__(run_directory, Address(Part.STORAGE))

    def hello(self) -> bytes:
        return STORAGE_HELLO.pack(self.durable_index, self.is_anew)

    def take(self, channel: Channel, message: Message) -> None:
        kind, body = message
        match kind:
            case Kind.START:
                self.starts.append(START.unpack(body))
            case Kind.ENTRY:
                self._apply(body)
                channel.send(Kind.APPLIED, APPLIED.pack(self.applied_index, self.durable_index))
            case Kind.READ:
                self.reads.append((self.applied_index, body))
            case Kind.IMAGE_TAKE:
                self._take_image(channel)
            case Kind.IMAGE_INSTALL:
                index, term = IMAGE.unpack_from(body)
                self.installed.append((index, term, body[IMAGE.size :].decode()))
            case _:
                super().take(channel, message)

    def _apply(self, body: bytes) -> None:
        index, _term, kind = ENTRY.unpack_from(body)
        if index <= self.applied_index:
            return  # said again by a consensus that was restarted
        assert index == self.applied_index + 1, f"entry {index} after {self.applied_index}"
        self.applied_index = index
        if not self.is_lazy:
            self.durable_index = index
        self.kinds.append(kind)
        if kind == EntryKind.BATCH:
            for chunk in chunks_of(body[ENTRY.size :]):
                self.state.append(Applied(index, chunk.number, chunk.commands))

    def _take_image(self, channel: Channel) -> None:
        index = self.applied_index - self.image_lag
        path = self.image_directory / f"image-{index}"
        held = [one for one in self.state if one.index <= index]
        lines = [b"%d %d %s" % (one.index, one.chunk, one.body.hex().encode()) for one in held]
        path.write_bytes(b"\n".join(lines))
        channel.send(Kind.IMAGE_TAKEN, IMAGE.pack(index, 1), str(path).encode())


def read_image(path: str) -> list[Applied]:
    """The state in an image that a FakeStorage wrote."""
    lines = [line.split() for line in Path(path).read_bytes().split(b"\n") if line]
    return [Applied(int(index), int(chunk), bytes.fromhex(body.decode())) for index, chunk, body in lines]


class FakeApi(Neighbour):
    """A worker that proposes and reads."""

    def __init__(self, run_directory: Path, number: int = 0) -> None:
        self.refusals: list[tuple[int, int]] = []  # (chunk, error id)
        self.replies: dict[int, tuple[int, bytes]] = {}
        self.stats: list[bytes] = []
        self._chunk = 0
        self._call = 0
        super().__init__(run_directory, Address(Part.API, number))

    def take(self, channel: Channel, message: Message) -> None:
        kind, body = message
        match kind:
            case Kind.REFUSE:
                number, incarnation, error_id = REFUSE.unpack(body)
                assert incarnation == self.endpoint.incarnation
                self.refusals.append((number, error_id))
            case Kind.CLUSTER_REPLY:
                number, error_id = CLUSTER_REPLY.unpack_from(body)
                self.replies[number] = (error_id, body[CLUSTER_REPLY.size :])
            case Kind.STATS:
                self.stats.append(body)
            case _:
                super().take(channel, message)

    def _send_chunk(self, kind: Kind, op: Op, bodies: tuple[bytes, ...]) -> int:
        self._chunk += 1
        origin = Origin(1, self.endpoint.incarnation, self.endpoint.address.number)
        self.channel.send(kind, pack_chunk(origin, self._chunk, [pack_command(op, body) for body in bodies]))
        self.flush()
        return self._chunk

    def propose(self, *bodies: bytes) -> int:
        """One chunk; its number."""
        return self._send_chunk(Kind.PROPOSE, Op.PUT, bodies)

    def read(self, *bodies: bytes) -> int:
        return self._send_chunk(Kind.READ, Op.RANGE, bodies)

    def call(self, op: ClusterOp, body: bytes = b"") -> int:
        self._call += 1
        self.channel.send(Kind.CLUSTER_CALL, CLUSTER_CALL.pack(self._call, op), body)
        self.flush()
        return self._call

    def ask_stats(self) -> None:
        self.channel.send(Kind.STATS_READ, (1).to_bytes(8, "little"))
        self.flush()


class NoNetwork:
    """The other members of a cluster of one."""

    has_leader = False

    def __init__(self) -> None:
        self.sent: list[PeerMessage] = []

    def send(self, message: PeerMessage) -> None:
        self.sent.append(message)

    def flush(self) -> None:
        return

    def update(self, membership: Membership) -> None:
        return

    def active_since(self, number: int) -> float | None:
        return None


class NoCourier:
    """Snapshots of a cluster of one."""

    def send(self, number: int, index: int = 0) -> None:
        raise AssertionError("nobody to send to")

    def image_taken(self, index: int, term: int, path: str) -> None:
        raise AssertionError("nobody asked")

    def install_path(self, index: int) -> str | None:
        return None

    def installed(self, index: int) -> None:
        return

    def held_index(self) -> int | None:
        return None

    def look(self, now: float) -> None:
        return


async def until(condition: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
    """Waits for `condition`."""
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline_s
    while not condition():
        assert loop.time() < end, "the condition did not come true in time"
        await asyncio.sleep(0.001)


async def grown(items: Sized, size: int) -> None:
    """Waits until `items` holds `size`."""
    await until(lambda: len(items) >= size)


@contextlib.contextmanager
def closing(*neighbours: Neighbour) -> Iterator[None]:
    """Closes them in the end."""
    try:
        yield
    finally:
        for neighbour in neighbours:
            neighbour.close()
