"""This worker's side of the watch process: what it waits for, kept so that it can be asked for again.

An *interest* is a group as the watch process knows it (see `wire.watching`), and its owner (a stream of a client, a
caller who waits for a lock) hears of every change from the interest's first revision on, once, in order, whatever
happens to the watch process: when that comes back empty, every interest is opened again at the first revision it was
not told yet. To know that of interests nothing happens to, the watch process says now and then how far everybody is.

What an owner is told is told in the order of the messages, but an owner may put it aside while its client takes
nothing. So everything that matters for opening again (`next_revision`, `is_live`) is noted here, on arrival.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import NamedTuple, Protocol

from quorate.wire.watching import (
    BEHIND,
    COMPACTED,
    DELIVER_EVENTS,
    HANDLE_BYTES,
    JOIN,
    JOINED,
    MARK,
    PROGRESS,
    PROGRESS_ASK,
    STREAM,
    SYNCED,
    Ask,
    Told,
    pack_open,
)

PLACES_MAX = 500_000  # watchers of one worker's clients, requests and answers that wait; about a kilobyte each
MESSAGE_PREFIX = Struct(">BI")  # of a gRPC message: whether it is compressed, its length

_EVENTS_HEAD = DELIVER_EVENTS.size
_EVENTS = int(Told.EVENTS)


class Census(NamedTuple):
    """Watchers of clients, and what they have coming."""

    watchers: int = 0
    behind: int = 0  # watchers that are not at the present
    pending: int = 0  # responses their clients do not take yet


class Owner(Protocol):
    """Who waits. All of its interests are held and resumed together."""

    stream: int  # drawn by Watches
    is_held: bool  # it takes nothing now; set by Watches

    def told_events(self, interest: Interest, response: Response) -> None:
        """Changes, in whole revisions."""

    def told_synced(self, interest: Interest, revision: int, peer: Interest | None) -> None:
        """The interest has reached the present; `peer` is a synced one that is alike."""

    def told_behind(self, interest: Interest) -> None:
        """The interest is catching up."""

    def told_joined(self, interest: Interest, into: Interest, is_joined: bool) -> None:
        """The answer to `join`: what is told to `into` is meant for both from here on, or they stay two."""

    def told_compacted(self, interest: Interest, compact_revision: int) -> None:
        """What comes next was compacted: the interest is closed."""

    def told_progress(self, revision: int, by_client: bool) -> None:
        """The answer to `ask_progress`: synced interests were told everything up to `revision`."""

    def census(self) -> Census:
        """Who waits here, counted when somebody looks."""


class Interest:
    """What an owner waits for.

    Invariant: the owner was told, or has put aside, every change below `next_revision`; and, while it is live, every
    change up to the revision of `Watches`.
    """

    __slots__ = ("form", "handle", "is_live", "key", "next_revision", "owner", "range_end")

    def __init__(self, owner: Owner, key: bytes, range_end: bytes, form: int, first_revision: int) -> None:
        self.owner = owner
        self.key = key
        self.range_end = range_end
        self.form = form
        self.next_revision = first_revision
        self.handle = 0  # until opened
        self.is_live = False  # synced, so that marks count for it


class Response:
    """Changes for several interests: the `header` and `events` fields of a WatchResponse, and how many events."""

    __slots__ = ("_messages", "count", "events", "header")

    def __init__(self, header: bytes, events: bytes, count: int) -> None:
        self.header = header
        self.events = events
        self.count = count
        self._messages: dict[int, bytes] = {}

    def message(self, rest_bytes: int) -> bytes:
        """The gRPC message as far as it is common to all watchers whose part of it has this length."""
        message = self._messages.get(rest_bytes)
        if message is None:
            length = len(self.header) + len(self.events) + rest_bytes
            message = self._messages[rest_bytes] = MESSAGE_PREFIX.pack(0, length) + self.header + self.events
        return message


class Watches:
    """All interests of this worker. `header(revision)` makes the header field of responses."""

    def __init__(self, header: Callable[[int], bytes]) -> None:
        self.header = header
        self._send: Callable[..., None] = _unheard
        self._interests: dict[int, Interest] = {}
        self._owners: dict[int, Owner] = {}
        self._progress: dict[int, tuple[Owner, bool]] = {}  # by token
        self._joins: dict[int, tuple[Interest, Interest]] = {}  # asked and not answered, by handle
        self._handle = 0
        self._stream = 0
        self._token = 0
        self.places = 0  # taken by watchers, requests and unread answers of clients; requests end at PLACES_MAX
        self.revision = 0  # live interests were told everything up to here
        self.events_sent = 0  # to watchers of clients

    # --- what owners do ------------------------------------------------------------------------------------

    def enter(self, owner: Owner) -> None:
        """A new owner: it gets its number."""
        self._stream += 1
        owner.stream = self._stream
        owner.is_held = False
        self._owners[owner.stream] = owner

    def leave(self, owner: Owner, interests: list[Interest]) -> None:
        """The owner is gone and with it its interests, which are all it has."""
        self.close(interests)
        del self._owners[owner.stream]
        for token in [token for token, (asker, _) in self._progress.items() if asker is owner]:
            del self._progress[token]
        for handle in [handle for handle, (interest, _) in self._joins.items() if interest.owner is owner]:
            del self._joins[handle]
        self._send(STREAM.pack(Ask.FORGET, owner.stream))

    def open(self, interest: Interest) -> None:
        """Wait for changes from the interest's next revision on."""
        self._handle += 1
        interest.handle = self._handle
        self._interests[interest.handle] = interest
        self._register(interest)

    def close(self, interests: list[Interest]) -> None:
        """Nothing is told of these any more."""
        handles = []
        for interest in interests:
            if self._interests.pop(interest.handle, None) is not None:
                handles.append(interest.handle.to_bytes(HANDLE_BYTES, "little"))
        if handles:
            self._send(bytes((Ask.CLOSE,)) + b"".join(handles))

    def join(self, interest: Interest, into: Interest) -> None:
        """Let two synced interests of one owner that want the same in the same form be one. `into` must not be closed
        before the answer."""
        self._joins[interest.handle] = interest, into
        self._send(JOIN.pack(Ask.JOIN, interest.handle, into.handle))

    def hold(self, owner: Owner) -> None:
        """The owner takes nothing now. What is on its way still comes."""
        owner.is_held = True
        self._send(STREAM.pack(Ask.HOLD, owner.stream))

    def resume(self, owner: Owner) -> None:
        owner.is_held = False
        self._send(STREAM.pack(Ask.RESUME, owner.stream))

    def ask_progress(self, owner: Owner, by_client: bool) -> None:
        """Have the owner told how far its synced interests are; nothing is told if the watch process is lost."""
        self._token += 1
        self._progress[self._token] = owner, by_client
        self._send(PROGRESS_ASK.pack(Ask.PROGRESS, self._token))

    def census(self) -> Census:
        """All owners' together."""
        return Census(*map(sum, zip(Census(), *(owner.census() for owner in self._owners.values()), strict=True)))

    # --- what the watch process does -------------------------------------------------------------------------

    def opened(self, send: Callable[..., None]) -> None:
        """A watch process that knows nothing: say everything again."""
        self._send = send
        self._progress.clear()
        for owner in self._owners.values():
            if owner.is_held:
                send(STREAM.pack(Ask.HOLD, owner.stream))
        joins, self._joins = self._joins, {}
        for interest, into in joins.values():
            interest.owner.told_joined(interest, into, is_joined=False)
        for interest in self._interests.values():
            if interest.is_live:
                interest.is_live = False
                interest.next_revision = max(interest.next_revision, self.revision + 1)
            interest.owner.told_behind(interest)
            self._register(interest)

    def deliver(self, body: bytes) -> None:
        """DELIVER."""
        kind = body[0]
        if kind == _EVENTS:
            self._events(body)
            return
        match kind:
            case Told.SYNCED:
                _, handle, revision, peer = SYNCED.unpack(body)
                self._reach(revision)
                if (interest := self._interests.get(handle)) is not None:
                    interest.is_live = True
                    interest.next_revision = 0
                    interest.owner.told_synced(interest, revision, self._interests.get(peer))
            case Told.BEHIND:
                _, handle, revision = BEHIND.unpack(body)
                if (interest := self._interests.get(handle)) is not None:
                    interest.is_live = False
                    interest.next_revision = revision
                    interest.owner.told_behind(interest)
            case Told.JOINED:
                self._joined(*JOINED.unpack(body)[1:])
            case Told.COMPACTED:
                _, handle, compact_revision = COMPACTED.unpack(body)
                if (interest := self._interests.pop(handle, None)) is not None:
                    interest.owner.told_compacted(interest, compact_revision)
            case Told.PROGRESS:
                _, token, revision = PROGRESS.unpack(body)
                self._reach(revision)
                if (asked := self._progress.pop(token, None)) is not None:
                    asked[0].told_progress(revision, asked[1])
            case Told.MARK:
                self._reach(MARK.unpack(body)[1])
            case unknown:
                raise AssertionError(f"the watch process tells {unknown}")

    def _events(self, body: bytes) -> None:
        _, revision, following, events, count = DELIVER_EVENTS.unpack_from(body)
        middle = _EVENTS_HEAD + count * HANDLE_BYTES
        response = Response(self.header(revision), body[middle:], events)
        interests = self._interests
        for at in range(_EVENTS_HEAD, middle, HANDLE_BYTES):
            interest = interests.get(int.from_bytes(body[at : at + HANDLE_BYTES], "little"))
            if interest is not None:
                interest.next_revision = following
                interest.owner.told_events(interest, response)

    def _joined(self, handle: int, into: int) -> None:
        asked = self._joins.pop(handle, None)
        if asked is not None:
            if into:
                self._interests.pop(handle, None)
            interest, other = asked
            interest.owner.told_joined(interest, other, is_joined=bool(into))

    def _register(self, interest: Interest) -> None:
        self._send(
            pack_open(
                interest.handle,
                interest.owner.stream,
                interest.next_revision,
                interest.form,
                interest.key,
                interest.range_end,
            )
        )

    def _reach(self, revision: int) -> None:
        self.revision = max(self.revision, revision)


def _unheard(*_parts: bytes) -> None:
    """Said before the watch process was met: everything is said again then."""
