"""Flow control: windows in both directions, turns between streams, and a reader that never reads."""

from hypothesis import given, settings
from hypothesis import strategies as st

from quorate.api.http2 import frames
from quorate.api.http2.events import CALL
from quorate.api.http2.frames import frame
from quorate.api.http2.limits import Limits
from tests.api.http2.peer import WATCH, H2Client, RawClient, message, request_headers


def data_bytes(client: RawClient) -> dict[int, int]:
    """DATA octets by stream among what the server has to say."""
    totals: dict[int, int] = {}
    while client.server.has_output:
        for kind, _, stream_id, payload in client.take():
            if kind == frames.DATA:
                totals[stream_id] = totals.get(stream_id, 0) + len(payload)
    return totals


def test_large_answer_arrives_whole() -> None:
    client = H2Client()
    stream_id = client.call(b"x")
    client.exchange()
    body = bytes(range(256)) * 4_000
    client.server.respond(stream_id, body)
    client.exchange()
    assert client.bodies[stream_id] == message(body)
    assert client.trailers[stream_id] == {"grpc-status": "0"}
    assert client.server.queued_bytes == 0


def test_large_request_arrives_whole() -> None:
    client = H2Client()
    body = bytes(range(256)) * 6_000
    stream_id = client.open()
    rest = message(body)
    events = []
    while rest:
        events += client.exchange()
        size = min(len(rest), client.h2.local_flow_control_window(stream_id), client.h2.max_outbound_frame_size)
        client.h2.send_data(stream_id, rest[:size], end_stream=size == len(rest))
        rest = rest[size:]
    events += client.exchange()
    assert [(event[0], event[3] == body) for event in events] == [(CALL, True)]


def test_nothing_is_sent_beyond_the_connection_window() -> None:
    client = RawClient()
    client.give(client.call(1, b"x") + client.call(3, b"x"))
    client.server.respond(1, b"a" * 50_000)
    client.server.respond(3, b"b" * 50_000)
    assert sum(data_bytes(client).values()) == 65_535
    client.give(frames.window_update(0, 1_000))
    assert sum(data_bytes(client).values()) == 1_000


def test_slow_reader_of_one_stream_does_not_hold_up_another() -> None:
    client = RawClient()
    client.give(frames.settings({frames.INITIAL_WINDOW_SIZE: 20_000}) + client.call(1, b"x") + client.call(3, b"x"))
    client.server.respond(1, b"a" * 1_000_000)
    assert data_bytes(client) == {1: 20_000}
    client.server.respond(3, b"b")
    assert data_bytes(client) == {3: 6}


def test_streams_take_turns() -> None:
    client = RawClient(Limits(frame_bytes_max=16_384))
    client.give(frames.window_update(0, 1 << 20) + client.call(1, b"x") + client.call(3, b"x"))
    client.server.respond(1, b"a" * 60_000)
    client.server.respond(3, b"b" * 60_000)
    order = [stream_id for kind, _, stream_id, _ in client.take() if kind == frames.DATA]
    assert order[:4] == [1, 3, 1, 3]


def test_no_more_than_the_budget_leaves_at_once() -> None:
    client = RawClient()
    client.give(frames.window_update(0, 1 << 30) + frames.settings({frames.INITIAL_WINDOW_SIZE: 1 << 30}))
    client.give(client.call(1, b"x"))
    client.server.respond(1, b"a" * 50_000_000)
    assert len(client.server.output(100_000)) < 140_000
    assert client.server.has_output


def test_messages_of_a_stream_that_nobody_writes_are_bounded_and_keep_their_order() -> None:
    client = RawClient()
    client.give(frames.window_update(0, 1 << 30) + frames.settings({frames.INITIAL_WINDOW_SIZE: 1 << 30}))
    client.give(client.headers(1, request_headers(WATCH)))
    sent = 0
    while client.server.send_framed(1, message(b"%08d" % sent)):
        sent += 1
        assert sent < 1_000_000
    assert client.server.queued_bytes > 0
    payloads = []
    while client.server.has_output:
        payloads += [payload for kind, _, _, payload in client.take() if kind == frames.DATA]
    assert b"".join(payloads) == b"".join(message(b"%08d" % number) for number in range(sent + 1))
    assert [1] == client.server.take_unblocked()


def test_initial_window_may_change_both_ways_under_a_stream() -> None:
    client = RawClient()
    client.give(frames.window_update(0, 1 << 20) + client.call(1, b"x"))
    client.server.respond(1, b"a" * 100_000)
    assert data_bytes(client) == {1: 65_535}
    client.give(frames.settings({frames.INITIAL_WINDOW_SIZE: 60_000}))
    client.give(frames.window_update(1, 5_535))
    assert data_bytes(client) == {}
    client.give(frames.window_update(1, 1))
    assert data_bytes(client) == {1: 1}
    client.give(frames.settings({frames.INITIAL_WINDOW_SIZE: 1 << 20}))
    assert data_bytes(client) == {1: 100_005 - 65_536}


