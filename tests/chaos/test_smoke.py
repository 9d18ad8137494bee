"""A short run of chaos with real processes, and the proof that its parts break what they say."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.disks import Disk, why_no_disks
from tests.chaos.faults import FAULTS
from tests.chaos.plan import draw
from tests.chaos.run import run

SECONDS = 30.0
TOGETHER_S = 300.0
KINDS_MIN = 20


@pytest.mark.timeout(TOGETHER_S)
def test_whatever_breaks_nothing_is_lost_and_no_client_is_told_anything_wrong() -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}: again with make chaos SEED={seed} SECONDS={SECONDS:g} NODES=3 RUNS=1")
    record = asyncio.run(run(seed, SECONDS, 3))
    print(record.figures())
    assert [] == record.findings, f"kept in {record.directory}; again: {record.replay}"


def test_there_are_enough_kinds_and_a_seed_means_one_plan() -> None:
    kinds = list(FAULTS.values())
    assert len(kinds) >= KINDS_MIN
    assert draw(7, 60.0, kinds) == draw(7, 60.0, kinds)
    assert draw(7, 60.0, kinds) != draw(8, 60.0, kinds)


def test_no_kind_of_a_plan_comes_again_before_each_has_come() -> None:
    kinds = list(FAULTS.values())
    for seed in range(20):
        times = Counter(planned.fault.name for lane in draw(seed, 600.0, kinds) for planned in lane)
        rounds = {-(-count // FAULTS[name].weight) for name, count in times.items()}
        assert max(rounds) - min(rounds) <= 1


@pytest.mark.skipif(bool(why_no_disks()), reason=why_no_disks() or "disks can be mounted")
def test_a_power_cut_takes_what_was_not_synced_and_nothing_else(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "disk")
    disk.create()
    try:
        with (disk.mount_point / "synced").open("wb") as file:
            file.write(b"kept")
            file.flush()
            os.fsync(file.fileno())
        (disk.mount_point / "unsynced").write_bytes(b"lost")
        disk.cut_power()
        assert (disk.mount_point / "synced").read_bytes() == b"kept"
        (disk.mount_point / "synced").unlink()
        disk.sync()
        disk.cut_power()
        assert not (disk.mount_point / "synced").exists()
        unsynced = disk.mount_point / "unsynced"
        assert not unsynced.exists() or unsynced.read_bytes() != b"lost"
    finally:
        disk.unmount()
