"""The two copies of what a member knows beside its log: `meta.a` and `meta.b` in the log's directory.

Each is replaced as a whole, one after the other, so a crash leaves at least one of them whole and rot in one of them
does no harm. They are written when the log's beginning moves: at the foundation, before segments are dropped, and
when a snapshot takes the log's place.
"""

from __future__ import annotations

from pathlib import Path

from quorate.consensus.membership import Meta, pack_meta, unpack_meta
from quorate.consensus.segments import write_durably
from quorate.consensus.wal_format import DamagedLog

_NAMES = ("meta.a", "meta.b")


class MetaFiles:
    """The pair of files in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._counter = 0

    def read(self) -> Meta | None:
        """The newest intact copy; None if there is no file at all, DamagedLog if none is intact."""
        newest: Meta | None = None
        present = False
        for name in _NAMES:
            path = self._directory / name
            if not path.exists():
                continue
            present = True
            try:
                counter, meta = unpack_meta(path.read_bytes())
            except (ValueError, KeyError, TypeError):
                continue
            if counter > self._counter:
                self._counter, newest = counter, meta
        if present and newest is None:
            raise DamagedLog(str(self._directory / _NAMES[0]), 0, "neither copy of the membership is intact")
        return newest

    def write(self, meta: Meta) -> None:
        """Durable when this returns."""
        self._counter += 1
        data = pack_meta(self._counter, meta)
        for name in _NAMES:
            write_durably(self._directory / name, data)
