"""Every connection between members runs through here, and each direction of each pair of them can be made worse.

A proxy stands before the peer port of each member. The head of a connection says who dialled, so a link is one
direction between two members. What TCP would do with a broken wire is what happens: bytes wait, nothing is lost
or reordered, and a connection ends only when it is reset, or when one end gives it up and the wire lets that through.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, cast

HOST: Final = "127.0.0.1"
HEAD_BYTES_MAX: Final = 8192
HELD_BYTES_MAX: Final = 1 << 20  # of one direction; then its sender has to wait
RETRANSMIT_S: Final = 0.2  # what a lost segment costs
_FROM: Final = re.compile(rb"^X-Server-From: ([0-9a-f]+)\r$", re.MULTILINE)
_TO: Final = re.compile(rb"^X-Raft-To: ([0-9a-f]+)\r$", re.MULTILINE)


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """What is wrong with a link for a while; several rules add up."""

    cut: bool = False
    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0  # share of chunks that arrive only after being sent again
    bytes_per_s: float = 0.0  # 0: no limit


class Link:
    """One direction between two members: its rules, and the pipes that follow them."""

    def __init__(self, dice: random.Random) -> None:
        self.rules: list[Rule] = []
        self.pipes: set[Pipe] = set()
        self.dice = dice

    @property
    def cut(self) -> bool:
        return any(rule.cut for rule in self.rules)

    def add(self, rule: Rule) -> None:
        self.rules.append(rule)

    def remove(self, rule: Rule) -> None:
        self.rules.remove(rule)
        for pipe in list(self.pipes):
            pipe.flow()

    def wait_s(self, size: int) -> float:
        """How long these bytes take."""
        waits = 0.0
        for rule in self.rules:
            waits += rule.delay_s + self.dice.random() * rule.jitter_s
            while self.dice.random() < rule.loss:
                waits += RETRANSMIT_S
            if rule.bytes_per_s:
                waits += size / rule.bytes_per_s
        return waits


class Pipe(asyncio.Protocol):
    """One end of a proxied connection: what arrives here leaves at the other end, when its link lets it."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.other: Pipe | None = None
        self.transport: asyncio.Transport | None = None
        self._held: deque[tuple[float, bytes | None]] = deque()  # due, bytes; None ends the connection
        self._held_bytes = 0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.link.pipes.add(self)
        self.flow()

    def data_received(self, data: bytes) -> None:
        other = self.other
        if not self.link.rules and not self._held and other is not None and other.transport is not None:
            other.transport.write(data)
            return
        self._hold(data, len(data))

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._hold(None, 0)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None and self.other._held_bytes < HELD_BYTES_MAX:
            self.other.transport.resume_reading()

    def reset(self) -> None:
        """End the connection now, on both sides."""
        self._held.clear()
        for pipe in (self, self.other):
            if pipe is not None and pipe.transport is not None:
                pipe.transport.abort()

    def flow(self) -> None:
        """Let through what is due."""
        other = self.other
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if other is None or (other.transport is None and other not in other.link.pipes):
            return  # the other side is not there yet
        loop = asyncio.get_running_loop()
        while self._held and not self.link.cut:
            due, data = self._held[0]
            if self.link.rules and due > loop.time():
                self._timer = loop.call_at(due, self.flow)
                return
            self._held.popleft()
            if data is None:
                self.link.pipes.discard(self)
                if other.transport is not None:
                    other.transport.close()
                return
            self._held_bytes -= len(data)
            if other.transport is not None:
                other.transport.write(data)
        if self.transport is not None and self._held_bytes < HELD_BYTES_MAX:
            self.transport.resume_reading()

    def _hold(self, data: bytes | None, size: int) -> None:
        loop = asyncio.get_running_loop()
        self._due = max(self._due, loop.time()) + self.link.wait_s(size) if data is not None else self._due
        self._held.append((self._due, data))
        self._held_bytes += size
        if self._held_bytes >= HELD_BYTES_MAX and self.transport is not None:
            self.transport.pause_reading()
        self.flow()


class Incoming(Pipe):
    """The dialling side: its head says which link this is."""

    def __init__(self, network: Network, target: int) -> None:
        super().__init__(network.link(None, target))
        self._network = network
        self._target = target
        self._head: bytearray | None = bytearray()

    def data_received(self, data: bytes) -> None:
        if self._head is None:
            super().data_received(data)
            return
        self._head += data
        if b"\r\n\r\n" in self._head or len(self._head) > HEAD_BYTES_MAX:
            head, self._head = bytes(self._head), None
            source = self._network.recognise(head, self._target)
            self.link.pipes.discard(self)
            self.link = self._network.link(source, self._target)
            self.link.pipes.add(self)
            self._hold(head, len(head))
            self._network.spawn(self._dial(source))

    async def _dial(self, source: int | None) -> None:
        outgoing = Pipe(self._network.link(self._target, source))
        outgoing.other = self
        try:
            port = self._network.targets[self._target]
            await asyncio.get_running_loop().create_connection(lambda: outgoing, HOST, port)
        except OSError:
            if self.transport is not None:
                self.transport.abort()
            return
        self.other = outgoing
        self.flow()


class Network:
    """The wires between members. Nodes are numbers; `targets` are their peer ports, `ports` those of the proxies."""

    def __init__(self, seed: int) -> None:
        self.targets: list[int] = []
        self.ports: list[int] = []
        self.names: dict[int, int] = {}  # member id -> node
        self._dice = random.Random(seed)
        self._links: dict[tuple[int | None, int | None], Link] = {}
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, targets: Iterable[int]) -> None:
        """Listen before each of these peer ports."""
        loop = asyncio.get_running_loop()
        for number, target in enumerate(targets):
            server = await loop.create_server(partial(Incoming, self, number), HOST, 0)
            self.targets.append(target)
            self.ports.append(server.sockets[0].getsockname()[1])
            self._servers.append(server)

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        self.reset(self._links.keys())
        for task in list(self._tasks):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def spawn(self, work: object) -> None:
        task = asyncio.ensure_future(cast("asyncio.Task[None]", work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def link(self, source: int | None, target: int | None) -> Link:
        """One direction; None is somebody who is no known member."""
        pair = (source, target)
        if pair not in self._links:
            self._links[pair] = Link(random.Random(self._dice.random()))
        return self._links[pair]

    def recognise(self, head: bytes, target: int) -> int | None:
        """Who dialled; also remembers whom it thinks to have dialled."""
        to, who = _TO.search(head), _FROM.search(head)
        if to is not None:
            self.names.setdefault(int(to[1], 16), target)
        return self.names.get(int(who[1], 16)) if who is not None else None

    def know(self, member: int, number: int) -> None:
        """A node has this member id now, and no other."""
        self.names = {known: node for known, node in self.names.items() if node != number} | {member: number}

    def reset(self, pairs: Iterable[tuple[int | None, int | None]]) -> None:
        """End all connections of these links."""
        for pair in list(pairs):
            for pipe in list(self.link(*pair).pipes):
                pipe.reset()

    def heal(self) -> None:
        """Make all links good again."""
        for link in self._links.values():
            for rule in list(link.rules):
                link.remove(rule)
