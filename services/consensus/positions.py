"""Where each entry of the log lies: five numbers an entry, so that the log itself need not be in memory."""

from __future__ import annotations

from array import array
from typing import Final, NamedTuple

from quorate.consensus.wal_format import Base

BLOCK: Final = 1024  # entries summed at once


class Position(NamedTuple):
    """One entry on disk."""

    seq: int  # of its segment
    offset: int  # of its record
    size: int  # of the whole record


class Positions:
    """The entries base.index + 1 … last_index, in order."""

    __slots__ = ("_chains", "_offsets", "_seqs", "_sizes", "_terms", "base", "bytes")

    def __init__(self, base: Base) -> None:
        self.base = base
        self.bytes = 0  # of all records
        self._terms = array("Q")
        self._chains = array("Q")
        self._seqs = array("Q")
        self._offsets = array("Q")
        self._sizes = array("Q")

    @property
    def last_index(self) -> int:
        return self.base.index + len(self._terms)

    def last(self) -> Base:
        """What the next entry continues."""
        return self.at(self.last_index)

    def at(self, index: int) -> Base:
        """Term and chain at `index`, which is base.index or later and not beyond the end."""
        if index == self.base.index:
            return self.base
        slot = index - self.base.index - 1
        assert slot >= 0, f"entry {index} is before the log's beginning {self.base.index}"
        return Base(index, self._terms[slot], self._chains[slot])

    def add(self, index: int, term: int, chain: int, position: Position) -> None:
        """The entry at `index` is at `position` now; what was at `index` and behind it is void."""
        if index <= self.last_index:
            self.truncate(index - 1)
        assert index == self.last_index + 1, f"entry {index} leaves a gap after {self.last_index}"
        self._terms.append(term)
        self._chains.append(chain)
        self._seqs.append(position.seq)
        self._offsets.append(position.offset)
        self._sizes.append(position.size)
        self.bytes += position.size

    def position(self, index: int) -> Position:
        slot = index - self.base.index - 1
        assert slot >= 0, f"entry {index} is before the log's beginning {self.base.index}"
        return Position(self._seqs[slot], self._offsets[slot], self._sizes[slot])

    def truncate(self, last_index: int) -> None:
        """Forgets everything after `last_index`."""
        keep = last_index - self.base.index
        assert keep >= 0, "a log is never cut before its beginning"
        self.bytes -= sum(self._sizes[keep:])
        for column in (self._terms, self._chains, self._seqs, self._offsets, self._sizes):
            del column[keep:]

    def drop(self, index: int) -> None:
        """Forgets everything up to `index`: the log begins after it."""
        count = index - self.base.index
        if count <= 0:
            return
        self.base = self.at(index)
        self.bytes -= sum(self._sizes[:count])
        for column in (self._terms, self._chains, self._seqs, self._offsets, self._sizes):
            del column[:count]

    def index_behind(self, index: int, bytes_max: int) -> int:
        """The oldest index such that the entries after it, up to `index`, take no more than `bytes_max`."""
        if self.bytes <= bytes_max:
            return self.base.index
        size = 0
        slot = min(index, self.last_index) - self.base.index
        for step in (BLOCK, 1):  # by blocks, as this is hundreds of thousands of entries, and the last ones one by one
            while slot > 0:
                start = max(0, slot - step)
                more = sum(self._sizes[start:slot])
                if size + more > bytes_max:
                    break
                slot, size = start, size + more
        return self.base.index + slot

    def bytes_between(self, index: int, last_index: int) -> int:
        """What the entries after `index` take, up to `last_index`, as far as they are there."""
        base = self.base.index
        return sum(self._sizes[max(0, index - base) : max(0, last_index - base)])
