"""Calls seen from an independent client, the `h2` library."""

import zlib

from quorate.api.http2.events import CALL, CANCELLED, HALF_CLOSED, MESSAGE, OPENED
from quorate.api.http2.limits import Limits
from tests.api.http2.peer import WATCH, H2Client, RawClient, message


def test_unary_call_is_one_event_and_its_answer_is_ok() -> None:
    client = H2Client()
    stream_id = client.call(b"request")
    ((kind, event_id, head, body),) = client.exchange()
    assert (kind, event_id, head.path, body) == (CALL, stream_id, b"/etcdserverpb.KV/Put", b"request")
    client.server.respond(stream_id, b"response")
    client.exchange()
    assert client.headers[stream_id][":status"] == "200"
    assert client.headers[stream_id]["content-type"] == "application/grpc"
    assert client.bodies[stream_id] == message(b"response")
    assert client.trailers[stream_id] == {"grpc-status": "0"}
    assert not client.server.has_streams


def test_answers_stay_readable_when_the_header_table_has_been_taught() -> None:
    client = H2Client()
    for number in range(5):
        streams = [client.call(b"%d" % number) for _ in range(3)]
        client.exchange()
        client.reply_all(b"reply")
        client.exchange()
        for stream_id in streams:
            assert client.headers[stream_id]["content-type"] == "application/grpc"
            assert client.bodies[stream_id] == message(b"reply")
            assert client.trailers[stream_id] == {"grpc-status": "0"}


def test_first_answers_may_overlap_a_stream_whose_trailers_come_later() -> None:
    client = H2Client()
    watch = client.open(WATCH)
    client.exchange()
    client.server.start_response(watch)
    calls = [client.call(b"x"), client.call(b"y")]
    client.exchange()
    client.reply_all(b"z")
    client.exchange()
    client.server.finish(watch)
    client.exchange()
    assert [client.trailers[s]["grpc-status"] for s in (*calls, watch)] == ["0", "0", "0"]
    assert {client.headers[s]["content-type"] for s in (*calls, watch)} == {"application/grpc"}


def test_peer_without_a_header_table_is_answered_with_literals() -> None:
    client = H2Client()
    client.h2.update_settings({1: 0})
    for _ in range(3):
        stream_id = client.call(b"x")
        client.exchange()
        client.reply_all(b"y")
        client.exchange()
        assert client.headers[stream_id]["content-type"] == "application/grpc"
        assert client.trailers[stream_id] == {"grpc-status": "0"}


def test_peer_may_take_its_header_table_away_later() -> None:
    client = H2Client()
    for size in (None, 0, 4096):
        if size is not None:
            client.h2.update_settings({1: size})
            client.exchange()
        stream_id = client.call(b"x")
        client.exchange()
        client.reply_all(b"y")
        client.exchange()
        assert client.trailers[stream_id] == {"grpc-status": "0"}


def test_error_is_trailers_only_with_a_percent_encoded_message() -> None:
    client = H2Client()
    stream_id = client.call(b"x")
    client.exchange()
    client.server.finish(stream_id, 5, "100 % of Käse\n")
    client.exchange()
    assert client.headers[stream_id]["grpc-status"] == "5"
    assert client.headers[stream_id]["grpc-message"] == "100 %25 of K%C3%A4se%0A"
    assert client.bodies[stream_id] == b""


def test_long_error_message_spans_continuation_frames() -> None:
    client = H2Client()
    stream_id = client.call(b"x")
    client.exchange()
    client.server.finish(stream_id, 3, "m" * 40_000)
    client.exchange()
    assert client.headers[stream_id]["grpc-message"] == "m" * 40_000


def test_streaming_call_is_reported_message_by_message() -> None:
    client = H2Client()
    stream_id = client.open(WATCH)
    assert [event[0] for event in client.exchange()] == [OPENED]
    client.send(stream_id, b"one", end=False)
    client.send(stream_id, b"", end=False)
    events = client.exchange()
    assert [(event[0], event[3]) for event in events] == [(MESSAGE, b"one"), (MESSAGE, b"")]
    client.h2.end_stream(stream_id)
    assert [event[0] for event in client.exchange()] == [HALF_CLOSED]
    assert client.server.send(stream_id, b"first")
    assert client.server.send(stream_id, b"second")
    client.server.finish(stream_id)
    client.exchange()
    assert client.bodies[stream_id] == message(b"first") + message(b"second")
    assert client.trailers[stream_id] == {"grpc-status": "0"}


def test_answer_before_the_client_has_finished_asks_it_to_stop() -> None:
    client = H2Client()
    stream_id = client.open(WATCH)
    client.exchange()
    client.server.finish(stream_id, 12, "unknown service")
    client.exchange()
    assert client.headers[stream_id]["grpc-status"] == "12"
    assert client.resets[stream_id] == 0


