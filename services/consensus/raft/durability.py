"""Which part of what was handed to the disk is durable, and which messages wait for it.

Writes are numbered and acknowledged by number, in order. A write whose entries were replaced in memory before
its acknowledgement came is cut when that happens, so an old acknowledgement never vouches for a newer entry,
even if the same (index, term) was written, replaced and written again (the ABA case of asynchronous storage).
"""

from __future__ import annotations

from collections import deque

from quorate.consensus.raft.messages import Message


class _Write:
    """One batch on its way to the disk."""

    __slots__ = ("last_index", "number", "term", "vote")

    def __init__(self, number: int, last_index: int, term: int, vote: int):
        self.number = number
        self.last_index = last_index  # the log is as in memory up to here once this is durable
        self.term = term
        self.vote = vote


class Durability:
    """stable_index <= written_index <= last index of the log."""

    __slots__ = ("_held", "_number", "_writes", "stable_index", "term", "vote", "written_index")

    def __init__(self, term: int, vote: int, last_index: int):
        """Everything read back at start is durable."""
        self._number = 0
        self._writes: deque[_Write] = deque()
        self._held: deque[tuple[int, Message]] = deque()
        self.term = term  # durable term
        self.vote = vote  # durable vote
        self.written_index = last_index  # handed to the disk
        self.stable_index = last_index  # durable and equal to the log in memory

    def write(self, last_index: int, term: int, vote: int) -> int:
        """The log up to `last_index` and the hard state go to the disk; returns the number of the write."""
        self._number += 1
        self.written_index = last_index
        self._writes.append(_Write(self._number, last_index, term, vote))
        return self._number

    def truncate(self, index: int) -> None:
        """The log in memory lost `index` and what follows; what the disk has there counts no more."""
        last = index - 1
        self.written_index = min(self.written_index, last)
        self.stable_index = min(self.stable_index, last)
        for write in self._writes:
            write.last_index = min(write.last_index, last)

    def restore(self, index: int) -> None:
        """The log in memory begins anew after a snapshot at `index`, which the next write brings along."""
        self.truncate(1)
        self.written_index = index

    def hold(self, message: Message) -> None:
        """Keeps `message` until the next write is durable."""
        self._held.append((self._number + 1, message))

    def must_write(self) -> bool:
        """True if a message waits for a write that has not been made."""
        return bool(self._held) and self._held[-1][0] > self._number

    def is_idle(self) -> bool:
        """True if no write is under way."""
        return not self._writes

    def persisted(self, number: int) -> list[Message]:
        """Writes up to `number` are durable; returns the messages that waited for them.

        The disk finishes in order, so `number` vouches for everything before it; acknowledging a number again
        or out of order changes nothing.
        """
        assert number <= self._number, "acknowledged a write that was never made"
        while self._writes and self._writes[0].number <= number:
            write = self._writes.popleft()
            self.stable_index = max(self.stable_index, write.last_index)
            self.term, self.vote = write.term, write.vote
        released: list[Message] = []
        while self._held and self._held[0][0] <= number:
            released.append(self._held.popleft()[1])
        return released
