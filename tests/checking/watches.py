"""The rules of watching, judged against the log.

What a watcher is told is the log, filtered by its range, from its first revision on: in order, nothing twice, nothing
left out, a revision in one piece, with the pair before where it was asked for; after a progress note for a revision
nothing up to that revision comes any more, and a watcher is given up for compaction only if what it needs is gone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tests.checking.history import Change


class Event(NamedTuple):
    """One change as a watcher was told it."""

    revision: int
    key: bytes
    value: bytes | None  # None: deleted
    is_create: bool = False
    prev_revision: int = -1  # mod_revision of the pair before, 0 if there was none; -1: not asked for


class Told(NamedTuple):
    """One response: some events, or none as a note of progress."""

    header_revision: int
    events: tuple[Event, ...]


class Watching(NamedTuple):
    """One watcher from its creation to its end. A stream that breaks and goes on is two of them."""

    name: str
    key: bytes
    range_end: bytes  # empty: one key; b"\\0": everything from `key` on
    start_revision: int  # the first revision wanted; where 0 was sent, the one after the creation's header
    told: Sequence[Told]
    compact_revision: int = 0  # with which the server gave it up
    no_put: bool = False
    no_delete: bool = False
    reached_revision: int = 0  # it had caught up: everything up to here was due

    def wants(self, event: Event) -> bool:
        if self.no_delete if event.value is None else self.no_put:
            return False
        if not self.range_end:
            return event.key == self.key
        return event.key >= self.key and (self.range_end == b"\0" or event.key < self.range_end)


class Log:
    """The log with what watchers are told beside each change."""

    def __init__(self, log: Sequence[Change]) -> None:
        self.changes: list[Event] = []
        held: dict[bytes, int] = {}
        for revision, key, value in log:
            before = held.get(key, 0)
            self.changes.append(Event(revision, key, value, value is not None and not before, before))
            held[key] = revision if value is not None else 0
        self._revisions = [event.revision for event in self.changes]

    def since(self, revision: int) -> Iterable[Event]:
        return self.changes[bisect_left(self._revisions, revision) :]


def check_watch(watching: Watching, log: Log, compacted: int = 0) -> Iterable[str]:
    """The violations of one watcher; the first one ends it, as all that follows would be one too.

    What was changed for the last time before the revision `compacted` need not be told as the pair before.
    """
    expected = (event for event in log.since(watching.start_revision) if watching.wants(event))
    upcoming = next(expected, None)
    last, promised = 0, 0
    for told in watching.told:
        if not told.events:
            if told.header_revision < promised:
                yield f"{watching.name}: progress went back from {promised} to {told.header_revision}"
            promised = max(promised, told.header_revision)
            if upcoming is not None and upcoming.revision <= promised:
                yield f"{watching.name}: progress to {promised} before {_brief(upcoming)} was told"
                return
            continue
        if told.events[0].revision == last:
            yield f"{watching.name}: revision {last} came in two pieces"
        for event in told.events:
            wanted = upcoming
            if wanted is not None and (
                event.prev_revision < 0 or (event.prev_revision == 0 and wanted.prev_revision <= compacted)
            ):
                wanted = wanted._replace(prev_revision=event.prev_revision)
            if event != wanted:
                yield f"{watching.name}: told {_brief(event)} instead of {_brief(wanted)} (after {last})"
                return
            if event.revision <= promised:
                yield f"{watching.name}: told {_brief(event)} after progress to {promised}"
                return
            last = event.revision
            upcoming = next(expected, None)
        if told.header_revision < last:
            yield f"{watching.name}: told revision {last} under the header revision {told.header_revision}"
    if upcoming is not None and upcoming.revision <= watching.reached_revision:
        yield f"{watching.name}: was never told {_brief(upcoming)}, up to {watching.reached_revision}"
    if watching.compact_revision and upcoming is not None and upcoming.revision >= watching.compact_revision:
        begun = max(watching.start_revision, last + 1)
        if begun >= watching.compact_revision:
            yield f"{watching.name}: given up at {begun}, though only {watching.compact_revision} is compacted"


def _brief(event: Event | None) -> str:
    if event is None:
        return "nothing"
    value = event.value if event.value is None else event.value[:40]
    return f"{event.revision} {event.key!r} {value!r} create={event.is_create} before={event.prev_revision}"
