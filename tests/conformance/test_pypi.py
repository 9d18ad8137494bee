"""PyPI's aetcd and etcd3, unmodified, over gRPC: the same outcome with Quorate and with real etcd."""

import importlib.util
import os
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import pytest

from bench import servers
from tests.conformance import programs
from tests.conformance.clients import etcdctls

HERE: Final = Path(__file__).parent / "pypi"
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


def run(library: str, scenario: str, node: servers.Node) -> AbstractContextManager[programs.Program]:
    """The program of a library; etcd3's generated code is so old that only protobuf's Python part takes it."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"no {library} found: `pip install {library}`")
    command = [sys.executable, str(HERE / f"{library}_scenarios.py"), scenario, node.endpoint]
    return programs.running(command, {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"} if library == "etcd3" else {})


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("scenario", EXPECTED)
def test_outcome_is_etcds(node: servers.Node, library: str, scenario: str) -> None:
    with run(library, scenario, node) as program:
        assert EXPECTED[scenario] == program.next()


def test_its_lock_and_that_of_etcdctl_leave_each_other_alone(node: servers.Node) -> None:
    if not etcdctls():
        pytest.skip("no etcdctl found: install Debian's etcd-client")
    etcdctl = next(iter(etcdctls().values()))
    command = [etcdctl, "--endpoints", node.endpoint, "lock", "/locks/mixed"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"ETCDCTL_API": "3"}) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline().startswith(b"/locks/mixed/")
            with run("etcd3", "beside_etcdctl", node) as second:
                assert second.next() is True
                second.tell("go on")
                assert ["/locks", "/locks/mixed"] == second.next()
        finally:
            first.kill()
