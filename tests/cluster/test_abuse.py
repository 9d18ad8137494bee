"""Floods against a real node: others are served meanwhile and afterwards, by the same processes, which stay small.

"Meanwhile" is measured: no attack ends before a bystander has had a number of answers beside it, and what it waited
for them is bounded. What an attack took of memory is bounded, and its descriptors are given back.

How each of them is turned away in detail is in tests/api/test_abuse.py.
"""

import contextlib
import http.client
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import grpc
import pytest

from bench import servers
from bench.servers import Node
from quorate.api.http2 import frames
from quorate.proto import rpc_pb2
from quorate.wire import errors
from tests.support import floods
from tests.support.cluster import SERVICES, quorate_cluster, service_pids, wait_until
from tests.support.rpc import Caller, calling, refusal

MIB: Final = 1 << 20
GROWTH_BYTES_MAX: Final = 200 * MIB  # of any process of the node
WAIT_S_MAX: Final = 10.0  # of a call beside a flood, on a machine that is busy with both
WAIT_S_USUAL: Final = 1.0  # of half of these calls
SERVED_BESIDE: Final = 20  # calls, by each attack
ATTACKERS: Final = 3
SLOW: Final = 500  # connections that say something now and then
DESCRIPTORS_LEFT: Final = 10  # more than before: a neighbour that was met meanwhile, a file being written
TIMEOUT_S: Final = 60.0


class Bystander(threading.Thread):
    """A client that puts one key after another over the connection it has."""

    def __init__(self, caller: Caller) -> None:
        super().__init__()
        self._caller = caller
        self._is_stopping = threading.Event()
        self.failures: list[str] = []
        self.waits_s: list[float] = []

    def run(self) -> None:
        while not self._is_stopping.is_set():
            began = time.monotonic()
            try:
                self._caller.unary("KV/Put", rpc_pb2.PutRequest(key=b"bystander", value=b"v"), TIMEOUT_S)
            except grpc.RpcError as failure:
                self.failures.append(str(refusal(failure)))
            else:
                self.waits_s.append(time.monotonic() - began)

    @property
    def served(self) -> int:
        return len(self.waits_s)

    def wait_served(self, when: str) -> None:
        """It gets its answers from now on."""
        wanted = self.served + SERVED_BESIDE
        wait_until(lambda: self.served >= wanted or bool(self.failures), f"the bystander is served {when}")

    def rounds(self, least: int) -> Iterator[int]:
        """Rounds of an attack: so many, and until enough was served beside them."""
        wanted = self.served + SERVED_BESIDE
        number = 0
        while number < least or (self.served < wanted and not self.failures):
            yield number
            number += 1

    def stop(self) -> None:
        self._is_stopping.set()
        self.join()


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with quorate_cluster(1) as cluster:
        yield cluster.nodes[0]


@pytest.fixture
def bystander(node: Node) -> Iterator[Bystander]:
    with calling(node.endpoint) as caller:
        client = Bystander(caller)
        client.start()
        try:
            client.wait_served("before")
            yield client
        finally:
            client.stop()


@pytest.fixture(autouse=True)
def unharmed(node: Node, bystander: Bystander) -> Iterator[None]:
    """What has to be true of every test here."""
    pids = {service: service_pids(node, service) for service in SERVICES}
    memory = {service: resident_bytes(pids[service][0]) for service in SERVICES}
    opened = {service: descriptors(pids[service][0]) for service in SERVICES}
    first = bystander.served
    yield
    beside = bystander.waits_s[first:]
    assert len(beside) >= SERVED_BESIDE
    assert max(beside) < WAIT_S_MAX
    assert statistics.median(beside) < WAIT_S_USUAL
    bystander.wait_served("afterwards")
    assert bystander.failures == []
    assert {service: service_pids(node, service) for service in SERVICES} == pids
    grown = {service: resident_bytes(pids[service][0]) - memory[service] for service in SERVICES}
    assert {service: size for service, size in grown.items() if size > GROWTH_BYTES_MAX} == {}
    for service in SERVICES:
        most, pid = opened[service] + DESCRIPTORS_LEFT, pids[service][0]
        wait_until(lambda pid=pid, most=most: descriptors(pid) <= most, f"{service} has let go")  # type: ignore[misc]


def resident_bytes(pid: int) -> int:
    """The most a process has had in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def descriptors(pid: int) -> int:
    """How many a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def connected(node: Node) -> socket.socket:
    return socket.create_connection((servers.HOST, node.client_port), timeout=TIMEOUT_S)


