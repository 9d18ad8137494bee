"""What RFC 9113 and gRPC make of a client that breaks a rule: the table of errors."""

import struct
from collections.abc import Callable

import pytest

from quorate.api.http2 import frames
from quorate.api.http2.events import CALL, CANCELLED, OPENED
from quorate.api.http2.frames import frame
from quorate.api.http2.limits import Limits
from quorate.api.http2.streams import STREAM_BYTES
from tests.api.http2.peer import PUT, WATCH, HeaderList, RawClient, message, request_headers, without

UINT = struct.Struct(">I")

CONNECTION_ERRORS: dict[str, tuple[bytes, int]] = {
    "DATA on stream 0": (frame(frames.DATA, 0, 0, b""), frames.PROTOCOL_ERROR),
    "DATA on an idle stream": (frame(frames.DATA, 0, 5, b""), frames.PROTOCOL_ERROR),
    "DATA on an even stream": (frame(frames.DATA, 0, 2, b""), frames.PROTOCOL_ERROR),
    "RST_STREAM on an idle stream": (frames.rst_stream(5, 8), frames.PROTOCOL_ERROR),
    "RST_STREAM of a wrong size": (frame(frames.RST_STREAM, 0, 1, b"abc"), frames.FRAME_SIZE_ERROR),
    "WINDOW_UPDATE on an idle stream": (frames.window_update(5, 1), frames.PROTOCOL_ERROR),
    "WINDOW_UPDATE of a wrong size": (frame(frames.WINDOW_UPDATE, 0, 0, b"abc"), frames.FRAME_SIZE_ERROR),
    "WINDOW_UPDATE of zero": (frames.window_update(0, 0), frames.PROTOCOL_ERROR),
    "WINDOW_UPDATE beyond the largest window": (
        frames.window_update(0, frames.WINDOW_LARGEST),
        frames.FLOW_CONTROL_ERROR,
    ),
    "HEADERS on stream 0": (frame(frames.HEADERS, 4, 0, b"\x88"), frames.PROTOCOL_ERROR),
    "HEADERS on an even stream": (frame(frames.HEADERS, 4, 4, b"\x88"), frames.PROTOCOL_ERROR),
    "HEADERS with broken compression": (frame(frames.HEADERS, 4, 5, b"\xff\xff\xff\xff"), frames.COMPRESSION_ERROR),
    "HEADERS too short for its priority": (frame(frames.HEADERS, 0x24, 5, b"abc"), frames.FRAME_SIZE_ERROR),
    "padding longer than its frame": (frame(frames.HEADERS, 0x0C, 5, b"\x09abc"), frames.PROTOCOL_ERROR),
    "padded frame without a length": (frame(frames.HEADERS, 0x0C, 5, b""), frames.FRAME_SIZE_ERROR),
    "CONTINUATION without HEADERS": (frame(frames.CONTINUATION, 4, 1, b""), frames.PROTOCOL_ERROR),
    "header block that is interrupted": (
        frame(frames.HEADERS, 0, 5, b"\x88") + frame(frames.PING, 0, 0, b"12345678"),
        frames.PROTOCOL_ERROR,
    ),
    "header block continued on another stream": (
        frame(frames.HEADERS, 0, 5, b"\x88") + frame(frames.CONTINUATION, 4, 7, b""),
        frames.PROTOCOL_ERROR,
    ),
    "PUSH_PROMISE from a client": (frame(frames.PUSH_PROMISE, 4, 1, b"\0\0\0\2"), frames.PROTOCOL_ERROR),
    "PING on a stream": (frame(frames.PING, 0, 1, b"12345678"), frames.PROTOCOL_ERROR),
    "PING of a wrong size": (frame(frames.PING, 0, 0, b"1234567"), frames.FRAME_SIZE_ERROR),
    "SETTINGS on a stream": (frame(frames.SETTINGS, 0, 1, b""), frames.PROTOCOL_ERROR),
    "SETTINGS of a wrong size": (frame(frames.SETTINGS, 0, 0, b"12345"), frames.FRAME_SIZE_ERROR),
    "SETTINGS acknowledgement with content": (frame(frames.SETTINGS, 1, 0, b"123456"), frames.FRAME_SIZE_ERROR),
    "initial window too large": (frames.settings({4: 1 << 31}), frames.FLOW_CONTROL_ERROR),
    "maximum frame size too small": (frames.settings({5: 100}), frames.PROTOCOL_ERROR),
    "maximum frame size too large": (frames.settings({5: 1 << 24}), frames.PROTOCOL_ERROR),
    "ENABLE_PUSH neither 0 nor 1": (frames.settings({2: 2}), frames.PROTOCOL_ERROR),
    "GOAWAY on a stream": (frame(frames.GOAWAY, 0, 1, b"12345678"), frames.PROTOCOL_ERROR),
    "GOAWAY too short": (frame(frames.GOAWAY, 0, 0, b"1234"), frames.FRAME_SIZE_ERROR),
    "PRIORITY on stream 0": (frame(frames.PRIORITY, 0, 0, b"12345"), frames.PROTOCOL_ERROR),
    "frame over the maximum": (frame(frames.DATA, 0, 1, b"x" * 16_385), frames.FRAME_SIZE_ERROR),
    "unknown frame over the maximum": (frame(0x77, 0, 1, b"x" * 16_385), frames.FRAME_SIZE_ERROR),
}


