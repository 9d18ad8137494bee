"""npm's etcd3: installs it once and runs the scenarios beside this file with it."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import pytest

from tests.conformance import programs

HERE: Final = Path(__file__).parent
INSTALLED_WITHIN_S: Final = 100.0


def run(
    scenario: str, endpoints: list[str], environment: Mapping[str, str] | None = None
) -> AbstractContextManager[programs.Program]:
    """A scenario against endpoints; the test is skipped where Node.js or the package cannot be had."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("no Node.js found: install node and npm")
    modules = {"NODE_PATH": str(installed())}
    return programs.running(
        ["node", str(HERE / "scenarios.js"), scenario, *endpoints], modules | dict(environment or {})
    )


def installed() -> Path:
    """The client and what it needs, installed once per list of versions outside the sources."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quorate-tests"
    lock = (HERE / "package-lock.json").read_bytes()
    directory = cache / f"npm-{hashlib.sha256(lock).hexdigest()[:12]}"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        if not (directory / "installed").exists():
            install(directory)
    return directory / "node_modules"


def install(directory: Path) -> None:
    """Fetch exactly the versions of the lock file; no package may run anything meanwhile."""
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, directory)
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    try:
        subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=INSTALLED_WITHIN_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as failed:
        said = (failed.stderr or b"").decode(errors="replace").strip()
        pytest.skip(f"npm's registry gives no etcd3: {said[-200:] or failed}")
    (directory / "installed").touch()
