"""A node that serves clients over TLS."""

import ssl
import urllib.request
from datetime import timedelta
from pathlib import Path

import grpc

from quorate.node import certificates
from quorate.node.certificates import Purpose, Subject
from quorate.proto import rpc_pb2
from tests.support.cluster import quorate_cluster, wait_until


def test_node_with_a_certificate_serves_grpc_and_https(tmp_path: Path) -> None:
    certificate, key = tmp_path / "server.pem", tmp_path / "server-key.pem"
    subject = Subject(common_name="node", hosts=("127.0.0.1",))
    certificates.write(certificates.issue(subject, Purpose.SERVER, timedelta(days=1)), certificate, key)
    with quorate_cluster(1, ready=False) as cluster:
        node = cluster.nodes[0]
        url = f"https://{node.endpoint}"
        node.flags += (f"--cert-file={certificate}", f"--key-file={key}")
        node.flags += (f"--listen-client-urls={url}", f"--advertise-client-urls={url}")
        node.start()
        wait_until(lambda: serves_tls(node.endpoint), "the node serves TLS")

        credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
        with grpc.secure_channel(node.endpoint, credentials) as channel:
            put = channel.unary_unary(
                "/etcdserverpb.KV/Put", rpc_pb2.PutRequest.SerializeToString, rpc_pb2.PutResponse.FromString
            )
            assert put(rpc_pb2.PutRequest(key=b"k", value=b"v"), timeout=20).header.revision == 2

        context = ssl.create_default_context(cafile=str(certificate))
        with urllib.request.urlopen(f"{url}/version", timeout=20, context=context) as answer:
            assert answer.status == 200


def serves_tls(endpoint: str) -> bool:
    host, _, port = endpoint.rpartition(":")
    try:
        ssl.get_server_certificate((host, int(port)), timeout=5)
    except OSError:
        return False
    return True
