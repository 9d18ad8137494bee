"""kill -9 wherever a member's first minute or an arriving snapshot changes files: the next start goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import servers
from quorate.consensus import bootstrap
from quorate.consensus.bootstrap import Start
from quorate.consensus.joining import Known
from quorate.consensus.membership import Member
from quorate.node.config import Config
from tests.support.killing import needs_strace, places, run_killed

pytestmark = [needs_strace, pytest.mark.timeout(300)]
SEGMENT_BYTES = 128 * 1024
URL_A, URL_B = "http://127.0.0.1:1", "http://127.0.0.2:1"
TERM, VOTE, ENTRIES, SNAPSHOT = 5, 7, 10, 100
SCRIPT = f"""
import sys
from dataclasses import replace
from quorate.consensus import bootstrap
from quorate.consensus.membership import Meta
from quorate.consensus.raft.messages import Entry, EntryKind, HardState
from tests.consensus.test_killed import begin

start = begin(sys.argv[2], sys.argv[3])
if sys.argv[1] == "entries":
    entries = [Entry(index, {TERM}, EntryKind.NOOP, b"x" * 100) for index in range(1, {ENTRIES} + 1)]
    start.wal.append(entries, HardState({TERM}, {VOTE}, {ENTRIES}))
if sys.argv[1] == "snapshot":
    membership = replace(start.meta.membership, index={SNAPSHOT})
    start.meta_files.write(Meta(start.meta.member_id, membership, {SNAPSHOT}, {TERM}))
    start.wal.reset({SNAPSHOT}, {TERM}, HardState({TERM}, {VOTE}, {SNAPSHOT}))
"""


def fetch(_url: str, _timeout: float) -> Known:
    return Known(4711, [Member(1, (URL_A,), ""), Member(2, (URL_B,), "b")])


def nobody(_url: str, _timeout: float) -> Known:
    raise OSError("nobody there")


def begin(directory: str, state: str) -> Start:
    settings: dict[str, Any] = {"initial_cluster": f"a={URL_A}", "name": "a"}
    if state == "existing":
        settings["initial_cluster"] += f",b={URL_B}"
    config = Config(
        data_dir=directory,
        run_dir=f"{directory}.run",
        initial_advertise_peer_urls=[URL_A],
        initial_cluster_state=state,
        **settings,
    )
    return bootstrap.start(config, fetch if state == "existing" else nobody, SEGMENT_BYTES)


@pytest.fixture
def environment() -> dict[str, str]:
    paths = [*servers.quorate().environment["PYTHONPATH"].split(os.pathsep), str(servers.ROOT)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.mark.parametrize("state", ["new", "existing"])
def test_a_first_start_that_was_killed_is_made_again(state: str, environment: dict[str, str], tmp_path: Path) -> None:
    data = tmp_path / "place" / "data"
    data.parent.mkdir()
    command = [sys.executable, "-c", SCRIPT, "start", str(data), state]
    found = places(command, environment, tmp_path / "trace", data)
    expected = begin(str(data), state)
    expected.wal.close()
    for killed_at in found:
        shutil.rmtree(data)
        assert run_killed(killed_at, command, environment), killed_at
        started = begin(str(data), state)
        assert started.meta == expected.meta, killed_at
        assert (1, 0) == (started.wal.first_index(), started.wal.last_index), killed_at
        started.wal.close()


def test_a_log_that_was_killed_while_a_snapshot_took_its_place_has_its_promises(
    environment: dict[str, str], tmp_path: Path
) -> None:
    original, data = tmp_path / "original", tmp_path / "place" / "data"
    subprocess.run([sys.executable, "-c", SCRIPT, "entries", str(original), "new"], env=environment, check=True)
    command = [sys.executable, "-c", SCRIPT, "snapshot", str(data), "new"]
    shutil.copytree(original, data)
    seen = set()
    for killed_at in places(command, environment, tmp_path / "trace", data):
        shutil.rmtree(data)
        shutil.copytree(original, data)
        assert run_killed(killed_at, command, environment), killed_at
        started = begin(str(data), "new")
        state, snapshot = started.wal.hard_state, started.meta.snapshot_index
        assert (TERM, VOTE) == (state.term, state.vote), killed_at
        first, last = started.wal.first_index(), started.wal.last_index
        if snapshot:
            assert (SNAPSHOT, SNAPSHOT + 1, SNAPSHOT) == (snapshot, first, last), killed_at
        else:
            assert (1, ENTRIES) == (first, last), killed_at
        seen.add(snapshot)
        started.wal.close()
    assert seen == {0, SNAPSHOT}
