"""npm's etcd3, unmodified, over Node's own HTTP/2 (grpc-js): the same outcome with Quorate and with real etcd."""

import os
import subprocess
from typing import Any, Final

import pytest

from bench import servers
from tests.conformance import npm
from tests.conformance.clients import EVERYTHING, etcdctls, long
from tests.support.cluster import quorate_cluster

EXPECTED: Final[dict[str, Any]] = {
    "kv": {
        "text": "1",
        "number": 1,
        "bytes": [0, 255],
        "missing": None,
        "descending": ["kv/b", "kv/a"],
        "limited": {"kv/a": "1"},
        "count": 2,
        "deleted": "2",
        "left": [],
    },
    "txn": {"succeeded": [True, False], "deleted": "1", "buyer": "me"},
    "stm": 10,
    "watch": {
        "seen": [
            ["put", "watch/a", "old", None],
            ["put", "watch/a", "new", "old"],
            ["delete", "watch/a", "", "new"],
            ["put", "watch/last", "", None],
        ],
        "filtered": "watch/a",
    },
    "lease": {"renewed": "3", "once": "3", "attached": True, "left": [], "failure": "EtcdLeaseInvalidError"},
    "lock": {"refused": True, "result": "done", "left": []},
    "election": {"leaders": ["first", "still first", "second"], "asked": "second", "left": None},
    "volume": {"small": True, "large": 3},
    "errors": [
        ["GRPCOutOfRangeError", "11 OUT_OF_RANGE: etcdserver: mvcc: required revision is a future revision"],
        ["GRPCInvalidArgumentError", "3 INVALID_ARGUMENT: etcdserver: key is not provided"],
        [
            "EtcdLeaseInvalidError",
            "Lease 5 NOT_FOUND: etcdserver: requested lease not found is expired or revoked",
        ],
    ],
    "users": {
        "seen": "1",
        "failures": [
            "7 PERMISSION_DENIED: etcdserver: permission denied",
            "3 INVALID_ARGUMENT: etcdserver: authentication failed, invalid user ID or password",
        ],
    },
}


@pytest.fixture(scope="module")
def product(product: servers.Product) -> servers.Product:
    """Quorate, and real etcd when there is time for it."""
    if product.name != "quorate" and not EVERYTHING:
        pytest.skip("takes long beside real etcd too: `make clients` runs it")
    return product


@pytest.mark.parametrize("scenario", EXPECTED)
def test_outcome_is_etcds(node: servers.Node, scenario: str) -> None:
    with npm.run(scenario, [node.endpoint]) as program:
        assert EXPECTED[scenario] == program.next()


def test_cluster_and_status(node: servers.Node) -> None:
    with npm.run("cluster", [node.endpoint]) as program:
        assert {"members": [[f"http://{node.endpoint}"]], "leads": True, "version": "3"} == program.next()


def test_its_candidates_queue_behind_those_of_etcdctl(node: servers.Node) -> None:
    if not etcdctls():
        pytest.skip("no etcdctl found: install Debian's etcd-client")
    etcdctl = next(iter(etcdctls().values()))
    elect = [etcdctl, "--endpoints", node.endpoint, "elect", "election/mixed", "from etcdctl"]
    with subprocess.Popen(elect, stdout=subprocess.PIPE, env=os.environ | {"ETCDCTL_API": "3"}) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline().startswith(b"election/mixed/")
            with npm.run("candidate", [node.endpoint]) as second:
                assert "waiting" == second.next()
                first.terminate()
                assert "elected" == second.next()
                second.tell("resign")
                assert "resigned" == second.next()
        finally:
            first.kill()


@long
def test_puts_and_watch_go_on_when_a_node_dies() -> None:
    with quorate_cluster(3) as cluster, npm.run("relay", cluster.endpoints) as program:
        assert "ready" == program.next()
        words = [f"word{number}" for number in range(6)]
        for number, word in enumerate(words):
            if number == 2:
                cluster.leader().kill()
            program.tell(word)
            assert word == program.next()
        program.hang_up()
        assert words == program.next()
