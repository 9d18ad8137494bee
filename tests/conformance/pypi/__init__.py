"""Programs around client libraries from PyPI whose generated code must not meet ours in one process."""

import importlib.util
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import pytest

from tests.conformance import programs

HERE: Final = Path(__file__).parent


def run(
    library: str, scenario: str, endpoint: str, environment: Mapping[str, str] | None = None
) -> AbstractContextManager[programs.Program]:
    """The program of a library; etcd3's generated code is so old that only protobuf's Python part takes it."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"no {library} found: `pip install {library}`")
    command = [sys.executable, str(HERE / f"{library}_scenarios.py"), scenario, endpoint]
    part = {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"} if library == "etcd3" else {}
    return programs.running(command, part | dict(environment or {}))
