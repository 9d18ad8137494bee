"""Watch streams of a real node, message by message: what etcd sends and what it keeps to itself."""

from __future__ import annotations

import json
import queue
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from bench.servers import HOST, Cluster, Node
from quorate.proto import kv_pb2, rpc_pb2
from quorate.wire import errors
from tests.support.cluster import quorate_cluster, wait_until
from tests.support.rpc import Caller, calling, refusal

REQUEST_BYTES_MAX = 100_000
PROGRESS_MS = 200
HASLEADER = (("hasleader", "true"),)
TIMEOUT_S = 30.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with quorate_cluster(
        1, f"--max-request-bytes={REQUEST_BYTES_MAX}", f"--watch-progress-notify-interval={PROGRESS_MS}ms"
    ) as cluster:
        yield cluster


@pytest.fixture
def node(cluster: Cluster) -> Node:
    return cluster.nodes[0]


@pytest.fixture
def caller(node: Node) -> Iterator[Caller]:
    with calling(node.endpoint) as caller:
        yield caller


class Stream:
    """A Watch call whose requests are said one by one."""

    def __init__(self, caller: Caller) -> None:
        self._requests: queue.SimpleQueue[rpc_pb2.WatchRequest | None] = queue.SimpleQueue()
        self.call = caller.stream("Watch/Watch", iter(self._requests.get, None), TIMEOUT_S)

    def create(self, key: bytes, range_end: bytes = b"", **options: Any) -> rpc_pb2.WatchResponse:
        """The answer, which comes before anything else of that watcher."""
        self.say_create(key, range_end, **options)
        return self.next()

    def say_create(self, key: bytes, range_end: bytes = b"", **options: Any) -> None:
        create = rpc_pb2.WatchCreateRequest(key=key, range_end=range_end, **options)
        self._requests.put(rpc_pb2.WatchRequest(create_request=create))

    def cancel(self, watch_id: int) -> None:
        self._requests.put(rpc_pb2.WatchRequest(cancel_request=rpc_pb2.WatchCancelRequest(watch_id=watch_id)))

    def ask_progress(self) -> None:
        self._requests.put(rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest()))

    def next(self) -> rpc_pb2.WatchResponse:
        response: rpc_pb2.WatchResponse = next(self.call)
        return response

    def half_close(self) -> None:
        self._requests.put(None)


@contextmanager
def watching(caller: Caller) -> Iterator[Stream]:
    stream = Stream(caller)
    try:
        yield stream
    finally:
        stream.half_close()
        stream.call.cancel()


def put(caller: Caller, key: bytes, value: bytes = b"v") -> int:
    return int(caller.unary("KV/Put", rpc_pb2.PutRequest(key=key, value=value)).header.revision)


def test_a_half_closed_stream_goes_on(caller: Caller) -> None:
    with watching(caller) as stream:
        assert stream.create(b"half").created
        stream.half_close()
        revisions = [put(caller, b"half") for _ in range(3)]
        told = [event.kv.mod_revision for _ in revisions for event in stream.next().events]
        assert revisions == told


def test_a_half_closed_stream_of_the_gateway_goes_on(node: Node, caller: Caller) -> None:
    body = b'{"create_request":{"key":"Z2F0ZQ=="}}'
    head = b"POST /v3/watch HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection((HOST, node.client_port), TIMEOUT_S) as client:
        client.sendall(head + body)
        lines = client.makefile("rb")
        answers = (json.loads(line)["result"] for line in lines if line.startswith(b"{"))
        assert next(answers)["created"] is True
        revisions = [put(caller, b"gate") for _ in range(3)]
        told = [int(event["kv"]["mod_revision"]) for _ in revisions for event in next(answers)["events"]]
        assert revisions == told


@pytest.mark.parametrize("watch_id", [7, -7, (1 << 63) - 1, -(1 << 63)])
def test_an_id_that_a_client_chooses_may_be_any_number(caller: Caller, watch_id: int) -> None:
    with watching(caller) as stream:
        assert stream.create(b"chosen", watch_id=watch_id).watch_id == watch_id
        again = stream.create(b"chosen", watch_id=watch_id)
        assert (again.created, again.canceled, again.watch_id) == (True, True, -1)
        assert errors.DUPLICATE_WATCH_ID.text == again.cancel_reason
        put(caller, b"chosen")
        assert stream.next().watch_id == watch_id
        stream.cancel(12345)  # of which nothing is said
        stream.cancel(watch_id)
        cancelled = stream.next()
        assert (cancelled.canceled, cancelled.watch_id, cancelled.cancel_reason) == (True, watch_id, "")
        assert stream.create(b"chosen").watch_id == 0


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"key": b"b", "range_end": b"a"}, errors.EMPTY_WATCHER_RANGE.text),
        ({"key": b"b", "start_revision": -1}, errors.COMPACTED.text),
        ({"key": b"b", "start_revision": -(1 << 63)}, errors.COMPACTED.text),
    ],
)
def test_a_watcher_that_can_not_be_is_told_why(caller: Caller, asked: dict[str, Any], reason: str) -> None:
    with watching(caller) as stream:
        answer = stream.create(**asked)
        assert (answer.created, answer.canceled, answer.watch_id) == (True, True, -1)
        assert answer.cancel_reason == reason
        assert stream.create(b"b").watch_id == 0