@pytest.mark.parametrize("name", CONNECTION_ERRORS)
def test_connection_error_ends_in_goaway(name: str) -> None:
    data, error_code = CONNECTION_ERRORS[name]
    client = RawClient()
    assert [event[0] for event in client.give(client.call(1, b"x"))] == [CALL]
    client.give(data)
    answer = client.goaway()
    assert answer is not None
    assert answer[0] == error_code
    assert client.server.closed
    assert client.give(client.call(9, b"x")) == []


FLOODS: dict[str, tuple[Callable[[int], bytes], bytes]] = {
    "reset": (
        lambda n: frame(frames.HEADERS, 4, 2 * n + 3, b"\x83") + frames.rst_stream(2 * n + 3, 8),
        b"too many",
    ),
    "settings": (lambda n: frames.settings({}), b"too many SETTINGS frames"),
    "settings acknowledgements": (lambda n: frame(frames.SETTINGS, 1, 0, b""), b"too many SETTINGS frames"),
    "ping": (lambda n: frame(frames.PING, 0, 0, b"12345678"), b"too_many_pings"),
    "ping acknowledgements": (lambda n: frame(frames.PING, 1, 0, b"12345678"), b"too many PING frames"),
    "empty data": (lambda n: frame(frames.DATA, 0, 1, b""), b"too many empty DATA frames"),
    "priority": (lambda n: frame(frames.PRIORITY, 0, 1, b"12345"), b"too many PRIORITY frames"),
    "unknown": (lambda n: frame(0x77, 0, 1, b"12345"), b"too many unknown frames"),
    "window update": (lambda n: frames.window_update(1, 1), b"too many WINDOW_UPDATE frames"),
}


@pytest.mark.parametrize("name", FLOODS)
def test_flood_is_told_to_calm_down(name: str) -> None:
    make, text = FLOODS[name]
    client = RawClient()
    client.give(client.headers(1, request_headers(WATCH)))
    for number in range(50_000):
        client.give(make(number))
        if client.server.closed:
            break
    answer = client.goaway()
    assert answer is not None
    assert answer[0] == frames.ENHANCE_YOUR_CALM
    assert answer[1].startswith(text)


def test_continuation_flood_is_told_to_calm_down() -> None:
    client = RawClient()
    client.give(frame(frames.HEADERS, 0, 1, b""))
    for _ in range(100):
        client.give(frame(frames.CONTINUATION, 0, 1, b"\x00\x01a\x01b"))
    answer = client.goaway()
    assert answer is not None
    assert answer[0] == frames.ENHANCE_YOUR_CALM


def test_steady_use_of_control_frames_is_not_a_flood() -> None:
    client = RawClient()
    client.give(client.headers(1, request_headers(WATCH)))
    for second in range(60):
        for _ in range(500):
            client.give(frame(frames.PRIORITY, 0, 1, b"12345"))
        client.server.tick(float(second))
    assert not client.server.closed


