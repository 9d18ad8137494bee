"""Three nodes with certificates everywhere: clients of all kinds, bad certificates, plain text, and rotation."""

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import grpc
import httpx
import pytest

from bench.servers import Node
from quorate.node.certificates import Issued, Purpose, Subject
from quorate.proto import auth_pb2, rpc_pb2
from quorate.wire import errors
from tests.conformance.clients import etcdctls
from tests.support.authority import DAY, Authority
from tests.support.cluster import restart_service, wait_until
from tests.support.rpc import calling, refusal
from tests.support.secure import LOCAL, Secured, issue, secured_cluster

REVOKED = ("revoked", Subject("gone", LOCAL), Purpose.PEER)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def secured(directory: Path) -> Iterator[Secured]:
    crl = directory / "crl.pem"
    Authority(directory, "cluster").revoke(crl)
    with secured_cluster(directory, 3, "--client-crl-file", str(crl), "--peer-crl-file", str(crl)) as running:
        running.authority.revoke(crl)
        yield running


def port_of(node: Node, side: str) -> int:
    return node.client_port if side == "client" else node.peer_port


def told(node: Node, side: str) -> list[str]:
    """The reasons a node's log gives for those it did not let in."""
    message = f"rejected connection on {side} endpoint"
    lines = [json.loads(line) for line in node.log_path.read_text().splitlines() if message in line]
    return [line["error"] for line in lines]


def is_told(node: Node, side: str, reason: str) -> bool:
    return any(reason in line for line in told(node, side))


def say(port: int, words: bytes, context: ssl.SSLContext | None = None) -> bytes:
    """What a port answers; nothing if it hangs up."""
    heard = b""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 20) as plain:
        connection = context.wrap_socket(plain, server_hostname="127.0.0.1") if context is not None else plain
        with connection:
            connection.sendall(words)
            while data := connection.recv(4096):
                heard += data
    return heard


