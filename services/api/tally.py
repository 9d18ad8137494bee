"""What happened to the calls of one method, and who called, since somebody last looked."""

from __future__ import annotations

from typing import Final

VERSIONS_MAX: Final = 32  # that clients name; whoever names another one is unknown
UNKNOWN: Final = "unknown"


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


class Requests:
    """How many calls came from clients that name one version of the API."""

    __slots__ = ("streams", "unary")

    def __init__(self) -> None:
        self.unary = 0
        self.streams = 0


class RequestsByVersion:
    """The requests of a worker by the version their clients name."""

    def __init__(self) -> None:
        self.found: dict[str, Requests] = {}

    def of(self, version: str) -> Requests:
        """Where calls with this `client-api-version` are counted."""
        if version not in self.found and len(self.found) >= VERSIONS_MAX:
            version = UNKNOWN
        return self.found.setdefault(version or UNKNOWN, Requests())


REQUESTS: Final = (
    RequestsByVersion()
)  # one for the process, as contexts outlive no connection and belong to no worker part
