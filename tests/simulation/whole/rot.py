"""Bits that turn on one member's disk, and what its processes need of others to heal themselves.

A member whose log is damaged asks the leader for a new id when it starts. The production code blocks in this call; here
its process ends instead and is started again, and the call goes on beside it until it is answered or given up.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from quorate.consensus import replacing
from quorate.consensus.replacing import ANSWER_TIMEOUT_S, Claim, Grant, NotGranted
from tests.simulation.whole.config import peer_url
from tests.simulation.whole.disk import SimPath, disk_of
from tests.simulation.whole.world import MS, SECOND, Process, current

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from tests.simulation.whole.node import SimNode

HISTORY_KEPT = 64  # bytes at the end of a file that a turned bit may hit beyond the last one that is not zero


class Waits(Exception):  # noqa: N818 - it says what a process does
    """A process waits for others; it looks again when it is started again."""


class HealTime:
    """What the healing code asks of `time`."""

    def monotonic(self) -> float:
        return current().time()

    def sleep(self, _seconds: float) -> None:
        raise Waits


class Quarantine:
    """What it asks of `quarantine`: the files go to a directory beside them, durably."""

    @staticmethod
    def move_aside(directory: SimPath, paths: Iterable[SimPath]) -> SimPath:
        disk = disk_of(directory)
        place = directory / "quarantine" / str(len(disk.files))
        for path in paths:
            if path.exists():
                path.rename(place / path.name)
        current().step()
        disk.sync_names()
        return place


class Asking:
    """The calls of one member to others for a new id: one at a time."""

    def __init__(self, node: SimNode) -> None:
        self._node = node
        self._call = 0
        self._until = 0
        self._grant: Grant | None = None
        self._refusal: NotGranted | None = None

    def forget(self) -> None:
        """The process that asked was killed: its connection is gone, and nobody hears the answer."""
        self._call += 1
        self._until = 0
        self._grant = None

    def ask(self, url: str, claim: Claim) -> Grant:
        """As `replacing.asking`."""
        node = self._node
        grant, self._grant = self._grant, None
        if grant is not None:
            self._until = 0
            return grant
        if node.cluster.world.now < self._until:
            raise NotGranted("not answered yet")
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            raise refusal
        for other in node.cluster.nodes:
            is_next = node.rng.random() < 0.5  # any of them: each start would ask the same one first
            if peer_url(other.number) == url and _meet(node, other) and is_next:
                self._begin(other, claim)
        raise NotGranted("asked")

    def _begin(self, other: SimNode, claim: Claim) -> None:
        self._call += 1
        self._until = self._node.cluster.world.now + int(ANSWER_TIMEOUT_S * SECOND)
        host = other.consensus
        delay = host.process.rng.randint(1, 20) * MS
        host.process.at(self._node.cluster.world.now + delay, self._decide, other, claim, self._call)

    def _decide(self, other: SimNode, claim: Claim, call: int) -> None:
        done = _Answer(self, other.consensus.process, call)
        if other.consensus.parts is not None:
            other.consensus.parts.replacing._decide(claim, done)  # type: ignore[arg-type]

    def answered(self, call: int, status: HTTPStatus, body: bytes) -> None:
        if call != self._call:
            return
        self._until = 0
        if status is HTTPStatus.OK:
            self._grant = replacing._unpack(json.loads(body))
        else:
            self._refusal = replacing.refusal("", status, body)


class _Answer:
    """What `replacing` says in the end."""

    def __init__(self, asking: Asking, process: Process, call: int) -> None:
        self._asking = asking
        self._process = process
        self._call = call

    def set_result(self, answer: tuple[HTTPStatus, bytes]) -> None:
        world = self._process.world
        world.after(self._process.rng.randint(1, 20) * MS, self._asking.answered, self._call, *answer)


def _meet(one: SimNode, other: SimNode) -> bool:
    network = one.cluster.network
    is_cut = network.is_cut(one.number, other.number) or network.is_cut(other.number, one.number)
    return other is not one and other.consensus.process.is_up and not is_cut


def turn_a_bit(node: SimNode, rng: random.Random) -> str:
    """Turns one bit of the log, of both copies of the membership, or of the database of a member that is down; says
    where, or nothing if there is nothing to be damaged."""
    place = rng.choice(("log", "log", "membership", "database"))
    if place == "database":
        path = Path(node.config.database_path)
        if not path.exists():
            return ""
        data = bytearray(path.read_bytes())
        _turn(data, rng)
        path.write_bytes(data)
        return place
    directory = str(node.config.wal_path)
    names = [name for name in sorted(node.disk.files) if name.rpartition("/")[0] == directory]
    copies = [name for name in names if name.rpartition("/")[2] in ("meta.a", "meta.b")]
    segments = [name for name in names if name not in copies and any(node.disk.files[name].data)]
    for name in copies if place == "membership" else segments and [rng.choice(segments)]:
        file = node.disk.files[name]
        _turn(file.data, rng)
        file.durable = bytearray(file.data)
        file.unsynced = []
    return place


def _turn(data: bytearray, rng: random.Random) -> None:
    """One bit of what is not blank."""
    written = len(data.rstrip(b"\0"))
    if written:
        data[rng.randrange(min(len(data), written + HISTORY_KEPT))] ^= 1 << rng.randrange(8)
