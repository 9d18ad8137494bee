"""The links between nodes: messages are late, lost, repeated and overtaken; links are cut one way or both, or clog."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quorate.consensus.frames import Call, CallReply, Decoder, PeerMessage, encode
from quorate.consensus.membership import Membership
from quorate.consensus.raft.messages import Forward
from tests.simulation.whole.world import SECOND, World, below

if TYPE_CHECKING:
    from tests.simulation.whole.node import SimNode


# Streams between members repeat nothing. Raft would not mind; a proposal that is passed on may happen once only.
_ONCE = (Forward, Call, CallReply)
REDIAL = 2 * SECOND  # between two attempts of a removed member to reach the others


@dataclass(slots=True)
class Weather:
    """How bad the network is now; chances per message, delays in microseconds."""

    loss: float = 0.0
    duplication: float = 0.0
    delay_max: int = 300
    reordering: float = 0.0  # chance that a message is held up for ten times as long


class SimNetwork:
    """All links. A link is a pair of node numbers, from and to."""

    def __init__(self, world: World, weather: Weather, encodes: bool) -> None:
        self.world = world
        self.weather = weather
        self.rng = random.Random(f"{world.seed} network")
        self.cut: dict[tuple[int, int], int] = {}  # until when
        self.clogged: dict[tuple[int, int], int] = {}  # until when nothing arrives; then all of it
        self.by_id: dict[int, SimNode] = {}
        self.encodes = encodes
        self.sent = self.lost = 0

    def is_cut(self, sender: int, receiver: int) -> bool:
        return self.cut.get((sender, receiver), 0) > self.world.now

    def transmit(self, sender: SimNode, message: PeerMessage, at: int) -> None:
        """Puts a message on its way."""
        receiver = self.by_id.get(message.to_id)
        if receiver is None or receiver.member_id != message.to_id:
            return
        self.sent += 1
        rng, weather = self.rng, self.weather
        link = (sender.number, receiver.number)
        if self.cut.get(link, 0) > at or rng.random() < weather.loss:
            self.lost += 1
            return
        if self.encodes:
            decoder = Decoder(sender.cluster_id, sender.member_id, receiver.member_id)
            (message,) = decoder.feed(encode(sender.cluster_id, message))
        copies = 2 if rng.random() < weather.duplication and type(message) not in _ONCE else 1
        for _ in range(copies):
            delay = 20 + below(rng, weather.delay_max)
            if weather.reordering and rng.random() < weather.reordering:
                delay *= 10
            arrival = max(at + delay, self.clogged.get(link, 0) + delay)
            self.world.at(arrival, self._deliver, link, receiver, message)

    def _deliver(self, link: tuple[int, int], receiver: SimNode, message: PeerMessage) -> None:
        if self.cut.get(link, 0) > self.world.now:
            self.lost += 1
            return
        driver = receiver.consensus.driver
        if driver is not None and message.from_id in driver.membership.removed:
            self.by_id[message.from_id].consensus.turn_away(message.from_id)  # as the handshake of a connection does
        else:
            receiver.consensus.hear(message)

    def dialled_in_vain(self, node: SimNode, number: int) -> None:
        """A removed member that has nothing to say dials all the same, and `node` tells it that it was removed."""
        other = self.by_id.get(number)
        if other is None or other.is_gone or other.member_id != number:
            return
        driver = node.consensus.driver
        is_cut = self.is_cut(node.number, other.number) or self.is_cut(other.number, node.number)
        if not is_cut and driver is not None and number in driver.membership.removed:
            other.consensus.turn_away(number)
        self.world.after(REDIAL, self.dialled_in_vain, node, number)

    def heal(self) -> None:
        self.cut.clear()
        self.clogged.clear()


class NodeNetwork:
    """The network as one member's driver sees it."""

    def __init__(self, network: SimNetwork, node: SimNode) -> None:
        self.has_leader = False
        self._network = network
        self._node = node
        self._queue: list[PeerMessage] = []
        self.members: frozenset[int] = frozenset()  # whom this member dials
        self._removed: frozenset[int] = frozenset()

    def send(self, message: PeerMessage) -> None:
        self._node.cluster.ledger.check_promise(self._node, message)
        self._queue.append(message)

    def flush(self) -> None:
        if not self._queue:
            return
        queue, self._queue = self._queue, []
        process = self._node.consensus.process
        for message in queue:
            process.step()
            if message.to_id in self.members or self._was_dialled_by(message.to_id):
                self._network.transmit(self._node, message, process.true_now)

    def update(self, membership: Membership) -> None:
        self.members = frozenset(membership.members)
        for number in sorted(membership.removed - self._removed):
            self._network.world.after(REDIAL, self._network.dialled_in_vain, self._node, number)
        self._removed = membership.removed

    def _was_dialled_by(self, number: int) -> bool:
        """Whether there are streams that another member opened: it may know this one without being known."""
        other = self._network.by_id.get(number)
        if other is None or other.consensus.driver is None or number in self._removed:
            return False
        return self._node.member_id in other.consensus.driver.network.members  # type: ignore[attr-defined]

    def active_since(self, number: int) -> float | None:
        other = self._network.by_id.get(number)
        if other is None or not other.consensus.process.is_up or other.consensus.driver is None:
            return None
        if other.member_id != number:
            return None  # that member is gone: it came back under another id
        if self._network.is_cut(self._node.number, other.number):
            return None
        return self._node.clock.read() - 60.0 if number != self._node.member_id else None
