"""What a fault is: a function that breaks something, waits, and mends it; and how its victim is chosen."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from tests.chaos.cluster import Battlefield, Member

Act = Callable[[Battlefield, random.Random, float], Awaitable[None]]
Need = Callable[[Battlefield], str]  # why it cannot be done here; empty if it can


class NotNow(Exception):  # noqa: N818 - it states a condition
    """The fault has no victim now, as others hold what it needs."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault. `act` gets a dice of its own and how many seconds to last."""

    name: str
    act: Act
    need: Need
    weight: int


FAULTS: Final[dict[str, Fault]] = {}


def fault(name: str, need: Need = lambda _: "", weight: int = 1) -> Callable[[Act], Act]:
    """Enter a function into the list of kinds; `weight` says how often it is drawn."""

    def enter(act: Act) -> Act:
        assert name not in FAULTS
        FAULTS[name] = Fault(name, act, need, weight)
        return act

    return enter


def several(field: Battlefield) -> str:
    """For faults that are nothing to a single node."""
    return "" if len(field.nodes) > 1 else "there is one node"


async def victim(field: Battlefield, dice: random.Random) -> Member:
    """Half of the time the leader, else anyone."""
    leader = await field.leader(1.0) if dice.random() < 0.5 else None
    return leader or dice.choice(field.nodes)


def anyone_free(field: Battlefield, dice: random.Random) -> Member:
    """A node that nobody is ending or starting."""
    free = [node for node in field.nodes if not node.busy.locked()]
    if not free:
        raise NotNow
    return dice.choice(free)
