"""The load generator counts and times what a server really answered."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import engine, http2, messages, servers, trivial

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server that answers every call with the same bytes."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.trivial"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as server:
        try:
            assert server.stdout is not None
            yield int(server.stdout.readline())
        finally:
            server.kill()


@pytest.mark.parametrize("shape", [("1", "1"), ("8", "1"), ("4", "16")])
def test_every_call_of_a_counted_run_is_answered(port: int, shape: tuple[str, str]) -> None:
    figures = servers.load(
        [
            *("-m", "bench.load", "put", "--endpoints", f"127.0.0.1:{port}"),
            *("--connections", shape[0], "--streams", shape[1], "--count", "5000", "--warmup", "0"),
        ]
    )
    assert figures["errors"] == 0
    assert figures["completed"] >= 5000
    assert 0 < figures["p50_ms"] <= figures["p99_ms"] <= figures["max_ms"]


def test_open_loop_sends_at_the_rate_asked_for(port: int) -> None:
    figures = servers.load(
        [
            *("-m", "bench.load", "put", "--endpoints", f"127.0.0.1:{port}"),
            *("--connections", "4", "--rate", "500", "--seconds", "1", "--warmup", "0"),
        ]
    )
    assert figures["throughput"] == pytest.approx(500, rel=0.2)


def test_single_call_returns_the_message(port: int) -> None:
    answer = engine.call("127.0.0.1", port, messages.STATUS, b"")
    assert trivial.ANSWER[5:] == answer
    assert messages.header_revision(answer) == 2


def test_messages_longer_than_a_frame_are_split(port: int) -> None:
    longs = (b"x" * 50_000 for _ in range(20))
    assert len(list(engine.pipeline("127.0.0.1", port, messages.KV_TXN, longs, window=4))) == 20


def test_frames_cut_anywhere_are_put_together() -> None:
    client = http2.Connection(messages.KV_PUT, "test")
    client.request(b"")
    stream = trivial.answer(1) + trivial.answer(3)
    done = [stream_id for byte in stream for stream_id in client.receive(bytes([byte]))]
    assert done == [1, 3]


def test_failed_call_is_an_error_and_not_a_latency() -> None:
    client = http2.Connection(messages.KV_PUT, "test")
    trailers = b"\x88\x00\x0bgrpc-status\x0214\x00\x0cgrpc-message\x04gone"
    assert client.receive(http2.frame(http2.HEADERS, 0x5, 1, trailers)) == []
    assert (client.errors, client.failed, client.first_error) == (1, [1], "grpc-status 14: gone")


def test_ping_and_settings_are_acknowledged() -> None:
    client = http2.Connection(messages.KV_PUT, "test")
    client.take_out()
    client.receive(http2.frame(http2.SETTINGS, 0, 0) + http2.frame(http2.PING, 0, 0, b"12345678"))
    expected = http2.frame(http2.SETTINGS, 1, 0) + http2.frame(http2.PING, 1, 0, b"12345678")
    assert expected == client.take_out()


def test_calls_wait_for_the_servers_window() -> None:
    client = http2.Connection(messages.KV_PUT, "test")
    client.request(b"x" * 60_000)
    assert not client.can_send(10_000)
    client.receive(http2.frame(http2.WINDOW_UPDATE, 0, 0, (60_000).to_bytes(4)))
    assert client.can_send(10_000)
