"""`make sim`: many seeds, or one. Prints what was run, and for a violation the command that replays it."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter

from tests.simulation.whole.plan import draw
from tests.simulation.whole.run import Outcome, run
from tests.simulation.whole.shrink import Shrinker, described
from tests.simulation.whole.world import SECOND

REPLAY = "make sim SEED={seed}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one, twice, and shrink it if it fails")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no further seed after so long")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if arguments.seed is not None:
        return one(arguments.seed)
    return many(arguments.first, arguments.seeds, arguments.seconds)


def one(seed: int) -> int:
    """Runs a seed, shows that it is the same again, and makes a failing one smaller."""
    plan = draw(seed)
    described(plan, print)
    outcome, again = run(plan), run(plan)
    print(said(outcome))
    if again.digest != outcome.digest:
        print(f"NOT DETERMINISTIC: a second run has the hash {again.digest}")
        return 1
    if not outcome.violation:
        return 0
    print(f"violation: {outcome.violation}\nshrinking ...", flush=True)
    shrinker = Shrinker(plan, outcome)
    smaller = shrinker.shrink()
    print(f"after {shrinker.runs} runs this is left, and it still fails:")
    described(smaller, print)
    print(f"{said(shrinker.outcome)}\nviolation: {shrinker.outcome.violation}")
    return 1


def many(first: int, count: int, seconds: float) -> int:
    """Runs seeds one after the other, and sums up."""
    total = Outcome(0)
    faults: Counter[str] = Counter()
    failed: list[int] = []
    started, cpu = time.monotonic(), time.process_time()
    seed = first
    while seed < first + count and time.monotonic() - started < seconds:
        outcome = run(draw(seed))
        for name in ("events", "checks", "simulated_us", "operations", "answered", "told"):
            setattr(total, name, getattr(total, name) + getattr(outcome, name))
        faults.update(outcome.faults)
        if outcome.violation:
            failed.append(seed)
            print(f"seed {seed}: {outcome.violation[:1000]}\n  replay: {REPLAY.format(seed=seed)}", flush=True)
        seed += 1
        if (seed - first) % 50 == 0:
            print(f"{seed - first} seeds, {time.monotonic() - started:.0f} s", flush=True)
    cpu = time.process_time() - cpu
    print(
        f"{seed - first} seeds ({first} to {seed - 1}), {len(failed)} failed; "
        f"{total.simulated_us / SECOND / 3600:.2f} simulated hours, {total.events} events, {total.checks} checks, "
        f"{sum(faults.values())} faults of {len(faults)} kinds, {total.operations} operations judged, "
        f"{total.told} events told to watchers; {cpu:.0f} s of processor time, {total.events / max(cpu, 1e-9):.0f} "
        "events/s"
    )
    for kind, number in sorted(faults.items()):
        print(f"  {number:6d}  {kind}")
    return 1 if failed else 0


def said(outcome: Outcome) -> str:
    return (
        f"seed {outcome.seed}: hash {outcome.digest}, {outcome.events} events, "
        f"{outcome.simulated_us / SECOND:.1f} simulated s, {outcome.operations} operations, "
        f"{outcome.revisions} revisions, {sum(outcome.faults.values())} faults"
    )


if __name__ == "__main__":
    sys.exit(main())
