"""Who waits: workers, their streams, and the groups of watchers on them.

A group is everybody on one stream who waits for one range in one form (see `wire.watching`). Synced groups of one
worker with the same range and form share a fan, and a change is handed to a fan once: the cost of a change does not
depend on how many streams wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Final

from quorate.wire.watching import DELIVER_EVENTS, HANDLE_BYTES, Form, Told

RESPONSE_BYTES_MAX: Final = 512 * 1024  # revisions that wait together are told together up to this
RESPONSE_REVISIONS_MAX: Final = 1_000  # as etcd's catch-up

# Members of an enum of flags cost a microsecond at each use.
PREVIOUS: Final = int(Form.PREVIOUS)
NOPUT: Final = int(Form.NOPUT)
NODELETE: Final = int(Form.NODELETE)

Encoded = tuple[int, bytes]
"""A change for clients: its main revision and its `events` field of a WatchResponse."""


class State(IntEnum):
    """Where a group is."""

    FUTURE = 0  # the first revision it wants is not there yet
    SYNCED = 1  # in a fan: it has everything up to the present
    VICTIM = 2  # a change concerned it while its stream or worker took nothing
    UNCONFIRMED = 3  # it is at the present, but storage does not tell previous values yet
    WAITING = 4  # behind, its turn to read history comes
    READING = 5  # behind, history was asked for
    GONE = 6


class Stream:
    """One stream of a client."""

    __slots__ = ("held", "number", "victims")

    def __init__(self, number: int) -> None:
        self.number = number
        self.held = False  # the client takes nothing now
        self.victims: dict[Group, None] = {}


class Worker:
    """One api worker in one incarnation."""

    __slots__ = ("groups", "held_streams", "is_full", "marked_revision", "send", "streams", "victims")

    def __init__(self, send: Callable[..., None]) -> None:
        self.send = send  # one DELIVER message, in parts
        self.groups: dict[int, Group] = {}
        self.streams: dict[int, Stream] = {}
        self.held_streams = 0
        self.is_full = False  # the link to it takes nothing now
        self.victims: dict[Group, None] = {}
        self.marked_revision = 0

    def stream(self, number: int) -> Stream:
        stream = self.streams.get(number)
        if stream is None:
            stream = self.streams[number] = Stream(number)
        return stream

    def tell_events(
        self, groups: tuple[Group, ...] | list[Group], events: list[Encoded], header_revision: int, next_revision: int
    ) -> None:
        """Tell `groups` all of `events`, which are in order and make whole revisions, in as few responses as the
        bounds allow. A `header_revision` of 0 stands for the revision of the last event in each response."""
        handles = b"".join([group.handle.to_bytes(HANDLE_BYTES, "little") for group in groups])
        self.tell_handles(handles, events, header_revision, next_revision)

    def tell_handles(self, handles: bytes, events: list[Encoded], header_revision: int, next_revision: int) -> None:
        """As `tell_events`, with the handles packed."""
        count = len(handles) // HANDLE_BYTES
        for part in _responses(events) if len(events) > 1 else (events,):
            last = part[-1][0]
            following = next_revision if part[-1] is events[-1] else last + 1
            head = DELIVER_EVENTS.pack(Told.EVENTS, header_revision or last, following, len(part), count)
            self.send(head, handles, *[encoded for _, encoded in part])


NO_STREAMS: Final[dict[Stream, Group]] = {}  # of fans with one group; never filled


class Fan:
    """The synced groups of one worker that wait for one range in one form. A group that is not synced has a fan of
    its own, outside of the ranges that changes are matched with."""

    __slots__ = ("_groups", "_handles", "_of_stream", "events", "form", "key", "range_end", "worker")

    def __init__(self, worker: Worker, key: bytes, range_end: bytes, form: int) -> None:
        self.worker = worker
        self.key = key
        self.range_end = range_end
        self.form = form
        self._groups: dict[Group, None] | Group | None = None  # most fans have one, which needs no dictionary
        self._of_stream: dict[Stream, Group] = NO_STREAMS  # one of each, where there are several groups
        self.events: list[Encoded] | None = None  # of the batch that is being matched
        self._handles = b""  # of the groups, packed when first needed

    @property
    def groups(self) -> tuple[Group, ...]:
        groups = self._groups
        return (groups,) if isinstance(groups, Group) else tuple(groups or ())

    @property
    def is_empty(self) -> bool:
        return self._groups is None

    @property
    def handles(self) -> bytes:
        groups = self._groups
        if isinstance(groups, Group):
            return groups.handle.to_bytes(HANDLE_BYTES, "little")
        if not self._handles:
            packed = [group.handle.to_bytes(HANDLE_BYTES, "little") for group in groups or ()]
            self._handles = b"".join(packed)
        return self._handles

    def of_stream(self, stream: Stream) -> Group | None:
        """A group of this stream."""
        groups = self._groups
        if isinstance(groups, Group):
            return groups if groups.stream is stream else None
        return self._of_stream.get(stream)

    def add(self, group: Group) -> None:
        groups = self._groups
        if groups is None:
            self._groups = group
        elif isinstance(groups, Group):
            self._groups = {groups: None, group: None}
            self._of_stream = {group.stream: group, groups.stream: groups}
        else:
            groups[group] = None
            self._of_stream.setdefault(group.stream, group)
        self._handles = b""
        group.fan = self

    def remove(self, leaving: tuple[Group, ...]) -> None:
        """Take out groups that are in it."""
        groups = self._groups
        self._handles = b""
        if not isinstance(groups, dict):
            self._groups = None
            return
        for group in leaving:
            del groups[group]
            if self._of_stream.get(group.stream) is group:
                del self._of_stream[group.stream]
        if len(groups) < 2:
            self._groups = next(iter(groups), None)
            self._of_stream = NO_STREAMS

    def wants(self, is_tombstone: int) -> bool:
        return not self.form & (NODELETE if is_tombstone else NOPUT)


class Group:
    """Everybody on one stream who waits for one range in one form.

    Invariant: it was told every change below `next_revision` and, unless synced, none from there on. The field is
    not kept while the group is synced: it was told everything up to the present then.
    """

    __slots__ = ("fan", "handle", "next_revision", "state", "stream")

    def __init__(self, handle: int, stream: Stream, fan: Fan, next_revision: int) -> None:
        self.handle = handle
        self.stream = stream
        self.fan = fan
        self.next_revision = next_revision
        self.state = State.FUTURE

    def __lt__(self, other: Group) -> bool:
        """For the heap of groups that wait for a future revision."""
        return self.next_revision < other.next_revision


def _responses(events: list[Encoded]) -> list[list[Encoded]]:
    """`events` in responses of whole revisions within the bounds; one revision may exceed them alone."""
    responses: list[list[Encoded]] = []
    response: list[Encoded] = []
    size = revisions = 0
    last = -1
    for event in events:
        main, encoded = event
        if main != last:
            if response and (size > RESPONSE_BYTES_MAX or revisions >= RESPONSE_REVISIONS_MAX):
                responses.append(response)
                response, size, revisions = [], 0, 0
            revisions += 1
            last = main
        response.append(event)
        size += len(encoded)
    responses.append(response)
    return responses
