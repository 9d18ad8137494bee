"""Nodes on this machine, in the background: `python deploy/local.py run|cluster|down`.

`run` starts one node on etcd's default ports with its data in default.etcd, where `supervisorctl -c supervisord.conf`
finds it; `cluster` three with the ports of etcd's own Procfile and their data below run/. `down` stops them all.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quorate.node.check import health

ROOT: Final = Path(__file__).resolve().parent.parent
LOGS: Final = ROOT / "run"
READY_S_MAX: Final = 60.0
STOP_S_MAX: Final = 60.0
POLL_S: Final = 0.05


@dataclass(frozen=True)
class Local:
    """One node of this machine."""

    name: str
    data: Path
    client_port: int
    peer_port: int

    @property
    def client_url(self) -> str:
        return f"http://127.0.0.1:{self.client_port}"

    @property
    def peer_url(self) -> str:
        return f"http://127.0.0.1:{self.peer_port}"

    @property
    def log(self) -> Path:
        return LOGS / f"{self.name}.log"

    @property
    def socket_name(self) -> Path:
        """Supervisor's socket as people find it."""
        return self.data / "run" / "supervisor.sock"

    @property
    def socket(self) -> Path:
        """The same where it really is: a long name stands for a directory with a short one."""
        return self.socket_name.parent.resolve() / self.socket_name.name

    def flags(self) -> list[str]:
        """None for the default node, so that it has etcd's default URLs and with them etcd's default ids."""
        if self == SINGLE:
            return []
        urls = [f"--listen-client-urls={self.client_url}", f"--advertise-client-urls={self.client_url}"]
        urls += [f"--listen-peer-urls={self.peer_url}", f"--initial-advertise-peer-urls={self.peer_url}"]
        return [f"--name={self.name}", f"--data-dir={self.data}", *urls]


SINGLE: Final = Local("default", ROOT / "default.etcd", 2379, 2380)
TRIO: Final = [
    Local("infra1", ROOT / "run" / "infra1", 2379, 2380),
    Local("infra2", ROOT / "run" / "infra2", 22379, 22380),
    Local("infra3", ROOT / "run" / "infra3", 32379, 32380),
]


def start(nodes: list[Local], *flags: str) -> int:
    """Start what is not running and wait until all are healthy; the exit status."""
    if others := [node.name for node in (SINGLE, *TRIO) if node not in nodes and runs(node)]:
        print(f"{', '.join(others)} is running on the same ports; stop it with: make down", file=sys.stderr)
        return 1
    LOGS.mkdir(exist_ok=True)
    said_before = {node: node.log.stat().st_size if node.log.exists() else 0 for node in nodes}
    started = {node: launch(node, *flags) for node in nodes if not runs(node)}
    deadline = time.monotonic() + READY_S_MAX
    for node in nodes:
        process = started.get(node)
        while not (runs(node) and health(f"{node.client_url}/health")[0]):  # somebody else may answer on the port
            if process is not None and process.poll() is not None:
                lines = node.log.read_bytes()[said_before[node] :].decode().splitlines()
                print(f"{node.name} did not start; the end of {node.log}:", *lines[-5:], sep="\n", file=sys.stderr)
                return 1
            if time.monotonic() > deadline:
                print(f"{node.name} is not healthy after {READY_S_MAX:.0f} s; see {node.log}", file=sys.stderr)
                return 1
            time.sleep(POLL_S)
    report(nodes)
    return 0


def launch(node: Local, *flags: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-P", "-m", "quorate.node.launch", *node.flags(), *flags]
    with node.log.open("ab") as log:
        return subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def report(nodes: list[Local]) -> None:
    for node in nodes:
        print(f"{node.name} serves clients on {node.client_url}, log in {node.log.relative_to(ROOT)}")
    endpoints = ",".join(f"127.0.0.1:{node.client_port}" for node in nodes)
    print(f"try: etcdctl --endpoints {endpoints} put foo bar")
    supervisorctl = os.path.relpath(Path(sys.executable).with_name("supervisorctl"))
    for node in nodes:
        print(f"processes of {node.name}: {supervisorctl} -s unix://{os.path.relpath(node.socket_name)} status")
    print("stop: make down")


def stop(nodes: list[Local]) -> int:
    """Stop what is running, each node cleanly; the exit status."""
    running = [node for node in nodes if runs(node)]
    for node in running:
        command = [sys.executable, "-m", "supervisor.supervisorctl", "-s", f"unix://{node.socket}", "shutdown"]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(command, stdout=subprocess.DEVNULL, timeout=STOP_S_MAX, check=False)
    deadline = time.monotonic() + STOP_S_MAX
    for node in running:
        while runs(node):
            if time.monotonic() > deadline:
                print(f"{node.name} has not stopped after {STOP_S_MAX:.0f} s", file=sys.stderr)
                return 1
            time.sleep(POLL_S)
        print(f"{node.name} stopped")
    if not running:
        print("nothing was running")
    return 0


def runs(node: Local) -> bool:
    """Whether a supervisor listens behind the socket; a killed one leaves its file."""
    import socket

    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(node.socket))
        except OSError:
            return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="deploy/local.py", description=__doc__)
    parser.add_argument("action", choices=["run", "cluster", "down"])
    action = parser.parse_args().action
    if action == "run":
        return start([SINGLE])
    if action == "cluster":
        members = ",".join(f"{node.name}={node.peer_url}" for node in TRIO)
        return start(TRIO, f"--initial-cluster={members}", "--initial-cluster-token=etcd-cluster-1")
    return stop([SINGLE, *TRIO])


if __name__ == "__main__":
    sys.exit(main())
