"""kill -9 at a system call: where a program changes files, and programs that end at any one of these places.

strace counts calls per thread and per name, so a place is the nth call of one name.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pytest

# What changes files and directories; what only reads is no place to be killed at.
CALLS: Final = (
    *("write", "pwrite64", "fsync", "fdatasync", "ftruncate", "truncate", "fallocate", "sendfile", "copy_file_range"),
    *("rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir"),
)
RUN_S_MAX: Final = 60.0


class Place(NamedTuple):
    """The nth call of this name."""

    call: str
    nth: int


@cache
def reason_not_to() -> str:
    """Why programs cannot be killed at a system call here; empty when they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-f", "-o", os.devnull, "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "strace may not trace here"


needs_strace = pytest.mark.skipif(bool(reason_not_to()), reason=reason_not_to())


def killing(place: Place, *programs: str) -> list[str]:
    """The words in front of a command that has it killed there, with whatever it started."""
    inject = f"inject={place.call}:signal=KILL:when={place.nth}"
    return ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={place.call}", "-e", inject, *programs]


def places(command: Sequence[str], environment: Mapping[str, str], log: Path, below: Path) -> list[Place]:
    """Run to the end; every place where something below a directory is changed, in order.

    Calls elsewhere are counted, as strace counts them, but are no places.
    """
    traced = ["strace", "-f", "-qq", "-y", "-o", str(log), "-e", f"trace={','.join(CALLS)}"]
    subprocess.run([*traced, *command], env=environment, check=True, capture_output=True, timeout=RUN_S_MAX)
    counted: Counter[tuple[str, str]] = Counter()
    found = []
    for line in log.read_text(errors="replace").splitlines():
        match = re.match(r"(\d+) +(\w+)\(", line)
        if match and match[2] in CALLS:
            counted[match[1], match[2]] += 1
            if str(below) in line:
                found.append(Place(match[2], counted[match[1], match[2]]))
    return found


def run_killed(place: Place, command: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Run a command that is killed at a place; False when it did not come there."""
    done = subprocess.run(
        killing(place, *command), env=environment, capture_output=True, timeout=RUN_S_MAX, check=False
    )
    assert done.returncode in (0, -signal.SIGKILL, 128 + signal.SIGKILL), done.stderr.decode()
    return done.returncode != 0


def spread(found: Sequence[Place], count: int) -> list[Place]:
    """So many of them, from the first to the last."""
    if len(found) <= count:
        return list(found)
    return [found[round(number * (len(found) - 1) / (count - 1))] for number in range(count)]
