"""Snapshots between members: the production code but for threads and sockets, in whose place stands one delay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quorate.consensus.driver import Driver
from quorate.consensus.peers import PeerSettings
from quorate.consensus.raft import messages as raft
from quorate.consensus.snapshots import SUFFIX, Image, Snapshots
from tests.simulation.whole.loop import Loop
from tests.simulation.whole.world import MS, SECOND

if TYPE_CHECKING:
    from tests.simulation.whole.node import SimNode

STALL = 5 * SECOND  # a stream whose receiver says nothing for so long is given up


class SimSnapshots(Snapshots):
    """Sends images as a whole: they arrive or they do not."""

    def __init__(self, node: SimNode, loop: Loop, driver: Driver, settings: PeerSettings) -> None:
        super().__init__(loop, driver, settings, node.config.database_path.parent)  # type: ignore[arg-type]
        self._node = node

    def _start_streams(self, image: Image) -> None:
        targets, self._targets = self._targets, set()
        term = self._driver.core.term
        process = self._node.consensus.process
        for number in sorted(targets - self._streaming.keys()):
            if number in self._driver.membership.members:
                self._streaming[number] = image.index
                process.soon(process.rng.randint(1, 300) * MS, self._arrive, number, image, term)

    def _arrive(self, number: int, image: Image, term: int) -> None:
        """The last chunk reaches the other side, if nothing is in the way."""
        node = self._node
        network = node.cluster.network
        other = network.by_id.get(number)
        process = node.consensus.process
        is_lost = (
            other is None
            or other.member_id != number
            or not other.consensus.process.is_up
            or not image.path.exists()
            or network.is_cut(node.number, other.number)
            or process.rng.random() < 0.2
        )
        if is_lost:
            self._finished(number, False, image.index)
            return
        assert other is not None
        data = image.path.read_bytes()
        snapshot = raft.SnapshotMeta(image.index, image.term, image.membership.conf)
        message = raft.InstallSnapshot(node.member_id, number, term, snapshot)
        is_told = False

        def finished(ok: bool) -> None:
            nonlocal is_told
            if not is_told:
                is_told = True
                self._finished(number, ok, image.index)

        def took() -> None:
            process.soon(MS, finished, True)

        other.consensus.process.soon(MS, other.consensus.take_snapshot, message, image.membership, data, took)
        process.soon(STALL, finished, False)


def write_image(node: SimNode, index: int, data: bytes) -> None:
    """The durable file of an image that arrived."""
    directory = node.config.database_path.parent
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{index:016x}{SUFFIX}").write_bytes(data)
