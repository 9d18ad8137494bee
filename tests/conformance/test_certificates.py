"""Other people's clients that show a certificate to a node which lets in nobody without one."""

from collections.abc import Iterator

import etcd3gw
import pytest

from bench import servers
from tests.conformance import npm, pypi, test_npm, test_pypi
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
