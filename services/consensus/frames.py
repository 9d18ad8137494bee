"""The bytes between nodes, both ways and without a socket: one frame a message, checked before it is parsed.

A frame is a header of 48 bytes (little endian) and a body:

    magic u16 | version u8 | type u8 | flags u16 | 0 u16 |
    cluster u64 | from u64 | to u64 | term u64 | length u32 | crc u32

The checksum (crc32c) covers the header before it and the body. A frame of an unknown version or type is skipped and
counted, so that a newer member may say more than an older one understands; anything else that does not fit ends the
connection, and Raft says it again on the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from struct import error as struct_error
from typing import Final, NamedTuple

import google_crc32c

from quorate.consensus.raft.messages import (
    Append,
    AppendAck,
    AppendReject,
    Commit,
    Entry,
    Forward,
    ForwardRefused,
    Heartbeat,
    HeartbeatAck,
    Message,
    PreVote,
    PreVoteResp,
    ReadReq,
    ReadResp,
    Refusal,
    TimeoutNow,
    Vote,
    VoteResp,
)

MAGIC: Final = 0x5152
VERSION: Final = 1
BODY_BYTES_MAX: Final = 256 * 1024 * 1024  # one Append: a mebibyte of entries, or a single entry of any allowed size

_HEADER = Struct("<HBBHHQQQQI")
_CRC = Struct("<I")
HEADER_BYTES: Final = _HEADER.size + _CRC.size

_APPEND = Struct("<QQQI")  # prev index, prev term, commit, entries
_ENTRY = Struct("<QBI")  # term, kind, length; indexes are consecutive
_U64 = Struct("<Q")
_TWO = Struct("<QQ")
_THREE = Struct("<QQQ")
_VOTE = Struct("<QQB")
_FORWARD = Struct("<QB")
_REFUSED = Struct("<QB")
_CALL = Struct("<QB")
_CHUNK = Struct("<QI")


class FrameType(IntEnum):
    """The type byte."""

    APPEND = 1
    APPEND_ACK = 2
    APPEND_REJECT = 3
    HEARTBEAT = 4
    HEARTBEAT_ACK = 5
    COMMIT = 6
    PRE_VOTE = 7
    PRE_VOTE_RESP = 8
    VOTE = 9
    VOTE_RESP = 10
    TIMEOUT_NOW = 11
    READ_REQ = 12
    READ_RESP = 13
    FORWARD = 14
    FORWARD_REFUSED = 15
    CALL = 16
    CALL_REPLY = 17
    SNAPSHOT_META = 18
    SNAPSHOT_CHUNK = 19
    SNAPSHOT_ACK = 20
    SNAPSHOT_END = 21


class FrameDamaged(Exception):  # noqa: N818 - it states a condition of the connection
    """What arrived is no frame of ours; nothing after it on this connection can be trusted."""


class Call(NamedTuple):
    """A cluster call on its way from the member that was asked to the leader."""

    from_id: int
    to_id: int
    term: int
    number: int  # of the asker, comes back in the reply
    op: int  # a ClusterOp
    body: bytes


class CallReply(NamedTuple):
    """The leader's answer."""

    from_id: int
    to_id: int
    term: int
    number: int
    error_id: int
    body: bytes


class SnapshotMeta(NamedTuple):
    """Begins a snapshot stream: what is coming, as JSON (see `snapshots`)."""

    from_id: int
    to_id: int
    term: int
    body: bytes


class SnapshotChunk(NamedTuple):
    """A piece of a snapshot; its own checksum also covers the way to the disk."""

    from_id: int
    to_id: int
    term: int
    offset: int
    crc: int
    data: bytes


class SnapshotAck(NamedTuple):
    """The receiver has everything before `offset`; offset of the end: whole, verified and durable."""

    from_id: int
    to_id: int
    term: int
    offset: int


class SnapshotEnd(NamedTuple):
    """All of a snapshot was sent; the checksum of its whole file."""

    from_id: int
    to_id: int
    term: int
    crc: int


PeerMessage = Message | Call | CallReply | SnapshotMeta | SnapshotChunk | SnapshotAck | SnapshotEnd

_REFUSALS = list(Refusal)
_REFUSAL_NUMBERS = {refusal: number for number, refusal in enumerate(_REFUSALS)}


