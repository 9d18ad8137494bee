"""`python -m bench`: Quorate beside real etcd, in alternating rounds, judged against the goals."""

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from bench import report, servers
from bench.auth_cases import AUTH_CASES
from bench.cases import CASES, Case, Context
from bench.failover_cases import FAILOVER_CASES
from bench.long_cases import LONG_CASES
from bench.maintenance_cases import MAINTENANCE_CASES
from bench.tls_cases import TLS_CASES

ROOT = Path(__file__).resolve().parent.parent
ALL = (*CASES, *LONG_CASES, *AUTH_CASES, *TLS_CASES, *MAINTENANCE_CASES, *FAILOVER_CASES)


def parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--case", action="append", choices=[c.name for c in ALL], help="only this (repeatable)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one measurement")
    parser.add_argument("--megabytes", type=int, default=1024, help="data in the cases of maintenance")
    parser.add_argument("--quick", action="store_true", help="one short round: whether everything runs")
    parser.add_argument("--baseline", default="etcd", help="etcd, quorate, an etcd binary, another checkout")
    parser.add_argument("--candidate", default="quorate", help="the same")
    parser.add_argument("--directory", type=Path, default=ROOT / "build" / "bench", help="where the data goes")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table between the markers of FILE")
    parser.add_argument("--list", action="store_true", help="name the cases and their goals")
    return parser


def measure(case: Case, contexts: tuple[Context, Context], rounds: int) -> list[report.Pair]:
    """All rounds of one case, baseline and candidate in turn."""
    pairs: list[report.Pair] = []
    for number in range(rounds):
        baseline, candidate = (dict(case.measure(context)) for context in contexts)
        pairs.append((baseline, candidate))
        print(json.dumps({"case": case.name, "round": number + 1, "figures": [baseline, candidate]}))
        sys.stdout.flush()
    return pairs


def main() -> int:
    """Run the chosen cases; exit 1 when a goal was missed (in a quick run the figures mean nothing)."""
    options = parser().parse_args()
    chosen = [case for case in ALL if not options.case or case.name in options.case]
    if options.list:
        for case in chosen:
            print(case.name, "-", case.title, *(f"[{goal.figure} {goal}]" for goal in case.goals))
        return 0
    options.directory.mkdir(parents=True, exist_ok=True)
    seconds, warmup = (0.5, 0.2) if options.quick else (options.seconds, 1.0)
    megabytes = 4 if options.quick else options.megabytes
    rounds = 1 if options.quick else options.rounds
    try:
        products = servers.product(options.baseline), servers.product(options.candidate)
    except servers.NotInstalledError as missing:
        print(missing, file=sys.stderr)
        return 1
    judged: list[report.Row] = []
    baseline, candidate = (Context(p, options.directory, seconds, warmup, options.quick, megabytes) for p in products)
    with baseline.stack, candidate.stack:
        for case in chosen:
            judged += report.rows(case, measure(case, (baseline, candidate), rounds))
    names = (f"{products[0].name} {products[0].version}", f"{products[1].name} {products[1].version}")
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": servers.machine(),
        "servers": f"{names[0]} and {names[1]}, data on the same file system, every write synced to disk",
        "rounds": f"{rounds} alternating, {seconds:g} s each after {warmup:g} s of warm-up, 256-byte values",
    }
    text = report.section(judged, names, facts)
    print(text)
    if options.write:
        report.write(options.write, text)
    return 0 if options.quick or all(row.passed for row in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