def test_header_list_far_over_the_limit_ends_the_connection() -> None:
    client = RawClient(Limits(header_list_bytes_max=1_000))
    client.give(client.headers(1, request_headers(PUT, ("a", "x" * 5_000))))
    answer = client.goaway()
    assert answer is not None
    assert answer[0] == frames.ENHANCE_YOUR_CALM


STREAM_ERRORS: dict[str, tuple[HeaderList, int]] = {
    "no path": (without(request_headers(), ":path"), frames.PROTOCOL_ERROR),
    "no method": (without(request_headers(), ":method"), frames.PROTOCOL_ERROR),
    "no scheme": (without(request_headers(), ":scheme"), frames.PROTOCOL_ERROR),
    "upper case name": ([*request_headers(), ("Token", "x")], frames.PROTOCOL_ERROR),
    "pseudo field after a regular one": ([*request_headers(), (":authority", "x")], frames.PROTOCOL_ERROR),
    "unknown pseudo field": ([(":status", "200"), *request_headers()], frames.PROTOCOL_ERROR),
    "duplicate pseudo field": ([(":path", "/x"), *request_headers()], frames.PROTOCOL_ERROR),
    "connection field": ([*request_headers(), ("connection", "close")], frames.PROTOCOL_ERROR),
    "line end in a value": ([*request_headers(), ("token", "a\nb")], frames.PROTOCOL_ERROR),
    "content-length that is no number": ([*request_headers(), ("content-length", "x")], frames.PROTOCOL_ERROR),
}


@pytest.mark.parametrize("name", STREAM_ERRORS)
def test_malformed_request_resets_its_stream_only(name: str) -> None:
    headers, error_code = STREAM_ERRORS[name]
    client = RawClient()
    assert client.give(client.headers(1, headers)) == []
    assert client.resets() == [(1, error_code)]
    assert [event[0] for event in client.give(client.call(3, b"x"))] == [CALL]


