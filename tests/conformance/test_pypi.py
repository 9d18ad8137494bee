"""PyPI's aetcd and etcd3, unmodified, over gRPC: the same outcome with Quorate and with real etcd."""

import os
import subprocess
from collections.abc import Iterator
from typing import Any, Final

import pytest

from bench import servers
from tests.cluster.guarded import PASSWORD, Guarded, guarded_cluster
from tests.conformance import pypi
from tests.conformance.clients import etcdctls

LIBRARIES: Final = ("aetcd", "etcd3")
EXPECTED: Final[dict[str, Any]] = {
    "kv": [["two", "one"], True, False, ["a/2", "a/3"]],
    "watch": [
        ["PUT", "w/1", "before", ""],
        ["PUT", "w/1", "after", "before"],
        ["DELETE", "w/1", "", "after"],
        ["PUT", "w/last", "", ""],
    ],
    "lease": [["l/1"], 20, True, None],
    "lock": [True, False, True, True, False, True, None],
    "members": ["3", 1, True],
}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("scenario", EXPECTED)
def test_outcome_is_etcds(node: servers.Node, library: str, scenario: str) -> None:
    with pypi.run(library, scenario, node.endpoint) as program:
        assert EXPECTED[scenario] == program.next()


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    with guarded_cluster(1) as made:
        yield made


def test_with_auth_on_aetcd_logs_in(guarded: Guarded) -> None:
    """etcd3 shows its token over TLS alone: see test_certificates."""
    who = {"ETCD_USER": "alice", "ETCD_PASSWORD": PASSWORD}
    with pypi.run("aetcd", "kv", guarded.cluster.nodes[0].endpoint, who) as program:
        assert EXPECTED["kv"] == program.next()


def test_its_lock_and_that_of_etcdctl_leave_each_other_alone(node: servers.Node) -> None:
    if not etcdctls():
        pytest.skip("no etcdctl found: install Debian's etcd-client")
    etcdctl = next(iter(etcdctls().values()))
    command = [etcdctl, "--endpoints", node.endpoint, "lock", "/locks/mixed"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"ETCDCTL_API": "3"}) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline().startswith(b"/locks/mixed/")
            with pypi.run("etcd3", "beside_etcdctl", node.endpoint) as second:
                assert second.next() is True
                second.tell("go on")
                assert ["/locks", "/locks/mixed"] == second.next()
        finally:
            first.kill()
