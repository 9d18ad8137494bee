"""When followers hear that entries are committed: with the next append, unless somebody there waits for it.

Telling each follower at once costs a message, two wake-ups and an apply per write just while the leader answers its own
client; with one client at a time that is a third of a small machine. The next append carries the commit index anyway.
So the news is kept for a moment, and passed on at once to a member that forwarded a write or asks for a read.
Raft does not depend on these messages: they may be lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from quorate.consensus.neighbours import Network
from quorate.consensus.raft.messages import Append, Commit, Message, ReadResp

KEEP_SECONDS: Final = 0.002


class CommitNews:
    """Sifts what a leader sends over `network`. `later(seconds, callback)` is the loop's timer."""

    def __init__(self, network: Network, later: Callable[[float, Callable[[], None]], object]) -> None:
        self._network = network
        self._send = network.send
        self._later = later
        self._kept: dict[int, Commit] = {}
        self._told: dict[int, int] = {}  # by member: the commit index that was sent last
        self._awaited: dict[int, int] = {}  # by member: the highest index it waits for
        self._is_timed = False

    def expect(self, member_id: int, index: int) -> None:
        """A member waits until the entry at `index` is committed."""
        self._awaited[member_id] = index

    def send(self, message: Message) -> None:
        """Send, or keep for a moment."""
        kind = type(message)
        if kind is Commit:
            assert isinstance(message, Commit)
            if self._awaited.get(message.to_id, 0) <= self._told.get(message.to_id, 0):
                self._keep(message)
                return
            self._kept.pop(message.to_id, None)
            self._told[message.to_id] = message.commit
        elif kind is Append:
            assert isinstance(message, Append)
            kept = self._kept.get(message.to_id)
            if kept is not None and message.commit >= kept.commit:
                del self._kept[message.to_id]
            self._told[message.to_id] = message.commit
        elif kind is ReadResp:
            kept = self._kept.pop(message.to_id, None)
            if kept is not None:
                self._told[message.to_id] = kept.commit
                self._send(kept)
        self._send(message)

    def release(self) -> bool:
        """Send everything that was kept; False if there was nothing."""
        self._is_timed = False
        kept, self._kept = self._kept, {}
        for message in kept.values():
            self._told[message.to_id] = message.commit
            self._send(message)
        return bool(kept)

    def _keep(self, message: Commit) -> None:
        self._kept[message.to_id] = message
        if not self._is_timed:
            self._is_timed = True
            self._later(KEEP_SECONDS, self._release_and_flush)

    def _release_and_flush(self) -> None:
        if self.release():
            self._network.flush()
