"""A whole api worker seen by grpcio, over real sockets on both sides."""

import asyncio
import gc
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from quorate.api import ring
from quorate.api.calls import CallLimits
from quorate.api.grpc_connection import HOLD_BYTES
from quorate.api.http2 import frames
from quorate.api.http2.limits import Limits
from quorate.api.listener import open_socket
from quorate.proto import health_pb2, rpc_pb2
from quorate.wire import errors
from quorate.wire.messages import Kind, Op
from tests.api.http2.peer import RawClient
from tests.api.worker import Worker, failure, get, put, run, unary, until, worker
from tests.fakes.ring import LEADER

KV = "/etcdserverpb.KV"


def test_put_is_ordered_and_get_sees_it() -> None:
    async def scenario() -> None:
        async with worker() as w, w.channel() as channel:
            assert (await put(channel, b"foo", b"bar")).header.revision == 2
            found = await get(channel, b"foo")
            assert found.kvs[0].value == b"bar"
            assert w.fake.seen == [(Kind.PROPOSE, Op.PUT), (Kind.READ, Op.RANGE)]

    run(scenario)


def test_a_worker_serves_once_its_member_is_published_and_waits_no_longer_than_it_was_told() -> None:
    async def scenario() -> None:
        async with worker() as w:
            stop = asyncio.Event()
            w.fake.say_role(replace(LEADER, is_published=False))
            await until(lambda: w.ring.role is not None and not w.ring.role.is_published)
            assert await w.ring.wait_ready(0.0, stop), "the time is over"
            waiting = asyncio.ensure_future(w.ring.wait_ready(60.0, stop))
            w.fake.say_role(replace(LEADER, term=3, is_published=False))
            await until(lambda: w.ring.role is not None and w.ring.role.term == 3)
            assert not waiting.done()
            w.fake.say_role(LEADER)
            assert await waiting

    run(scenario)


def test_what_is_said_while_the_ring_closes_goes_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    """A stream that is ended at the last moment still gives its place back, one turn of the loop later."""

    async def scenario() -> None:
        async with worker() as w:
            w.ring.flush_soon()
        await asyncio.sleep(0)
        assert "Exception in callback" not in caplog.text

    run(scenario)


def test_each_kind_of_call_takes_its_lane() -> None:
    async def scenario() -> None:
        ranges = rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=b"a"))
        local = rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=b"a", serializable=True))
        write = rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"a"))
        async with worker() as w, w.channel() as channel:
            await get(channel, b"a", serializable=True)
            await unary(channel, f"{KV}/Txn", rpc_pb2.TxnRequest(success=[ranges], failure=[local]))
            await unary(channel, f"{KV}/Txn", rpc_pb2.TxnRequest(success=[local]))
            await unary(channel, f"{KV}/Txn", rpc_pb2.TxnRequest())
            await unary(channel, f"{KV}/Txn", rpc_pb2.TxnRequest(failure=[write]))
            await unary(channel, f"{KV}/DeleteRange", rpc_pb2.DeleteRangeRequest(key=b"a"))
            await unary(channel, f"{KV}/Compact", rpc_pb2.CompactionRequest(revision=1))
            assert w.fake.seen == [
                (Kind.LOCAL, Op.RANGE),
                (Kind.READ, Op.TXN),
                (Kind.LOCAL, Op.TXN),
                (Kind.LOCAL, Op.TXN),
                (Kind.PROPOSE, Op.TXN),
                (Kind.PROPOSE, Op.DELETE_RANGE),
                (Kind.PROPOSE, Op.COMPACT),
            ]

    run(scenario)


def test_hundreds_of_calls_at_once_travel_in_chunks() -> None:
    async def scenario() -> None:
        async with worker() as w, w.channel() as one, w.channel(use_local_subchannel_pool=1) as two:
            answers = await asyncio.gather(*(put((one, two)[n % 2], b"%d" % n, b"v" * 300) for n in range(600)))
            assert sorted(answer.header.revision for answer in answers) == list(range(2, 602))
            assert sum(w.fake.chunks) == 600
            assert len(w.fake.chunks) < 300

    run(scenario)


