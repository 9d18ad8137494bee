"""Many seeds, in one or several processes; what each of them was is kept, line by line, and added up."""

from __future__ import annotations

import json
import logging
import subprocess
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.simulation.whole.plan import draw
from tests.simulation.whole.run import run
from tests.simulation.whole.world import SECOND

Line = dict[str, Any]  # of the figures: what one seed was
SUMMED = ("events", "checks", "simulated_us", "operations", "answered", "told", "visits")
REPLAY = "make sim SEED={seed}"


def many(seeds: range, jobs: int, seconds: float, figures: Path | None) -> int:
    """Runs seeds, each once, and sums up."""
    lines = lines_of(figures) if figures is not None and figures.exists() else []
    done = {line["seed"] for line in lines}
    left = iter([seed for seed in seeds if seed not in done])
    started = time.monotonic()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    with ProcessPoolExecutor(jobs, max_tasks_per_child=200, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(measured, seed) for seed in islice(left, jobs)}
        while running:
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for line in [future.result() for future in ended]:
                lines.append(line)
                line["commit"] = commit
                if figures is not None:
                    with figures.open("a") as file:
                        file.write(json.dumps(line) + "\n")
                if line["violation"]:
                    replay = REPLAY.format(seed=line["seed"])
                    print(f"seed {line['seed']}: {line['violation'][:1000]}\n  replay: {replay}", flush=True)
                if len(lines) % 50 == 0:
                    print(f"{len(lines)} seeds, {time.monotonic() - started:.0f} s", flush=True)
                if time.monotonic() - started < seconds:
                    running |= {pool.submit(measured, seed) for seed in islice(left, 1)}
    return sum_up(lines)


def measured(seed: int) -> Line:
    """Runs one seed; what is kept of it."""
    logging.disable(logging.CRITICAL)
    plan = draw(seed)
    began = time.process_time()
    outcome = run(plan)
    return {
        "seed": seed,
        "life": plan.is_life,
        "nodes": plan.nodes,
        "cpu_s": round(time.process_time() - began, 3),
        "faults": outcome.faults,
        "violation": outcome.violation,
        "hash": outcome.digest,
        **{name: getattr(outcome, name) for name in SUMMED},
    }


def lines_of(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def sum_up(lines: list[Line]) -> int:
    """Prints what all lines come to; 1 if there is a violation among them."""
    faults: Counter[str] = Counter()
    for line in lines:
        faults.update(line["faults"])
    total = {name: sum(line.get(name, 0) for line in lines) for name in (*SUMMED, "cpu_s", "life")}
    failed = [line["seed"] for line in lines if line["violation"]]
    numbers = [line["seed"] for line in lines]
    print(
        f"{len(lines)} seeds ({min(numbers, default=0)} to {max(numbers, default=0)}), {total['life']} of them long "
        f"lives, {len(failed)} failed; {total['simulated_us'] / SECOND / 3600:.2f} simulated hours, "
        f"{total['events']} events, {total['checks']} checks, {sum(faults.values())} faults of {len(faults)} kinds, "
        f"{total['operations']} operations judged, {total['told']} events told to watchers, "
        f"{total['visits']} calls judged by rights; {total['cpu_s']:.0f} s of "
        f"processor time, {total['events'] / max(total['cpu_s'], 1e-9):.0f} events/s"
    )
    for kind, number in sorted(faults.items()):
        print(f"  {number:6d}  {kind}")
    return 1 if failed else 0
