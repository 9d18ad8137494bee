"""Nothing a client sends makes the engine raise, and how reads are cut changes nothing."""

import itertools

import pytest
from hpack import Decoder, Encoder
from hpack.exceptions import HPACKError
from hypothesis import given, settings
from hypothesis import strategies as st

from quorate.api.http2 import frames
from quorate.api.http2.connection import Connection
from quorate.api.http2.events import CALL, CANCELLED
from quorate.api.http2.frames import frame
from quorate.api.http2.heads import HeadDecoder
from quorate.api.http2.limits import Limits
from tests.api.http2.peer import PUT, UNARY, WATCH, RawClient, message, request_headers, split_frames


def session() -> bytes:
    """A client's side that uses every kind of frame."""
    client = RawClient()
    calls = client.call(1, b"first") + client.call(3, b"second") + client.call(5, b"")
    block = client.encoder.encode(request_headers(PUT, ("grpc-timeout", "5S"), ("token", "t" * 40)))
    return b"".join(
        (
            frames.PREFACE,
            frames.settings({frames.INITIAL_WINDOW_SIZE: 100_000, frames.MAX_FRAME_SIZE: 32_768}),
            frame(frames.SETTINGS, frames.ACK, 0, b""),
            frames.window_update(0, 100_000),
            calls,
            frame(frames.HEADERS, 0, 7, block[:10]),
            frame(frames.CONTINUATION, 0, 7, block[10:20]),
            frame(frames.CONTINUATION, frames.END_HEADERS, 7, block[20:]),
            frame(frames.DATA, 0, 7, message(b"third" * 500)[:700]),
            frame(frames.PING, 0, 0, b"12345678"),
            frame(
                frames.DATA, frames.PADDED | frames.END_STREAM, 7, b"\x03" + message(b"third" * 500)[700:] + b"\0" * 3
            ),
            client.headers(9, request_headers(WATCH)),
            frame(frames.DATA, 0, 9, message(b"a") + message(b"bb") + message(b"ccc")[:6]),
            frame(0x42, 0xFF, 9, b"unknown"),
            frame(frames.PRIORITY, 0, 9, b"\0\0\0\1\x10"),
            frame(frames.DATA, 0, 9, message(b"ccc")[6:]),
            frames.window_update(9, 50),
            client.headers(11, [*request_headers(PUT), ("content-type", "x")]),
            client.headers(13, request_headers("/no.Such/Thing")),
            frames.rst_stream(13, 8),
            frame(frames.DATA, frames.END_STREAM, 9, b""),
            client.call(15, b"last"),
            frame(frames.GOAWAY, 0, 0, b"\0" * 8),
        )
    )


SESSION = session()


def reported(pieces: list[bytes]) -> tuple[list[tuple[int, int, bytes, bytes]], bytes]:
    """Events and answers of one connection fed with `pieces`."""
    server = Connection(Limits(), UNARY, now=0.0)
    events = []
    output = server.output()
    for piece in pieces:
        for kind, stream_id, head, body in server.receive(piece, 0.0):
            events.append((kind, stream_id, head.path, body))
            if kind == CALL:
                server.respond(stream_id, b"reply to " + body)
        output += server.output()
    assert not server.closed
    return events, output


def answers_by_stream(output: bytes) -> dict[int, list[tuple[int, int, int]]]:
    found: dict[int, list[tuple[int, int, int]]] = {}
    for kind, flags, stream_id, payload in split_frames(output):
        if stream_id and kind != frames.WINDOW_UPDATE:
            found.setdefault(stream_id, []).append((kind, flags, len(payload)))
    return found


WHOLE_EVENTS, WHOLE_OUTPUT = reported([SESSION])


def test_every_split_point_gives_the_same_events() -> None:
    for at in range(len(SESSION) + 1):
        assert reported([SESSION[:at], SESSION[at:]])[0] == WHOLE_EVENTS


def test_octet_by_octet_gives_the_same_events() -> None:
    events, output = reported([SESSION[at : at + 1] for at in range(len(SESSION))])
    assert events == WHOLE_EVENTS
    assert answers_by_stream(output).keys() == answers_by_stream(WHOLE_OUTPUT).keys()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, len(SESSION)), max_size=8))
def test_any_cut_gives_the_same_events(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(SESSION)]
    assert reported([SESSION[a:b] for a, b in itertools.pairwise(edges)])[0] == WHOLE_EVENTS


def survives(data: bytes) -> None:
    """Feed `data`; whatever it is, the engine says something sensible and its books balance."""
    server = Connection(Limits(), UNARY, now=0.0)
    open_calls: set[int] = set()
    for at in range(0, len(data), 50):
        for kind, stream_id, _, _ in server.receive(data[at : at + 50], 0.0):
            if kind == CANCELLED:
                open_calls.remove(stream_id)
            else:
                open_calls.add(stream_id)
            if kind == CALL and stream_id % 4 == 1:
                server.respond(stream_id, b"reply")
                open_calls.discard(stream_id)
        server.tick(0.0)
        split_frames(server.output())
    assert server.queued_bytes >= 0
    assert server.partial_bytes >= 0
    assert {event[1] for event in server.lost()} == open_calls
    assert server.queued_bytes == server.partial_bytes == 0


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_random_octets_are_survived(data: bytes) -> None:
    survives(data)
    survives(frames.PREFACE + data)
    survives(frames.PREFACE + frames.settings({}) + data)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 10),
            st.integers(0, 255),
            st.sampled_from((0, 1, 2, 3, 5, 7, 9, 0x7FFFFFFF, 0x80000001)),
            st.binary(max_size=40),
        ),
        max_size=12,
    )
)
def test_random_frames_are_survived(parts: list[tuple[int, int, int, bytes]]) -> None:
    survives(frames.PREFACE + frames.settings({}) + b"".join(frame(*part) for part in parts))


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(SESSION) - 1), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, len(SESSION)),
    st.integers(0, 30),
)
def test_mutated_session_is_survived(changes: list[tuple[int, int]], cut: int, gap: int) -> None:
    data = bytearray(SESSION)
    for position, value in changes:
        data[position] = value
    del data[cut : cut + gap]
    survives(bytes(data))


NAMES = st.sampled_from((b":path", b"user-agent", b"grpc-timeout", b"token", b"x", b"content-type", b"a" * 130))
VALUES = st.one_of(st.sampled_from((b"", b"trailers", b"application/grpc", b"y" * 200)), st.binary(max_size=20))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=8), max_size=8), st.booleans())
def test_header_blocks_mean_what_the_hpack_library_reads(
    lists: list[list[tuple[bytes, bytes, bool]]], huffman: bool
) -> None:
    encoder, plain = Encoder(), Decoder()
    decoder = HeadDecoder(Limits(), UNARY)
    for fields in lists:
        block = encoder.encode(fields, huffman=huffman)
        expected = [(bytes(name), bytes(value)) for name, value in plain.decode(block, raw=True)]
        assert decoder._fields(block) == expected


@settings(max_examples=500, deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=5))
def test_random_blocks_are_read_or_refused_as_the_hpack_library_does(blocks: list[bytes]) -> None:
    plain, decoder = Decoder(), HeadDecoder(Limits(), UNARY)
    for block in blocks:
        try:
            expected = [(bytes(name), bytes(value)) for name, value in plain.decode(block, raw=True)]
        except (HPACKError, IndexError):
            with pytest.raises((HPACKError, IndexError)):
                decoder._fields(block)
            return
        assert decoder._fields(block) == expected