def test_errors_before_the_ring_have_etcds_text() -> None:
    async def scenario() -> None:
        async with worker() as w, w.channel() as channel:
            assert await failure(put(channel, b"", b"v")) == (3, "etcdserver: key is not provided")
            assert (await failure(unary(channel, f"{KV}/Put", b"\x0a\xff")))[0] == 13
            large = rpc_pb2.PutRequest(key=b"k", value=b"v" * 1_572_864)
            assert await failure(unary(channel, f"{KV}/Put", large)) == (3, "etcdserver: request is too large")
            huge = rpc_pb2.PutRequest(key=b"k", value=b"v" * 2_097_153)
            code, text = await failure(unary(channel, f"{KV}/Put", huge))
            assert code == 8
            assert text == f"grpc: received message larger than max ({len(huge.SerializeToString())} vs. 2097152)"
            assert w.fake.seen == []

    run(scenario)


def test_unknown_methods_and_services_are_unimplemented() -> None:
    async def scenario() -> None:
        async with worker() as w, w.channel() as channel:
            text = "unknown method RangeStream for service etcdserverpb.KV"
            assert await failure(unary(channel, f"{KV}/RangeStream", b"")) == (12, text)
            assert await failure(unary(channel, "/no.Such/Thing", b"")) == (12, "unknown service no.Such")

    run(scenario)


def test_refusal_of_consensus_reaches_the_caller() -> None:
    async def scenario() -> None:
        async with worker() as w, w.channel() as channel:
            w.fake.refuse = errors.LEADER_CHANGED
            assert await failure(get(channel, b"a")) == (14, "etcdserver: leader changed")
            w.fake.refuse = errors.TOO_MANY_REQUESTS
            assert await failure(put(channel, b"a", b"")) == (2, "etcdserver: too many requests")

    run(scenario)


def test_client_deadline_ends_the_call_at_the_server_too() -> None:
    async def scenario() -> None:
        async with worker() as w, w.channel() as channel:
            w.fake.is_silent = True
            assert (await failure(put(channel, b"a", b"", timeout=0.2)))[0] == 4
            done: list[tuple[int, str, bytes]] = []
            request = rpc_pb2.PutRequest(key=b"a").SerializeToString()
            w.calls.unary(f"{KV}/Put", request, {}, lambda *answer: done.append(answer), 0.05)
            await until(lambda: bool(done))
            assert done == [(4, "context deadline exceeded", b"")]

    run(scenario)


Answer = tuple[int, str, bytes]


def put_directly(w: Worker, value: bytes = b"") -> list[Answer]:
    """Start a put; its answer will be in the list."""
    answers: list[Answer] = []
    request = rpc_pb2.PutRequest(key=b"a", value=value).SerializeToString()
    w.calls.unary(f"{KV}/Put", request, {}, lambda *answer: answers.append(answer))
    return answers


async def put_alone(w: Worker, value: bytes) -> int:
    """The code a put ends with."""
    answers = put_directly(w, value)
    await until(lambda: bool(answers))
    return answers[0][0]


