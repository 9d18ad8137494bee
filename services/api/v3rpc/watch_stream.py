"""One Watch stream of a client, with all of its watchers.

The watchers of a stream that wait for the same range in the same form are one group, and so one interest of this
worker's `Watches`: a change arrives once for all of them. The messages that carry it to the client differ in their
watch id alone. Fields of a protobuf message may come in any order, so the id is put last, and the messages of a group
are composed by joining the ids with what is common to all.

Answers to requests need the revision of the store at that moment and the judgement of storage whether the caller may
read the range: each request asks storage one question and is carried out, in order, when the answer is there.

A stream whose client takes nothing keeps what it is told in a queue, in order and not yet composed; when the queue has
grown to QUEUE_BYTES_MAX the watch process is asked to hold the stream, which then falls back to history.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final, Protocol

from quorate.api.watches import MESSAGE_PREFIX, PLACES_MAX, Census, Interest, Response, Watches
from quorate.proto import rpc_pb2
from quorate.wire import errors
from quorate.wire.errors import CallFailed
from quorate.wire.watching import Form

QUEUE_BYTES_MAX: Final = 1024 * 1024
WRITE_BYTES_MAX: Final = 256 * 1024  # composed at once: many watchers of a large value are many times its size
ASKED_MAX: Final = 512  # questions of one stream under way: others have theirs answered between them
RESTS_KEPT: Final = 4096  # ids are counted from 0 on each stream, so most streams share theirs
INVALID_WATCH_ID: Final = -1
FRAGMENT_OVERHEAD_BYTES: Final = 512 * 1024  # etcd's grpcOverheadBytes, on top of max-request-bytes

_OPEN_END: Final = b"\0"
_WATCH_ID: Final = b"\x10"  # WatchResponse.watch_id = 2
_FRAGMENTED: Final = int(Form.FRAGMENTS)  # a flag of an enum costs a microsecond each time
_FRAGMENT: Final = b"\x38\x01"  # WatchResponse.fragment = 7: true


class Client(Protocol):
    """The other end of a stream."""

    def write(self, messages: bytes) -> bool:
        """Send gRPC messages, each with its prefix. False: hold back until `Stream.writable` is called."""


Answered = Callable[[str, bytes], None]
Ask = Callable[[bytes, bytes, Answered], None]
"""`ask(key, range_end, answered)`: may the caller read this? Answered, not before it returns, with why not (empty: they
may) and the header field of a response at the current revision (empty if that is not known)."""


class Group(Interest):
    """The watchers of one stream that wait for one range in one form.

    `rests` are their parts of a message. Most groups have one watcher, so that is kept without a list.
    """

    __slots__ = ("had_events", "is_synced", "joins", "lone", "rests")

    def __init__(self, owner: Stream, key: bytes, range_end: bytes, form: int, first_revision: int) -> None:
        super().__init__(owner, key, range_end, form, first_revision)
        self.lone: bytes | None = None
        self.rests: dict[int, list[bytes]] | None = None  # by length; each list begins with an empty one
        self.is_synced = False  # as far as the client was told
        self.had_events = False  # since the last tick of progress
        self.joins = 0  # groups that are to be joined to this one

    def add(self, rest: bytes) -> None:
        if self.rests is None:
            if self.lone is None:
                self.lone = rest
                return
            lone, self.lone, self.rests = self.lone, None, {}
            self.rests[len(lone)] = [b"", lone]
        self.rests.setdefault(len(rest), [b""]).append(rest)

    def remove(self, rest: bytes) -> None:
        if self.rests is None:
            assert self.lone == rest, "a watcher is in its group"
            self.lone = None
            return
        parts = self.rests[len(rest)]
        parts.remove(rest) if rest else parts.pop()
        if len(parts) == 1:
            del self.rests[len(rest)]

    def __bool__(self) -> bool:
        """There are watchers."""
        return self.lone is not None or bool(self.rests)

    def __len__(self) -> int:
        """Watchers."""
        if self.rests is None:
            return self.lone is not None
        return sum(len(parts) - 1 for parts in self.rests.values())

    def all(self) -> list[bytes]:
        if self.rests is None:
            return [] if self.lone is None else [self.lone]
        return [rest for parts in self.rests.values() for rest in parts[1:]]


@dataclass(slots=True)
class Request:
    """A request of the client whose turn comes when storage has answered. The message is kept as it came, because a
    parsed one weighs ten times as much and thousands may wait."""

    message: bytes
    is_answered: bool = False
    refusal: str = ""
    header: bytes = b""


class Stream:
    """One Watch call."""

    def __init__(self, watches: Watches, ask: Ask, client: Client, request_bytes_max: int) -> None:
        self.stream = 0
        self.is_held = False
        self.is_blocked = False  # the client takes nothing now
        self._watches = watches
        self._ask = ask
        self._client = client
        self._response_bytes_max = request_bytes_max + FRAGMENT_OVERHEAD_BYTES
        self._watchers: dict[int, Group | None] = {}  # None: compacted, and not cancelled by the client yet
        self._next_id = 0
        self._emptied: set[Group] = set()  # groups without watchers that others are to be joined to
        self._behind: set[Group] = set()
        self._lost = 0  # watchers that are None
        self._starts: dict[int, int] = {}  # start revisions that were in the future
        self._notified: dict[int, None] = {}  # watchers that asked for progress
        self._requests: deque[Request] = deque()
        self._asked = 0  # requests that storage is asked about
        self._unasked: deque[Request] = deque()  # those behind them
        self._queue: deque[Callable[[], None]] = deque()
        self._queue_bytes = 0
        self._unread = 0  # answers to requests in the queue; each takes a place, as its request did
        watches.enter(self)

    # --- the client ----------------------------------------------------------------------------------------

    def receive(self, message: bytes) -> None:
        """A message of the client; raises DecodeError for what is none, CallFailed when the worker has no place."""
        asked = rpc_pb2.WatchRequest.FromString(message)
        kind = asked.WhichOneof("request_union")
        if kind is None:
            return
        if self._watches.places >= PLACES_MAX:
            raise CallFailed(errors.TOO_MANY_REQUESTS)
        self._watches.places += 1
        request = Request(message)
        self._requests.append(request)
        if kind == "progress_request":
            request.is_answered = True
            self._carry_out()
        elif self._asked < ASKED_MAX:
            self._ask_about(request, asked)
        else:
            self._unasked.append(request)

    def writable(self) -> None:
        """The client takes something again."""
        self.is_blocked = False
        queue = self._queue
        while queue and not self.is_blocked:
            queue.popleft()()
        if not queue:
            self._queue_bytes = 0
            if self.is_held and not self.is_blocked:
                self._watches.resume(self)

    def close(self) -> None:
        """The client is gone, or the call has ended."""
        groups = {group: None for group in self._watchers.values() if group is not None}
        self._watches.leave(self, [*groups, *self._emptied])
        self._watches.places -= len(self._watchers) + len(self._requests) + self._unread
        self._unread = 0
        for kept in (self._watchers, self._emptied, self._behind, self._queue, self._requests, self._unasked):
            kept.clear()

    def census(self) -> Census:
        return Census(len(self._watchers), self._lost + sum(map(len, self._behind)), len(self._queue))

    def tick(self) -> None:
        """The interval of progress notifications is over."""
        if self._notified and not self.is_blocked:
            self._watches.ask_progress(self, by_client=False)

    # --- requests ------------------------------------------------------------------------------------------

    def _ask_about(self, request: Request, asked: rpc_pb2.WatchRequest) -> None:
        """Ask storage about a request to create or to cancel."""

        def answered(refusal: str, header: bytes) -> None:
            self._asked -= 1
            request.is_answered = True
            request.refusal = refusal
            request.header = header or self._watches.header(self._watches.revision)
            self._carry_out()
            if self._unasked:
                next_one = self._unasked.popleft()
                self._ask_about(next_one, rpc_pb2.WatchRequest.FromString(next_one.message))

        self._asked += 1
        create = asked.create_request  # empty where it is to cancel
        self._ask(create.key or b"\0", create.range_end, answered)

    def _carry_out(self) -> None:
        """Carry out what is answered, in the order of the requests."""
        requests = self._requests
        while requests and requests[0].is_answered:
            request = requests.popleft()
            self._watches.places -= 1
            asked = rpc_pb2.WatchRequest.FromString(request.message)
            match asked.WhichOneof("request_union"):
                case "create_request":
                    self._create(asked.create_request, request.refusal, request.header)
                case "cancel_request":
                    self._cancel(asked.cancel_request.watch_id, request.header)
                case "progress_request":
                    if self._watchers:
                        self._watches.ask_progress(self, by_client=True)

    def _create(self, create: rpc_pb2.WatchCreateRequest, refusal: str, header: bytes) -> None:
        revision = rpc_pb2.WatchResponse.FromString(header).header.revision
        create.key = create.key or b"\0"
        refusal = refusal or self._refusal(create)
        if refusal:
            self._say(
                header
                + rpc_pb2.WatchResponse(
                    watch_id=INVALID_WATCH_ID, created=True, canceled=True, cancel_reason=refusal
                ).SerializeToString()
            )
            return
        watch_id = create.watch_id or self._free_id()
        range_end = create.range_end
        form = (
            (Form.NOPUT if rpc_pb2.WatchCreateRequest.NOPUT in create.filters else 0)
            | (Form.NODELETE if rpc_pb2.WatchCreateRequest.NODELETE in create.filters else 0)
            | (Form.PREVIOUS if create.prev_kv else 0)
            | (Form.FRAGMENTS if create.fragment else 0)
        )
        first_revision = create.start_revision or revision + 1
        group = Group(self, create.key, range_end, form, first_revision)
        group.add(_rest(watch_id))
        self._watchers[watch_id] = group
        self._watches.places += 1
        self._behind.add(group)
        if create.start_revision > revision:
            self._starts[watch_id] = create.start_revision
        if create.progress_notify:
            self._notified[watch_id] = None
        self._say(header + rpc_pb2.WatchResponse(watch_id=watch_id, created=True).SerializeToString())
        self._watches.open(group)

    def _refusal(self, create: rpc_pb2.WatchCreateRequest) -> str:
        """Why there can be no such watcher, as etcd words it; empty if there can."""
        if create.start_revision < 0:
            return errors.COMPACTED.text
        if create.range_end and create.range_end != _OPEN_END and create.key >= create.range_end:
            return errors.EMPTY_WATCHER_RANGE.text
        if create.watch_id in self._watchers and create.watch_id:
            return errors.DUPLICATE_WATCH_ID.text
        return ""

    def _free_id(self) -> int:
        """The lowest free id from where the last search ended, as etcd counts."""
        while self._next_id in self._watchers:
            self._next_id += 1
        self._next_id += 1
        return self._next_id - 1

    def _cancel(self, watch_id: int, header: bytes) -> None:
        if watch_id not in self._watchers:
            return
        group = self._watchers.pop(watch_id)
        self._watches.places -= 1
        self._starts.pop(watch_id, None)
        self._notified.pop(watch_id, None)
        if group is None:
            self._lost -= 1
        else:
            group.remove(_rest(watch_id))
            self._close_if_empty(group)
        self._say(header + rpc_pb2.WatchResponse(watch_id=watch_id, canceled=True).SerializeToString())

    def _close_if_empty(self, group: Group) -> None:
        if group:
            return
        if group.joins:
            self._emptied.add(group)
            return
        self._emptied.discard(group)
        self._behind.discard(group)
        self._watches.close([group])

    # --- what the watch process tells ------------------------------------------------------------------------

    def told_events(self, interest: Interest, response: Response) -> None:
        assert isinstance(interest, Group)
        if self.is_blocked or self._queue:
            self._put_aside(lambda: self._write_events(interest, response), len(response.events))
        else:
            self._write_events(interest, response)

    def told_synced(self, interest: Interest, revision: int, peer: Interest | None) -> None:
        assert isinstance(interest, Group)
        if isinstance(peer, Group):
            peer.joins += 1
            self._watches.join(interest, peer)
        self._in_turn(lambda: self._set_synced(interest))

    def told_behind(self, interest: Interest) -> None:
        assert isinstance(interest, Group)
        self._in_turn(lambda: self._set_behind(interest))

    def told_joined(self, interest: Interest, into: Interest, is_joined: bool) -> None:
        assert isinstance(interest, Group)
        assert isinstance(into, Group)
        self._in_turn(lambda: self._join(interest, into, is_joined))

    def told_compacted(self, interest: Interest, compact_revision: int) -> None:
        assert isinstance(interest, Group)
        self._in_turn(lambda: self._lose(interest, compact_revision))

    def told_progress(self, revision: int, by_client: bool) -> None:
        self._answer(lambda: self._progress(revision, by_client))

    # --- in turn ---------------------------------------------------------------------------------------------

    def _in_turn(self, step: Callable[[], None]) -> None:
        if self.is_blocked or self._queue:
            self._put_aside(step, 0)
        else:
            step()

    def _put_aside(self, step: Callable[[], None], size: int) -> None:
        self._queue.append(step)
        self._queue_bytes += size + 200
        if self._queue_bytes > QUEUE_BYTES_MAX and not self.is_held:
            self._watches.hold(self)

    def _say(self, message: bytes) -> None:
        """A message of its own, in turn."""
        self._answer(lambda: self._write_alone(message))

    def _answer(self, step: Callable[[], None]) -> None:
        """An answer to a request, in turn: whoever does not read them cannot go on asking."""

        def taken() -> None:
            self._unread -= 1
            self._watches.places -= 1
            step()

        if self.is_blocked or self._queue:
            self._unread += 1
            self._watches.places += 1
            self._put_aside(taken, 0)
        else:
            step()

    def _write_alone(self, message: bytes) -> None:
        self._write(MESSAGE_PREFIX.pack(0, len(message)) + message)

    def _write(self, messages: bytes) -> None:
        if not self._client.write(messages):
            self.is_blocked = True

    def _set_synced(self, group: Group) -> None:
        group.is_synced = True
        self._behind.discard(group)

    def _set_behind(self, group: Group) -> None:
        group.is_synced = False
        if group:
            self._behind.add(group)

    def _join(self, group: Group, into: Group, is_joined: bool) -> None:
        into.joins -= 1
        if is_joined:
            for rest in group.all():
                into.add(rest)
                self._watchers[_id_of(rest)] = into
            group.lone = group.rests = None
            self._emptied.discard(group)
            self._behind.discard(group)
        self._close_if_empty(into)

    def _lose(self, group: Group, compact_revision: int) -> None:
        """What the group needs next was compacted. Its watchers stay on the stream, behind for ever, until the client
        cancels them."""
        header = self._watches.header(0)
        self._behind.discard(group)
        rests = group.all()
        group.lone = group.rests = None
        for rest in rests:
            watch_id = _id_of(rest)
            self._watchers[watch_id] = None
            self._lost += 1
            self._write_alone(
                header
                + rpc_pb2.WatchResponse(
                    watch_id=watch_id, canceled=True, compact_revision=compact_revision
                ).SerializeToString()
            )

    def _progress(self, revision: int, by_client: bool) -> None:
        if self._starts:
            self._starts = {watch_id: start for watch_id, start in self._starts.items() if start > revision}
        header = self._watches.header(revision)
        if by_client:
            if self._watchers and not self._behind and not self._lost and not self._starts and revision:
                self._write_alone(header + rpc_pb2.WatchResponse(watch_id=INVALID_WATCH_ID).SerializeToString())
            return
        quiet = []
        groups = [(watch_id, self._watchers[watch_id]) for watch_id in self._notified]
        for watch_id, group in groups:
            if group is not None and group.is_synced and not group.had_events and watch_id not in self._starts:
                quiet.append(watch_id)
        for _, group in groups:
            if group is not None:
                group.had_events = False
        for watch_id in quiet:
            self._write_alone(header + _rest(watch_id))

    def _write_events(self, group: Group, response: Response) -> None:
        """Send changes to the watchers that the group has now."""
        group.had_events = True
        if group.form & _FRAGMENTED and len(response.events) + len(response.header) >= self._response_bytes_max:
            self._write_fragments(group, response)
        elif group.lone is not None:
            self._watches.events_sent += response.count
            self._write(response.message(len(group.lone)) + group.lone)
        elif group.rests is not None:
            for length, parts in group.rests.items():
                self._watches.events_sent += response.count * (len(parts) - 1)
                message = response.message(length)
                if len(message) * len(parts) <= WRITE_BYTES_MAX:
                    self._write(message.join(parts))
                else:
                    step = max(1, WRITE_BYTES_MAX // len(message))
                    starts = range(1, len(parts), step)
                    self._write_each(deque((message, parts[start : start + step]) for start in starts))

    def _write_each(self, pieces: deque[tuple[bytes, list[bytes]]]) -> None:
        """Send large messages piece by piece, as far as the client takes them: each a common part and the rests."""
        while pieces:
            if self.is_blocked:
                self._queue.appendleft(lambda: self._write_each(pieces))
                return
            message, rests = pieces.popleft()
            self._write(message + message.join(rests))

    def _write_fragments(self, group: Group, response: Response) -> None:
        """Send changes in pieces below the largest response, cut between events."""
        self._watches.events_sent += response.count * len(group)
        cuts = _cuts(response.events, self._response_bytes_max - len(response.header))
        pieces: deque[tuple[bytes, list[bytes]]] = deque()
        for rest in group.all():
            for start, end in pairwise(cuts):
                more = _FRAGMENT if end < cuts[-1] else b""
                length = len(response.header) + end - start + len(more) + len(rest)
                head = MESSAGE_PREFIX.pack(0, length) + response.header
                pieces.append((head + response.events[start:end] + more, [rest]))
        self._write_each(pieces)


@lru_cache(RESTS_KEPT)
def _rest(watch_id: int) -> bytes:
    """A watcher's part of a message: its id."""
    return rpc_pb2.WatchResponse(watch_id=watch_id).SerializeToString()


def _id_of(rest: bytes) -> int:
    return rpc_pb2.WatchResponse.FromString(rest).watch_id


def _cuts(events: bytes, bytes_max: int) -> list[int]:
    """Where to cut packed `events` fields so that no piece of more than one event reaches `bytes_max`."""
    cuts = [0]
    position = 0
    while position < len(events):
        at = position + 1
        length = shift = 0
        while True:
            byte = events[at]
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        end = at + length
        if end - cuts[-1] >= bytes_max and position > cuts[-1]:
            cuts.append(position)
        position = end
    cuts.append(position)
    return cuts
