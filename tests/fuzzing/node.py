"""A live node under fuzz: started once, talked to over its ports, and in the end as healthy as it was before."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench import servers
from bench.servers import Node
from quorate.proto import rpc_pb2 as rpc
from tests.support.cluster import SERVICES, quorate_cluster, service_pids, wait_until
from tests.support.rpc import Caller

ANSWER_S_MAX: Final = 20.0  # on a machine that is busy with other things
GROWTH_BYTES_MAX: Final = 150 << 20  # of any process of the node
BYSTANDER_EVERY: Final = 200  # inputs
SETTLE_S: Final = 60.0


class LiveNode:
    """What the targets need of a node."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.caller = Caller(node.endpoint)
        self._pids = {service: service_pids(node, service) for service in SERVICES}
        self._resident = {service: _resident_bytes(self._pids[service][0]) for service in SERVICES}
        self._descriptors = {service: _descriptors(self._pids[service][0]) for service in SERVICES}
        self._log_bytes = node.log_path.stat().st_size
        self._inputs = 0
        header = self.caller.unary("Cluster/MemberList", rpc.MemberListRequest()).header
        self.cluster_id, self.member_id = int(header.cluster_id), int(header.member_id)

    def client(self) -> socket.socket:
        """A connection to the client port."""
        return socket.create_connection((servers.HOST, self.node.client_port), ANSWER_S_MAX)

    def peer(self) -> socket.socket:
        """A connection to the peer port."""
        return socket.create_connection((servers.HOST, self.node.peer_port), ANSWER_S_MAX)

    def count(self) -> None:
        """After every input: nothing was logged that should not be, and others are served."""
        self._read_log()
        self._inputs += 1
        if self._inputs % BYSTANDER_EVERY == 0:
            self.look()

    def look(self) -> None:
        """A bystander's call, the processes and the log."""
        self.caller.unary("KV/Range", rpc.RangeRequest(key=b"bystander"), ANSWER_S_MAX)
        # For a moment a process that storage starts for a copy looks like storage.
        wait_until(lambda: {one: service_pids(self.node, one) for one in SERVICES} == self._pids, "no process ended")
        self._read_log()

    def _read_log(self) -> None:
        if self.node.log_path.stat().st_size == self._log_bytes:
            return
        with self.node.log_path.open("rb") as log:
            log.seek(self._log_bytes)
            lines, newline, _ = log.read().rpartition(b"\n")
        self._log_bytes += len(lines) + len(newline)
        for line in lines.splitlines():
            assert _is_harmless(line), line.decode(errors="replace")

    def check_end(self) -> None:
        """No connection is kept, and no memory."""
        self.look()

        def has_let_go() -> bool:
            now = {service: _descriptors(self._pids[service][0]) for service in SERVICES}
            return all(now[service] <= self._descriptors[service] + 8 for service in SERVICES)

        wait_until(has_let_go, "connections of the past are closed", SETTLE_S)
        grown = {service: _resident_bytes(self._pids[service][0]) - self._resident[service] for service in SERVICES}
        assert {service: size for service, size in grown.items() if size > GROWTH_BYTES_MAX} == {}

    def close(self) -> None:
        self.caller.channel.close()


_live: list[LiveNode] = []


def live() -> LiveNode:
    """The node of `world`."""
    return _live[-1]


@contextmanager
def world() -> Iterator[None]:
    """A node of its own, checked in the end."""
    with quorate_cluster(1, "--max-request-bytes", "1000000") as cluster:
        found = LiveNode(cluster.nodes[0])
        _live.append(found)
        try:
            yield
            found.check_end()
        finally:
            _live.pop()
            found.close()


def rest_of(connection: socket.socket) -> bytes:
    """What the node says until it hangs up, which it has to do soon. The client has nothing more to say."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
    heard = bytearray()
    try:
        while data := connection.recv(1 << 16):
            heard += data
    except ConnectionError:
        pass
    return bytes(heard)


def _is_harmless(line: bytes) -> bool:
    """A line of the log that the node may write about bad clients."""
    try:
        fields = json.loads(line)
    except ValueError:
        return False  # a stack trace that went past the log
    return fields.get("level") in ("debug", "info", "warn") and "stacktrace" not in fields


def _resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024


def _descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
