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
    "learner", "read around a stop", "turned bit",
)  # fmt: skip
CLIENTS = ("keys", "keys", "keys", "stale", "transactions", "leases", "locks", "watch", "watch")


LIVES = 0.7  # of all seeds
OF_SQLITE = ("failing database",)  # drawn by themselves, as each call of SQLite then costs more
PEOPLED = 0.3
FAILING = 0.2
NARROW = 0.3
MINUTE = 60 * SECOND


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


class Links(NamedTuple):
    """How much of what is under way between two processes of a node fits, and how late the next frame follows."""

    frames_max: int = 16
    gap: int = 1
    apply_bytes_max: int = 8 << 20  # of entries that storage has been handed and has not confirmed


WIDE = Links()


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
    pace: int = 1  # what watchers do, they do so many times more rarely
    lease_ttl: int = 4  # seconds, at most
    links: Links = WIDE
    users: str = ""  # "simple" or "jwt": how callers show who they are; without users nobody is asked

    @property
    def is_life(self) -> bool:
        return self.pace > 1

    def without(self, **changes: Any) -> Plan:
        return replace(self, **changes)


def draw(seed: int, kinds: tuple[str, ...] = (), length: int = 0) -> Plan:
    """The plan of a seed. Each run knows only some kinds of faults, so that none always covers another up. Most
    seeds are long lives: see `draw_life`."""
    if not kinds and not length and random.Random(f"kind {seed}").random() < LIVES:
        return draw_surroundings(draw_life(seed))
    is_whole = not kinds and not length
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
    plan = Plan(
        seed, nodes, length, knobs, constants, weather, rng.random() < 0.3,
        tuple(fault for fault in faults if fault.at < length - SECOND), visitors, rng.choice([3, 6, 20]), kinds,
    )  # fmt: skip
    return draw_surroundings(plan) if is_whole else plan


def draw_surroundings(plan: Plan) -> Plan:
    """In some seeds there are users: who gives rights, who uses them, and who has none. In some the processes of a node
    hear of one another in small portions, so that what is told again takes many turns."""
    rng = random.Random(f"surroundings {plan.seed}")
    if rng.random() < PEOPLED:
        plan = with_people(plan, rng.choice(("simple", "simple", "jwt")))
    if rng.random() < NARROW:
        links = Links(rng.choice((1, 2, 16)), rng.choice((1, MS // 5, 5 * MS)), rng.choice((64, 1024, 8 << 20)))
        plan = plan.without(links=links)
    if rng.random() < FAILING:
        times = [rng.randrange(SECOND, plan.length) for _ in range(rng.randint(1, 4))]
        duration = (SECOND // 5, 2 * SECOND) if not plan.is_life else (2 * SECOND, 30 * SECOND)
        more = [Fault(at, rng.choice(OF_SQLITE), rng.choice(duration), rng.getrandbits(32)) for at in times]
        plan = plan.without(faults=tuple(sorted((*plan.faults, *more))))
    return plan


def with_people(plan: Plan, users: str) -> Plan:
    """The plan with users in it."""
    rng = random.Random(f"users {plan.seed}")
    think = max(visitor.think for visitor in plan.visitors)
    kinds = ("warden", "guest", "guest", "outsider")
    people = tuple(Visitor(100 + n, kind, rng.getrandbits(32), think) for n, kind in enumerate(kinds))
    knobs = {**plan.knobs, "token_ttl_s": rng.choice((3, 30, 300))}
    return plan.without(knobs=knobs, visitors=plan.visitors + people, users=users)


def draw_life(seed: int) -> Plan:
    """A cluster that lives for long, with timers as in production: few clients, faults far apart, leases of minutes,
    history that compacts itself, members that compare what they hold. Its idle time is lived through, tick by tick."""
    rng = random.Random(f"life {seed}")
    dense = draw(seed, length=rng.choice([2, 3, 5, 5, 10, 20]) * MINUTE)
    tick = rng.choice([100, 500, 1000, 1000, 1000])
    knobs = {
        **dense.knobs,
        "heartbeat_ms": tick,
        "election_ms": tick * 10,
        "catchup_entries": rng.choice([2, 20, 5000]),
        "compaction": rng.choice([("periodic", "0"), ("revision", "10"), ("periodic", "2m"), ("periodic", "10m")]),
        "corrupt_check_s": rng.choice([0, 0, 60, 300]),
    }
    constants = {
        **dense.constants,
        "CHECKPOINT_SECONDS": 30.0,
        "IMAGE_LIFETIME_S": 120.0,
    }
    weather = {**dense.weather, "delay_max": rng.choice([1000, 20 * MS, 60 * MS])}
    gap = rng.choice([30, 60, 180]) * SECOND  # between two faults
    faults, at = list[Fault](), 0
    while (at := at + 1 + int(rng.expovariate(1.0) * gap)) < dense.length - SECOND:
        duration = rng.choice([0.3, 3.0, 15.0, 60.0])
        faults.append(Fault(at, rng.choice(dense.kinds), int(duration * SECOND), rng.getrandbits(32)))
    think = rng.choice([3, 8, 20]) * SECOND
    visitors = tuple(one._replace(think=int(think * rng.choice([0.5, 1.0, 2.0]))) for one in dense.visitors[:5])
    return dense.without(
        knobs=knobs, constants=constants, weather=weather, faults=tuple(faults), visitors=visitors, pace=20,
        lease_ttl=rng.choice([12, 30, 90]),
    )  # fmt: skip
