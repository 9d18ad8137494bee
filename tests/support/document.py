"""The commands of a document, run as they stand there but for ports and programs: what the reader would type.

A block of `sh` that begins with `quorate --` is a node in a terminal of its own: it is started, after the one of that
name has been ended, and is ready before the next block that is not one. Any other is run to its end, and what it says
has to be what the block of `text` behind it shows, in which `…` stands for anything within a line. A block of `yaml`
whose first line is `# name` is that file.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from bench import processes, servers
from bench.ports import free_port
from tests.conformance.clients import etcdctls
from tests.support.cluster import wait_until

ROOT: Final = Path(__file__).resolve().parent.parent.parent
OPERATIONS: Final = ROOT / "docs" / "operations.md"
PROGRAMS: Final = {
    "quorate": "from quorate.node.launch import main; main()",
    "quoratectl": "from quorate.ctl.quoratectl import main; main()",
    "quorateutl": "from quorate.ctl.quorateutl import main; main()",
}
READY: Final = "ready to serve client requests"
READY_WITHIN_S: Final = 90.0
BLOCK_S_MAX: Final = 300


@dataclass(frozen=True)
class Block:
    """What stands between two fences."""

    language: str
    text: str

    @property
    def is_node(self) -> bool:
        return self.language == "sh" and self.text.startswith("quorate --")


class Running(NamedTuple):
    """A node in its terminal."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


def _name_of(text: str) -> str:
    found = re.search(r"--name (\S+)", text)
    return found[1] if found else ""


def blocks(heading: str, level: int = 2) -> list[Block]:
    """The blocks below a heading, in their order."""
    mark = "#" * level
    section = OPERATIONS.read_text().split(f"\n{mark} {heading}\n")[1]
    section = re.split(rf"^#{{2,{level}}} ", section, maxsplit=1, flags=re.MULTILINE)[0]
    found = [Block(*fenced) for fenced in re.findall(r"^```(\w+)\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)]
    assert found, heading
    return found


def headings(section: str) -> list[str]:
    """The headings of the third level in a section of the second."""
    text = OPERATIONS.read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"^### (.*)$", text, re.MULTILINE)


class Shell:
    """A directory in which blocks are run, with the programs by their names and ports of its own."""

    def __init__(self, directory: Path, environment: dict[str, str] | None = None) -> None:
        self.directory = directory
        self.mark = processes.new_mark()
        self._nodes: list[Running] = []
        self._started = 0
        self._ports: dict[str, str] = {}
        programs = directory / "bin"
        programs.mkdir()
        for name, code in PROGRAMS.items():
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{code}" "$@"\n')
            program.chmod(0o755)
        if etcdctls():
            (programs / "etcdctl").symlink_to(next(iter(etcdctls().values())))
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        own = {**servers.quorate().environment, "PATH": path, processes.MARK: self.mark}
        self._environment = {**os.environ, **own, **(environment or {})}

    def run(self, text: str) -> str:
        """Run to the end, which has to be a good one; what it says."""
        done = subprocess.run(
            ["/bin/sh", "-euc", self.placed(text)],
            cwd=self.directory,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BLOCK_S_MAX,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def start(self, text: str) -> None:
        """Run until the end of the shell, or until a node of the same name is started."""
        self._end_of_name(text)
        self._started += 1
        log = self.directory / f"node{self._started}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["/bin/sh", "-euc", f"exec {self.placed(text)}"],
                cwd=self.directory,
                env=self._environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._nodes.append(Running(_name_of(text), process, log))

    def _end_of_name(self, text: str) -> None:
        name = _name_of(text)
        for running in [running for running in self._nodes if running.name == name]:
            running.process.send_signal(signal.SIGINT)
            wait_until(lambda: running.process.poll() is not None, f"{name} has ended", READY_WITHIN_S)  # noqa: B023 - called in its turn
            self._nodes.remove(running)

    def wait_ready(self) -> None:
        """Return when every node serves."""
        for _name, process, log in self._nodes:
            wait_until(lambda: READY in log.read_text() or process.poll() is not None, "a node serves", READY_WITHIN_S)  # noqa: B023 - called in its turn
            assert process.poll() is None, log.read_text()

    def write(self, text: str) -> None:
        """Write the file that a block of yaml is."""
        name = text.partition("\n")[0].removeprefix("# ")
        (self.directory / name).write_text(self.placed(text))

    def placed(self, text: str) -> str:
        """The same at the ports of this shell."""
        return re.sub(r"127\.0\.0\.1:(\d+)", lambda match: f"127.0.0.1:{self._port(match[1])}", text)

    def play(self, story: list[Block]) -> None:
        """Do what the blocks say, one after the other, and compare."""
        said = ""
        for block in story:
            if block.is_node:
                self.start(block.text)
            elif block.language == "sh":
                self.wait_ready()
                said = self.run(block.text)
            elif block.language == "yaml":
                self.write(block.text)
            elif block.language == "text":
                assert is_shown(said, self.placed(block.text)), f"{said}\nis not\n{block.text}"

    def close(self) -> None:
        for running in self._nodes:
            if running.process.poll() is None:
                running.process.terminate()
        for running in self._nodes:
            processes.end(running.process, self.mark)

    def _port(self, named: str) -> str:
        if named not in self._ports:
            self._ports[named] = str(free_port())
        return self._ports[named]


@contextmanager
def shell(directory: Path, environment: dict[str, str] | None = None) -> Iterator[Shell]:
    """A shell whose nodes are ended afterwards; their logs are printed when something failed."""
    opened = Shell(directory, environment)
    try:
        yield opened
    except BaseException:
        for log in sorted(directory.glob("node*.log")):
            print(f"--- {log.name}\n{log.read_text()[-3000:]}", file=sys.stderr)
        raise
    finally:
        opened.close()


def is_shown(said: str, text: str) -> bool:
    """What was said is what the document shows, but for the line's end of what has none."""
    pattern = r"[^\n]*".join(map(re.escape, text.rstrip().split("…")))
    return re.fullmatch(pattern, said.rstrip()) is not None