def test_window_update_before_the_answer_counts() -> None:
    client = RawClient()
    client.give(frames.settings({frames.INITIAL_WINDOW_SIZE: 0}) + client.call(1, b"x") + frames.window_update(1, 9))
    client.server.respond(1, b"abcd")
    assert data_bytes(client) == {1: 9}
    assert not client.server.has_streams


def test_window_overflow_resets_the_stream() -> None:
    client = RawClient()
    client.give(client.call(1, b"x") + frames.window_update(1, frames.WINDOW_LARGEST))
    assert client.resets() == [(1, frames.FLOW_CONTROL_ERROR)]


def test_zero_window_update_resets_the_stream() -> None:
    client = RawClient()
    client.give(client.call(1, b"x") + frames.window_update(1, 0))
    assert client.resets() == [(1, frames.PROTOCOL_ERROR)]


def test_producer_is_blocked_and_told_when_it_may_go_on() -> None:
    client = RawClient(Limits(send_high_bytes=10_000, send_low_bytes=5_000))
    client.give(client.headers(1, request_headers(WATCH)) + frames.settings({frames.INITIAL_WINDOW_SIZE: 0}))
    assert client.server.send(1, b"a" * 5_000)
    assert not client.server.send(1, b"a" * 6_000)
    client.take()
    assert client.server.take_unblocked() == []
    client.give(frames.window_update(1, 8_000))
    client.take()
    assert client.server.take_unblocked() == [1]
    assert client.server.take_unblocked() == []
    assert client.server.send(1, b"a")


def test_reader_that_never_reads_holds_no_more_than_its_answer() -> None:
    client = RawClient()
    client.give(client.call(1, b"x"))
    client.server.respond(1, b"a" * 50_000_000)
    assert sum(data_bytes(client).values()) == 65_535
    assert client.server.queued_bytes == 50_000_005 - 65_535
    client.give(frames.rst_stream(1, 8))
    assert client.server.queued_bytes == 0


def test_client_that_overruns_the_stream_window_is_reset() -> None:
    client = RawClient(Limits(stream_window_bytes=70_000))
    client.give(client.headers(1, request_headers()))
    client.give(frame(frames.DATA, 0, 1, message(b"x" * 1_000_000)[:16_000]))
    for _ in range(2):
        client.give(frame(frames.DATA, 0, 1, b"x" * 16_000))
    assert client.resets() == []
    client.give(b"".join(frame(frames.DATA, 0, 1, b"x" * 16_000) for _ in range(5)))
    assert not client.server.closed


def test_client_that_overruns_the_connection_window_is_sent_away() -> None:
    client = RawClient(Limits(connection_window_bytes=65_535, stream_window_bytes=65_535))
    many = b"".join(client.call(2 * number + 1, b"x" * 16_000) for number in range(5))
    client.give(many)
    answer = client.goaway()
    assert answer is not None
    assert answer[0] == frames.FLOW_CONTROL_ERROR


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_windows_are_kept_whatever_the_client_grants(data: st.DataObject) -> None:
    client = RawClient(Limits(frame_bytes_max=16_384))
    sizes = data.draw(st.lists(st.integers(0, 200_000), min_size=1, max_size=6))
    initial = data.draw(st.integers(0, 100_000))
    client.give(frames.settings({frames.INITIAL_WINDOW_SIZE: initial}))
    connection_window = 65_535
    windows: dict[int, int] = {}
    expected: dict[int, int] = {}
    for number, size in enumerate(sizes):
        stream_id = 2 * number + 1
        windows[stream_id] = initial
        expected[stream_id] = size + 5
        client.give(client.call(stream_id, b"x"))
        client.server.respond(stream_id, b"a" * size)
    sent = dict.fromkeys(windows, 0)
    for _ in range(400):
        for stream_id, size in data_bytes(client).items():
            sent[stream_id] += size
            windows[stream_id] -= size
            connection_window -= size
            assert windows[stream_id] >= 0
        assert connection_window >= 0
        waiting = [stream_id for stream_id in sent if sent[stream_id] < expected[stream_id]]
        if not waiting:
            break
        stream_id = data.draw(st.sampled_from(waiting))
        amount = data.draw(st.integers(1, 100_000))
        client.give(frames.window_update(stream_id, amount) + frames.window_update(0, amount))
        windows[stream_id] += amount
        connection_window += amount
    assert all(sent[stream_id] <= expected[stream_id] for stream_id in sent)
    assert client.server.queued_bytes == sum(expected.values()) - sum(sent.values())
