"""Members that were sent an image, and what of the log stays for each until it has caught up.

Where writes go on, the log would be cut beyond the image while the member takes it in, or while it reads what followed;
it would need another one, and so on. How many bytes may stay for this, `retention` says; how long, is said here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

PATIENCE_S: Final = 30.0  # a member that takes nothing for so long is not waited for


class HasMatch(Protocol):
    """How far a member is; `raft.progress.Progress`."""

    match_index: int


@dataclass(slots=True)
class Pin:
    """One member on its way from its image to the log's end."""

    index: int  # the log behind it is needed; moves with the member
    goal_index: int  # where the log ended when the image had arrived: from there on it is a follower like any other
    until: float


class Pins:
    """All of them."""

    def __init__(self) -> None:
        self._pins: dict[int, Pin] = {}

    def add(self, number: int, index: int, goal_index: int, now: float) -> None:
        """The image at `index` has arrived at a member."""
        self._pins[number] = Pin(index, goal_index, now + PATIENCE_S)

    def look(self, now: float, progress: Mapping[int, HasMatch]) -> None:
        """Lets go who has caught up, who stands still and who is gone; all of them when another member leads."""
        for number, pin in list(self._pins.items()):
            match_index = progress[number].match_index if number in progress else pin.goal_index
            if match_index > pin.index:
                pin.index, pin.until = match_index, now + PATIENCE_S
            if match_index >= pin.goal_index or now > pin.until:
                del self._pins[number]

    def lowest(self) -> int | None:
        """The log behind this index is needed; None when nothing is."""
        return min((pin.index for pin in self._pins.values()), default=None)
