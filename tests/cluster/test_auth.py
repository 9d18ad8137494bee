"""Auth on a running cluster: rights that go under load, tokens that live as long as they are used, logins, secrets."""

import base64
import http.client
import json
import threading
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from etcd3gw import Etcd3Client
from google.protobuf.message import Message

from bench import servers
from bench.servers import Node
from quorate.proto import auth_pb2, rpc_pb2
from quorate.wire import errors
from tests.cluster.guarded import NOBODY, PASSWORD, Guarded, Refused, Way, guarded_cluster
from tests.support.cluster import restart_service, wait_until

PUT_A = rpc_pb2.PutRequest(key=b"a", value=b"1")
RANGE_A = rpc_pb2.RangeRequest(key=b"a")
LOAD_S = 0.5
REQUESTS: Final[dict[str, Message]] = {
    "KV/Put": PUT_A,
    "KV/Range": RANGE_A,
    "KV/Txn": rpc_pb2.TxnRequest(success=[rpc_pb2.RequestOp(request_put=PUT_A)]),
}
Change = tuple[str, Message]
A_TO_B: Final = auth_pb2.Permission(permType=auth_pb2.Permission.READWRITE, key=b"a", range_end=b"b")
GIVE_ROLE: Final[Change] = ("Auth/UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user="alice", role="alice"))
GIVE_RANGE: Final[Change] = (
    "Auth/RoleGrantPermission",
    rpc_pb2.AuthRoleGrantPermissionRequest(name="alice", perm=A_TO_B),
)
ADD_ROLE: Final[Change] = ("Auth/RoleAdd", rpc_pb2.AuthRoleAddRequest(name="alice"))
ADD_USER: Final[Change] = ("Auth/UserAdd", rpc_pb2.AuthUserAddRequest(name="alice", password=PASSWORD))
TAKEN_AWAY: Final[dict[str, tuple[Change, tuple[Change, ...]]]] = {  # how, and what gives it back
    "role from user": (
        ("Auth/UserRevokeRole", rpc_pb2.AuthUserRevokeRoleRequest(name="alice", role="alice")),
        (GIVE_ROLE,),
    ),
    "range from role": (
        ("Auth/RoleRevokePermission", rpc_pb2.AuthRoleRevokePermissionRequest(role="alice", key=b"a", range_end=b"b")),
        (GIVE_RANGE,),
    ),
    "role": (("Auth/RoleDelete", rpc_pb2.AuthRoleDeleteRequest(role="alice")), (ADD_ROLE, GIVE_RANGE, GIVE_ROLE)),
    "user": (("Auth/UserDelete", rpc_pb2.AuthUserDeleteRequest(name="alice")), (ADD_USER, GIVE_ROLE)),
}


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    with guarded_cluster(3) as made:
        yield made


def load(guarded: Guarded, node: Node, way: Way, method: str, served: list[float], stop: threading.Event) -> None:
    """Call as alice again and again; when each call began that was served."""
    while not stop.is_set():
        began = time.monotonic()
        try:
            guarded.call(way, node, "alice", method, REQUESTS[method])
        except Refused:
            continue
        served.append(began)


@pytest.mark.parametrize("what", TAKEN_AWAY)
def test_no_request_is_served_that_began_after_its_right_was_taken_away(guarded: Guarded, what: str) -> None:
    (take, away), given_back = TAKEN_AWAY[what]
    ways: tuple[Way, ...] = ("grpc", "gateway")
    guarded.login(guarded.cluster.nodes[0], "alice")
    stop = threading.Event()
    served: dict[str, list[float]] = {}
    threads = []
    for node in guarded.cluster.nodes:
        for way, method in product(ways, REQUESTS):
            begun = served[f"{method} over {way} at {node.name}"] = []
            threads.append(threading.Thread(target=load, args=(guarded, node, way, method, begun, stop)))
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: all(len(begun) > 5 for begun in served.values()), "all are served", 60.0)
        guarded.as_root(take, away)
        revoked = time.monotonic()
        wait_until(lambda: time.monotonic() - revoked > LOAD_S, "a moment has passed")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        for method, request in given_back:
            guarded.as_root(method, request)
    late = {name: [began for began in begun if began > revoked] for name, begun in served.items()}
    assert {name: [] for name in served} == late
    guarded.login(guarded.cluster.nodes[0], "alice")
    guarded.call("grpc", guarded.follower(), "alice", "KV/Put", PUT_A)


