"""What watch hears: every change once, in the turn that made it and before its rows are written."""

from __future__ import annotations

from typing import Final

from quorate.storage.events import pack_events
from quorate.storage.state import State
from quorate.wire.messages import EVENTS, Kind
from quorate.wire.sockets import Channel
from quorate.wire.watching import WATCH_NEEDS

IDLE_PUBLISH_SECONDS: Final = 0.05  # while nobody waits, watch hears of the revision alone, and this often


class Publisher:
    """Tells the watch process what was applied. `now` is the time of the turn."""

    def __init__(self, state: State, watch: Channel) -> None:
        self._store = state.store
        self._database = state.database
        self._watch = watch
        self._published = state.store.revision
        self._published_rows = 0  # of the pending rows
        self._needs_previous = False
        self._is_idle = False
        self._idle_told_at = 0.0

    def meet(self) -> None:
        """A watch process that knows nothing: it learns from the hello where the store is."""
        self._needs_previous = False
        self._is_idle = False
        self._published = self._store.revision

    def publish(self, now: float) -> None:
        """Tell what this turn has changed. What watch cannot take it reads as history when it sees the gap."""
        rows = self._database.pending
        if self._published_rows == len(rows):
            return
        store, watch = self._store, self._watch
        if self._is_idle:
            if now - self._idle_told_at >= IDLE_PUBLISH_SECONDS:
                self._tell_revision(now)
        elif watch.opened and not watch.full:
            fresh = rows[self._published_rows :]
            watch.send(Kind.EVENTS, *pack_events(store, fresh, self._published, store.revision, self._needs_previous))
        self._published = store.revision
        self._published_rows = len(rows)

    def committed(self) -> None:
        """The pending rows were written; all of them had been published."""
        self._published_rows = 0

    def set_idle(self, body: bytes, now: float) -> None:
        """WATCH_IDLE: whether anybody waits for changes; answered behind what was changed before."""
        self.publish(now)
        self._is_idle = body == b"\1"
        self._tell_revision(now)
        self._watch.send(Kind.WATCH_IDLE, body)

    def set_needs(self, body: bytes, now: float) -> None:
        """WATCH_NEEDS: what changes have to carry from here on; answered in its place."""
        self.publish(now)
        self._needs_previous = bool(WATCH_NEEDS.unpack(body)[0])
        self._watch.send(Kind.WATCH_NEEDS, WATCH_NEEDS.pack(self._needs_previous, self._store.revision))

    def _tell_revision(self, now: float) -> None:
        """Say where the store is, without the changes: whoever waits there reads them as history."""
        self._idle_told_at = now
        self._watch.send(Kind.EVENTS, EVENTS.pack(self._store.revision, self._store.revision, 0))
