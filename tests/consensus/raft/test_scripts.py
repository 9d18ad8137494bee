"""Every transcript in scripts/ still reads as written; `make scripts-rewrite` writes what the core does now."""

import os
from pathlib import Path

import pytest

from tests.consensus.raft.transcript import replay

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.txt"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_transcript(script: Path) -> None:
    now = replay(script)
    if os.environ.get("REWRITE"):
        script.write_text(now)
    assert script.read_text() == now
