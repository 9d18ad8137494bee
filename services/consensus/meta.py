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
from quorate.node import logs

log = logs.named("bootstrap")

_NAMES = ("meta.a", "meta.b")


class MetaFiles:
    """The pair of files in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._counter = 0

    def read(self) -> Meta | None:
        """The newest intact copy; None if there is no file at all, DamagedLog if none is intact.

        A copy that is missing, older or damaged is written anew.
        """
        newest: Meta | None = None
        counters: list[int] = []
        present = False
        for path in self.paths():
            if not path.exists():
                continue
            present = True
            try:
                counter, meta = unpack_meta(path.read_bytes())
            except ValueError:
                log.warn("a copy of the membership is damaged; it is made anew", path=str(path))
                continue
            counters.append(counter)
            if counter > self._counter:
                self._counter, newest = counter, meta
        if present and newest is None:
            raise DamagedLog(str(self._directory / _NAMES[0]), 0, "neither copy of the membership is intact")
        if newest is not None and counters != [self._counter] * len(_NAMES):
            self.write(newest)
        return newest

    def paths(self) -> list[Path]:
        """Where they are."""
        return [self._directory / name for name in _NAMES]

    def write(self, meta: Meta) -> None:
        """Durable when this returns."""
        self._counter += 1
        data = pack_meta(self._counter, meta)
        for name in _NAMES:
            write_durably(self._directory / name, data)
