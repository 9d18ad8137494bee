"""`make sim`: many seeds, or one. Prints what was run, and for a violation the command that replays it."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from pathlib import Path

from tests.simulation.whole.many import lines_of, many, sum_up
from tests.simulation.whole.plan import draw
from tests.simulation.whole.run import Outcome, run
from tests.simulation.whole.shrink import Shrinker, described
from tests.simulation.whole.world import SECOND


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one, twice, and shrink it if it fails")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no further seed after so long")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--figures", type=Path, help="a line for each seed; those that have one are not run again")
    parser.add_argument("--sum", type=Path, help="add up such a file, and run nothing")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its processes end, too
    if arguments.sum is not None:
        return sum_up(lines_of(arguments.sum))
    if arguments.seed is not None:
        return one(arguments.seed)
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    return many(seeds, arguments.jobs, arguments.seconds, arguments.figures)


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


def said(outcome: Outcome) -> str:
    return (
        f"seed {outcome.seed}: hash {outcome.digest}, {outcome.events} events, "
        f"{outcome.simulated_us / SECOND:.1f} simulated s, {outcome.operations} operations, "
        f"{outcome.revisions} revisions, {sum(outcome.faults.values())} faults"
    )


if __name__ == "__main__":
    sys.exit(main())
