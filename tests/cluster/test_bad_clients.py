"""Clients that send garbage, too much, or do not read, against a real node: they are refused, and others are served.

Whatever a bad client does, a well-behaved one goes on calling over a connection it had before, and the node's
processes stay the same ones and stay small.
"""

from __future__ import annotations

import http.client
import json
import random
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from bench import servers
from bench.servers import Node
from quorate.proto import rpc_pb2, v3election_pb2, v3lock_pb2
from quorate.wire import errors
from tests.support.cluster import SERVICES, quorate_cluster, service_pids, wait_until
from tests.support.rpc import Caller, calling, refusal

MIB = 1 << 20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
ANSWER_BYTES = 20 * MIB
MALFORMED = b"\x0a\xff\xff\xff\xff\x0f!"  # a field much longer than what follows
DEAF = 10
GROWTH_BYTES_MAX = (
    DEAF + 3
) * ANSWER_BYTES + 100 * MIB  # of the api process: each deaf client's answer once, one in parts
ANSWER_S = 60.0  # no promise: 200 MiB are on their way beside it, and many tests may share the machine
SEED = 20_25
DATA = 0  # the kind of frame that messages are in
FRAME_HEAD_BYTES = 9


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with quorate_cluster(1) as cluster:
        yield cluster.nodes[0]


@pytest.fixture
def bystander(node: Node) -> Iterator[Caller]:
    """Another client: served before and after, on one connection, by the same processes, which have not grown."""
    with calling(node.endpoint) as caller:
        put(caller, b"bystander", b"before")
        pids = {service: service_pids(node, service) for service in SERVICES}
        before = resident_bytes(pids["api"][0])
        yield caller
        put(caller, b"bystander", b"after")
        assert {service: service_pids(node, service) for service in SERVICES} == pids
        assert resident_bytes(pids["api"][0]) - before < GROWTH_BYTES_MAX


def put(caller: Caller, key: bytes, value: bytes) -> None:
    caller.unary("KV/Put", rpc_pb2.PutRequest(key=key, value=value), ANSWER_S)


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024


def connected(node: Node) -> socket.socket:
    return socket.create_connection((servers.HOST, node.client_port), timeout=20.0)


def rest_of(connection: socket.socket) -> bytes:
    """What the node says until it hangs up."""
    heard = b""
    try:
        while data := connection.recv(65536):
            heard += data
    except ConnectionResetError:
        pass
    return heard


def call_frames(path: bytes, body: bytes, *, end: bool = True) -> bytes:
    """One gRPC call on stream 1 of a new connection, headers as literals."""
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"x"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ]
    block = b"".join(b"\0" + bytes((len(k),)) + k + bytes((len(v),)) + v for k, v in fields)
    data = struct.pack(">BI", 0, len(body)) + body
    return PREFACE + SETTINGS + frame(1, 4, 1, block) + frame(0, int(end), 1, data)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


def frame_kinds(octets: bytes) -> list[int]:
    """The kinds of the frames that were heard, in order."""
    kinds = []
    while len(octets) >= FRAME_HEAD_BYTES:
        kinds.append(octets[3])
        octets = octets[FRAME_HEAD_BYTES + int.from_bytes(octets[:3], "big") :]
    return kinds


# --- garbage ---------------------------------------------------------------------------------------------------------


def unary_methods() -> list[str]:
    services = [*rpc_pb2.DESCRIPTOR.services_by_name.values(), *v3lock_pb2.DESCRIPTOR.services_by_name.values()]
    services += v3election_pb2.DESCRIPTOR.services_by_name.values()
    methods = [method for service in services for method in service.methods]
    return [
        f"/{one.containing_service.full_name}/{one.name}"
        for one in methods
        if not one.client_streaming and not one.server_streaming
    ]


def test_malformed_protobuf_is_an_error_of_its_call(node: Node, bystander: Caller) -> None:
    answers = {}
    for method in unary_methods():
        try:
            bystander.raw(method, MALFORMED)
            answers[method] = ("OK", "")
        except grpc.RpcError as error:
            answers[method] = refusal(error)
    expected = (errors.MALFORMED_REQUEST.code.name, errors.MALFORMED_REQUEST.text)
    assert {method: answer for method, answer in answers.items() if answer != expected} == {}


@pytest.mark.parametrize("method", ["Watch/Watch", "Lease/LeaseKeepAlive"])
def test_malformed_protobuf_ends_its_stream(node: Node, bystander: Caller, method: str) -> None:
    call = bystander.channel.stream_stream(f"/etcdserverpb.{method}")(iter([MALFORMED]), timeout=20)
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert refusal(caught.value)[0] == "INTERNAL"


def test_octets_that_are_no_protocol_end_their_connection(node: Node, bystander: Caller) -> None:
    dice = random.Random(SEED)
    for _ in range(50):
        with connected(node) as connection:
            connection.sendall(dice.randbytes(dice.randrange(1, 4096)))
            connection.shutdown(socket.SHUT_WR)
            assert b" 200 " not in rest_of(connection)


