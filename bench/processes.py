"""Every process of a started server, found by a mark in its environment: none missed, no other hit.

A supervisor puts its children into process groups of their own and they outlive it when it is killed;
what all of them inherit is the environment.
"""

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MARK: Final = "QUORATE_STARTED_BY"
POLL_S: Final = 0.02
KILL_AFTER_S: Final = 15.0
_PROC: Final = Path("/proc")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def new_mark() -> str:
    """A value of the mark that no other process carries."""
    return secrets.token_hex(12)


def marked(mark: str) -> list[int]:
    """The pids of all live processes that carry the mark."""
    needle = f"{MARK}={mark}".encode()
    found = []
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                if needle in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def command_line(pid: int) -> str:
    """The arguments of a process, separated by spaces; empty when it is gone."""
    with suppress(OSError):
        return (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def end(process: subprocess.Popen[bytes] | None, mark: str, kill_after_s: float = KILL_AFTER_S) -> None:
    """Ask the first process to stop, give all of them time, then kill what is left."""
    if process is not None and process.poll() is None:
        process.terminate()
    deadline = time.monotonic() + kill_after_s
    while _reap(process) or marked(mark):
        if time.monotonic() > deadline:
            kill(process, mark)
        time.sleep(POLL_S)


def kill(process: subprocess.Popen[bytes] | None, mark: str) -> None:
    """SIGKILL to all of them at once, as a power cut would."""
    for pid in marked(mark):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _reap(process)


def _reap(process: subprocess.Popen[bytes] | None) -> bool:
    """Whether our own child still runs; a zombie has no environment and is collected here."""
    return process is not None and process.poll() is None


@dataclass(frozen=True, slots=True)
class Usage:
    """What all processes of a server use together."""

    rss_bytes: int  # resident pages, shared ones counted in each process
    pss_bytes: int  # resident pages, shared ones divided among the processes
    cpu_seconds: float


def usage(mark: str) -> Usage:
    """Memory and CPU of all marked processes now."""
    rss = pss = 0
    cpu = 0.0
    for pid in marked(mark):
        with suppress(OSError):
            for name, kilobytes in _rollup(pid):
                if name == "Rss:":
                    rss += kilobytes * 1024
                elif name == "Pss:":
                    pss += kilobytes * 1024
            fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
            cpu += (int(fields[11]) + int(fields[12])) / _TICKS
    return Usage(rss, pss, cpu)


def _rollup(pid: int) -> Iterator[tuple[str, int]]:
    for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]:
        name, kilobytes, *_ = line.split()
        yield name, int(kilobytes)