def _body(message: PeerMessage) -> tuple[FrameType, list[bytes]]:
    match message:
        case Append():
            parts = [_APPEND.pack(message.prev_index, message.prev_term, message.commit, len(message.entries))]
            for _, term, kind, payload in message.entries:
                parts += (_ENTRY.pack(term, kind, len(payload)), payload)
            return FrameType.APPEND, parts
        case AppendAck():
            return FrameType.APPEND_ACK, [_U64.pack(message.match_index)]
        case AppendReject():
            return FrameType.APPEND_REJECT, [_THREE.pack(message.prev_index, message.hint_index, message.hint_term)]
        case Heartbeat():
            return FrameType.HEARTBEAT, [_TWO.pack(message.commit, message.read_seq)]
        case HeartbeatAck():
            return FrameType.HEARTBEAT_ACK, [_U64.pack(message.read_seq)]
        case Commit():
            return FrameType.COMMIT, [_U64.pack(message.commit)]
        case PreVote():
            return FrameType.PRE_VOTE, [_TWO.pack(message.last_index, message.last_term)]
        case PreVoteResp():
            return FrameType.PRE_VOTE_RESP, [bytes((message.granted,))]
        case Vote():
            return FrameType.VOTE, [_VOTE.pack(message.last_index, message.last_term, message.transfer)]
        case VoteResp():
            return FrameType.VOTE_RESP, [bytes((message.granted,))]
        case TimeoutNow():
            return FrameType.TIMEOUT_NOW, []
        case ReadReq():
            return FrameType.READ_REQ, [_U64.pack(message.ctx)]
        case ReadResp():
            return FrameType.READ_RESP, [_TWO.pack(message.ctx, message.read_index)]
        case Forward():
            return FrameType.FORWARD, [_FORWARD.pack(message.ref, message.kind), message.payload]
        case ForwardRefused():
            return FrameType.FORWARD_REFUSED, [_REFUSED.pack(message.ref, _REFUSAL_NUMBERS[message.refusal])]
        case Call():
            return FrameType.CALL, [_CALL.pack(message.number, message.op), message.body]
        case CallReply():
            return FrameType.CALL_REPLY, [_CALL.pack(message.number, message.error_id), message.body]
        case SnapshotMeta():
            return FrameType.SNAPSHOT_META, [message.body]
        case SnapshotChunk():
            return FrameType.SNAPSHOT_CHUNK, [_CHUNK.pack(message.offset, message.crc), message.data]
        case SnapshotAck():
            return FrameType.SNAPSHOT_ACK, [_U64.pack(message.offset)]
        case SnapshotEnd():
            return FrameType.SNAPSHOT_END, [_U64.pack(message.crc)]
        case _:
            raise AssertionError(f"{type(message).__name__} does not travel as a frame")


def encode(cluster_id: int, message: PeerMessage) -> bytes:
    """The frame of `message`."""
    frame_type, parts = _body(message)
    length = sum(map(len, parts))
    header = _HEADER.pack(
        MAGIC, VERSION, frame_type, 0, 0, cluster_id, message.from_id, message.to_id, message.term, length
    )
    crc = google_crc32c.value(header)
    for part in parts:
        crc = google_crc32c.extend(crc, part)
    return b"".join((header, _CRC.pack(crc), *parts))


def _append(from_id: int, to_id: int, term: int, body: bytes) -> Append:
    prev_index, prev_term, commit, count = _APPEND.unpack_from(body)
    entries = []
    position = _APPEND.size
    for index in range(prev_index + 1, prev_index + 1 + count):
        entry_term, kind, length = _ENTRY.unpack_from(body, position)
        position += _ENTRY.size
        entries.append(Entry(index, entry_term, kind, body[position : position + length]))
        position += length
    if position != len(body):
        raise FrameDamaged("an append is not the sum of its entries")
    return Append(from_id, to_id, term, prev_index, prev_term, commit, entries)


def _refused(from_id: int, to_id: int, term: int, body: bytes) -> ForwardRefused:
    ref, number = _REFUSED.unpack(body)
    return ForwardRefused(from_id, to_id, term, ref, _REFUSALS[number])


def _fixed(make: Callable[..., PeerMessage], layout: Struct) -> Callable[[int, int, int, bytes], PeerMessage]:
    return lambda from_id, to_id, term, body: make(from_id, to_id, term, *layout.unpack(body))