def test_requests_that_wait_long_are_told_once_while_they_wait(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with worker(election_timeout_s=0.05, request_timeout_s=0.4, slow_s=0.05) as w:
            w.fake.is_silent = True
            answers: list[tuple[int, str, bytes]] = []
            for _ in range(3):
                w.ring.add(w.ring.writes, Op.PUT, b"secret", lambda *end: answers.append(end))
            await until(lambda: len(answers) == 3)

    run(scenario)
    (told,) = [record for record in caplog.records if record.message == "request stats"]
    fields = cast(Any, told).fields
    assert ("PROPOSE", 3) == (fields["response type"], fields["requests"])
    assert "secret" not in str(vars(told))


def test_request_without_an_answer_times_out_as_etcds() -> None:
    async def scenario() -> None:
        async with worker(election_timeout_s=0.05, request_timeout_s=0.1) as w:
            w.ring.leader_seen_at = 0.0
            w.fake.is_silent = True
            answers = put_directly(w)
            await until(lambda: bool(answers))
            assert answers == [(14, "etcdserver: request timed out", b"")]
            assert w.ring.waiting == 0

    run(scenario)


def test_request_begun_just_before_an_election_times_out_because_of_it() -> None:
    async def scenario() -> None:
        async with worker(election_timeout_s=0.5, request_timeout_s=0.0) as w:
            w.fake.is_silent = True
            answers = put_directly(w)
            w.fake.say_role(replace(LEADER, term=3))
            await until(lambda: bool(answers))
            text = "etcdserver: request timed out, possibly due to previous leader failure"
            assert answers == [(14, text, b"")]

    run(scenario)


def test_cancelled_call_does_not_disturb_its_neighbours() -> None:
    async def scenario() -> None:
        async with worker() as w, w.channel() as channel:
            w.fake.holds = True
            gone = asyncio.ensure_future(put(channel, b"a", b""))
            stays = asyncio.ensure_future(put(channel, b"b", b""))
            await until(lambda: w.fake.held == 2)
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
            w.fake.release()
            assert (await stays).header.revision in (2, 3)

    run(scenario)


def test_reads_survive_a_restart_of_storage_and_writes_get_their_answer() -> None:
    async def scenario() -> None:
        async with worker() as w, w.channel() as channel:
            await put(channel, b"a", b"1")
            w.fake.holds = True
            reads = [asyncio.ensure_future(get(channel, b"a", serializable=bool(n % 2))) for n in range(10)]
            await until(lambda: w.fake.held == 10)
            w.fake.stop_storage()
            w.fake.holds = False
            write = asyncio.ensure_future(put(channel, b"a", b"2"))
            w.fake.start_storage()
            assert {(await read).kvs[0].value for read in reads} <= {b"1", b"2"}
            assert (await write).header.revision == 3

    run(scenario)


def test_reads_survive_a_restart_of_consensus() -> None:
    async def scenario() -> None:
        async with worker() as w, w.channel() as channel:
            w.fake.is_silent = True
            read = asyncio.ensure_future(get(channel, b"a"))
            await until(lambda: w.ring.waiting == 1)
            await asyncio.sleep(0)
            w.fake.stop_consensus()
            w.fake.is_silent = False
            w.fake.start_consensus()
            assert (await read).count == 0

    run(scenario)


def test_writes_made_while_consensus_is_away_are_ordered_by_its_successor() -> None:
    async def scenario() -> None:
        async with worker() as w, w.channel() as channel:
            assert (await put(channel, b"a", b"")).header.revision == 2
            w.fake.stop_consensus()
            await until(w.ring.consensus.gone)
            write = asyncio.ensure_future(put(channel, b"a", b""))
            await until(lambda: w.ring.waiting == 1)
            w.fake.start_consensus()
            assert (await write).header.revision == 3

    run(scenario)


def test_calls_that_timed_out_while_consensus_was_away_leave_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(ring, "UNSENT_BYTES_MAX", 1000)
        async with worker(election_timeout_s=0.05, request_timeout_s=0.2) as w:
            w.fake.stop_consensus()
            await until(w.ring.consensus.gone)
            for _ in range(3):
                assert errors.TIMEOUT.code == await put_alone(w, bytes(2000))
            w.fake.start_consensus()
            await until(lambda: w.ring.consensus.opened and not w.ring.consensus.gone())
            assert 0 == await put_alone(w, bytes(2000))

    run(scenario)


def test_calls_made_while_a_part_is_away_wait_for_it() -> None:
    async def scenario() -> None:
        async with worker() as w, w.channel() as channel:
            w.fake.stop_storage()
            local = asyncio.ensure_future(get(channel, b"a", serializable=True))
            await until(lambda: w.ring.waiting == 1)
            w.fake.start_storage()
            assert (await local).count == 0

    run(scenario)


def test_call_that_wants_a_leader_is_refused_without_one() -> None:
    async def scenario() -> None:
        async with worker() as w, w.channel() as channel:
            w.fake.say_role(replace(LEADER, leader_id=0, is_leader=False))
            await until(lambda: not w.ring.has_leader)
            wants = (("hasleader", "true"),)
            assert await failure(get(channel, b"a", metadata=wants)) == (14, "etcdserver: no leader")
            assert (await get(channel, b"a", serializable=True)).count == 0

    run(scenario)


def test_stream_that_wants_a_leader_ends_when_there_is_none_for_long() -> None:
    async def scenario() -> None:
        async with worker(election_timeout_s=0.03) as w, w.channel() as channel:
            watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
            wants = watch(b"", metadata=(("hasleader", "true"),))
            bears = watch(b"")
            assert health_pb2.HealthCheckResponse.FromString(await wants.read()).status == 1
            assert health_pb2.HealthCheckResponse.FromString(await bears.read()).status == 1
            w.fake.say_role(replace(LEADER, leader_id=0, is_leader=False))
            assert await failure(wants.read()) == (14, "etcdserver: no leader")
            assert not bears.done()
            bears.cancel()

    run(scenario)


def test_learner_answers_serializable_reads_and_status_only() -> None:
    async def scenario() -> None:
        async with worker() as w, w.channel() as channel:
            w.fake.say_role(replace(LEADER, is_learner=True))
            await until(lambda: w.ring.is_learner)
            refused = (9, "etcdserver: rpc not supported for learner")
            assert await failure(get(channel, b"a")) == refused
            assert await failure(put(channel, b"a", b"")) == refused
            assert (await get(channel, b"a", serializable=True)).count == 0
            status = await unary(channel, "/etcdserverpb.Maintenance/Status", b"")
            assert rpc_pb2.StatusResponse.FromString(status).isLearner

    run(scenario)


def test_status_is_composed_of_both_shares() -> None:
    async def scenario() -> None:
        async with worker() as w, w.channel() as channel:
            body = await unary(channel, "/etcdserverpb.Maintenance/Status", b"")
            status = rpc_pb2.StatusResponse.FromString(body)
            assert (status.version, status.dbSize, status.raftIndex) == ("3.6.14", 4096, 9)
            assert status.leader == LEADER.leader_id
            assert list(status.errors) == []
            w.fake.say_role(replace(LEADER, leader_id=0, is_leader=False))
            await until(lambda: not w.ring.has_leader)
            body = await unary(channel, "/etcdserverpb.Maintenance/Status", b"")
            assert list(rpc_pb2.StatusResponse.FromString(body).errors) == ["etcdserver: no leader"]

    run(scenario)


def test_members_are_listed_by_consensus() -> None:
    async def scenario() -> None:
        async with worker() as w, w.channel() as channel:
            body = await unary(channel, "/etcdserverpb.Cluster/MemberList", b"")
            assert [m.name for m in rpc_pb2.MemberListResponse.FromString(body).members] == ["default"]

    run(scenario)


def test_health_check_knows_the_empty_name_only() -> None:
    async def scenario() -> None:
        async with worker() as w, w.channel() as channel:
            method = "/grpc.health.v1.Health/Check"
            body = await unary(channel, method, b"")
            assert health_pb2.HealthCheckResponse.FromString(body).status == 1
            request = health_pb2.HealthCheckRequest(service="other")
            assert await failure(unary(channel, method, request)) == (5, "unknown service")

    run(scenario)


def test_http11_on_the_same_port_reaches_the_application() -> None:
    async def scenario() -> bytes:
        async with worker() as w:
            host, port = w.address.split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            for piece in (b"G", b"ET / HTTP/1.1\r\n", b"Host: x\r\nConnection: close\r\n\r\n"):
                writer.write(piece)
                await writer.drain()
            answer = await reader.read()
            writer.close()
            return answer

    answer = run(scenario)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"hello")


