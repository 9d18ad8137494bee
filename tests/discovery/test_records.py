"""The founders of a cluster in SRV records, against a name server of the test's own."""

import pytest

from quorate.discovery import records
from quorate.discovery.failures import DiscoveryFailed
from quorate.node import srv
from quorate.node.config import Config
from tests.support.names import Records, name_server

PLAIN = "_etcd-server._tcp.example.com"
SECURE = "_etcd-server-ssl._tcp.example.com"


def found(given: Records, monkeypatch: pytest.MonkeyPatch, url: str = "http://127.0.0.1:2380", suffix: str = "") -> str:
    config = Config(
        name="m1", initial_advertise_peer_urls=[url], discovery_srv="example.com", discovery_srv_name=suffix
    )
    with name_server(given) as address:
        monkeypatch.setenv(srv.NAMESERVER_VARIABLE, address)
        return records.initial_cluster(config)


def test_this_member_is_found_by_its_address_and_the_others_are_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {PLAIN: ["0 0 2379 localhost.", "0 0 2380 localhost.", "0 0 2381 localhost."]}
    entries = [entry.partition("=") for entry in found(given, monkeypatch).split(",")]
    assert {"0", "1", "m1"} == {name for name, _, _ in entries}  # records of one weight come in any order
    assert {f"http://localhost:{port}" for port in (2379, 2380, 2381)} == {url for _, _, url in entries}
    assert "http://localhost:2380" == next(url for name, _, url in entries if name == "m1")


def test_a_service_name_chooses_among_clusters_of_one_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"_etcd-server-blue._tcp.example.com": ["0 0 2380 localhost."], PLAIN: ["0 0 7 localhost."]}
    assert found(given, monkeypatch, suffix="blue") == "m1=http://localhost:2380"


def test_records_with_tls_come_first_and_those_without_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {SECURE: ["0 0 2380 localhost."], PLAIN: ["0 0 2390 localhost."]}
    assert found(given, monkeypatch, "https://127.0.0.1:2380") == "m1=https://localhost:2380,0=http://localhost:2390"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "error querying DNS SRV records for _etcd-server-ssl"),
        ({PLAIN: ["0 0 7 localhost."]}, 'cannot find local etcd member "m1" in SRV records'),
        ({SECURE: ["0 0 2380 localhost."]}, "has scheme mismatch with expected peer http://127.0.0.1:2380"),
    ],
)
def test_a_domain_without_this_member_is_of_no_use(
    given: Records, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DiscoveryFailed, match=sentence):
        found(given, monkeypatch)


@pytest.mark.parametrize("host", ["a\\,b=http://c.", "*.", "\\000.", ".", "\\255x.", "a\\032b.", "\\058:1.", "a..b."])
def test_a_record_that_leads_to_no_name_of_a_host_is_left_out(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = [f"0 0 1 {host}"] if ".." not in host else ["0 0 1 a\\.b\\..c."]
    assert found({PLAIN: [*odd, "0 0 2380 localhost."]}, monkeypatch) == "m1=http://localhost:2380"
    with pytest.raises(DiscoveryFailed, match="no record leads to the name of a host"):
        found({PLAIN: odd}, monkeypatch)
