"""Members that are given nothing but a domain or a token found a cluster together."""

import shutil
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import servers
from bench.servers import Cluster, Node
from quorate.client import Client
from quorate.ctl import quoratectl
from quorate.proto import rpc_pb2 as rpc
from tests.support.cluster import product_cluster, quorate_cluster, wait_until
from tests.support.names import name_server
from tests.support.rpc import calling
from tests.support.secure import secured_cluster

V2_SERVER = "/usr/bin/etcd"  # 3.4, the last that can speak the v2 API


def seek(node: Node, *flags: str) -> None:
    """Start a member that has to find the others."""
    position = node.flags.index("--initial-cluster")
    node.flags = (*node.flags[:position], *node.flags[position + 2 :], *flags)
    node.start()


def listed(node: Node) -> list[rpc.Member]:
    with calling(node.endpoint) as caller:
        return list(caller.unary("Cluster/MemberList", rpc.MemberListRequest()).members)


def members(node: Node) -> dict[str, list[str]]:
    return {member.name: list(member.clientURLs) for member in listed(node)}


def together(cluster: Cluster) -> None:
    """Every member serves and knows all of them."""
    for node in cluster.nodes:
        node.wait_ready()
    for node in cluster.nodes:
        expected = {each.name: [f"http://{each.endpoint}"] for each in cluster.nodes}
        wait_until(lambda node=node, expected=expected: members(node) == expected, "all know all")  # type: ignore[misc]


@contextmanager
def service(name: str) -> Iterator[Node]:
    """A discovery service of one member."""
    try:
        product = servers.product(name)
    except servers.NotInstalledError as missing:
        pytest.skip(str(missing))
    with product_cluster(product) as cluster:
        yield cluster.nodes[0]


def test_three_members_find_each_other_in_dns(monkeypatch: pytest.MonkeyPatch) -> None:
    with quorate_cluster(3, ready=False) as cluster:
        given = {"_etcd-server._tcp.example.com": [f"0 0 {node.peer_port} localhost." for node in cluster.nodes]}
        with name_server(given) as address:
            monkeypatch.setenv("QUORATE_NAMESERVER", address)
            for node in cluster.nodes:
                seek(node, "--discovery-srv", "example.com")
            together(cluster)
        first = cluster.nodes[0]
        dialled = {node.name: [f"http://localhost:{node.peer_port}"] for node in cluster.nodes}  # as DNS has them
        assert {member.name: list(member.peerURLs) for member in listed(first)} == dialled
        founded = {(member.ID, member.name) for member in listed(first)}
        first.stop()
        first.start()  # with its data, and without a name server
        first.wait_ready()
        assert all({(member.ID, member.name) for member in listed(node)} == founded for node in cluster.nodes)


def test_a_member_that_the_domain_does_not_name_founds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with quorate_cluster(ready=False) as cluster:
        (node,) = cluster.nodes
        with name_server({"_etcd-server._tcp.example.com": ["0 0 1 localhost."]}) as address:
            monkeypatch.setenv("QUORATE_NAMESERVER", address)
            seek(node, "--discovery-srv", "example.com")
            wait_until(lambda: node.process is not None and node.process.poll() == 1, "the member gives up")
        assert f'cannot find local etcd member \\"{node.name}\\" in SRV records' in node.log_tail()
        assert not list(node.data_dir.glob("member/wal/*.wal"))


@pytest.mark.parametrize("product", ["quorate", "etcd"])
def test_two_members_find_each_other_by_a_token_and_a_third_is_refused(product: str) -> None:
    with service(product) as registry, quorate_cluster(3, ready=False) as cluster:
        flags = ["--discovery-token", "t1", "--discovery-endpoints", f"http://{registry.endpoint}"]
        with Client([registry.endpoint], timeout_s=20.0) as client:
            client.put("/_etcd/registry/t1/_config/size", "2")
            late = cluster.nodes.pop()
            for node in cluster.nodes:
                seek(node, *flags)
            together(cluster)
            found = client.get_prefix("/_etcd/registry/t1/members/").kvs
            assert sorted(kv.value.decode() for kv in found) == [
                f"{node.name}=http://127.0.0.1:{node.peer_port}" for node in cluster.nodes
            ]
            with calling(cluster.nodes[0].endpoint) as caller:
                ids = {f"{one.ID:x}" for one in caller.unary("Cluster/MemberList", rpc.MemberListRequest()).members}
            assert {kv.key.decode().rpartition("/")[2] for kv in found} == ids
        cluster.nodes.append(late)
        seek(late, *flags)
        assert late.process is not None
        wait_until(lambda: late.process is not None and late.process.poll() == 1, "the third is refused")
        assert "failed to join discovery cluster (discovery: cluster is full)" in late.log_tail()


def test_a_token_without_size_is_refused() -> None:
    with service("quorate") as registry, quorate_cluster(ready=False) as cluster:
        (node,) = cluster.nodes
        seek(node, "--discovery-token", "none", "--discovery-endpoints", registry.endpoint)
        wait_until(lambda: node.process is not None and node.process.poll() == 1, "the member gives up")
        assert "discovery: size key not found" in node.log_tail()


def test_a_service_with_certificates_and_users_is_asked_as_the_flags_say(tmp_path: Path) -> None:
    with secured_cluster(tmp_path, 1) as registry, quorate_cluster(ready=False) as cluster:
        member = registry.cluster.nodes[0]
        files = ["--cacert", str(registry.authority.ca_file), "--cert", registry.cert, "--key", registry.key]
        ctl = ["--endpoints", f"https://{member.endpoint}", *files]
        for words in (["user", "add", "root:pw"], ["user", "add", "finder:pw"], ["role", "add", "finder"]):
            assert quoratectl.run([*ctl, *words]) == 0
        granted = ["role", "grant-permission", "finder", "readwrite", "/_etcd/registry/t3/", "--prefix"]
        for words in (granted, ["user", "grant-role", "finder", "finder"], ["user", "grant-role", "root", "root"]):
            assert quoratectl.run([*ctl, *words]) == 0
        assert quoratectl.run([*ctl, "put", "/_etcd/registry/t3/_config/size", "1"]) == 0
        assert quoratectl.run([*ctl, "auth", "enable"]) == 0
        seek(
            cluster.nodes[0],
            *("--discovery-token", "t3", "--discovery-endpoints", f"https://{member.endpoint}"),
            *("--discovery-cacert", files[1], "--discovery-cert", files[3], "--discovery-key", files[5]),
            *("--discovery-user", "finder:pw"),
        )
        together(cluster)


@pytest.mark.skipif(shutil.which(V2_SERVER) is None, reason="needs etcd 3.4: apt-get install etcd-server")
def test_two_members_find_each_other_by_the_url_of_a_v2_service() -> None:
    product = servers.product(V2_SERVER)
    if not product.version.startswith("3.4"):
        pytest.skip(f"etcd {product.version} does not speak the v2 API")
    with (
        product_cluster(product, 1, "--enable-v2") as registries,
        quorate_cluster(2, ready=False) as cluster,
    ):
        url = f"http://{registries.nodes[0].endpoint}/v2/keys/_etcd/registry/t2"
        body = urllib.parse.urlencode({"value": "2"}).encode()
        urllib.request.urlopen(urllib.request.Request(f"{url}/_config/size", body, method="PUT"), timeout=20).close()
        for node in cluster.nodes:
            seek(node, "--discovery", url)
        together(cluster)