REFUSALS: dict[str, tuple[HeaderList, dict[str, str]]] = {
    "other content type": (
        [*without(request_headers(), "content-type"), ("content-type", "application/json")],
        {":status": "415"},
    ),
    "no content type": (without(request_headers(), "content-type"), {":status": "415"}),
    "another word that starts alike": (
        [*without(request_headers(), "content-type"), ("content-type", "application/grpcx")],
        {":status": "415"},
    ),
    "other method": (
        [(":method", "GET"), *without(request_headers(), ":method")],
        {":status": "405", "allow": "POST"},
    ),
    "header list over the limit": ([*request_headers(), ("a", "x" * 70_000)], {":status": "431"}),
    "timeout that is none": (
        [*request_headers(), ("grpc-timeout", "soon")],
        {":status": "200", "grpc-status": "13", "grpc-message": "malformed grpc-timeout"},
    ),
    "binary metadata that is not base64": (
        [*request_headers(), ("x-bin", "!")],
        {":status": "200", "grpc-status": "13", "grpc-message": "malformed binary metadata"},
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_request_that_is_no_call_is_refused(name: str) -> None:
    headers, expected = REFUSALS[name]
    client = RawClient()
    block = client.encoder.encode(headers)
    first, rest = block[:16_000], [block[at : at + 16_000] for at in range(16_000, len(block), 16_000)]
    client.give(frame(frames.HEADERS, 0, 1, first))
    for part in rest:
        client.give(frame(frames.CONTINUATION, 0, 1, part))
    assert client.give(frame(frames.CONTINUATION, frames.END_HEADERS, 1, b"")) == []
    answer = client.answer()
    assert {name: answer[name] for name in expected} == expected


@pytest.mark.parametrize("te", [None, "gzip", "trailers, deflate"])
def test_te_is_not_insisted_on(te: str | None) -> None:
    client = RawClient()
    headers = without(request_headers(WATCH), "te") + ([("te", te)] if te else [])
    assert [event[0] for event in client.give(client.headers(1, headers))] == [OPENED]


@pytest.mark.parametrize("kind", ["application/grpc+proto", "application/grpc;charset=utf-8", "APPLICATION/GRPC"])
def test_content_type_may_have_a_suffix(kind: str) -> None:
    client = RawClient()
    headers = [*without(request_headers(WATCH), "content-type"), ("content-type", kind)]
    assert [event[0] for event in client.give(client.headers(1, headers))] == [OPENED]


def test_padding_and_priority_are_taken_off() -> None:
    client = RawClient()
    block = client.encoder.encode(request_headers())
    payload = b"\x03" + b"\x80\x00\x00\x01\x10" + block + b"\0\0\0"
    client.give(frame(frames.HEADERS, 0x2C, 1, payload))
    ((kind, _, _, body),) = client.give(frame(frames.DATA, 0x9, 1, b"\x02" + message(b"body") + b"\0\0"))
    assert (kind, body) == (CALL, b"body")


def test_request_trailers_end_the_request() -> None:
    client = RawClient()
    client.give(client.headers(1, request_headers()) + frame(frames.DATA, 0, 1, message(b"body")))
    trailers = client.headers(1, [("x", "y")], frames.END_HEADERS | frames.END_STREAM)
    ((kind, _, _, body),) = client.give(trailers)
    assert (kind, body) == (CALL, b"body")


def test_second_headers_without_end_are_malformed() -> None:
    client = RawClient()
    client.give(client.headers(1, request_headers(WATCH)))
    assert [event[0] for event in client.give(client.headers(1, [("x", "y")]))] == [CANCELLED]
    assert client.resets() == [(1, frames.PROTOCOL_ERROR)]


def test_data_after_the_end_of_a_request_resets_its_stream() -> None:
    client = RawClient()
    client.give(client.call(1, b"x"))
    assert [event[0] for event in client.give(frame(frames.DATA, 0, 1, b"more"))] == [CANCELLED]
    assert client.resets() == [(1, frames.STREAM_CLOSED)]


def test_headers_on_a_closed_stream_end_the_connection() -> None:
    client = RawClient()
    client.give(client.call(1, b"x"))
    client.server.respond(1, b"y")
    client.take()
    client.give(client.headers(1, request_headers()))
    answer = client.goaway()
    assert answer is not None
    assert answer[0] == frames.STREAM_CLOSED


def test_frames_under_way_to_a_stream_we_ended_are_ignored() -> None:
    client = RawClient()
    client.give(client.headers(1, request_headers("/no.Such/Method")))
    client.server.finish(1, 12, "unknown service no.Such")
    client.take()
    client.give(frame(frames.DATA, 1, 1, message(b"x")) + frames.window_update(1, 5) + frames.rst_stream(1, 8))
    assert client.take() == []


def test_content_length_that_differs_resets_the_stream() -> None:
    client = RawClient()
    assert client.give(client.call(1, b"x", PUT, ("content-length", "7"))) == []
    assert client.resets() == [(1, frames.PROTOCOL_ERROR)]
    assert [event[0] for event in client.give(client.call(3, b"xy", PUT, ("content-length", "7")))] == [CALL]


def test_streams_over_the_limit_are_refused() -> None:
    client = RawClient(Limits(concurrent_streams_max=2))
    events = client.give(b"".join(client.call(stream_id, b"x") for stream_id in (1, 3, 5)))
    assert [event[1] for event in events] == [1, 3]
    assert client.resets() == [(5, frames.REFUSED_STREAM)]
    client.server.respond(1, b"y")
    client.take()
    assert [event[1] for event in client.give(client.call(7, b"x"))] == [7]


def test_wrong_preface_ends_the_connection_at_once() -> None:
    client = RawClient(greeted=False)
    client.give(b"GET / HTTP/1.1\r\n")
    assert client.server.closed


def test_first_frame_has_to_be_settings() -> None:
    client = RawClient(greeted=False)
    client.give(frames.PREFACE + frame(frames.PING, 0, 0, b"12345678"))
    answer = client.goaway()
    assert answer is not None
    assert answer[0] == frames.PROTOCOL_ERROR


def test_ping_is_answered_with_its_content() -> None:
    client = RawClient()
    client.give(frame(frames.PING, 0, 0, b"abcdefgh"))
    assert client.take() == [(frames.PING, frames.ACK, 0, b"abcdefgh")]


def test_pings_after_answers_are_never_too_many() -> None:
    client = RawClient()
    for number in range(100):
        client.give(client.call(2 * number + 1, b"x"))
        client.server.respond(2 * number + 1, b"y")
        client.take()
        client.give(frame(frames.PING, 0, 0, b"bandwidt"))
    assert not client.server.closed


def test_third_ping_within_the_minimum_time_is_too_many() -> None:
    client = RawClient()
    client.give(client.headers(1, request_headers(WATCH)))
    for now, closed in ((0.0, False), (6.0, False), (12.0, False), (13.0, False), (14.0, False), (15.0, True)):
        client.now = now
        client.give(frame(frames.PING, 0, 0, b"abcdefgh"))
        assert client.server.closed is closed
    assert client.goaway() == (frames.ENHANCE_YOUR_CALM, b"too_many_pings")


def test_pings_without_streams_are_too_many() -> None:
    client = RawClient()
    for now in (0.0, 60.0, 120.0, 180.0):
        client.now = now
        client.give(frame(frames.PING, 0, 0, b"abcdefgh"))
    assert client.goaway() == (frames.ENHANCE_YOUR_CALM, b"too_many_pings")


def test_silent_peer_is_probed_and_then_given_up() -> None:
    client = RawClient(Limits(keepalive_interval_s=10.0, keepalive_timeout_s=5.0))
    client.server.tick(9.0)
    assert client.take() == []
    client.server.tick(10.0)
    assert [kind for kind, *_ in client.take()] == [frames.PING]
    client.now = 12.0
    client.give(frame(frames.PING, frames.ACK, 0, b"keepaliv"))
    client.server.tick(15.0)
    assert not client.server.closed
    client.server.tick(22.0)
    client.server.tick(27.0)
    assert client.server.closed


def test_drain_serves_what_is_open_and_nothing_newer() -> None:
    client = RawClient()
    client.give(client.call(1, b"x"))
    client.server.drain()
    first, ping = client.take()
    assert (first[0], frames.uint31(first[3])) == (frames.GOAWAY, frames.STREAM_ID_LARGEST)
    assert [event[1] for event in client.give(client.call(3, b"raced"))] == [3]
    client.give(frame(frames.PING, frames.ACK, 0, ping[3]))
    ((kind, _, _, payload),) = client.take()
    assert (kind, frames.uint31(payload)) == (frames.GOAWAY, 3)
    assert client.give(client.call(5, b"late")) == []
    client.server.respond(1, b"y")
    assert not client.server.is_drained
    client.server.respond(3, b"y")
    client.take()
    assert client.server.is_drained


def test_settings_are_acknowledged_and_unknown_ones_ignored() -> None:
    client = RawClient()
    client.give(frames.settings({0x99: 7, 3: 1}))
    assert client.take() == [(frames.SETTINGS, frames.ACK, 0, b"")]


def test_unfinished_requests_of_one_connection_are_bounded() -> None:
    client = RawClient(Limits(partial_bytes_max=40_000))
    for stream_id in (1, 3, 5):
        client.give(client.headers(stream_id, request_headers()))
        client.give(frame(frames.DATA, 0, stream_id, message(b"x" * 20_000)[:16_000]))
    blocks = [(stream_id, payload) for kind, _, stream_id, payload in client.take() if kind == frames.HEADERS]
    assert [stream_id for stream_id, _ in blocks] == [5]
    assert dict(client.decoder.decode(blocks[0][1], raw=True))[b"grpc-status"] == b"8"
    assert client.server.partial_bytes == 2 * (16_000 + STREAM_BYTES)


def test_requests_that_were_only_begun_are_bounded() -> None:
    client = RawClient(Limits(partial_bytes_max=100 * STREAM_BYTES))
    for stream_id in range(1, 1001, 2):
        client.give(client.headers(stream_id, request_headers()))
    assert client.server.partial_bytes == 100 * STREAM_BYTES
    refused = [kind for kind, *_ in client.take()]
    assert refused.count(frames.HEADERS) == 400
    client.give(frame(frames.DATA, frames.END_STREAM, 1, message(b"x")))
    client.give(client.call(1001, b"x"))
    assert client.server.partial_bytes == 99 * STREAM_BYTES
