"""What the driver needs of its surroundings, so that tests and simulations can stand in for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from quorate.consensus.frames import PeerMessage
from quorate.consensus.membership import Membership


class Network(Protocol):
    """The other members; `peers.Peers` in production."""

    has_leader: bool

    def send(self, message: PeerMessage) -> None:
        """Queues a message; it may be dropped."""

    def flush(self) -> None:
        """Sends what is queued."""

    def update(self, membership: Membership) -> None:
        """Connects to these members; of the others only those that were removed are refused."""

    def active_since(self, number: int) -> float | None:
        """Since when (monotonic seconds) a member is connected; None if it is not."""


class SnapshotCourier(Protocol):
    """Takes images of storage to members that fell behind; `snapshots.Snapshots` in production."""

    def send(self, number: int, index: int = 0) -> None:
        """A member needs a snapshot, and one before `index` is of no use to it."""

    def image_taken(self, index: int, term: int, path: str) -> None:
        """Storage wrote an image."""

    def install_path(self, index: int) -> str | None:
        """The durable file of the snapshot at `index`, if it is here."""

    def installed(self, index: int) -> None:
        """Storage has everything up to `index`."""

    def held_index(self) -> int | None:
        """The log behind this index is needed by members with an image, or with one that is being made."""

    def look(self, now: float) -> None:
        """A tick has passed."""


@dataclass(frozen=True, slots=True)
class Times:
    """The settings that are times."""

    tick_s: float
    election_s: float

    @property
    def request_s(self) -> float:
        """How long etcd lets a request wait: 5 s and two elections."""
        return 5.0 + 2 * self.election_s