def test_a_watcher_of_the_last_revision_there_can_be_waits(caller: Caller) -> None:
    with watching(caller) as stream:
        assert stream.create(b"late", start_revision=(1 << 63) - 1).created
        put(caller, b"late")
        stream.ask_progress()  # nothing comes of it while a start is ahead
        assert stream.create(b"late").created
        revision = put(caller, b"late")
        response = stream.next()
        assert (response.watch_id, response.events[0].kv.mod_revision) == (1, revision)


def test_progress_is_told_at_the_interval_to_who_asked_for_it(caller: Caller) -> None:
    with watching(caller) as stream:
        stream.create(b"quiet/1")
        notified = stream.create(b"quiet/2", progress_notify=True).watch_id
        revisions = []
        for _ in range(3):
            revision = put(caller, b"elsewhere")
            response = stream.next()
            while response.header.revision < revision:  # it was under way
                response = stream.next()
            assert (response.watch_id, len(response.events), response.created) == (notified, 0, False)
            revisions.append(response.header.revision)
        assert revisions == sorted(revisions)


def test_progress_that_a_client_asks_for_says_where_all_its_watchers_are(caller: Caller) -> None:
    with watching(caller) as stream:
        stream.create(b"asked/1")
        stream.create(b"asked/2", start_revision=1)
        revision = put(caller, b"asked/1")
        assert stream.next().events[0].kv.mod_revision == revision

        def is_told() -> bool:
            """Nothing is said while a watcher still reads history; the stream itself goes on."""
            stream.ask_progress()
            stream.say_create(b"asked/3")
            response = stream.next()
            while not response.created:
                assert (response.watch_id, len(response.events)) == (-1, 0)
                told.append(response.header.revision)
                response = stream.next()
            return bool(told)

        told: list[int] = []
        wait_until(is_told, "progress is told")
        assert told[0] >= revision


def test_what_is_larger_than_a_request_may_be_comes_in_fragments_to_who_asked(caller: Caller) -> None:
    values = {b"large/%02d" % number: b"x" * 90_000 for number in range(20)}
    with watching(caller) as stream:
        pieces = stream.create(b"large/", b"large0", fragment=True).watch_id
        whole = stream.create(b"large/", b"large0").watch_id
        for key, value in values.items():
            put(caller, key, value)
        for _ in values:
            stream.next(), stream.next()
        request = rpc_pb2.DeleteRangeRequest(key=b"large/", range_end=b"large0")
        with watching(caller) as other:
            other.create(b"large/", b"large0", fragment=True, prev_kv=True)
            deleted = caller.unary("KV/DeleteRange", request).header.revision
            responses = [other.next()]
            while responses[-1].fragment:
                responses.append(other.next())
        assert len(responses) > 2
        assert all(response.ByteSize() < REQUEST_BYTES_MAX + 512 * 1024 for response in responses)
        events = [event for response in responses for event in response.events]
        assert [(event.kv.key, event.prev_kv.value) for event in events] == list(values.items())
        assert {event.kv.mod_revision for event in events} == {deleted}
        for response in (stream.next(), stream.next()):  # without the values it is small
            assert response.watch_id in (pieces, whole)
            assert (len(response.events), response.fragment) == (len(values), False)


def test_deletes_and_puts_can_be_left_out(caller: Caller) -> None:
    filters = rpc_pb2.WatchCreateRequest
    with watching(caller) as stream:
        puts = stream.create(b"both", filters=[filters.NODELETE]).watch_id
        deletes = stream.create(b"both", filters=[filters.NOPUT]).watch_id
        put(caller, b"both")
        caller.unary("KV/DeleteRange", rpc_pb2.DeleteRangeRequest(key=b"both"))
        told = {response.watch_id: response.events[0].type for response in (stream.next(), stream.next())}
        assert {puts: kv_pb2.Event.PUT, deletes: kv_pb2.Event.DELETE} == told


def test_streams_that_want_a_leader_end_without_one_and_others_wait() -> None:
    with quorate_cluster(3) as cluster:
        leader = cluster.leader()
        others = [node for node in cluster.nodes if node is not leader]
        with (
            calling(others[0].endpoint, HASLEADER) as demanding,
            calling(others[0].endpoint) as patient,
            watching(demanding) as ending,
            watching(patient) as staying,
        ):
            assert ending.create(b"a").created
            assert staying.create(b"a").created
            leader.kill()
            others[1].kill()
            with pytest.raises(grpc.RpcError) as ended:
                ending.next()
            assert refusal(ended.value) == ("UNAVAILABLE", errors.NO_LEADER.text)
            with pytest.raises(grpc.RpcError) as refused:
                Stream(demanding).next()
            assert refusal(refused.value) == ("UNAVAILABLE", errors.NO_LEADER.text)
            others[1].start()
            others[1].wait_ready()
            with calling(others[1].endpoint) as caller:
                revision = put(caller, b"a")
            assert [event.kv.mod_revision for event in staying.next().events] == [revision]
