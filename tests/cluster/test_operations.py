"""The commands of docs/operations.md about TLS, run as they stand there but for the ports."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench import processes, servers
from bench.servers import free_ports
from tests.conformance.clients import etcdctls
from tests.support.cluster import wait_until

OPERATIONS = Path(__file__).resolve().parent.parent.parent / "docs" / "operations.md"
PROGRAMS = {
    "quorate": "from quorate.node.launch import main; main()",
    "quorateutl": "from quorate.ctl.quorateutl import main; main()",
}


class Shell:
    """Runs blocks of the document in one directory, with the programs by their names."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.mark = processes.new_mark()
        self.log = directory / "node.log"
        product = servers.quorate()
        self._ports = dict(zip(("2379", "2380"), map(str, free_ports(2)), strict=True))
        programs = directory / "bin"
        programs.mkdir()
        for name, code in PROGRAMS.items():
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{code}" "$@"\n')
            program.chmod(0o755)
        (programs / "etcdctl").symlink_to(next(iter(etcdctls().values())))
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        self._environment = {**os.environ, **product.environment, "PATH": path, processes.MARK: self.mark}

    def run(self, block: str) -> str:
        """Run to the end; the output."""
        done = subprocess.run(
            ["/bin/sh", "-euc", self._placed(block)],
            cwd=self.directory,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, block: str) -> subprocess.Popen[bytes]:
        """Run until told to end."""
        with self.log.open("wb") as log:
            return subprocess.Popen(
                ["/bin/sh", "-euc", f"exec {self._placed(block)}"],
                cwd=self.directory,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _placed(self, block: str) -> str:
        return re.sub(r"127\.0\.0\.1:(\d+)", lambda match: f"127.0.0.1:{self._ports[match[1]]}", block)


def blocks(heading: str) -> list[str]:
    """The shell commands below a heading, in their order."""
    section = OPERATIONS.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```", section, re.DOTALL | re.MULTILINE)


@pytest.mark.skipif(not etcdctls() or shutil.which("curl") is None, reason="etcdctl or curl is not installed")
def test_the_commands_about_tls_do_what_they_say(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    certificates, node, clients, _update = blocks("TLS")
    assert shell.run(certificates).count("good for") == 3
    process = shell.start(node)
    try:
        wait_until(lambda: "ready to serve client requests" in shell.log.read_text(), "the node serves", 60.0)
        told = shell.run(clients)
        assert told.startswith("OK\nfoo\nbar\n")
        assert '"health":"true"' in told
        assert '"name":"m1"' in told
    finally:
        processes.end(process, shell.mark)
