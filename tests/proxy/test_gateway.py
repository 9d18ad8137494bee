"""`quorate gateway start` between clients and clusters."""

import subprocess
from pathlib import Path

import pytest

from bench import servers
from quorate.client import Client
from quorate.node.certificates import Purpose, Subject
from quorate.proxy import endpoints
from quorate.proxy.endpoints import BadEndpoint
from tests.support.authority import Authority
from tests.support.cluster import quorate_cluster, wait_until
from tests.support.names import name_server
from tests.support.proxies import command, proxy


def put_through(endpoint: str, key: str) -> bool:
    with Client([endpoint], timeout_s=5.0) as client:
        return client.put(key, "1").header.revision > 0


def test_connections_go_to_members_that_answer_and_come_back_to_one_that_returns(tmp_path: Path) -> None:
    with quorate_cluster(3) as cluster:
        endpoints = ",".join(cluster.endpoints)
        with proxy(tmp_path, "gateway", "start", "--endpoints", endpoints, "--retry-delay", "200ms") as gateway:
            assert put_through(gateway.endpoint, "a")
            follower = next(node for node in cluster.nodes if node is not cluster.leader())
            follower.stop()
            for number in range(4):
                assert put_through(gateway.endpoint, f"b{number}")
            gateway.wait_line("deactivated endpoint")
            follower.start()
            gateway.wait_line('"activated"')
            assert put_through(gateway.endpoint, "c")


def test_endpoints_come_from_srv_records(tmp_path: Path) -> None:
    with quorate_cluster() as cluster:
        port = cluster.nodes[0].client_port
        records = {"_etcd-client-blue._tcp.example.com": [f"0 0 {port} localhost."]}
        with (
            name_server(records) as names,
            proxy(
                tmp_path,
                *("gateway", "start", "--discovery-srv", "example.com", "--discovery-srv-name", "blue"),
                "--insecure-discovery",
                QUORATE_NAMESERVER=names,
            ) as gateway,
        ):
            assert put_through(gateway.endpoint, "a")


def test_discovered_endpoints_have_to_prove_themselves_unless_told_otherwise(tmp_path: Path) -> None:
    good, other = Authority(tmp_path, "good"), Authority(tmp_path, "other")
    subject = Subject("server", ("example.com", "localhost", "127.0.0.1"))
    with quorate_cluster(ready=False) as trusted, quorate_cluster(ready=False) as stranger:
        for cluster, authority in ((trusted, good), (stranger, other)):
            cert, key, _ = authority.files(f"{authority.name}-server", subject, Purpose.SERVER)
            node = cluster.nodes[0]
            plain, encrypted = f"http://{node.endpoint}", f"https://{node.endpoint}"
            node.flags = tuple(flag.replace(plain, encrypted) for flag in node.flags)
            node.flags += ("--cert-file", cert, "--key-file", key)
            node.context = authority.dialler()
            node.start()
        for cluster in (trusted, stranger):
            cluster.nodes[0].wait_ready()
        ports = [cluster.nodes[0].client_port for cluster in (trusted, stranger)]
        records = {"_etcd-client-ssl._tcp.example.com": [f"0 0 {port} localhost." for port in ports]}
        with (
            name_server(records) as names,
            proxy(
                tmp_path,
                *("gateway", "start", "--discovery-srv", "example.com", "--trusted-ca-file", str(good.ca_file)),
                QUORATE_NAMESERVER=names,
            ) as gateway,
        ):
            text = "".join(gateway.lines)
            assert f"https://localhost:{ports[1]}" in text
            assert "endpoint cannot be verified; ignoring it" in text
            ready = next(line for line in gateway.lines if "ready to proxy" in line)
            assert f"https://localhost:{ports[0]}" in ready
            assert f"https://localhost:{ports[1]}" not in ready


def test_large_values_pass_unharmed_both_ways(tmp_path: Path) -> None:
    value = bytes(range(256)) * 4096
    with (
        quorate_cluster() as cluster,
        proxy(tmp_path, "gateway", "start", f"--endpoints={cluster.endpoints[0]}") as gateway,
        Client([gateway.endpoint]) as client,
    ):
        client.put("large", value)
        assert client.get("large").kvs[0].value == value


def test_endpoints_without_a_port_are_refused() -> None:
    for word in ("nowhere", "127.0.0.1:", "127.0.0.1:99999", "http://a"):
        with pytest.raises(BadEndpoint, match=f"error parsing endpoint '{word}'"):
            endpoints.given([word])
    assert [each.url for each in endpoints.given(["a:1", "https://b:2/", "[::1]:3"])] == [
        *("http://a:1", "https://b:2", "http://::1:3"),
    ]


def test_a_gateway_to_itself_is_refused() -> None:
    words, environment = command("gateway", "start", "--endpoints", "127.0.0.1:7", "--listen-addr", "localhost:7")
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (1, "endpoint and listen address are the same: 127.0.0.1:7\n")


def test_a_gateway_ends_at_sigterm_with_connections_open(tmp_path: Path) -> None:
    with (
        quorate_cluster() as cluster,
        proxy(tmp_path, "gateway", "start", "--endpoints", cluster.endpoints[0]) as gateway,
        Client([gateway.endpoint]) as client,
    ):
        client.put("a", "1")
        gateway.process.terminate()
        wait_until(lambda: gateway.process.poll() is not None, "the gateway ends")
        assert gateway.process.returncode == 0
        cluster.nodes[0].wait_ready()


def test_the_address_in_use_is_named(tmp_path: Path) -> None:
    with quorate_cluster(ready=False) as cluster:
        taken = cluster.nodes[0].endpoint
        cluster.start()
        words, environment = command("gateway", "start", "--endpoints", "127.0.0.1:7", "--listen-addr", taken)
        ended = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "address already in use" in ended.stderr
    assert servers.HOST in ended.stderr
