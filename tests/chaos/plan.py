"""Which faults come when: drawn from the seed before the run, so that a seed always means the same plan."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tests.chaos.faults import Fault

LANES: Final = (2, 3, 4)  # at most so many faults at once
SHARE: Final = (0.4, 0.7, 1.0)  # of the kinds, for one run: some mixtures never come up when everything is drawn
SECONDS: Final = (0.3, 5.0)
PAUSE_S: Final = (0.0, 6.0)


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault of a plan: times in seconds from the beginning."""

    begins: float
    seconds: float
    fault: Fault
    seed: str  # of the fault's own dice


def draw(seed: int, seconds: float, faults: Sequence[Fault]) -> list[list[Planned]]:
    """The faults of each lane, one after the other."""
    dice = random.Random(f"plan {seed}")
    wanted = max(3, round(len(faults) * dice.choice(SHARE)))
    chosen = dice.sample(list(faults), min(wanted, len(faults)))
    drawn = _without_favourites(chosen, dice)
    lanes = []
    for lane in range(dice.choice(LANES)):
        planned: list[Planned] = []
        now = dice.uniform(0.5, 3.0)
        while now < seconds - 1.0:
            lasts = min(dice.uniform(*SECONDS), seconds - now)
            planned.append(Planned(now, lasts, next(drawn), f"{seed} {lane} {len(planned)}"))
            now += lasts + dice.uniform(*PAUSE_S)
        lanes.append(planned)
    return lanes


def _without_favourites(chosen: Sequence[Fault], dice: random.Random) -> Iterator[Fault]:
    """Every kind as often as it weighs before one comes again, so that none is missing from a run by chance."""
    while True:
        round_ = [fault for fault in chosen for _ in range(fault.weight)]
        dice.shuffle(round_)
        yield from round_
