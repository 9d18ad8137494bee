"""Other people's clients that show a certificate to a node which lets in nobody without one."""

from collections.abc import Iterator

import etcd3gw
import pytest

from bench import servers
from quorate.node.certificates import Purpose, Subject
from quorate.proto import auth_pb2, rpc_pb2
from quorate.wire import errors
from tests.conformance import npm, pypi, test_npm, test_pypi
from tests.support.rpc import Caller, calling
from tests.support.secure import Secured, secured_cluster


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured_cluster(tmp_path_factory.mktemp("certificates"), 1) as running:
        yield running


@pytest.fixture
def files(secured: Secured) -> dict[str, str]:
    return {"TLS_CA": str(secured.authority.ca_file), "TLS_CERT": secured.cert, "TLS_KEY": secured.key}


@pytest.fixture(autouse=True)
def only_our_authority(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle that the environment names would go before the one that a client is given."""
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize("scenario", ["kv", "watch", "volume"])
def test_npms_etcd3(secured: Secured, files: dict[str, str], scenario: str) -> None:
    endpoints = [f"https://{node.endpoint}" for node in secured.cluster.nodes]
    with npm.run(scenario, endpoints, files) as program:
        assert test_npm.EXPECTED[scenario] == program.next()


@pytest.mark.parametrize("scenario", ["kv", "watch"])
def test_python_etcd3(secured: Secured, files: dict[str, str], scenario: str) -> None:
    with pypi.run("etcd3", scenario, secured.cluster.nodes[0].endpoint, files) as program:
        assert test_pypi.EXPECTED[scenario] == program.next()


def test_etcd3gw(secured: Secured, files: dict[str, str]) -> None:
    client = etcd3gw.client(
        host=servers.HOST,
        port=secured.cluster.nodes[0].client_port,
        protocol="https",
        ca_cert=files["TLS_CA"],
        cert_cert=files["TLS_CERT"],
        cert_key=files["TLS_KEY"],
        timeout=20,
        api_path="/v3/",
    )
    events, cancel = client.watch("gateway")
    assert client.put("gateway", "v")
    assert b"v" == next(iter(events))["kv"]["value"]
    cancel()


def test_with_auth_on_a_certificate_or_a_password_is_the_user(secured: Secured, files: dict[str, str]) -> None:
    node = secured.cluster.nodes[0]
    cert, key, _ = secured.authority.files("stranger", Subject("stranger"), Purpose.CLIENT)
    stranger = files | {"TLS_CERT": cert, "TLS_KEY": key}
    alice = stranger | {"ETCD_USER": "alice", "ETCD_PASSWORD": "secret"}
    with calling(node.endpoint, credentials=secured.credentials) as root:
        prepare_users(root)
        root.unary("Auth/AuthEnable", rpc_pb2.AuthEnableRequest())
        try:
            for who in (files, alice):
                with pypi.run("etcd3", "kv", node.endpoint, who) as program:
                    assert test_pypi.EXPECTED["kv"] == program.next()
            for who in (stranger, alice):
                with pypi.run("etcd3", "refused", node.endpoint, who) as program:
                    assert [errors.PERMISSION_DENIED.text] * 3 == program.next()
            with npm.run("kv", [f"https://{node.endpoint}"], files) as program:
                assert test_npm.EXPECTED["kv"] == program.next()
        finally:
            root.unary("Auth/AuthDisable", rpc_pb2.AuthDisableRequest())


def prepare_users(root: Caller) -> None:
    """`root` by its certificate; `alice` by a password, for the keys of the scenario."""
    by_certificate = auth_pb2.UserAddOptions(no_password=True)
    keys = auth_pb2.Permission(permType=auth_pb2.Permission.READWRITE, key=b"a", range_end=b"b")
    for method, request in (
        ("UserAdd", rpc_pb2.AuthUserAddRequest(name="root", options=by_certificate)),
        ("UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user="root", role="root")),
        ("UserAdd", rpc_pb2.AuthUserAddRequest(name="alice", password="secret")),
        ("RoleAdd", rpc_pb2.AuthRoleAddRequest(name="alice")),
        ("RoleGrantPermission", rpc_pb2.AuthRoleGrantPermissionRequest(name="alice", perm=keys)),
        ("UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user="alice", role="alice")),
    ):
        root.unary(f"Auth/{method}", request)


def test_nobody_without_a_certificate(secured: Secured, files: dict[str, str]) -> None:
    client = etcd3gw.client(
        host=servers.HOST,
        port=secured.cluster.nodes[0].client_port,
        protocol="https",
        ca_cert=files["TLS_CA"],
        timeout=20,
        api_path="/v3/",
    )
    with pytest.raises(etcd3gw.exceptions.ConnectionFailedError):
        client.put("gateway", "stranger")
