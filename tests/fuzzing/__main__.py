"""Fuzz for a while: `python -m tests.fuzzing --minutes 10 [--target NAME] [--seed N]`, or one input with --input FILE.

Each target has its turn, again and again until the time is over. A turn is a process of its own under atheris; where
that is not installed, and for live nodes, inputs are mutated by chance. What finds something is put into the corpus
under its hash, where the tests read it again from then on, and ends the turns of its target. Figures are appended to
build/fuzz/figures.jsonl, one line a turn.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import random
import re
import resource
import subprocess
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tests.fuzzing import targets
from tests.fuzzing.mutation import INPUT_BYTES_MAX, mutated

BUILD: Final = Path("build") / "fuzz"
FIGURES: Final = BUILD / "figures.jsonl"
TURN_S: Final = 120
HANG_S: Final = 20
MEMORY_MIB_MAX: Final = 1500  # of a process that reads inputs of 64 KiB


@dataclass(slots=True)
class Turn:
    """What one process did."""

    target: str
    seed: int
    wall_s: float
    cpu_s: float
    inputs: int
    findings: int
    commit: str
    guided: bool


def main() -> int:
    """Exit status 1 when something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--target", choices=targets.NAMES)
    parser.add_argument("--seed", type=int, help="repeats a run; drawn and printed without")
    parser.add_argument("--input", type=Path, help="only this input")
    parser.add_argument("--turn", type=float, help=argparse.SUPPRESS)  # one turn by chance, in this process
    parser.add_argument("--sum", type=Path, help="add up the lines of a file of figures")
    given = parser.parse_args()
    if given.sum:
        return _sum(given.sum)
    if given.input:
        chosen = targets.target(given.target)
        with chosen.world():
            chosen.run(given.input.read_bytes())
        return 0
    seed = random.randrange(1 << 31) if given.seed is None else given.seed
    if given.turn:
        return _by_chance(given.target, seed, given.turn)
    return _run([given.target] if given.target else list(targets.NAMES), seed, given.minutes * 60)


def _run(names: list[str], seed: int, seconds: float) -> int:
    """Turn after turn; names that found something are left out from then on."""
    BUILD.mkdir(parents=True, exist_ok=True)
    print(f"seed {seed}; again: make fuzz SEED={seed}", flush=True)
    ends_at = time.monotonic() + seconds
    left = list(names)
    round_number = 0
    while left and (remaining := ends_at - time.monotonic()) > 0:
        for name in list(left):
            turn_s = min(TURN_S, max(remaining / len(left), 1), ends_at - time.monotonic())
            if turn_s < 1:
                break
            turn = _turn(name, seed + round_number, turn_s)
            with FIGURES.open("a") as file:
                print(json.dumps(asdict(turn)), file=file)
            print(f"{name}: {turn.inputs:,} inputs in {turn.wall_s:.0f} s", flush=True)
            if turn.findings:
                left.remove(name)
        round_number += 1
        if ends_at - time.monotonic() < 1:
            break
    found = sorted(set(names) - set(left))
    if found:
        print(f"found something: {', '.join(found)}; the inputs are in {targets.CORPUS}")
    return 1 if found else 0


def _turn(name: str, seed: int, seconds: float) -> Turn:
    guided = name in targets.IN_PROCESS and importlib.util.find_spec("atheris") is not None
    corpus, found = BUILD / "corpus" / name, BUILD / "found" / name
    for directory in (corpus, found, targets.CORPUS / name):
        directory.mkdir(parents=True, exist_ok=True)
    if guided:
        command = [
            *("tests.fuzzing.guided", name, str(corpus), str(targets.CORPUS / name)),
            *(f"-max_total_time={int(seconds)}", f"-seed={seed % (1 << 31) or 1}", f"-timeout={HANG_S}"),
            *(f"-rss_limit_mb={MEMORY_MIB_MAX}", "-max_len=4096", f"-artifact_prefix={found}/", "-print_final_stats=1"),
        ]
    else:
        command = ["tests.fuzzing", "--target", name, "--seed", str(seed), "--turn", str(seconds)]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    log = BUILD / f"{name}.log"
    with log.open("wb") as output:
        status = subprocess.run([sys.executable, "-m", *command], stdout=output, stderr=output, check=False).returncode
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    text = log.read_text(errors="replace")
    counted = re.search(r"number_of_executed_units: +(\d+)", text)
    findings = [path for path in found.iterdir() if not path.name.startswith("slow-unit-")]
    for path in findings:
        print(f"{name}: {path.name}\n{text[-4000:]}")
        kept = targets.CORPUS / name / hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        path.rename(kept)
        print(f"again: python -m tests.fuzzing --target {name} --input {kept}")
    if status and not findings:
        raise SystemExit(f"{name} ended with status {status}:\n{text[-4000:]}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    wall_s = time.monotonic() - began
    inputs = int(counted[1]) if counted else 0
    return Turn(name, seed, round(wall_s, 1), round(cpu_s, 1), inputs, len(findings), _commit(), guided)


def _by_chance(name: str, seed: int, seconds: float) -> int:
    """One turn without atheris."""
    chosen = targets.target(name)
    count = 0
    data = b""
    status = 0
    good = [*chosen.seeds(), *(path.read_bytes() for path in targets.kept(name))]
    try:
        with chosen.world():
            ends_at = time.monotonic() + seconds
            for data in mutated(random.Random(seed), good):
                if time.monotonic() > ends_at:
                    break
                count += 1
                chosen.run(data[:INPUT_BYTES_MAX])
    except Exception:
        traceback.print_exc()
        (BUILD / "found" / name / "input").write_bytes(data)
        status = 1
    print(f"stat::number_of_executed_units: {count}")
    return status


def _commit() -> str:
    said = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return said.stdout.strip() or os.environ.get("COMMIT", "unknown")


def _sum(path: Path) -> int:
    by_target: dict[str, list[float]] = {}
    for line in path.read_text().splitlines():
        turn = Turn(**json.loads(line))
        sums = by_target.setdefault(turn.target, [0, 0, 0, 0])
        for place, value in enumerate((turn.inputs, turn.wall_s / 60, turn.cpu_s / 60, turn.findings)):
            sums[place] += value
    rows = [*by_target.items(), ("all", [sum(column) for column in zip(*by_target.values(), strict=True)])]
    for name, (inputs, wall, cpu, findings) in rows:
        print(f"| {name} | {inputs:,.0f} | {wall:.1f} | {cpu:.1f} | {findings:.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
