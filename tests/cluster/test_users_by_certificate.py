"""Users without a password: the common name of a verified certificate says who calls, on gRPC."""

import http.client
import json
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message

from bench.servers import Node
from quorate.node.certificates import Purpose, Subject
from quorate.proto import auth_pb2, rpc_pb2
from quorate.wire import errors
from tests.support.authority import Authority
from tests.support.cluster import quorate_cluster, wait_until
from tests.support.rpc import refusal

TIMEOUT_S = 20.0
ALICE = rpc_pb2.AuthUserAddRequest(name="alice", options={"no_password": True})  # type: ignore[arg-type]
A_TO_B = auth_pb2.Permission(permType=auth_pb2.Permission.READWRITE, key=b"a", range_end=b"b")


@dataclass
class Door:
    """A node that demands certificates, and channels of certificates by their common name."""

    node: Node
    authority: Authority

    def call(self, name: str, method: str, request: Message, *metadata: tuple[str, str]) -> bytes:
        """Call as whom a certificate names; raises grpc.RpcError."""
        certificate, key = self._files(name)
        credentials = grpc.ssl_channel_credentials(
            self.authority.ca_file.read_bytes(), Path(key).read_bytes(), Path(certificate).read_bytes()
        )
        with grpc.secure_channel(self.node.endpoint, credentials) as channel:
            answer: bytes = channel.unary_unary(f"/etcdserverpb.{method}")(
                request.SerializeToString(), timeout=TIMEOUT_S, metadata=metadata
            )
            return answer

    def post(self, name: str, path: str) -> tuple[int, str]:
        """POST {} over HTTP/1.1 as whom a certificate names: status and message."""
        context = ssl.create_default_context(cafile=str(self.authority.ca_file))
        context.load_cert_chain(*self._files(name))
        host, _, port = self.node.endpoint.rpartition(":")
        connection = http.client.HTTPSConnection(host, int(port), timeout=TIMEOUT_S, context=context)
        try:
            connection.request("POST", path, '{"key":"YQ=="}')
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        return answer.status, json.loads(text)["message"] if text.startswith("{") else text

    def _files(self, name: str) -> tuple[str, str]:
        certificate, key, _ = self.authority.files(name, Subject(name), Purpose.CLIENT)
        return certificate, key


def fails(call: Callable[[], object]) -> str:
    with pytest.raises(grpc.RpcError) as failure:
        call()
    return refusal(failure.value)[1]


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    directory = tmp_path_factory.mktemp("certificates")
    authority = Authority(directory, "good")
    certificate, key, _ = authority.files("server", Subject("server", ("localhost", "127.0.0.1")), Purpose.SERVER)
    with quorate_cluster(1, ready=False) as cluster:
        node = cluster.nodes[0]
        url = f"https://{node.endpoint}"
        node.flags += (f"--cert-file={certificate}", f"--key-file={key}", "--bcrypt-cost=4", "--client-cert-auth")
        node.flags += (f"--trusted-ca-file={authority.ca_file}",)
        node.flags += (f"--listen-client-urls={url}", f"--advertise-client-urls={url}")
        node.start()
        made = Door(node, authority)
        wait_until(lambda: _serves(made), "the node serves")
        for method, request in (
            ("Auth/UserAdd", rpc_pb2.AuthUserAddRequest(name="root", password="secret")),
            ("Auth/UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user="root", role="root")),
            ("Auth/UserAdd", ALICE),
            ("Auth/RoleAdd", rpc_pb2.AuthRoleAddRequest(name="a")),
            ("Auth/RoleGrantPermission", rpc_pb2.AuthRoleGrantPermissionRequest(name="a", perm=A_TO_B)),
            ("Auth/UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user="alice", role="a")),
            ("Auth/AuthEnable", rpc_pb2.AuthEnableRequest()),
        ):
            made.call("setup", method, request)
        yield made


def _serves(door: Door) -> bool:
    try:
        door.call("setup", "KV/Range", rpc_pb2.RangeRequest(key=b"a"))
    except grpc.RpcError:
        return False
    return True


def test_a_user_is_known_by_its_certificate(door: Door) -> None:
    door.call("alice", "KV/Put", rpc_pb2.PutRequest(key=b"a", value=b"1"))
    outside = rpc_pb2.PutRequest(key=b"z", value=b"1")
    assert fails(lambda: door.call("alice", "KV/Put", outside)) == errors.PERMISSION_DENIED.text
    assert fails(lambda: door.call("alice", "Auth/UserList", rpc_pb2.AuthUserListRequest())) == (
        errors.PERMISSION_DENIED.text
    )
    door.call("root", "Auth/UserList", rpc_pb2.AuthUserListRequest())


def test_a_certificate_of_nobody_who_is_a_user_may_nothing(door: Door) -> None:
    request = rpc_pb2.RangeRequest(key=b"a")
    assert fails(lambda: door.call("stranger", "KV/Range", request)) == errors.PERMISSION_DENIED.text
    members = rpc_pb2.MemberListRequest()
    assert fails(lambda: door.call("stranger", "Cluster/MemberList", members)) == errors.USER_NOT_FOUND.text


def test_a_token_is_stronger_and_a_bad_one_makes_no_difference(door: Door) -> None:
    login = rpc_pb2.AuthenticateRequest(name="root", password="secret")
    token = rpc_pb2.AuthenticateResponse.FromString(door.call("alice", "Auth/Authenticate", login)).token
    door.call("alice", "KV/Put", rpc_pb2.PutRequest(key=b"z", value=b"1"), ("token", token))
    door.call("alice", "KV/Put", rpc_pb2.PutRequest(key=b"a", value=b"1"), ("token", "nonsense"))


def test_a_right_that_was_taken_away_is_gone_for_certificates_too(door: Door) -> None:
    put = rpc_pb2.PutRequest(key=b"a", value=b"1")
    door.call("alice", "KV/Put", put)
    door.call("root", "Auth/UserRevokeRole", rpc_pb2.AuthUserRevokeRoleRequest(name="alice", role="a"))
    assert fails(lambda: door.call("alice", "KV/Put", put)) == errors.PERMISSION_DENIED.text
    door.call("root", "Auth/UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user="alice", role="a"))
    door.call("alice", "KV/Put", put)


def test_the_gateway_refuses_certificates_that_name_somebody(door: Door) -> None:
    status, text = door.post("alice", "/v3/kv/range")
    assert status == 400
    assert "CommonName of client sending a request against gateway will be ignored" in text
