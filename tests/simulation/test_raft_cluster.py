"""Seeded runs of whole Raft clusters under faults.

`QUORATE_SEED=n` replays one seed, `QUORATE_SEEDS=n` runs more.
"""

from __future__ import annotations

import os
import random

import pytest

from quorate.consensus.raft.messages import RaftConfig
from tests.simulation.raft_cluster import FAULT_KINDS, TICK, Faults, SimCluster

SEEDS = (
    [int(os.environ["QUORATE_SEED"])]
    if "QUORATE_SEED" in os.environ
    else range(int(os.environ.get("QUORATE_SEEDS", "100")))
)


def run_seed(seed: int, kinds: tuple[str, ...] = ()) -> SimCluster:
    """One run: its faults and knobs are drawn from the seed too, so that runs differ in kind.

    Each run knows only some kinds of faults, so that one kind does not always cover another up.
    """
    rng = random.Random(seed)
    drawn = tuple(rng.sample(FAULT_KINDS, rng.randint(2, len(FAULT_KINDS))))
    faults = Faults(
        loss=rng.choice([0.0, 0.02, 0.1]),
        duplication=rng.choice([0.0, 0.05]),
        delay_max=rng.choice([5, 30, 120]),
        disk_delay_max=rng.choice([3, 20, 150]),
        fault_every=rng.choice([4, 10, 30]) * TICK,
        kinds=kinds or drawn,
    )
    config = RaftConfig(
        id=1,
        election_ticks=rng.choice([5, 10]),
        pre_vote=rng.random() < 0.8,
        append_bytes_max=rng.choice([8, 64, 1 << 20]),
        inflight_appends_max=rng.choice([1, 2, 8]),
        inflight_bytes_max=random.Random(f"{seed} window").choice([8, 64, 4 << 20]),
        apply_bytes_max=rng.choice([8, 1 << 20]),
        read_rounds_max=rng.choice([1, 2]),
    )
    cluster = SimCluster(seed, rng.choice([1, 3, 3, 5]), rng.choice([0, 2]), faults, config)
    cluster.run(lambda: False, 100 * TICK)
    cluster.ledger.check_logs_match(cluster)
    cluster.calm()
    converged = cluster.converges(300 * TICK)
    cluster.ledger.check_logs_match(cluster)
    assert converged, "no progress after all faults ended"
    return cluster


@pytest.mark.parametrize("seed", SEEDS)
def test_cluster_stays_safe_and_recovers(seed: int) -> None:
    try:
        run_seed(seed)
    except AssertionError as error:
        error.add_note(f"replay with: QUORATE_SEED={seed} pytest tests/simulation/test_raft_cluster.py")
        raise


def test_same_seed_gives_the_same_run() -> None:
    first, second = run_seed(7), run_seed(7)
    assert (first.events, first.ledger.committed) == (second.events, second.ledger.committed)