def test_cancelled_call_is_reported_and_its_answer_dropped() -> None:
    client = H2Client()
    stream_id = client.call(b"x")
    client.exchange()
    client.h2.reset_stream(stream_id, 8)
    assert [(event[0], event[1]) for event in client.exchange()] == [(CANCELLED, stream_id)]
    client.server.respond(stream_id, b"too late")
    assert not client.server.has_output


def test_unfinished_unary_call_that_is_cancelled_was_never_reported() -> None:
    client = H2Client()
    stream_id = client.open()
    client.exchange()
    client.h2.reset_stream(stream_id, 8)
    assert client.exchange() == []
    assert client.server.partial_bytes == 0


def test_metadata_and_timeout_are_read_from_the_headers() -> None:
    client = H2Client()
    stream_id = client.open(
        WATCH, ("token", "secret"), ("blob-bin", "AAEC"), ("grpc-timeout", "1500m"), ("hasleader", "true")
    )
    ((_, _, head, _),) = client.exchange()
    assert head.timeout_s == 1.5
    assert head.metadata == ((b"token", b"secret"), (b"blob-bin", b"\x00\x01\x02"), (b"hasleader", b"true"))
    assert stream_id == 1


def test_deadline_of_each_call_is_its_own() -> None:
    client = RawClient()
    seen = []
    for number, timeout in enumerate(("1S", "2S", "3000000u", "4H", "1S")):
        events = client.give(client.call(2 * number + 1, b"x", "/etcdserverpb.KV/Put", ("grpc-timeout", timeout)))
        seen.append(events[0][2].timeout_s)
    assert seen == [1.0, 2.0, 3.0, 14_400.0, 1.0]


def test_compressed_message_is_decoded_when_its_encoding_was_declared() -> None:
    client = H2Client()
    for name, bits in (("gzip", 31), ("deflate", 15)):
        packer = zlib.compressobj(wbits=bits)
        packed = packer.compress(b"a" * 5_000) + packer.flush()
        stream_id = client.open("/etcdserverpb.KV/Put", ("grpc-encoding", name))
        client.h2.send_data(stream_id, message(packed, compressed=1), end_stream=True)
        ((kind, _, _, body),) = client.exchange()
        assert (kind, body) == (CALL, b"a" * 5_000)


def test_compression_bomb_is_refused_at_the_message_limit() -> None:
    client = H2Client(Limits(message_bytes_max=10_000))
    packer = zlib.compressobj(wbits=31)
    packed = packer.compress(b"a" * 5_000_000) + packer.flush()
    stream_id = client.open("/etcdserverpb.KV/Put", ("grpc-encoding", "gzip"))
    client.h2.send_data(stream_id, message(packed, compressed=1), end_stream=True)
    assert client.exchange() == []
    assert client.headers[stream_id]["grpc-status"] == "8"


def test_compressed_flag_without_an_encoding_is_refused() -> None:
    client = H2Client()
    stream_id = client.open()
    client.h2.send_data(stream_id, message(b"x", compressed=1), end_stream=True)
    assert client.exchange() == []
    assert client.headers[stream_id]["grpc-status"] == "13"


def test_unknown_compression_is_unimplemented_and_names_the_known_ones() -> None:
    client = H2Client()
    stream_id = client.open("/etcdserverpb.KV/Put", ("grpc-encoding", "snappy"))
    client.exchange()
    assert client.headers[stream_id]["grpc-status"] == "12"
    assert client.headers[stream_id]["grpc-accept-encoding"] == "identity,deflate,gzip"


def test_message_over_the_limit_is_refused_by_its_announced_length() -> None:
    client = H2Client(Limits(message_bytes_max=2_097_152))
    stream_id = client.open()
    client.h2.send_data(stream_id, message(b"")[:1] + (2_097_153).to_bytes(4, "big"))
    assert client.exchange() == []
    assert client.headers[stream_id]["grpc-status"] == "8"
    text = "grpc: received message larger than max (2097153 vs. 2097152)"
    assert client.headers[stream_id]["grpc-message"] == text
    assert client.resets[stream_id] == 0


def test_unary_call_takes_exactly_one_message() -> None:
    client = H2Client()
    none, two, torn = client.open(), client.open(), client.open()
    client.h2.end_stream(none)
    client.h2.send_data(two, message(b"a") + message(b"b"), end_stream=True)
    client.h2.send_data(torn, message(b"abc")[:-1], end_stream=True)
    assert client.exchange() == []
    assert [client.headers[stream_id]["grpc-status"] for stream_id in (none, two, torn)] == ["12", "12", "13"]


def test_lost_transport_cancels_what_is_open() -> None:
    client = H2Client()
    unary, watch = client.call(b"x"), client.open(WATCH)
    client.open()
    client.exchange()
    assert [(event[0], event[1]) for event in client.server.lost()] == [(CANCELLED, unary), (CANCELLED, watch)]
