"""Decisions taken from octets, so that whoever changes the octets changes the decisions: a grammar's dice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

T = TypeVar("T")


class Octets:
    """Reads decisions from the front; at the end every decision is the first choice."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_empty(self) -> bool:
        return self._at >= len(self._data)

    def number(self, size: int = 1) -> int:
        """Of `size` octets."""
        return int.from_bytes(self.take(size), "big")

    def choice(self, options: Sequence[T]) -> T:
        """One of at most 256."""
        return options[self.number() % len(options)]

    def take(self, size: int) -> bytes:
        """At most `size` octets as they are."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def some(self) -> bytes:
        """Octets with their length in front."""
        return self.take(self.number())

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))


ODD: Final[tuple[object, ...]] = (
    None, True, False, 0, -1, 1, 1 << 63, 1 << 200, 1.5, 1e300, float("inf"), "", "x", "\0", "\ud800", "9" * 400,
    "9" * 400 + "h", "-1h", [], [None], [[]], {}, {"": None}, [{}], ["a", "a"], "http://a:1", "http://a:99999999",
)  # fmt: skip


def odd(octets: Octets, value: object) -> object:
    """A document of JSON in which some values are of another kind."""
    match octets.number() % 8 if not octets.is_empty else 0:
        case 1:
            return octets.choice(ODD)
        case 2:
            return octets.some().decode(errors="replace")
        case 3 if isinstance(value, dict):
            return {name: inner for name, inner in value.items() if octets.number() % 4}
        case _ if isinstance(value, dict):
            return {name: odd(octets, inner) for name, inner in value.items()}
        case _ if isinstance(value, list):
            return [odd(octets, inner) for inner in value]
        case _:
            return value
