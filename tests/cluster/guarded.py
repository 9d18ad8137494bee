"""A cluster with auth on, its users and their tokens, and calls of any method over gRPC and over the gateway."""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import grpc
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from bench import servers
from bench.servers import Cluster, Node
from quorate.api.routes import PATHS
from quorate.proto import auth_pb2, rpc_pb2
from tests.support.cluster import product_cluster, wait_until
from tests.support.rpc import Caller, method_of, refusal

Way = Literal["grpc", "gateway"]
PASSWORD: Final = "secret"
NOBODY: Final = "nobody"  # who shows no token
USERS: Final = {  # name: what its role of the same name may, and where
    "root": None,
    "alice": (auth_pb2.Permission.READWRITE, b"a", b"b"),
    "reader": (auth_pb2.Permission.READ, b"a", b"b"),
    "writer": (auth_pb2.Permission.WRITE, b"a", b"b"),
    "bob": None,
}
ALICES_LEASE: Final = 71  # with a key that alice may read and write
ROOTS_LEASE: Final = 72  # with a key that nobody but root may
EMPTY_LEASE: Final = 73
RECIPES_LEASE: Final = 74  # of locks and campaigns
TIMEOUT_S: Final = 20.0


class Refused(Exception):  # noqa: N818 - it names the outcome
    """A call that failed: its text, with the code beside it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass
class Guarded:
    """The cluster and how to act on it as somebody."""

    cluster: Cluster
    tokens: dict[str, str] = field(default_factory=dict)
    callers: dict[tuple[str, str], Caller] = field(default_factory=dict)

    def grpc(self, node: Node, user: str = NOBODY) -> Caller:
        """A caller with the user's token; kept, as applications keep their connections."""
        token = self.tokens.get(user)
        key = (node.endpoint, token or "")
        if key not in self.callers:
            self.callers[key] = Caller(node.endpoint, (("token", token),) if token else ())
        return self.callers[key]

    def call(self, way: Way, node: Node, user: str, method: str, request: Message) -> bytes:
        """Call "KV/Put" as somebody; raises Refused."""
        full = f"/{request.DESCRIPTOR.file.package}.{method}"
        if way == "gateway":
            return self._post(node, user, full, request)
        try:
            return self.grpc(node, user).raw(full, request.SerializeToString(), TIMEOUT_S)
        except grpc.RpcError as error:
            code, text = refusal(error)
            raise Refused(grpc.StatusCode[code].value[0], text) from None

    def first(self, way: Way, node: Node, user: str, method: str, request: Message) -> Any:
        """The first response of a method that has many; raises Refused."""
        full = f"/{request.DESCRIPTOR.file.package}.{method}"
        kind = GetMessageClass(method_of(method).output_type)
        if way == "gateway":
            return ParseDict(self._first_line(node, user, full, request), kind())
        caller = self.grpc(node, user)
        call = caller.channel.stream_stream(full)(
            iter((request.SerializeToString(),)), timeout=TIMEOUT_S, metadata=caller.metadata
        )
        try:
            return kind.FromString(next(iter(call)))
        except grpc.RpcError as error:
            code, text = refusal(error)
            raise Refused(grpc.StatusCode[code].value[0], text) from None
        finally:
            call.cancel()

    def login(self, node: Node, user: str, password: str = PASSWORD) -> str:
        request = rpc_pb2.AuthenticateRequest(name=user, password=password)
        answer = self.call("grpc", node, NOBODY, "Auth/Authenticate", request)
        self.tokens[user] = rpc_pb2.AuthenticateResponse.FromString(answer).token
        return self.tokens[user]

    def as_root(self, method: str, request: Message) -> bytes:
        return self.call("grpc", self.cluster.nodes[0], "root", method, request)

    def leader(self) -> Node:
        """The member that leads; asked as root."""
        found: list[Node] = []

        def is_known() -> bool:
            for node in self.cluster.nodes:
                try:
                    answer = self.call("grpc", node, "root", "Maintenance/Status", rpc_pb2.StatusRequest())
                except Refused:  # this member has not heard of auth yet
                    return False
                status = rpc_pb2.StatusResponse.FromString(answer)
                if status.leader == status.header.member_id:
                    found.append(node)
            return bool(found)

        wait_until(is_known, "somebody leads")
        return found[0]

    def follower(self) -> Node:
        """A member that does not lead."""
        leader = self.leader()
        return next(node for node in self.cluster.nodes if node is not leader)

    def close(self) -> None:
        for caller in self.callers.values():
            caller.channel.close()

    def _post(self, node: Node, user: str, full: str, request: Message) -> bytes:
        with self._response(node, user, full, request) as response:
            text = response.read()
        if response.status != 200:
            failed = json.loads(text)
            raise Refused(failed["code"], failed["message"])
        return text

    def _first_line(self, node: Node, user: str, full: str, request: Message) -> dict[str, Any]:
        with self._response(node, user, full, request) as response:
            line: dict[str, dict[str, Any]] = json.loads(response.readline())
        if "error" in line:
            raise Refused(line["error"]["code"], line["error"]["message"])
        return line["result"]

    @contextmanager
    def _response(self, node: Node, user: str, full: str, request: Message) -> Iterator[http.client.HTTPResponse]:
        path = next(path for path, method in PATHS.items() if method == full)
        body = json.dumps(MessageToDict(request, preserving_proto_field_name=True))
        headers = {"Authorization": self.tokens[user]} if user in self.tokens else {}
        connection = http.client.HTTPConnection(servers.HOST, node.client_port, timeout=TIMEOUT_S)
        try:
            connection.request("POST", path, body, headers)
            yield connection.getresponse()
        finally:
            connection.close()


def prepare(guarded: Guarded) -> None:
    """Users, roles, leases and keys; then auth on, and everybody logged in."""
    permission = auth_pb2.Permission
    for name, granted in USERS.items():
        guarded.as_root("Auth/UserAdd", rpc_pb2.AuthUserAddRequest(name=name, password=PASSWORD))
        guarded.as_root("Auth/RoleAdd", rpc_pb2.AuthRoleAddRequest(name=name))
        if granted is not None:
            kind, key, end = granted
            perm = permission(permType=kind, key=key, range_end=end)
            guarded.as_root("Auth/RoleGrantPermission", rpc_pb2.AuthRoleGrantPermissionRequest(name=name, perm=perm))
        guarded.as_root("Auth/UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user=name, role=name))
    for lease_id, key in (
        (ALICES_LEASE, b"a/leased"),
        (ROOTS_LEASE, b"z/leased"),
        (EMPTY_LEASE, b""),
        (RECIPES_LEASE, b""),
    ):
        guarded.as_root("Lease/LeaseGrant", rpc_pb2.LeaseGrantRequest(ID=lease_id, TTL=3600))
        if key:
            guarded.as_root("KV/Put", rpc_pb2.PutRequest(key=key, lease=lease_id))
    guarded.as_root("Auth/AuthEnable", rpc_pb2.AuthEnableRequest())
    for name in USERS:
        guarded.login(guarded.cluster.nodes[0], name)


@contextmanager
def guarded_cluster(size: int, *flags: str) -> Iterator[Guarded]:
    """A prepared cluster of Quorate nodes."""
    with product_cluster(servers.quorate(), size, "--bcrypt-cost=4", *flags) as cluster:
        guarded = Guarded(cluster)
        try:
            prepare(guarded)
            yield guarded
        finally:
            guarded.close()
