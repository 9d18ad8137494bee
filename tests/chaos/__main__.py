"""`make chaos`: runs of chosen or fresh seeds, one after the other, with their figures; `sum` adds up what was kept."""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import time
import traceback
from collections import Counter
from itertools import count
from pathlib import Path

import uvloop

from tests.chaos.record import FIGURES, Record
from tests.chaos.run import run

REFUSALS_SHOWN = 5
SUMMED = ("operations", "unknown", "changes", "events", "watchers", "locks", "leases", "rights", "visits")


def main() -> int:
    """The exit status: 0 if nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="the first run's; the next ones count up from it")
    parser.add_argument("--seconds", type=float, default=60.0, help="of faults in each run")
    parser.add_argument("--runs", type=int, default=1, help="at least so many")
    parser.add_argument("--hours", type=float, default=0.0, help="go on for so long, however many runs that takes")
    parser.add_argument("--nodes", type=int, default=0, help="1, 3 or 5; 0: drawn, mostly 3")
    parser.add_argument("--sum", type=Path, nargs="?", const=FIGURES, help="add up a file of figures instead")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also in the background, where it is ignored otherwise
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # nothing is left behind
    if arguments.sum is not None:
        print(json.dumps(summed(arguments.sum), indent=1))
        return 0
    first = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 30)
    failed = 0
    ends = time.monotonic() + arguments.hours * 3600
    for seed in count(first):
        if seed >= first + arguments.runs and time.monotonic() >= ends:
            break
        size = arguments.nodes or random.Random(f"size {seed}").choice((1, 3, 3, 3, 3, 3, 3, 5))
        print(f"seed {seed}: {size} nodes, {arguments.seconds:g} s of faults", flush=True)
        try:
            record = uvloop.run(run(seed, arguments.seconds, size))
        except Exception:  # the harness's own; the next seeds are still worth their time
            traceback.print_exc(file=sys.stdout)
            failed += 1
            continue
        record.keep()
        tell(record)
        failed += bool(record.findings)
    return 1 if failed else 0


def tell(record: Record) -> None:
    """One run for the reader."""
    for name, value in record.figures().items():
        if name not in ("findings", "seed", "nodes"):
            print(f"  {name}: {value}")
    for text, times in Counter(record.failures).most_common(REFUSALS_SHOWN):
        print(f"  refused {times} times: {text}")
    for finding in record.findings:
        print(f"  FOUND {finding[:2000]}")
    if record.findings:
        print(f"  kept in {record.directory}\n  again: {record.replay}")
    sys.stdout.flush()


def summed(path: Path) -> dict[str, object]:
    """Figures of many runs as one."""
    runs = [json.loads(line) for line in path.read_text().splitlines()]
    faults: Counter[str] = Counter()
    for one in runs:
        faults.update(one["faults"])
    total = {name: sum(one.get(name, 0) for one in runs) for name in SUMMED}
    return {
        "runs": len(runs),
        "hours": round(sum(one["seconds"] for one in runs) / 3600, 2),
        **total,
        "faults": sum(faults.values()),
        "kinds": len(faults),
        "by kind": dict(sorted(faults.items())),
        "runs with findings": [one["seed"] for one in runs if one["findings"]],
        "commits": sorted({one["commit"] for one in runs}),
    }


if __name__ == "__main__":
    sys.exit(main())
