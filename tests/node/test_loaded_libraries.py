"""What each process of a node loads at its start: a large library costs every node memory and time to start."""

import json
import subprocess
import sys

import pytest

LARGE = frozenset(  # MiB are what the import takes beyond what its process has anyway, with CPython 3.11
    {
        "asyncio",  # 3
        "click",  # 2
        "cryptography",  # 4
        "dns",  # 4
        "fastapi",  # 16
        "grpc",  # 12
        "http.client",  # 1.5, by the mail parser of the standard library
        "jwt",  # 5
        "opentelemetry",  # 6
        "prometheus_client",  # 2
        "pydantic",  # 9
        "rich",  # 4
        "sqlite3",
        "sqlite_utils",  # 4
        "ssl",  # 2
        "uvicorn",  # 4
        "websockets",  # 3
        "yaml",  # 1
        "zmq",
    }
)

NEEDED = {
    "quorate.node.supervise": {"http.client", "ssl"},  # by supervisor
    "quorate.watch.__main__": {"zmq"},
    "quorate.storage.__main__": {"sqlite3", "zmq"},
    "quorate.consensus.__main__": {"asyncio", "ssl", "zmq"},
    "quorate.api.__main__": {"asyncio", "ssl", "zmq"},
}

PROGRAM = "import importlib, json, sys; importlib.import_module(sys.argv[1]); print(json.dumps(list(sys.modules)))"


def loaded_by(module: str) -> set[str]:
    """The large libraries in a process that has just been started."""
    command = [sys.executable, "-c", PROGRAM, module]
    modules = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return {large for large in LARGE for module in modules if module == large or module.startswith(f"{large}.")}


@pytest.mark.parametrize("module", NEEDED)
def test_a_process_loads_only_the_large_libraries_it_always_needs(module: str) -> None:
    assert NEEDED[module] == loaded_by(module)