def test_unix_socket_is_listened_on_and_a_left_over_one_replaced(tmp_path: Path) -> None:
    async def scenario(url: str) -> None:
        async with worker(url=url) as w, grpc.aio.insecure_channel(f"unix:{w.address}") as channel:
            assert (await put(channel, b"a", b"")).header.revision == 2

    path = tmp_path / "s"
    run(lambda: scenario(f"unix://{path}"))
    assert not path.exists()


def test_port_in_use_is_an_os_error() -> None:
    async def scenario() -> None:
        async with worker() as w:
            with pytest.raises(OSError, match="in use"):
                open_socket(f"http://{w.address}")

    run(scenario)


def test_reader_that_never_reads_holds_no_other_up_and_memory_is_bounded() -> None:
    async def scenario() -> None:
        large, asked = 4_000_000, 12
        limits = Limits(message_bytes_max=large + 1_000)
        bounds = CallLimits(request_bytes_max=large + 100)
        async with (
            worker(limits=limits, call_limits=bounds) as w,
            w.channel(max_receive_message_length=-1, max_send_message_length=-1) as channel,
        ):
            await put(channel, b"large", b"v" * large)
            client, slow = RawClient(), await stranger(w)
            slow.write(frames.PREFACE + frames.settings({}) + reads(client, b"large", range(asked)))
            await until(lambda: len(w.fake.seen) == 1 + asked and not w.ring.waiting)
            connection = next(c for c in w.listener.grpc.connections if c.queued_bytes)
            kept = connection.held_bytes
            assert HOLD_BYTES < connection.queued_bytes <= asked * (large + 1_000)
            slow.write(reads(client, b"large", range(asked, 2 * asked)))
            await until(lambda: connection.held_bytes > kept)
            for n in range(50):
                await put(channel, b"%d" % n, b"")
            assert (await get(channel, b"large")).kvs[0].value == b"v" * large
            assert len(w.fake.seen) == 1 + asked + 51, "what it asked for beyond the bound was not begun"
            assert connection.held_bytes < kept + large
            slow.close()
            await until(lambda: connection not in w.listener.grpc.connections)

    run(scenario)