def _with_rest(make: Callable[..., PeerMessage], layout: Struct) -> Callable[[int, int, int, bytes], PeerMessage]:
    return lambda from_id, to_id, term, body: make(from_id, to_id, term, *layout.unpack_from(body), body[layout.size :])


_PARSERS: Final[dict[int, Callable[[int, int, int, bytes], PeerMessage]]] = {
    FrameType.APPEND: _append,
    FrameType.APPEND_ACK: _fixed(AppendAck, _U64),
    FrameType.APPEND_REJECT: _fixed(AppendReject, _THREE),
    FrameType.HEARTBEAT: _fixed(Heartbeat, _TWO),
    FrameType.HEARTBEAT_ACK: _fixed(HeartbeatAck, _U64),
    FrameType.COMMIT: _fixed(Commit, _U64),
    FrameType.PRE_VOTE: _fixed(PreVote, _TWO),
    FrameType.PRE_VOTE_RESP: _fixed(PreVoteResp, Struct("<?")),
    FrameType.VOTE: _fixed(Vote, Struct("<QQ?")),
    FrameType.VOTE_RESP: _fixed(VoteResp, Struct("<?")),
    FrameType.TIMEOUT_NOW: _fixed(TimeoutNow, Struct("")),
    FrameType.READ_REQ: _fixed(ReadReq, _U64),
    FrameType.READ_RESP: _fixed(ReadResp, _TWO),
    FrameType.FORWARD: _with_rest(Forward, _FORWARD),
    FrameType.FORWARD_REFUSED: _refused,
    FrameType.CALL: _with_rest(Call, _CALL),
    FrameType.CALL_REPLY: _with_rest(CallReply, _CALL),
    FrameType.SNAPSHOT_META: _with_rest(SnapshotMeta, Struct("")),
    FrameType.SNAPSHOT_CHUNK: _with_rest(SnapshotChunk, _CHUNK),
    FrameType.SNAPSHOT_ACK: _fixed(SnapshotAck, _U64),
    FrameType.SNAPSHOT_END: _fixed(SnapshotEnd, _U64),
}


@dataclass(slots=True)
class Decoder:
    """Takes a stream apart. Only frames of this cluster, from `peer_id` to `own_id`, are accepted."""

    cluster_id: int
    peer_id: int
    own_id: int
    skipped: int = 0  # frames of an unknown version or type
    _buffer: bytes = b""
    _waiting: list[bytes] | None = None
    _missing: int = 0

    def feed(self, data: bytes) -> list[PeerMessage]:
        """The messages that are complete now. Raises FrameDamaged; the decoder is of no use after that."""
        if self._missing > len(data):
            assert self._waiting is not None
            self._waiting.append(data)
            self._missing -= len(data)
            return []
        if self._waiting:
            data = b"".join((*self._waiting, data))
            self._waiting = None
            self._missing = 0
        elif self._buffer:
            data = self._buffer + data
        messages: list[PeerMessage] = []
        position = self._parse(data, messages)
        self._buffer = data[position:] if position else data
        if self._missing:
            self._waiting, self._buffer = [self._buffer], b""
        return messages

    def _parse(self, data: bytes, messages: list[PeerMessage]) -> int:
        position = 0
        end = len(data)
        while end - position >= HEADER_BYTES:
            magic, version, frame_type, _, _, cluster, from_id, to_id, term, length = _HEADER.unpack_from(
                data, position
            )
            if magic != MAGIC or length > BODY_BYTES_MAX:
                raise FrameDamaged("not a frame")
            start = position + HEADER_BYTES
            if start + length > end:
                self._missing = start + length - end
                break
            body = data[start : start + length]
            crc = google_crc32c.value(data[position : position + _HEADER.size])
            if _CRC.unpack_from(data, position + _HEADER.size)[0] != google_crc32c.extend(crc, body):
                raise FrameDamaged("checksum does not fit")
            position = start + length
            if cluster != self.cluster_id or from_id != self.peer_id or to_id != self.own_id:
                raise FrameDamaged("a frame for another member")
            parse = _PARSERS.get(frame_type)
            if version != VERSION or parse is None:
                self.skipped += 1
                continue
            try:
                messages.append(parse(from_id, to_id, term, body))
            except (struct_error, IndexError) as error:
                raise FrameDamaged(f"malformed {FrameType(frame_type).name}") from error
        return position
