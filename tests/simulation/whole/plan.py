"""What a seed decides before a run begins: size, knobs, weather, faults and clients. Parts of it can be left out."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from tests.simulation.whole.world import MS, SECOND

KINDS = (
    "kill consensus", "kill storage", "kill watch", "kill api", "die at a step", "stop a process", "stop a node",
    "stop the leader", "crash a node", "power loss of a node", "power loss at a step", "power loss of all",
    "clock drift", "clock jump", "partition", "one-way partition", "ring partition", "bridge partition",
    "isolate the leader", "clogged links", "swizzle", "loss", "delay", "duplication", "reordering", "slow disk",
    "failing fsync", "full log disk", "full database", "lying reads", "slow links inside", "compaction",
    "defragmentation", "leader transfer", "campaign", "orderly restart", "rolling upgrade", "replace a member",
    "learner", "read around a stop",
)  # fmt: skip
CLIENTS = ("keys", "keys", "keys", "transactions", "leases", "locks", "watch", "watch")


class Fault(NamedTuple):
    """One fault: it begins `at`, lasts for `duration`, and draws what else it needs from `seed`."""

    at: int
    kind: str
    duration: int
    seed: int


class Visitor(NamedTuple):
    """One client."""

    number: int
    kind: str
    seed: int
    think: int  # mean time between two calls


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is drawn beforehand."""

    seed: int
    nodes: int
    length: int
    knobs: dict[str, Any]
    constants: dict[str, Any]
    weather: dict[str, Any]
    encodes: bool
    faults: tuple[Fault, ...]
    visitors: tuple[Visitor, ...]
    keys: int
    kinds: tuple[str, ...] = field(default=())

    def without(self, **changes: Any) -> Plan:
        return replace(self, **changes)


def draw(seed: int, kinds: tuple[str, ...] = (), length: int = 0) -> Plan:
    """The plan of a seed. Each run knows only some kinds of faults, so that none always covers another up."""
    rng = random.Random(f"plan {seed}")
    nodes = rng.choice([1, 3, 3, 3, 3, 5])
    length = length or rng.choice([8, 12, 20, 30, 60]) * SECOND
    kinds = kinds or tuple(sorted(rng.sample(KINDS, rng.randint(3, 14))))
    tick = rng.choice([20, 50, 100])
    knobs = {
        "heartbeat_ms": tick,
        "election_ms": tick * rng.choice([5, 10]),
        "catchup_entries": rng.choice([2, 10, 100]),
        "pre_vote": rng.random() < 0.85,
        "segment_bytes": rng.choice([8, 16, 64]) * 1024,
    }
    constants = {
        "STATE_RESERVE_BYTES": 1024,
        "LOG_BYTES_KEPT": rng.choice([512, 8192, 1 << 20]),
        "CACHE_BYTES_MAX": rng.choice([512, 8192, 1 << 20]),
        "CHECKPOINT_SECONDS": rng.choice([0.3, 2.0, 30.0]),
        "CHECKPOINT_WAL_BYTES": rng.choice([1 << 15, 1 << 20]),
        "SLICE_RECORDS": rng.choice([3, 400]),
        "COMMIT_ROWS": rng.choice([2, 500]),
        "TELL_ENTRIES": rng.choice([1, 64]),
        "IMAGE_LIFETIME_S": rng.choice([1.0, 120.0]),
    }
    weather = {
        "loss": rng.choice([0.0, 0.0, 0.01, 0.05]),
        "duplication": rng.choice([0.0, 0.0, 0.02]),
        "delay_max": rng.choice([100, 1000, 20 * MS]),
        "reordering": rng.choice([0.0, 0.0, 0.05]),
    }
    pace = rng.choice([2.0, 5.0]) * length / (8 * SECOND)
    faults = []
    at = SECOND
    while at < length - SECOND:
        at += int(rng.expovariate(1.0) * length / rng.choice([4, 12, 30]))
        faults.append(
            Fault(at, rng.choice(kinds), int(rng.choice([0.02, 0.3, 1.5, 5.0]) * SECOND), rng.getrandbits(32))
        )
    visitors = tuple(
        Visitor(number, rng.choice(CLIENTS), rng.getrandbits(32), int(rng.choice([5, 20, 60]) * pace * MS) + 1)
        for number in range(rng.randint(3, 8))
    )
    return Plan(
        seed, nodes, length, knobs, constants, weather, rng.random() < 0.3,
        tuple(fault for fault in faults if fault.at < length - SECOND), visitors, rng.choice([3, 6, 20]), kinds,
    )  # fmt: skip
