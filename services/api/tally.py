"""What happened to the calls of one method since somebody last looked."""

from __future__ import annotations


class Tally:
    """Plain numbers: a labelled counter of a metrics library costs more than the rest of a call here."""

    __slots__ = ("failed", "ok", "received", "sent", "started")

    def __init__(self) -> None:
        self.started = 0
        self.received = 0  # messages of streams; of unary calls it is `started`
        self.sent = 0  # messages of streams; of unary calls it is `ok`
        self.ok = 0
        self.failed: dict[int, int] = {}  # by gRPC code

    def finished(self, code: int) -> None:
        """Count the end of a call."""
        if code:
            self.failed[code] = self.failed.get(code, 0) + 1
        else:
            self.ok += 1

    def clear(self) -> None:
        """Begin again."""
        self.started = self.received = self.sent = self.ok = 0
        self.failed.clear()