def rest_of(connection: socket.socket) -> bytes:
    """What the node says until it hangs up."""
    heard = b""
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(65_536):
            heard = (heard + data)[-65_536:]
    return heard


@pytest.mark.parametrize("name", floods.NAMES)
def test_floods_of_frames(node: Node, bystander: Bystander, name: str) -> None:
    for _ in bystander.rounds(ATTACKERS):
        with connected(node) as connection:
            with contextlib.suppress(ConnectionError):
                for octets in floods.flood(name):
                    connection.sendall(octets)
            rest_of(connection)


def test_requests_that_are_begun_and_never_ended(node: Node, bystander: Bystander) -> None:
    head = floods.call_head(b"/etcdserverpb.KV/Put")
    with connected(node) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(frames.PREFACE + frames.settings({}))
        connection.setblocking(False)
        for first in range(0, 100_000, 1_000):
            octets = b"".join(frames.frame(frames.HEADERS, 4, 2 * n + 1, head) for n in range(first, first + 1_000))
            swallow(connection)
            connection.setblocking(True)
            connection.sendall(octets)
            connection.setblocking(False)
        bystander.wait_served("beside what was begun")


def swallow(connection: socket.socket) -> None:
    """Read what is there."""
    with contextlib.suppress(BlockingIOError):
        while connection.recv(1 << 20):
            pass


@pytest.mark.parametrize(
    "pieces",
    [
        (b"GET /heal", b"th HTTP/1.1\r\nHo", b"st: x\r\nX-", b"More: "),
        (b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n", b'{"key"', b':"YQ=='),
        (frames.PREFACE[:10], frames.PREFACE[10:], b"\0"),
    ],
    ids=["heads", "bodies", "prefaces"],
)
def test_what_comes_letter_by_letter(node: Node, bystander: Bystander, pieces: tuple[bytes, ...]) -> None:
    (api,) = service_pids(node, "api")
    before = descriptors(api)
    with contextlib.ExitStack() as opened:
        slow = [opened.enter_context(connected(node)) for _ in range(SLOW)]
        for letters in pieces:
            for connection in slow:
                connection.sendall(letters)
            bystander.wait_served("beside the slow ones")
        assert descriptors(api) - before >= SLOW - DESCRIPTORS_LEFT


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nX-Long: "])
def test_giant_heads_of_http_1(node: Node, bystander: Bystander, start: bytes) -> None:
    for _ in bystander.rounds(ATTACKERS):
        with connected(node) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(start)
            for _ in range(64):
                connection.sendall(b"x" * MIB)
            rest_of(connection)


def test_a_million_watchers(node: Node, bystander: Bystander) -> None:
    create = rpc_pb2.WatchRequest(create_request=rpc_pb2.WatchCreateRequest(key=b"k")).SerializeToString()
    thousand = (b"\0" + len(create).to_bytes(4, "big") + create) * 1_000
    greedy = floods.Pouring(servers.HOST, node.client_port, b"/etcdserverpb.Watch/Watch", TIMEOUT_S)
    try:
        for _ in range(1_000):
            greedy.pour(thousand)
        assert greedy.is_over
        bystander.wait_served("beside the watchers")
    finally:
        greedy.close()


def test_transactions_of_great_depth_and_width(node: Node, bystander: Bystander) -> None:
    deep = floods.nested_txn(20_000)
    puts = [rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"%d" % number)) for number in range(50_000)]
    wide = rpc_pb2.TxnRequest(success=puts).SerializeToString()
    with calling(node.endpoint) as caller:
        for _ in bystander.rounds(3):
            for body in (deep, floods.nested_txn(300), wide):
                with pytest.raises(grpc.RpcError) as caught:
                    caller.raw("/etcdserverpb.KV/Txn", body)
                assert refusal(caught.value)[1] in (errors.MALFORMED_REQUEST.text, errors.TOO_MANY_OPS.text)


@pytest.mark.parametrize(
    "body",
    [b'{"success":[{"request_txn":' * 30_000, b"[" * MIB, b'{"a":' * 200_000, b'{"key":"' + b"\\u0041" * 200_000],
    ids=["transactions", "arrays", "objects", "escapes"],
)
def test_json_of_great_depth(node: Node, bystander: Bystander, body: bytes) -> None:
    connection = http.client.HTTPConnection(servers.HOST, node.client_port, timeout=TIMEOUT_S)
    try:
        for _ in bystander.rounds(5):
            connection.request("POST", "/v3/kv/txn", body)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 400
    finally:
        connection.close()