async def stranger(w: Worker) -> asyncio.StreamWriter:
    """A connection of somebody who never reads."""
    host, port = w.address.split(":")
    _, writer = await asyncio.open_connection(host, int(port), limit=1)
    return writer


def reads(client: RawClient, key: bytes, numbers: range) -> bytes:
    """The calls of a connection with these numbers, each asking for the key."""
    body = rpc_pb2.RangeRequest(key=key).SerializeToString()
    return b"".join(client.call(2 * number + 1, body, f"{KV}/Range") for number in numbers)


def test_shutdown_answers_what_is_in_progress_and_refuses_the_rest() -> None:
    async def scenario() -> None:
        async with worker() as w, w.channel() as channel:
            w.fake.holds = True
            last = asyncio.ensure_future(put(channel, b"a", b""))
            await until(lambda: w.fake.held == 1)
            closing = asyncio.ensure_future(w.listener.close(5.0))
            await asyncio.sleep(0)
            w.fake.release()
            assert (await last).header.revision == 2
            await closing
            assert w.listener.connections == 0
            assert (await failure(put(channel, b"b", b"", timeout=1.0)))[0] in (4, 14)

    run(scenario)


def test_shutdown_ends_streams_that_would_not_end_by_themselves() -> None:
    async def scenario() -> None:
        async with worker() as w, w.channel() as channel:
            watch = channel.stream_stream("/etcdserverpb.Watch/Watch")()
            create = rpc_pb2.WatchCreateRequest(key=b"k", start_revision=2)
            await watch.write(rpc_pb2.WatchRequest(create_request=create).SerializeToString())
            assert rpc_pb2.WatchResponse.FromString(await watch.read()).created
            health = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
            await health.read()
            w.fake.holds = True
            last = asyncio.ensure_future(put(channel, b"a", b""))
            await until(lambda: w.fake.held == 1)
            closing = asyncio.ensure_future(w.listener.close(3600.0))
            for stream in (watch, health):
                assert (await stream.code(), await stream.details()) == (
                    grpc.StatusCode.UNAVAILABLE,
                    "etcdserver: server stopped",
                )
            assert not closing.done()
            w.fake.release()
            assert (await last).header.revision == 2
            await closing
            assert w.listener.grpc.streams == 0

    run(scenario)


def test_shutdown_ends_lasting_streams_of_the_gateway_once() -> None:
    async def scenario() -> None:
        async with worker() as w:
            ended: list[tuple[int, str]] = []
            streams = [
                w.calls.stream("/etcdserverpb.Watch/Watch", {}, lambda _body: None, lambda *end: ended.append(end))
                for _ in range(2)
            ]
            streams[0].cancel()
            w.listener.grpc.drain()
            w.listener.grpc.drain()
            assert ended == [(14, "etcdserver: server stopped")]

    run(scenario)


def test_what_has_ended_is_gone_without_the_garbage_collector() -> None:
    """It looks only after a hundred thousand objects, and until then circles would stay."""

    async def come_and_go(w: Worker) -> None:
        async with w.channel(use_local_subchannel_pool=1) as channel:
            await put(channel, b"k", b"v")
            call = channel.stream_stream("/etcdserverpb.Watch/Watch")()
            create = rpc_pb2.WatchCreateRequest(key=b"k", start_revision=2)
            await call.write(rpc_pb2.WatchRequest(create_request=create).SerializeToString())
            assert rpc_pb2.WatchResponse.FromString(await call.read()).created
            call.cancel()

    async def scenario() -> None:
        async with worker() as w:
            await come_and_go(w)
            gc.collect()
            gc.disable()
            for _ in range(20):
                await come_and_go(w)
            await until(lambda: not w.server.connections)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = [type(one) for one in gc.garbage if type(one).__module__.startswith("quorate.api")]
            assert not left

    try:
        run(scenario)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
