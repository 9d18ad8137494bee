"""What programs with a plain HTTP client are told on the peer port, beside what real etcd tells them."""

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from bench import servers
from bench.servers import Cluster, Node
from quorate.client import Client
from quorate.proto import rpc_pb2 as rpc
from tests.support.cluster import product_cluster, quorate_cluster
from tests.support.rpc import calling


def ask(node: Node, method: str, path: str, body: str = "", **headers: str) -> tuple[int, str, str]:
    """Status, content type and body of an answer."""
    connection = http.client.HTTPConnection(servers.HOST, node.peer_port, timeout=20)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Content-Type", ""), answer.read().decode()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Node, Node]]:
    """A node of each product with the same history."""
    try:
        product = servers.etcd()
    except servers.NotInstalledError as missing:
        pytest.skip(str(missing))
    with quorate_cluster() as own, product_cluster(product) as other:
        for cluster in (own, other):
            with Client(cluster.endpoints, timeout_s=20.0) as client:
                for number in range(10):
                    client.put("a", str(number))
                client.delete("a")
                client.compact(5, physical=True)
        yield own.nodes[0], other.nodes[0]


def stripped(answer: tuple[int, str, str]) -> Any:
    """An answer without what is each cluster's own."""
    status, kind, body = answer
    document = json.loads(body)
    document.pop("header")
    document.pop("hash_revision", None)  # the etcd at hand is older than this field
    return status, kind, document


@pytest.mark.parametrize("revision", [0, 8, 12])
def test_hash_of_the_keys_is_etcds(both: tuple[Node, Node], revision: int) -> None:
    own, etcd = (stripped(ask(node, "GET", "/members/hashkv", json.dumps({"revision": revision}))) for node in both)
    assert own == etcd
    assert own[2]["hash"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/members/hashkv", '{"revision":3}'),
        ("GET", "/members/hashkv", '{"revision":99}'),
        ("GET", "/members/hashkv", ""),
        ("POST", "/members/hashkv", "{}"),
        ("GET", "/downgrade/enabled", ""),
        ("POST", "/members/promote/77", ""),
        ("GET", "/members/promote/77", ""),
        ("POST", "/members/promote/x", ""),
        ("GET", "/nothing", ""),
    ],
)
def test_refusals_are_etcds(both: tuple[Node, Node], method: str, path: str, body: str) -> None:
    own, etcd = (ask(node, method, path, body) for node in both)
    assert own == etcd


def test_the_hash_says_whose_it_is(both: tuple[Node, Node]) -> None:
    header = json.loads(ask(both[0], "GET", "/members/hashkv", "{}")[2])["header"]
    assert header["member_id"] == both[0].status()["member_id"]
    assert header["revision"] == both[0].status()["revision"]


def test_a_question_for_another_cluster_is_refused(both: tuple[Node, Node]) -> None:
    answer = ask(both[0], "GET", "/members/hashkv", "{}", X_Etcd_Cluster_ID="77")
    assert answer == (412, "text/plain; charset=utf-8", "cluster ID mismatch\n")


def test_a_learner_that_has_caught_up_is_promoted_by_the_peer_port() -> None:
    with quorate_cluster(2, ready=False) as cluster:
        _promote(cluster)


def _promote(cluster: Cluster) -> None:
    first, second = cluster.nodes
    position = first.flags.index("--initial-cluster")
    alone = f"{first.name}=http://127.0.0.1:{first.peer_port}"
    first.flags = (*first.flags[: position + 1], alone, *first.flags[position + 2 :])
    first.start()
    first.wait_ready()
    with calling(first.endpoint) as caller:
        url = f"http://127.0.0.1:{second.peer_port}"
        request = rpc.MemberAddRequest(peerURLs=[url], isLearner=True)
        number = caller.unary("Cluster/MemberAdd", request).member.ID
        status, _, text = ask(first, "POST", f"/members/promote/{number}")
        assert (status, "in sync with leader" in text) == (412, True)
        second.flags = (*second.flags, "--initial-cluster-state", "existing")
        second.start()
        while True:
            status, _, text = ask(first, "POST", f"/members/promote/{number}")
            if status == 200:
                break
            assert status == 412, text
        assert [member.get("isLearner", False) for member in json.loads(text)] == [False, False]
