"""The committed log as what each key was at any revision."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from tests.checking.history import Change


class Model:
    """The log as a key's history: its value and mod_revision at any revision."""

    def __init__(self, log: Sequence[Change]) -> None:
        self.last_revision = log[-1].revision if log else 1
        self._revisions: dict[bytes, list[int]] = {}
        self._values: dict[bytes, list[bytes | None]] = {}
        for revision, key, value in log:
            self._revisions.setdefault(key, []).append(revision)
            self._values.setdefault(key, []).append(value)

    def at(self, key: bytes, revision: int) -> tuple[bytes | None, int]:
        """(value, mod_revision) as of `revision`; (None, 0) where the key is absent."""
        revisions = self._revisions.get(key)
        if revisions is None:
            return None, 0
        position = bisect_right(revisions, revision) - 1
        if position < 0:
            return None, 0
        value = self._values[key][position]
        return value, revisions[position] if value is not None else 0
