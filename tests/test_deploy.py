"""What deploy/ has for systemd and Kubernetes is what these take, and the flags that kubeadm gives are taken here."""

import importlib.util
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from quorate.node import settings, validation
from quorate.node.flags import parse_arguments

ROOT = Path(__file__).resolve().parent.parent
KUBEADM = """
  --advertise-client-urls=https://10.0.1.10:2379
  --cert-file=/etc/kubernetes/pki/etcd/server.crt
  --client-cert-auth=true
  --data-dir=/var/lib/etcd
  --experimental-initial-corrupt-check=true
  --experimental-watch-progress-notify-interval=5s
  --feature-gates=InitialCorruptCheck=true
  --initial-advertise-peer-urls=https://10.0.1.10:2380
  --initial-cluster=master=https://10.0.1.10:2380
  --key-file=/etc/kubernetes/pki/etcd/server.key
  --listen-client-urls=https://127.0.0.1:2379,https://10.0.1.10:2379
  --listen-metrics-urls=http://127.0.0.1:2381
  --listen-peer-urls=https://10.0.1.10:2380
  --name=master
  --peer-cert-file=/etc/kubernetes/pki/etcd/peer.crt
  --peer-client-cert-auth=true
  --peer-key-file=/etc/kubernetes/pki/etcd/peer.key
  --peer-trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt
  --snapshot-count=10000
  --trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt
  --watch-progress-notify-interval=5s
"""  # with the names of etcd 3.5 and of 3.6 for the same


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text()))


@pytest.mark.parametrize("document", documents(), ids=lambda document: document["kind"])
def test_the_manifest_is_what_kubernetes_takes(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_the_flags_of_kubeadm_are_taken() -> None:
    for other_times in ("--experimental", ("--watch", "--feature")):
        given = [word for word in KUBEADM.split() if not word.startswith(other_times)]
        config = settings.gather(parse_arguments(given), {}).config()
        validation.check(config)
        assert config.watch_progress_notify_interval == 5000


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_unit_is_what_systemd_takes(tmp_path: Path) -> None:
    unit = (ROOT / "deploy" / "quorate.service").read_text()
    (program,) = re.findall(r"^ExecStart=(\S+)", unit, re.MULTILINE)
    placed = tmp_path / "quorate.service"
    placed.write_text(unit.replace(program, str(shutil.which("true"))))
    verified = subprocess.run(
        ["systemd-analyze", "verify", str(placed)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    assert re.search(r"^Type=notify$", unit, re.MULTILINE)


def test_a_node_is_not_begun_beside_one_on_its_ports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    local = load_local()
    other = local.Local("other", tmp_path, 1, 2)
    monkeypatch.setattr(local, "SINGLE", other)
    monkeypatch.setattr(local, "LOGS", tmp_path / "logs")
    other.socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as supervisor:
        supervisor.bind(str(other.socket))
        supervisor.listen()
        assert local.start(local.TRIO) == 1
    assert capsys.readouterr().err == "other is running on the same ports; stop it with: make down\n"
    assert not (tmp_path / "logs").exists()


def test_a_node_that_ends_has_not_started_even_when_somebody_answers_on_its_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    local = load_local()
    node = local.Local("node", tmp_path, 1, 2)
    monkeypatch.setattr(local, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(local, "health", lambda _address: (True, ""))

    def launch(node: Any) -> "subprocess.Popen[bytes]":
        with node.log.open("a") as log:
            log.write("cannot listen\n")
        return subprocess.Popen("false")

    monkeypatch.setattr(local, "launch", launch)
    (tmp_path / "logs").mkdir()
    node.log.write_text("an earlier run\n")
    assert local.start([node]) == 1
    assert capsys.readouterr().err == f"node did not start; the end of {node.log}:\ncannot listen\n"


def load_local() -> Any:
    specification = importlib.util.spec_from_file_location("local", ROOT / "deploy" / "local.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["local"] = module  # where dataclasses look themselves up
    specification.loader.exec_module(module)
    return module


def test_a_node_whose_supervisor_was_killed_does_not_count_as_running(tmp_path: Path) -> None:
    local = load_local()
    node = local.Local("node", tmp_path, 1, 2)
    node.socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as supervisor:
        supervisor.bind(str(node.socket))
        supervisor.listen()
        assert local.runs(node)
    assert node.socket.exists()
    assert not local.runs(node)
