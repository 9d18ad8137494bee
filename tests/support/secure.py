"""Nodes with certificates: TLS for clients and members of a cluster of tests, and clients that have what it takes."""

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from bench import servers
from bench.servers import Cluster, Node
from quorate.node.certificates import Purpose, Subject
from quorate.proto import rpc_pb2
from tests.support.authority import Authority
from tests.support.cluster import product_cluster
from tests.support.rpc import calling

LOCAL: Final = ("localhost", "127.0.0.1")
READY_WITHIN_S: Final = 60.0
POLL_S: Final = 0.05


@dataclass
class Secured:
    """A cluster whose clients and members show certificates of one authority."""

    cluster: Cluster
    authority: Authority
    cert: str  # of the client `root`
    key: str

    @property
    def context(self) -> ssl.SSLContext:
        return self.authority.dialler(self.cert, self.key)

    @property
    def credentials(self) -> grpc.ChannelCredentials:
        return self.authority.credentials(self.cert, self.key)

    @property
    def etcdctl_flags(self) -> list[str]:
        endpoints = ",".join(f"https://{node.endpoint}" for node in self.cluster.nodes)
        files = ["--cacert", str(self.authority.ca_file), "--cert", self.cert, "--key", self.key]
        return ["--endpoints", endpoints, *files]

    def put(self, node: Node, key: bytes, value: bytes, timeout_s: float = 20.0) -> int:
        """Put one key; the revision."""
        with calling(node.endpoint, credentials=self.credentials) as caller:
            answer = caller.unary("KV/Put", rpc_pb2.PutRequest(key=key, value=value), timeout_s)
            return int(answer.header.revision)

    def get(self, node: Node, key: bytes) -> bytes | None:
        with calling(node.endpoint, credentials=self.credentials) as caller:
            answer = caller.unary("KV/Range", rpc_pb2.RangeRequest(key=key))
        return bytes(answer.kvs[0].value) if answer.kvs else None

    def wait_ready(self, node: Node) -> None:
        """Return after the first successful put."""
        deadline = time.monotonic() + READY_WITHIN_S
        while True:
            try:
                self.put(node, b"ready", b"1", 5.0)
                return
            except grpc.RpcError:
                assert time.monotonic() < deadline, node.log_tail()
                assert node.process is None or node.process.poll() is None, node.log_tail()
                time.sleep(POLL_S)


def issue(authority: Authority, node: Node) -> None:
    """New certificates for a node, where its flags expect them."""
    authority.files(f"{node.name}-server", Subject(node.name, LOCAL), Purpose.SERVER)
    authority.files(f"{node.name}-peer", Subject(node.name, LOCAL), Purpose.PEER)


def peer_flags(authority: Authority, node: Node) -> tuple[str, ...]:
    """TLS with other members, both sides showing certificates."""
    stem = authority.directory / f"{node.name}-peer"
    return (
        *("--peer-cert-file", f"{stem}.pem", "--peer-key-file", f"{stem}-key.pem"),
        *("--peer-client-cert-auth", "--peer-trusted-ca-file", str(authority.ca_file)),
    )


def client_flags(authority: Authority, node: Node) -> tuple[str, ...]:
    """TLS with clients, both sides showing certificates."""
    stem = authority.directory / f"{node.name}-server"
    return (
        *("--cert-file", f"{stem}.pem", "--key-file", f"{stem}-key.pem"),
        *("--client-cert-auth", "--trusted-ca-file", str(authority.ca_file)),
    )


@contextmanager
def secured_cluster(directory: Path, size: int, *flags: str) -> Iterator[Secured]:
    """A running cluster with certificates on both sides of both ports."""
    authority = Authority(directory, "cluster")
    cert, key, _ = authority.files("root", Subject("root"), Purpose.CLIENT)
    with product_cluster(servers.quorate(), size, ready=False) as cluster:
        secured = Secured(cluster, authority, cert, key)
        for node in cluster.nodes:
            issue(authority, node)
            encrypted = tuple(word.replace("http://", "https://") for word in node.flags)
            node.flags = (*encrypted, *peer_flags(authority, node), *client_flags(authority, node), *flags)
            node.start()
        for node in cluster.nodes:
            secured.wait_ready(node)
        yield secured
