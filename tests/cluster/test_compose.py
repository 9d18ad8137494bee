"""The image and the compose file, where a Docker engine answers."""

import json
import os
import shutil
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.ports import free_port
from quorate.node.check import health

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD_S_MAX = 600
START_S_MAX = 180


def engine_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    asked = subprocess.run(["docker", "compose", "ls"], capture_output=True, timeout=60, check=False)
    return asked.returncode == 0


class Composed:
    """The cluster of the compose file, under a project name and on ports of its own."""

    def __init__(self, *files: str) -> None:
        self.take(*files)
        self.ports = [free_port() for _ in range(3)]
        self._project = f"quorate-test-{self.ports[0]}"
        self._environment = os.environ | {f"NODE{number}_PORT": str(port) for number, port in enumerate(self.ports, 1)}

    def take(self, *files: str) -> None:
        """These compose files from now on; the default one for none."""
        self._files = [word for file in files for word in ("--file", file)]

    def compose(self, *words: str, seconds_max: int = START_S_MAX) -> str:
        command = ["docker", "compose", *self._files, "--project-name", self._project, *words]
        done = subprocess.run(
            command, cwd=ROOT, env=self._environment, capture_output=True, text=True, timeout=seconds_max, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def cluster() -> Iterator[Composed]:
    """The three containers."""
    with running() as composed:
        yield composed


@contextmanager
def running(*files: str) -> Iterator[Composed]:
    """The containers, up and healthy; gone afterwards with their volumes."""
    if not engine_answers():
        pytest.skip("no Docker engine answers")
    composed = Composed(*files)
    composed.compose("build", seconds_max=BUILD_S_MAX)
    try:
        composed.compose("up", "--detach", "--wait")
        yield composed
    except BaseException:
        print(composed.compose("logs", "--tail=50"))
        raise
    finally:
        composed.compose("down", "--volumes", "--timeout", "30")


def call(port: int, path: str, body: dict[str, str]) -> dict[str, object]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=30) as answer:
        answered: dict[str, object] = json.loads(answer.read())
        return answered


@pytest.mark.timeout(BUILD_S_MAX + START_S_MAX)
def test_what_one_container_accepts_all_answer(cluster: Composed) -> None:
    call(cluster.ports[0], "/v3/kv/put", {"key": "Zm9v", "value": "YmFy"})
    values = [call(port, "/v3/kv/range", {"key": "Zm9v"})["kvs"] for port in cluster.ports]
    assert [value[0]["value"] for value in values if isinstance(value, list)] == ["YmFy"] * 3


@pytest.mark.timeout(START_S_MAX)
def test_inside_a_container_nothing_runs_as_root(cluster: Composed) -> None:
    users = cluster.compose("exec", "node1", "sh", "-c", "stat -c %U /proc/[0-9]*/comm")
    assert set(users.split()) == {"quorate"}


@pytest.mark.timeout(2 * START_S_MAX)
def test_data_survives_new_containers(cluster: Composed) -> None:
    call(cluster.ports[0], "/v3/kv/put", {"key": "a2VwdA==", "value": "MQ=="})
    cluster.compose("up", "--detach", "--wait", "--force-recreate")
    assert call(cluster.ports[1], "/v3/kv/range", {"key": "a2VwdA=="})["count"] == "1"


@pytest.mark.timeout(BUILD_S_MAX + 2 * START_S_MAX)
def test_with_the_tls_file_everybody_shows_a_certificate_and_no_node_has_the_authoritys_key(tmp_path: Path) -> None:
    with running("docker-compose.yml", "docker-compose.tls.yml") as composed:
        composed.compose("cp", "certificates:/client", str(tmp_path / "client"))
        names = {"ca.pem", "root.pem", "root-key.pem"}
        assert {path.name for path in (tmp_path / "client").iterdir()} == names
        context = ssl.create_default_context(cafile=str(tmp_path / "client" / "ca.pem"))
        for node, port in zip(("node1", "node2", "node3"), composed.ports, strict=True):
            own = {f"{node}-{purpose}{key}.pem" for purpose in ("server", "peer") for key in ("", "-key")}
            assert set(composed.compose("exec", node, "ls", "/certificates").split()) == own | {"ca.pem"}
            assert not health(f"https://127.0.0.1:{port}/health", context)[0]
        context.load_cert_chain(tmp_path / "client" / "root.pem", tmp_path / "client" / "root-key.pem")
        for port in composed.ports:
            assert health(f"https://127.0.0.1:{port}/health", context)[0]


@pytest.mark.timeout(BUILD_S_MAX + 5 * START_S_MAX)
def test_containers_without_certificates_take_them_one_by_one(tmp_path: Path) -> None:
    with running() as composed:
        call(composed.ports[0], "/v3/kv/put", {"key": "a2VwdA==", "value": "MQ=="})
        for node in ("node1", "node2", "node3"):
            composed.take()
            listed = composed.compose("exec", node, "quoratectl", "member", "list")
            (member,) = (line.partition(",")[0] for line in listed.splitlines() if f" {node}," in line)
            peer = f"--peer-urls=https://{node}:2380"
            composed.compose("exec", node, "quoratectl", "member", "update", member, peer)
            composed.take("docker-compose.yml", "docker-compose.tls.yml")
            composed.compose("up", "--detach", "--wait", node)
        composed.compose("cp", "certificates:/client", str(tmp_path / "client"))
        files = ["--cacert", "/client/ca.pem", "--cert", "/client/root.pem", "--key", "/client/root-key.pem"]
        for port in composed.ports:
            command = [sys.executable, "-c", "from quorate.ctl.quoratectl import main; main()"]
            command += [f"{tmp_path}{word}" if word.startswith("/") else word for word in files]
            command += ["--endpoints", f"https://127.0.0.1:{port}", "get", "kept", "--print-value-only"]
            assert subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout == "1\n"