def test_frames_of_chance_end_their_connection(node: Node, bystander: Caller) -> None:
    dice = random.Random(SEED)
    for _ in range(50):
        with connected(node) as connection:
            frames = [
                frame(dice.randrange(12), dice.randrange(256), dice.randrange(6), dice.randbytes(dice.randrange(40)))
                for _ in range(20)
            ]
            connection.sendall(PREFACE + SETTINGS + b"".join(frames))
            connection.shutdown(socket.SHUT_WR)
            assert DATA not in frame_kinds(rest_of(connection))  # nothing of it was a call


# --- too much --------------------------------------------------------------------------------------------------------


def test_a_message_over_the_limit_is_refused(node: Node, bystander: Caller) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        put(bystander, b"large", b"x" * (2 * MIB))
    assert refusal(caught.value)[0] == "RESOURCE_EXHAUSTED"
    with pytest.raises(grpc.RpcError) as caught:
        put(bystander, b"large", b"x" * (1_572_864 + 1))
    assert refusal(caught.value) == ("INVALID_ARGUMENT", "etcdserver: request is too large")


def test_headers_over_the_limit_are_refused(node: Node, bystander: Caller) -> None:
    metadata = tuple((f"x-{number}", "v" * 8000) for number in range(20))
    with calling(node.endpoint, metadata) as caller, pytest.raises(grpc.RpcError):
        put(caller, b"k", b"v")
    connection = http.client.HTTPConnection(servers.HOST, node.client_port, timeout=20)
    connection.request("GET", "/health", headers={f"X-{number}": "v" * 8000 for number in range(50)})
    try:
        assert connection.getresponse().status in (400, 431)
    except (ConnectionError, http.client.HTTPException):
        pass
    finally:
        connection.close()


def test_an_endless_body_of_the_gateway_is_refused(node: Node, bystander: Caller) -> None:
    with connected(node) as connection:
        connection.sendall(b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(64):
                connection.sendall(b"100000\r\n" + b"x" * MIB + b"\r\n")
        except OSError:
            return
        assert b" 4" in connection.recv(4096)[:16]


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"key": 1}', b'{"key": "Zm9v", "lease": "x"}', b'"\xff"'])
def test_json_of_the_wrong_kind_is_an_invalid_argument(node: Node, bystander: Caller, body: bytes) -> None:
    connection = http.client.HTTPConnection(servers.HOST, node.client_port, timeout=20)
    connection.request("POST", "/v3/kv/put", body)
    answer = connection.getresponse()
    told = json.loads(answer.read())
    connection.close()
    assert (answer.status, told["code"], told["error"]) == (400, 3, told["message"])


# --- clients that hold back ------------------------------------------------------------------------------------------


def test_a_client_that_never_reads_holds_nobody_up(node: Node, bystander: Caller) -> None:
    for number in range(20):
        put(bystander, b"big/%02d" % number, b"x" * MIB)
    everything = rpc_pb2.RangeRequest(key=b"big/", range_end=b"big0")
    request = everything.SerializeToString()
    deaf = [connected(node) for _ in range(DEAF)]
    try:
        for connection in deaf:
            connection.sendall(call_frames(b"/etcdserverpb.KV/Range", request))
        for number in range(200):
            put(bystander, b"beside", b"%d" % number)
        assert bystander.unary("KV/Range", everything, ANSWER_S).count == 20
    finally:
        for connection in deaf:
            connection.close()
    bystander.unary("KV/DeleteRange", rpc_pb2.DeleteRangeRequest(key=b"big/", range_end=b"big0"))


def test_a_call_of_a_client_that_closes_its_half_is_executed(node: Node, bystander: Caller) -> None:
    """As with etcd it gets no answer: who ends a connection of HTTP/2 ends its streams."""
    with connected(node) as connection:
        connection.sendall(call_frames(b"/etcdserverpb.KV/Put", rpc_pb2.PutRequest(key=b"half").SerializeToString()))
        connection.shutdown(socket.SHUT_WR)
        rest_of(connection)
    wait_until(
        lambda: bystander.unary("KV/Range", rpc_pb2.RangeRequest(key=b"half")).count == 1, "its put was executed"
    )


def test_a_client_that_leaves_within_a_request_leaves_nothing(node: Node, bystander: Caller) -> None:
    everything = rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0")
    before = bystander.unary("KV/Range", everything)
    for _ in range(50):
        with connected(node) as connection:
            connection.sendall(call_frames(b"/etcdserverpb.KV/Put", b"\x0a" * 10_000, end=False))
    pid = service_pids(node, "api")[0]
    wait_until(lambda: open_sockets(pid, node) <= 3, "the connections are closed")
    after = bystander.unary("KV/Range", everything)
    assert (after.header.revision, after.kvs) == (before.header.revision, before.kvs)


def open_sockets(pid: int, node: Node) -> int:
    """Established TCP connections of the client port, seen from the node."""
    port = f":{node.client_port:04X}"
    lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    return sum(1 for line in lines if line.split()[1].endswith(port) and line.split()[3] == "01")