def test_a_changed_password_ends_every_token_of_the_user_on_every_member(guarded: Guarded) -> None:
    old = [guarded.login(node, "bob") for node in guarded.cluster.nodes]
    change = rpc_pb2.AuthUserChangePasswordRequest(name="bob", password="other")
    guarded.as_root("Auth/UserChangePassword", change)
    for node in guarded.cluster.nodes:
        guarded.call("grpc", node, "root", "KV/Range", RANGE_A)  # this member has come so far
        for guarded.tokens["bob"] in old:
            with pytest.raises(Refused, match=errors.INVALID_AUTH_TOKEN.text):
                guarded.call("grpc", node, "bob", "Cluster/MemberList", rpc_pb2.MemberListRequest())
        with pytest.raises(Refused, match=errors.AUTH_FAILED.text):
            guarded.login(node, "bob", PASSWORD)
        guarded.login(node, "bob", "other")
    change.password = PASSWORD
    guarded.as_root("Auth/UserChangePassword", change)


def test_a_password_changed_to_none_lets_nobody_in(guarded: Guarded) -> None:
    change = rpc_pb2.AuthUserChangePasswordRequest(name="bob")
    guarded.as_root("Auth/UserChangePassword", change)
    for password in ("", PASSWORD):
        with pytest.raises(Refused, match=errors.AUTH_FAILED.text):
            guarded.login(guarded.cluster.nodes[0], "bob", password)
    change.password = PASSWORD
    guarded.as_root("Auth/UserChangePassword", change)
    guarded.login(guarded.cluster.nodes[0], "bob")


def test_a_token_is_good_on_a_member_that_has_not_heard_of_it_yet(guarded: Guarded) -> None:
    for node in guarded.cluster.nodes:
        guarded.login(node, "alice")
        for other in guarded.cluster.nodes:
            assert guarded.call("gateway", other, "alice", "KV/Range", RANGE_A)


@pytest.mark.parametrize(
    ("user", "password", "text"),
    [
        ("alice", "wrong", errors.AUTH_FAILED.text),
        ("ghost", PASSWORD, errors.AUTH_FAILED.text),
        ("", "", errors.AUTH_FAILED.text),
        ("carol", "", errors.NO_PASSWORD_USER.text),
        ("alice", "x" * 100, errors.AUTH_FAILED.text),
    ],
)
def test_a_login_that_fails_says_no_more_than_etcd_does(guarded: Guarded, user: str, password: str, text: str) -> None:
    if user == "carol":
        options = {"no_password": True}
        carol = rpc_pb2.AuthUserAddRequest(name=user, options=options)  # type: ignore[arg-type]
        guarded.as_root("Auth/UserAdd", carol)
    request = rpc_pb2.AuthenticateRequest(name=user, password=password)
    ways: tuple[Way, ...] = ("grpc", "gateway")
    for way in ways:
        with pytest.raises(Refused) as refused:
            guarded.call(way, guarded.cluster.nodes[2], NOBODY, "Auth/Authenticate", request)
        assert text == refused.value.text


def test_a_password_that_bcrypt_does_not_take_is_refused(guarded: Guarded) -> None:
    for method, request in (
        ("Auth/UserAdd", rpc_pb2.AuthUserAddRequest(name="long", password="x" * 73)),
        ("Auth/UserChangePassword", rpc_pb2.AuthUserChangePasswordRequest(name="bob", password="x" * 73)),
    ):
        with pytest.raises(Refused, match=errors.PASSWORD_TOO_LONG.text):
            guarded.as_root(method, request)


