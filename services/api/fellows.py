"""The other api workers of the node: a scrape reaches one of them and has to show what all have counted."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final

from quorate.api.ring import Ring
from quorate.wire.messages import Kind, Part
from quorate.wire.sockets import Address, Channel

_QUESTION: Final = Struct("<QB")  # request id, the asking worker
_REQUEST_ID_BYTES: Final = 8


class Fellows:
    """Channels to them, and the answer to their questions."""

    def __init__(self, ring: Ring, number: int, workers: int, text: Callable[[], str]) -> None:
        """Worker `number` of `workers`; `text` gives its own figures."""
        self._ring = ring
        self._number = number
        self._text = text
        others = [other for other in range(workers) if other != number]
        self._channels = {other: ring.connect(Address(Part.API, other)) for other in others}
        if others:
            ring.on_message(Part.API, Kind.STATS_READ, self._answer)

    @property
    def open(self) -> list[Channel]:
        """Those that are there."""
        return [channel for channel in self._channels.values() if channel.opened]

    def question(self, request_id: int) -> bytes:
        """The body of a STATS_READ; the STATS that answers it begins with the request id."""
        return _QUESTION.pack(request_id, self._number)

    def _answer(self, body: bytes) -> None:
        _, asker = _QUESTION.unpack_from(body)
        channel = self._channels.get(asker)
        if channel is not None and channel.opened:
            channel.send(Kind.STATS, body[:_REQUEST_ID_BYTES], self._text().encode())
            self._ring.flush_soon()
