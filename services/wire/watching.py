"""What api, watch and storage say to each other about watchers: the bodies of WATCH, DELIVER, HISTORY_READ, HISTORY
and WATCH_NEEDS.

`watch` knows no watchers of clients, only *groups*: everybody on one stream who waits for the same changes in the same
form. An api worker makes a group of one for each watcher that a client creates; once that group has reached the
present it is joined to the group that was there before. So an event crosses to an api worker once, with the handles
of the groups that want it, and the worker writes it to as many watchers as the groups have. Handles and stream
numbers belong to one incarnation of one api worker, which draws them; 0 is no group.

All revisions of one message are whole: no transaction is split over two EVENTS, HISTORY or DELIVER messages. Clients
that asked for fragments get them from their api worker.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct
from typing import Final, NamedTuple

from quorate.wire.messages import EVENT

# --- api and watch ---------------------------------------------------------------------------------------------------


class Ask(IntEnum):
    """First byte of WATCH, said by an api worker."""

    OPEN = 1  # a new group; answered by SYNCED when it has reached the present
    JOIN = 2  # fold a group into another of the same stream and form; answered by JOINED
    CLOSE = 3  # handles of groups nobody waits for any more; not answered
    HOLD = 4  # the stream takes nothing now: its groups fall back to history when a change concerns them
    RESUME = 5  # the stream takes something again
    PROGRESS = 6  # answered by PROGRESS behind all that was said before
    FORGET = 7  # the stream is gone, its groups were closed


class Told(IntEnum):
    """First byte of DELIVER, said to an api worker."""

    EVENTS = 1
    SYNCED = 2  # the group has everything up to the revision and hears of the next change by itself
    BEHIND = 3  # the group is catching up from the revision on
    JOINED = 4  # the one group is the other now; the other is 0: it stays what it was
    COMPACTED = 5  # the group is gone: what it needed next was compacted
    PROGRESS = 6  # synced groups have everything up to the revision
    MARK = 7  # as PROGRESS, unasked: where to register again should watch be lost


class Form(IntFlag):
    """In which form a group wants its changes."""

    NOPUT = 1
    NODELETE = 2
    PREVIOUS = 4
    FRAGMENTS = 8  # only keeps apart what api writes differently


OPEN: Final = Struct("<BQQQBI")  # op, handle, stream, first revision, Form, length of key; key, range end
JOIN: Final = Struct("<BQQ")  # op, handle, handle of the group to join
STREAM: Final = Struct("<BQ")  # HOLD, RESUME, FORGET: stream
PROGRESS_ASK: Final = Struct("<BQ")  # op, token
HANDLE_BYTES: Final = 8  # handles of CLOSE and EVENTS are packed one after the other, little endian

DELIVER_EVENTS: Final = Struct("<BQQII")
"""Op, revision for the response's header, first revision not in here nor told before, events, handles. The handles
follow and then the events as the `events` fields of a WatchResponse; nothing else of the response, which the worker
completes."""

SYNCED: Final = Struct("<BQQQ")  # handle, revision, handle of a synced group of the same stream and form (or 0)
BEHIND: Final = Struct("<BQQ")  # handle, first revision it lacks
JOINED: Final = Struct("<BQQ")  # handle, handle of the group it is now (or 0)
COMPACTED: Final = Struct("<BQQ")  # handle, compact revision
PROGRESS: Final = Struct("<BQQ")  # token, revision
MARK: Final = Struct("<BQ")  # revision


def pack_open(handle: int, stream: int, first_revision: int, form: int, key: bytes, range_end: bytes) -> bytes:
    """`key` is never empty; `range_end` as in etcd: empty for one key, a zero byte for everything from `key` on."""
    return OPEN.pack(Ask.OPEN, handle, stream, first_revision, form, len(key)) + key + range_end


# --- watch and storage -----------------------------------------------------------------------------------------------

STORAGE_TO_WATCH_HELLO: Final = Struct("<Q")  # revision of the store: earlier changes are only to be had as history

# WATCH_NEEDS: watch says what EVENTS must carry; storage answers with the same message and its revision, and every
# later change in EVENTS carries it. Before it was asked, nothing but the changes themselves is carried.
WATCH_NEEDS: Final = Struct("<BQ")  # 1: the KeyValue before each change, 0: not; revision (0 in the question)

HISTORY_READ: Final = Struct("<QQQIIBI")
"""Request id, first and last revision wanted, most revisions and about how many bytes to answer, whether with the
KeyValue before each change, length of the key; the key and range end follow."""

HISTORY: Final = Struct("<QQQI")
"""Request id, compact revision, last revision that is complete in here, changes; the changes follow as in EVENTS.

The compact revision is 0 unless the first revision asked for is below it; then nothing follows. Every matching change
from the first revision asked for up to the complete one is there, in order and in whole revisions, so that the answer
may be larger than asked by one transaction. The complete revision grows even where nothing matched; it is below the
first only if the store has not reached that (it is replaying its log), and watch asks again later."""


class HistoryRead(NamedTuple):
    """A question for history, taken apart."""

    request_id: int
    first_revision: int
    last_revision: int
    revisions_max: int
    bytes_max: int
    with_previous: bool
    key: bytes
    range_end: bytes


def pack_history_read(read: HistoryRead) -> bytes:
    request_id, first, last, revisions_max, bytes_max, with_previous, key, range_end = read
    head = HISTORY_READ.pack(request_id, first, last, revisions_max, bytes_max, with_previous, len(key))
    return head + key + range_end


def unpack_history_read(body: bytes) -> HistoryRead:
    request_id, first, last, revisions_max, bytes_max, with_previous, length = HISTORY_READ.unpack_from(body)
    at = HISTORY_READ.size
    key, range_end = body[at : at + length], body[at + length :]
    return HistoryRead(request_id, first, last, revisions_max, bytes_max, bool(with_previous), key, range_end)


def pack_history(request_id: int, complete_revision: int, events: list[bytes]) -> bytes:
    """An answer; `events` are made by `messages.pack_event`."""
    return HISTORY.pack(request_id, 0, complete_revision, len(events)) + b"".join(events)


def pack_history_compacted(request_id: int, compact_revision: int) -> bytes:
    return HISTORY.pack(request_id, compact_revision, 0, 0)


Change = tuple[int, bytes, bytes, bytes]
"""One change as EVENTS and HISTORY carry it: record id, key, KeyValue, and the KeyValue before (empty: there was none,
it was compacted, or it was not asked for)."""


def changes_of(body: bytes, position: int, count: int) -> list[Change]:
    """The `count` changes packed in `body` from `position` on."""
    changes = []
    unpack, size = EVENT.unpack_from, EVENT.size
    for _ in range(count):
        record, key_length, value_length, previous_length, key_start = unpack(body, position)
        position += size
        middle = position + value_length
        end = middle + previous_length
        key_start += position
        changes.append((record, body[key_start : key_start + key_length], body[position:middle], body[middle:end]))
        position = end
    return changes
