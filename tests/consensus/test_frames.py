"""The bytes between nodes: every message survives the way, however it is cut, and nothing damaged is believed."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.consensus import frames
from quorate.consensus.frames import Decoder, FrameDamaged, PeerMessage, encode
from quorate.consensus.raft import messages as raft
from quorate.consensus.raft.messages import Entry, Refusal

CLUSTER, SENDER, RECEIVER, TERM = 2**64 - 1, 2**63, 77, 5
FROM = (SENDER, RECEIVER, TERM)

EXAMPLES: list[PeerMessage] = [
    raft.Append(*FROM, 10, 4, 9, [Entry(11, 4, 1, b"abc"), Entry(12, 5, 2, b"")]),
    raft.Append(*FROM, 10, 4, 9, []),
    raft.AppendAck(*FROM, 12),
    raft.AppendReject(*FROM, 10, 8, 3),
    raft.Heartbeat(*FROM, 9, 1000),
    raft.HeartbeatAck(*FROM, 1000),
    raft.Commit(*FROM, 12),
    raft.PreVote(*FROM, 12, 5),
    raft.PreVoteResp(*FROM, True),
    raft.PreVoteResp(*FROM, False),
    raft.Vote(*FROM, 12, 5, True),
    raft.VoteResp(*FROM, True),
    raft.TimeoutNow(*FROM),
    raft.ReadReq(*FROM, 2**63),
    raft.ReadResp(*FROM, 3, 12),
    raft.Forward(*FROM, 3, 1, b"chunk" * 1000),
    *(raft.ForwardRefused(*FROM, 3, refusal) for refusal in Refusal),
    frames.Call(*FROM, 4, 2, b"request"),
    frames.CallReply(*FROM, 4, 0, b"response"),
    frames.SnapshotMeta(*FROM, b"{}"),
    frames.SnapshotChunk(*FROM, 1 << 40, 0xFFFFFFFF, b"data"),
    frames.SnapshotAck(*FROM, 1 << 40),
    frames.SnapshotEnd(*FROM, 0xFFFFFFFF),
]
STREAM = b"".join(encode(CLUSTER, message) for message in EXAMPLES)


def decoder() -> Decoder:
    return Decoder(CLUSTER, SENDER, RECEIVER)


def test_every_message_is_read_back() -> None:
    assert EXAMPLES == decoder().feed(STREAM)


@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_a_stream_may_be_cut_anywhere(cuts: list[int]) -> None:
    reader = decoder()
    received: list[PeerMessage] = []
    edges = [0, *sorted(cuts), len(STREAM)]
    for start, end in pairwise(edges):
        received += reader.feed(STREAM[start:end])
    assert EXAMPLES == received


def test_a_stream_may_arrive_byte_by_byte() -> None:
    reader = decoder()
    received = [message for i in range(len(STREAM)) for message in reader.feed(STREAM[i : i + 1])]
    assert EXAMPLES == received


@given(st.integers(0, len(STREAM) - 1), st.integers(0, 7))
def test_a_flipped_bit_never_becomes_a_message(at: int, bit: int) -> None:
    damaged = bytearray(STREAM)
    damaged[at] ^= 1 << bit
    reader = decoder()
    received: list[PeerMessage] = []
    with suppress(FrameDamaged):
        for i in range(0, len(damaged), 100):
            received += reader.feed(bytes(damaged[i : i + 100]))
    assert EXAMPLES[: len(received)] == received
    assert len(received) < len(EXAMPLES)


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_waits_for_more(garbage: bytes) -> None:
    with suppress(FrameDamaged):
        assert [] == decoder().feed(garbage)


@given(st.sampled_from(sorted(frames.FrameType)), st.binary(max_size=60))
def test_a_well_summed_frame_with_a_wrong_body_is_refused(frame_type: int, body: bytes) -> None:
    header = frames._HEADER.pack(frames.MAGIC, frames.VERSION, frame_type, 0, 0, CLUSTER, *FROM, len(body))
    crc = google_crc32c.extend(google_crc32c.value(header), body)
    try:
        messages = decoder().feed(header + frames._CRC.pack(crc) + body)
    except FrameDamaged:
        return
    assert 1 == len(messages)


@pytest.mark.parametrize(
    "reader", [Decoder(1, SENDER, RECEIVER), Decoder(CLUSTER, 1, RECEIVER), Decoder(CLUSTER, SENDER, 1)]
)
def test_a_frame_for_somebody_else_is_refused(reader: Decoder) -> None:
    with pytest.raises(FrameDamaged, match="another member"):
        reader.feed(STREAM)


def test_a_frame_of_an_unknown_type_is_skipped() -> None:
    header = frames._HEADER.pack(frames.MAGIC, frames.VERSION, 200, 0, 0, CLUSTER, *FROM, 3)
    unknown = header + frames._CRC.pack(google_crc32c.extend(google_crc32c.value(header), b"new")) + b"new"
    reader = decoder()
    assert EXAMPLES == reader.feed(unknown + STREAM)
    assert 1 == reader.skipped
