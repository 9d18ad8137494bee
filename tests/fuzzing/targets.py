"""What is fuzzed: each target is a module `of_NAME` with `run`, which raises on a finding, and `seeds`, good inputs."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CORPUS: Final = Path(__file__).resolve().parent / "corpus"
IN_PROCESS: Final = (
    *("http2", "hpack", "json", "peer_frames", "peer_requests", "log", "facts", "bbolt", "texts"),
    *("raft", "driver", "database", "commands", "srv", "credentials"),
)
LIVE: Final[tuple[str, ...]] = ("node_frames", "node_messages", "node_json", "node_http", "node_peers")
NAMES: Final = IN_PROCESS + LIVE


@dataclass(frozen=True, slots=True)
class Target:
    """One reader of foreign octets."""

    name: str
    run: Callable[[bytes], bool | None]  # whether it was read, False for a refusal; a live node does not say
    seeds: Callable[[], list[bytes]]
    world: Callable[[], AbstractContextManager[object]]  # what has to exist while `run` is called; may raise in the end


def target(name: str) -> Target:
    """Import a target."""
    module = importlib.import_module(f"tests.fuzzing.of_{name}")
    return Target(name, module.run, module.seeds, getattr(module, "world", nullcontext))


def kept(name: str) -> list[Path]:
    """The inputs kept of a target, among them all that ever found something."""
    return sorted((CORPUS / name).glob("*"))
