"""The replicated log as the core sees it: recent entries in a list, older ones asked of the host's storage.

The cache holds every entry after `cached_index`; it always includes all that are not yet durable, committed
and handed to storage. Entries between the storage's first index and the cache are read back only for a
follower (or a restarted storage process) that is far behind. Entries before that are gone; such a follower
needs a snapshot.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Protocol

from quorate.consensus.raft.messages import Entry


class LogStorage(Protocol):
    """The durable log below the cache.

    Called only for indexes the core has seen durable; may read the disk.
    """

    def first_index(self) -> int:
        """Index of the oldest entry still readable."""

    def term(self, index: int) -> int:
        """Term of the entry at `index`, with first_index() - 1 <= index."""

    def entries(self, first: int, end: int, bytes_max: int) -> list[Entry]:
        """Entries first..end-1 in order, at least one, cut before their payloads exceed `bytes_max`."""


def take_bytes(entries: Iterable[Entry], bytes_max: int) -> list[Entry]:
    """The longest prefix whose payloads fit into `bytes_max`, but at least one entry if there is one."""
    taken: list[Entry] = []
    size = 0
    for entry in entries:
        size += len(entry.payload)
        if size > bytes_max and taken:
            break
        taken.append(entry)
    return taken


class RaftLog:
    """Entries 1..last_index, of which the newest are in memory.

    Terms never decrease along the log. `cached_index` <= `last_index`.
    """

    __slots__ = ("_entries", "_storage", "cached_index", "cached_term", "last_index", "last_term")

    def __init__(self, storage: LogStorage | None, base_index: int, base_term: int, entries: Sequence[Entry]):
        """`entries` follow (base_index, base_term). Without a storage there is nothing before them."""
        self._storage = storage
        self._entries: list[Entry] = list(entries)
        self.cached_index = base_index  # the entry before the first in memory
        self.cached_term = base_term
        self.last_index = base_index + len(self._entries)
        self.last_term = self._entries[-1].term if self._entries else base_term
        assert not self._entries or self._entries[0].index == base_index + 1

    @property
    def has_storage(self) -> bool:
        """Entries that left the memory can be read back."""
        return self._storage is not None

    def first_index(self) -> int:
        """Index of the oldest entry that can still be sent to a follower."""
        if self._storage is None:
            return self.cached_index + 1
        return min(self._storage.first_index(), self.cached_index + 1)

    def term(self, index: int) -> int | None:
        """Term at `index`; None if there is no such entry (any more)."""
        position = index - self.cached_index
        if position > 0:
            return self._entries[position - 1].term if index <= self.last_index else None
        if position == 0:
            return self.cached_term
        if self._storage is None or index < self._storage.first_index() - 1:
            return None
        return self._storage.term(index)

    def entries(self, first: int, last: int, bytes_max: int) -> list[Entry]:
        """Entries first..last, cut by size as `take_bytes` does. `first` must not be before first_index()."""
        assert first >= 1
        start = first - self.cached_index - 1
        if start < 0:
            assert self._storage is not None, "entries before the cache need a storage"
            return self._storage.entries(first, min(last, self.cached_index) + 1, bytes_max)
        wanted = self._entries[start : last - self.cached_index]
        if len(wanted) <= 1:
            return wanted
        return take_bytes(wanted, bytes_max)

    def append(self, entry: Entry) -> None:
        """Adds the next entry."""
        assert entry.index == self.last_index + 1
        assert entry.term >= self.last_term
        self._entries.append(entry)
        self.last_index = entry.index
        self.last_term = entry.term

    def extend(self, entries: Sequence[Entry]) -> None:
        """Adds the next entries, at least one."""
        assert entries[0].index == self.last_index + 1
        self._entries.extend(entries)
        self.last_index = entries[-1].index
        self.last_term = entries[-1].term
        assert self.last_index == self.cached_index + len(self._entries)

    def new_entries(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """The part of `entries` from the first that is missing here or has another term (paper 5.3, step 3).

        Entries that are already there are never touched: an old message must not shorten the log.
        """
        if not entries or entries[0].index == self.last_index + 1:
            return entries
        for position, entry in enumerate(entries):
            if self.term(entry.index) != entry.term:
                return entries[position:]
        return ()

    def truncate(self, index: int) -> None:
        """Drops the entry at `index` and everything after it."""
        assert self.cached_index < index <= self.last_index
        del self._entries[index - self.cached_index - 1 :]
        self.last_index = index - 1
        self.last_term = self._entries[-1].term if self._entries else self.cached_term

    def last_index_within_term(self, index: int, term: int) -> int:
        """The greatest index <= `index` whose term is <= `term`; not searched below first_index() - 1.

        Two logs that differ at `index` can be equal at most up to there, if the other one has `term` at
        `index`.
        """
        index = min(index, self.last_index)
        if index > self.cached_index and self.cached_term <= term:
            end = index - self.cached_index
            return self.cached_index + bisect_right(self._entries, term, 0, end, key=_term_of)
        floor = self.first_index() - 1
        index = min(index, self.cached_index)
        while index > floor:
            known = self.term(index)
            if known is None or known <= term:
                break
            index -= 1
        return index

    def compact(self, index: int) -> None:
        """Drops entries up to `index` from memory; the storage decides how long they stay readable."""
        count = index - self.cached_index
        if count <= 0:
            return
        self.cached_term = self._entries[count - 1].term
        self.cached_index = index
        del self._entries[:count]

    def restore(self, index: int, term: int) -> None:
        """Forgets everything; the log continues after (index, term)."""
        self._entries.clear()
        self.cached_index = self.last_index = index
        self.cached_term = self.last_term = term


def _term_of(entry: Entry) -> int:
    return entry.term
