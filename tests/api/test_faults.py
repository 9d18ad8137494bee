"""A fault of our own costs one call: its caller is told, the log has it once, and everybody else is served."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio
import pytest
from google.protobuf.message import Message

from quorate.api import faults
from quorate.api.calls import StreamRoute
from quorate.api.passwords import Passwords
from quorate.api.v3rpc import kv
from quorate.api.v3rpc.recipes import Keys, Place
from quorate.api.v3rpc.snapshot import Download
from quorate.proto import rpc_pb2, v3election_pb2, v3lock_pb2
from quorate.wire import errors
from quorate.wire.messages import Kind, Op, Part
from tests.api.worker import TIMEOUT_S, Worker, failure, get, put, run, unary, until, worker

FAULT = (errors.INTERNAL_FAULT.code, errors.INTERNAL_FAULT.text)
DETAIL = "nobody thought of this"


def breaks(*_: Any, **__: Any) -> Any:
    raise RuntimeError(DETAIL)


async def breaks_later(*_: Any, **__: Any) -> Any:
    raise RuntimeError(DETAIL)


def streamed(channel: grpc.aio.Channel, method: str, request: Message) -> Awaitable[bytes]:
    """The first answer of a call with many."""
    read: Awaitable[bytes] = channel.unary_stream(method)(request.SerializeToString(), timeout=TIMEOUT_S).read()
    return read


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.exc_text or str(record.exc_info) for record in caplog.records if record.msg == faults.MESSAGE]


LOCK = v3lock_pb2.LockRequest(name=b"n", lease=7)
LEADER = v3election_pb2.LeaderRequest(name=b"n")
ALICE = rpc_pb2.AuthUserAddRequest(name="alice", password="secret")
PLACES: dict[str, tuple[object, str, Any, Callable[[grpc.aio.Channel], Awaitable[bytes]]]] = {
    "a password's thread": (Passwords, "hash", breaks_later, lambda c: unary(c, "/etcdserverpb.Auth/UserAdd", ALICE)),
    "a lock": (Place, "take", breaks_later, lambda c: unary(c, "/v3lockpb.Lock/Lock", LOCK)),
    "an election": (Keys, "get", breaks_later, lambda c: unary(c, "/v3electionpb.Election/Leader", LEADER)),
    "an observation": (Keys, "get", breaks_later, lambda c: streamed(c, "/v3electionpb.Election/Observe", LEADER)),
    "a request": (kv, "check_put", breaks, lambda c: unary(c, "/etcdserverpb.KV/Put", rpc_pb2.PutRequest(key=b"k"))),
    "a request of a stream": (
        Download,
        "send",
        breaks,
        lambda c: streamed(c, "/etcdserverpb.Maintenance/Snapshot", rpc_pb2.SnapshotRequest()),
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_the_caller_gets_an_error_the_log_the_reason_and_the_next_call_its_answer(
    place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        target, name, substitute, call = PLACES[place]
        async with worker() as door, door.channel() as channel:
            await put(channel, b"before", b"v")
            with monkeypatch.context() as broken:
                broken.setattr(target, name, substitute)
                assert await failure(call(channel)) == FAULT
            await put(channel, b"after", b"v")
            assert (await get(channel, b"before")).kvs

    run(scenario)
    (trace,) = told(caplog)
    assert DETAIL in trace


def test_a_stream_that_cannot_be_opened_is_ended(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with worker() as door, door.channel() as channel:
            method = "/grpc.health.v1.Health/Watch"
            door.calls.streams[method] = StreamRoute(breaks)
            assert await failure(streamed(channel, method, rpc_pb2.SnapshotRequest())) == FAULT
            await put(channel, b"after", b"v")

    run(scenario)
    assert len(told(caplog)) == 1


def asked(door: Worker, done: Callable[[int, str, bytes], None]) -> None:
    request = rpc_pb2.RangeRequest(key=b"k").SerializeToString()
    door.ring.add(door.ring.local, Op.RANGE, request, done)


def test_who_fails_at_an_answer_does_not_keep_others_from_theirs(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with worker() as door:
            outcomes: list[tuple[int, str]] = []

            def fails(code: int, message: str, _response: bytes) -> None:
                outcomes.append((code, message))
                if not code:
                    raise RuntimeError(DETAIL)

            asked(door, lambda code, message, _: outcomes.append((code, message)))
            asked(door, fails)
            asked(door, lambda code, message, _: outcomes.append((code, message)))
            await until(lambda: len(outcomes) == 4)
            assert outcomes == [(0, ""), (0, ""), FAULT, (0, "")]
            assert door.fake.chunks == [3]
            assert door.ring.waiting == 0

    run(scenario)
    assert len(told(caplog)) == 1


def test_who_fails_even_at_an_error_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with worker() as door, door.channel() as channel:
            asked(door, breaks)
            await until(lambda: door.ring.waiting == 0)
            await put(channel, b"after", b"v")

    run(scenario)
    assert len(told(caplog)) == 1


def test_word_from_a_neighbour_that_cannot_be_taken_ends_the_process() -> None:
    async def scenario() -> None:
        async with worker() as door:
            door.ring.on_message(Part.STORAGE, Kind.AUTH, breaks)
            door.fake.say_auth(True, 5)
            with pytest.raises(RuntimeError, match=DETAIL):
                await door.ring.fail()

    run(scenario)
