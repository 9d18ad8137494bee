"""What consensus orders of images: one is made for another member, one that came from another takes the state's place.

What an image is, `snapshot` knows; here is when, by whom, and what consensus is told of it.
"""

from __future__ import annotations

import sqlite3
from math import inf
from pathlib import Path
from time import perf_counter
from typing import Final

from quorate.node.lasting import Lasting
from quorate.node.logs import Log
from quorate.storage import snapshot
from quorate.storage.apply import Applier
from quorate.storage.reads import Readers, Task
from quorate.storage.state import State
from quorate.wire.messages import IMAGE, Kind
from quorate.wire.sockets import Channel

RETRY_SECONDS: Final = 10.0


class ImageOrders:
    """One image at a time is made, on a reader's thread."""

    def __init__(self, state: State, applier: Applier, readers: Readers, consensus: Channel, log: Log) -> None:
        self.again_at = inf  # when to `take` once more: there was no room
        self.to_install: Path | None = None  # a sound one, for the caller to put in place
        self._state = state
        self._applier = applier
        self._readers = readers
        self._consensus = consensus
        self._log = log
        self._full_disk = Lasting(log, "images for other members can be written again")
        self._is_taking = False
        self._failure = ""  # of the last one that could not be made
        snapshot.drop_drafts(state.database.path)

    def take(self) -> None:
        """Have one made, unless one is being made, and consensus told where it is."""
        self.again_at = inf
        if self._is_taking:
            return
        self._is_taking = True
        self._readers.submit(self._taken, Task(max(0, self._state.store.compact_revision), self._work))

    def install(self, body: bytes) -> None:
        """Check an image that came; BadImage when it is damaged."""
        index, _ = IMAGE.unpack_from(body)
        path = Path(body[IMAGE.size :].decode())
        self._log.info("installing an image", path=str(path), index=index)
        snapshot.check(path, index)
        self.to_install = path

    def _work(self) -> bytes:
        started = perf_counter()
        try:
            image = snapshot.take(self._state.database)
        except (OSError, sqlite3.OperationalError) as error:
            self._failure = str(error)
            return b""
        self._readers.image_seconds.add(perf_counter() - started)
        return IMAGE.pack(image.index, image.term) + str(image.path).encode()

    def _taken(self, body: bytes) -> None:
        self._is_taking = False
        if body:
            self._full_disk.better(self._applier.now)
            self._consensus.send(Kind.IMAGE_TAKEN, body)
        else:
            now = self._applier.now
            self._full_disk.found(now, "cannot write an image for another member", error=self._failure)
            self.again_at = now + RETRY_SECONDS