@pytest.mark.parametrize("version", sorted(etcdctls()))
def test_etcdctl_works_through_every_member(secured: Secured, version: str) -> None:
    def etcdctl(*words: str) -> str:
        command = [etcdctls()[version], *secured.etcdctl_flags, *words]
        done = subprocess.run(
            command, capture_output=True, text=True, env={"ETCDCTL_API": "3"}, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert etcdctl("put", "foo", version) == "OK\n"
    assert etcdctl("get", "foo", "--print-value-only") == f"{version}\n"
    assert len(etcdctl("endpoint", "health").splitlines()) == 3 or version == "3.4"
    assert etcdctl("endpoint", "status").count("https://") == 3


def test_grpcio_and_httpx_and_curl_work(secured: Secured) -> None:
    one, two, three = secured.cluster.nodes
    secured.put(one, b"k", b"v")
    assert secured.get(two, b"k") == b"v"
    with httpx.Client(verify=secured.context) as client:
        answer = client.post(f"https://{three.endpoint}/v3/kv/range", json={"key": "aw=="})
        assert answer.json()["kvs"][0]["value"] == "dg=="
    curl = shutil.which("curl")
    if curl is not None:
        files = ["--cacert", str(secured.authority.ca_file), "--cert", secured.cert, "--key", secured.key]
        shown = subprocess.run(
            [curl, "--silent", *files, f"https://{one.endpoint}/health"], capture_output=True, timeout=60, check=True
        )
        assert json.loads(shown.stdout)["health"] == "true"


def test_the_peer_port_tells_members_to_who_shows_a_certificate(secured: Secured) -> None:
    files = secured.authority.files("asking", Subject("asking", LOCAL), Purpose.PEER)
    with httpx.Client(verify=secured.authority.dialler(*files[:2])) as client:
        told = client.get(f"https://127.0.0.1:{secured.cluster.nodes[0].peer_port}/members", timeout=20).json()
    assert sorted(member["name"] for member in told) == [node.name for node in secured.cluster.nodes]


def test_the_health_check_of_containers_speaks_tls(secured: Secured) -> None:
    node = secured.cluster.nodes[0]
    files = ["--cacert", str(secured.authority.ca_file), "--cert", secured.cert, "--key", secured.key]
    command = [sys.executable, "-m", "quorate.node.check", *files, f"https://{node.endpoint}"]
    environment = {**os.environ, **node.product.environment}
    checked = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["health"] == "true"


def test_the_figures_say_how_long_certificates_last(secured: Secured) -> None:
    with httpx.Client(verify=secured.context) as client:
        text = client.get(f"https://{secured.cluster.nodes[0].endpoint}/metrics", timeout=20).text
    for side in ("client", "peer"):
        lines = [line for line in text.splitlines() if "quorate_certificate_days_left{file" in line and side in line]
        assert any(0.5 < float(line.rpartition(" ")[2]) <= 1.0 for line in lines), lines


def test_an_expiring_certificate_is_warned_about(secured: Secured) -> None:
    authority, node = secured.authority, secured.cluster.nodes[0]
    cert, key, _ = authority.files("short", Subject("short", LOCAL), Purpose.SERVER, DAY, datetime.now(UTC) - 0.9 * DAY)
    assert "certificate expires soon" not in node.log_path.read_text()
    usual = node.flags
    node.flags = (*usual, "--cert-file", cert, "--key-file", key)
    try:
        node.stop()
        node.start()
        secured.wait_ready(node)
        wait_until(lambda: "certificate expires soon" in node.log_path.read_text(), "the log warns")
    finally:
        node.flags = usual
        node.stop()
        node.start()
        secured.wait_ready(node)


@pytest.mark.parametrize("side", ["client", "peer"])
def test_bad_certificates_are_refused_with_one_clear_line_and_others_served(
    secured: Secured, tmp_path: Path, side: str
) -> None:
    authority, node = secured.authority, secured.cluster.nodes[0]
    now = datetime.now(UTC)
    subject = Subject("somebody", LOCAL)
    gone = authority.files(f"gone-{side}", subject, Purpose.PEER)
    cases: dict[str, tuple[str, str, Issued] | None] = {
        "it has expired": authority.files("late", subject, Purpose.PEER, DAY, now - 30 * DAY),
        "it is not yet valid": authority.files("early", subject, Purpose.PEER, DAY, now + 2 * DAY),
        "signed by unknown authority": Authority(tmp_path, "other").files("stranger", subject, Purpose.PEER),
        "revoked": gone,
        "didn't provide a certificate": None,
    }
    if side == "peer":
        elsewhere = authority.files("elsewhere", Subject("somebody", ("10.9.8.7",)), Purpose.PEER)
        cases['"127.0.0.1" does not match'] = elsewhere
    authority.revoke(authority.directory / "crl.pem", gone[2])
    with calling(node.endpoint, credentials=secured.credentials) as caller:
        for reason, files in cases.items():
            context = authority.dialler(*(files[:2] if files is not None else ()))
            for _ in range(2):
                assert say(port_of(node, side), b"GET /members HTTP/1.1\r\nHost: x\r\n\r\n", context) == b""
            wait_until(partial(is_told, node, side, reason), f"the log says {reason}")
            assert sum(reason in line for line in told(node, side)) == 1
            assert caller.unary("KV/Put", rpc_pb2.PutRequest(key=b"still", value=b"served")).header.revision > 0


@pytest.mark.parametrize("side", ["client", "peer"])
def test_plain_text_and_garbage_on_a_tls_port_harm_nobody(secured: Secured, side: str) -> None:
    node = secured.cluster.nodes[1]
    for words in (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00" * 3000, b"\x16\x03\x01\x00\x01\x00" + b"x" * 100):
        heard = say(port_of(node, side), words)
        assert b"health" not in heard
    wait_until(
        lambda: any("does not look like a TLS handshake" in line for line in told(node, side)), "the log says so"
    )
    assert len(told(node, side)) <= 4
    secured.put(node, b"still", b"served")


def test_a_server_for_another_host_is_refused_by_its_client(secured: Secured) -> None:
    node = secured.cluster.nodes[2]
    plain = socket.create_connection(("127.0.0.1", node.client_port), 20)
    with plain, pytest.raises(ssl.SSLCertVerificationError, match=r"mismatch|not valid for"):
        secured.context.wrap_socket(plain, server_hostname="elsewhere.example")


def test_certificates_rotate_under_connections_without_a_restart(secured: Secured) -> None:
    def serial(port: int) -> str:
        plain = socket.create_connection(("127.0.0.1", port), 20)
        with peer.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            shown = connection.getpeercert()
            assert shown is not None
            return str(shown["serialNumber"])

    authority, nodes = secured.authority, secured.cluster.nodes
    peer = authority.dialler(*authority.files("asking", Subject("asking", LOCAL), Purpose.PEER)[:2])
    ports = [port for node in nodes for port in (node.client_port, node.peer_port)]
    before = [serial(port) for port in ports]
    with calling(nodes[0].endpoint, credentials=secured.credentials) as caller:
        caller.unary("KV/Put", rpc_pb2.PutRequest(key=b"k", value=b"before"))
        for node in nodes:
            issue(authority, node)
        after = [serial(port) for port in ports]
        assert not set(before) & set(after)
        caller.unary("KV/Put", rpc_pb2.PutRequest(key=b"k", value=b"rotated"))
    restart_service(nodes[0], "consensus")  # its new connections to the others are made with the new certificates
    secured.wait_ready(nodes[0])
    assert secured.get(nodes[0], b"k") == b"rotated"


def test_a_certificate_names_the_user_over_grpc_and_not_through_the_gateway(secured: Secured) -> None:
    node = secured.cluster.nodes[1]
    alice = secured.authority.files("alice", Subject("alice"), Purpose.CLIENT)
    options = auth_pb2.UserAddOptions(no_password=True)
    request = rpc_pb2.PutRequest(key=b"k", value=b"v")
    with calling(node.endpoint, credentials=secured.credentials) as root:
        for name in ("root", "alice"):
            root.unary("Auth/UserAdd", rpc_pb2.AuthUserAddRequest(name=name, options=options))
        root.unary("Auth/RoleAdd", rpc_pb2.AuthRoleAddRequest(name="root"))
        root.unary("Auth/UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user="root", role="root"))
        root.unary("Auth/AuthEnable", rpc_pb2.AuthEnableRequest())
        try:
            root.unary("KV/Put", request)
            credentials = secured.authority.credentials(*alice[:2])
            with calling(node.endpoint, credentials=credentials) as caller, pytest.raises(grpc.RpcError) as caught:
                caller.unary("KV/Put", request)
            assert refusal(caught.value) == ("PERMISSION_DENIED", errors.PERMISSION_DENIED.text)
            with httpx.Client(verify=secured.context) as client:
                answer = client.post(f"https://{node.endpoint}/v3/kv/range", json={"key": "aw=="}, timeout=20)
                assert (answer.status_code, "will be ignored" in answer.text) == (400, True)
                assert client.get(f"https://{node.endpoint}/health", timeout=20).json()["health"] == "true"
        finally:
            root.unary("Auth/AuthDisable", rpc_pb2.AuthDisableRequest())
