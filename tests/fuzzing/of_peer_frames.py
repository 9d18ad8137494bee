"""What members send each other: a stream of frames, as it is or with checksums that fit whatever is in them."""

from __future__ import annotations

from typing import Final

import google_crc32c

from quorate.consensus import frames
from quorate.consensus.frames import Decoder, FrameDamaged, PeerMessage, encode
from quorate.consensus.raft import messages as raft
from tests.fuzzing.octets import Octets

CLUSTER, PEER, OWN = 0xC1, 1, 2
RAW, SEALED = range(2)
WAY: Final = (PEER, OWN, 7)
EXAMPLES: Final[list[PeerMessage]] = [
    raft.Append(*WAY, 5, 6, 4, [raft.Entry(6, 7, 1, b"payload"), raft.Entry(7, 7, 0, b"")]),
    raft.AppendAck(*WAY, 9),
    raft.AppendReject(*WAY, 9, 8, 7),
    raft.Heartbeat(*WAY, 3, 4),
    raft.HeartbeatAck(*WAY, 4),
    raft.Commit(*WAY, 3),
    raft.PreVote(*WAY, 3, 4),
    raft.PreVoteResp(*WAY, True),
    raft.Vote(*WAY, 3, 4, False),
    raft.VoteResp(*WAY, False),
    raft.TimeoutNow(*WAY),
    raft.ReadReq(*WAY, 3),
    raft.ReadResp(*WAY, 3, 4),
    raft.Forward(*WAY, 3, 1, b"payload"),
    raft.ForwardRefused(*WAY, 3, next(iter(raft.Refusal))),
    frames.Call(*WAY, 3, 4, b"body"),
    frames.CallReply(*WAY, 3, 0, b"body"),
    frames.SnapshotMeta(*WAY, b"{}"),
    frames.SnapshotChunk(*WAY, 0, 1, b"data"),
    frames.SnapshotAck(*WAY, 3),
]


def seeds() -> list[bytes]:
    """Every message, and all of them as one stream."""
    streams = [encode(CLUSTER, message) for message in EXAMPLES]
    sealed = [_as_sealed(one[3], one[frames.HEADER_BYTES :]) for one in streams]
    return [bytes((RAW,)) + b"".join(streams), *sealed]


def _as_sealed(frame_type: int, body: bytes) -> bytes:
    return bytes((SEALED, frame_type, 0, 0)) + len(body).to_bytes(2, "big") + body


def run(data: bytes) -> bool:
    """Read a stream whole and in pieces: the same messages, or FrameDamaged; what is read can be said again."""
    octets = Octets(data)
    stream = octets.rest() if octets.choice((RAW, SEALED)) == RAW else _sealed(octets)
    whole = _read(stream, len(stream) + 1)
    assert whole == _read(stream, 1 + len(stream) % 61)
    for message in whole[0]:
        again = Decoder(CLUSTER, PEER, OWN).feed(encode(CLUSTER, message))
        assert again == [message]
    return not whole[1]


def _sealed(octets: Octets) -> bytes:
    """Frames with any type and body whose checksums fit."""
    parts = []
    while not octets.is_empty:
        frame_type, version, flags = octets.number(), 1 ^ octets.number() % 2, octets.number()
        body = octets.take(octets.number(2))
        header = frames._HEADER.pack(
            frames.MAGIC, version, frame_type, flags, 0, CLUSTER, PEER, OWN, octets.number(), len(body)
        )
        parts.append(header + frames._CRC.pack(google_crc32c.extend(google_crc32c.value(header), body)) + body)
    return b"".join(parts)


def _read(stream: bytes, cut: int) -> tuple[list[PeerMessage], bool]:
    """The messages before the first damage, and whether there was one."""
    decoder = Decoder(CLUSTER, PEER, OWN)
    found: list[PeerMessage] = []
    for at in range(0, len(stream), cut):
        try:
            found += decoder.feed(stream[at : at + cut])
        except FrameDamaged:
            return [], True
    return found, False