def test_a_hash_that_the_client_sends_is_not_taken(guarded: Guarded) -> None:
    known = base64.b64encode(b"$2b$04$abcdefghijklmnopqrstuuu").decode()
    add = rpc_pb2.AuthUserAddRequest(name="dave", password=PASSWORD, hashedPassword=known)
    guarded.as_root("Auth/UserAdd", add)
    assert guarded.login(guarded.cluster.nodes[0], "dave")  # with the password, which the hash is not of


def test_etcd3gw_logs_in_and_is_served(guarded: Guarded) -> None:
    node = guarded.follower()
    client = Etcd3Client(servers.HOST, node.client_port, api_path="/v3/")
    client.session.headers["Authorization"] = guarded.login(node, "alice")
    assert client.put("a", "value")
    assert client.get("a") == [b"value"]
    assert client.delete("a")


def test_pages_and_probes_need_nobody(guarded: Guarded) -> None:
    for node in guarded.cluster.nodes:
        for path in ("/health", "/livez", "/readyz", "/version", "/metrics"):
            connection = http.client.HTTPConnection(servers.HOST, node.client_port, timeout=20)
            connection.request("GET", path)
            response = connection.getresponse()
            assert (path, response.status) == (path, 200)
            response.read()
            connection.close()


def test_tokens_of_a_short_life_live_on_while_they_are_used() -> None:
    with guarded_cluster(1, "--auth-token-ttl=3") as guarded:
        node = guarded.cluster.nodes[0]
        began = time.monotonic()

        def used_for_two_lives() -> bool:
            guarded.call("grpc", node, "alice", "KV/Range", RANGE_A)
            return time.monotonic() - began > 6.5

        wait_until(used_for_two_lives, "two times to live have passed")
        with pytest.raises(Refused, match=errors.INVALID_AUTH_TOKEN.text):
            guarded.call("grpc", node, "reader", "KV/Range", RANGE_A)
        restart_service(node, "storage")
        guarded.call("gateway", node, "alice", "KV/Range", RANGE_A)


def test_jwt_needs_no_memory_and_is_old_after_every_change(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(pem, spki))
    settings = f"--auth-token=jwt,pub-key={public},priv-key={private},sign-method=ES256,ttl=1h"
    with guarded_cluster(3, settings) as guarded:
        claims = json.loads(base64.urlsafe_b64decode(guarded.tokens["alice"].split(".")[1] + "=="))
        assert {"username", "revision", "exp"} == set(claims)
        for node in guarded.cluster.nodes:
            guarded.call("grpc", node, "alice", "KV/Put", PUT_A)
            guarded.call("gateway", node, "alice", "KV/Range", RANGE_A)
        guarded.as_root("Auth/RoleAdd", rpc_pb2.AuthRoleAddRequest(name="new"))
        for method, request in (("KV/Put", PUT_A), ("KV/Range", RANGE_A)):
            with pytest.raises(Refused, match=errors.AUTH_OLD_REVISION.text):
                guarded.call("grpc", guarded.follower(), "alice", method, request)
        guarded.login(guarded.cluster.nodes[0], "alice")
        guarded.call("grpc", guarded.follower(), "alice", "KV/Put", PUT_A)


def test_an_auth_token_setting_that_is_of_no_use_ends_the_node_with_a_sentence() -> None:
    with servers.cluster(servers.quorate(), 1, flags=("--auth-token=jwt,sign-method=ES256",)) as cluster:
        node = cluster.nodes[0]
        node.start()
        wait_until(lambda: node.process is not None and node.process.poll() == 1, "the node has ended")
        assert "cannot use --auth-token: --auth-token jwt with sign-method ES256 needs a key file" in node.log_tail()
