"""From the figures of all rounds to rows of a table, and the table into a document."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.cases import Case, Figures, Goal

BEGIN: Final = "<!-- bench:begin -->"
END: Final = "<!-- bench:end -->"
UNITS: Final = {"throughput": "/s", "ms": " ms", "mib": " MiB", "s": " s", "bytes": " B", "per": "/s"}

Pair = tuple[Figures, Figures]  # baseline and candidate of one round


@dataclass(frozen=True, slots=True)
class Row:
    """One goal, judged."""

    case: Case
    goal: Goal
    baseline: float
    candidate: float
    ratio: float
    ratio_min: float
    ratio_max: float
    pairs: int

    @property
    def judged(self) -> float:
        """The value the bound applies to."""
        return self.candidate if self.goal.own else self.ratio

    @property
    def passed(self) -> bool:
        """Whether the median keeps the bound."""
        return self.goal.met(self.judged)


def rows(case: Case, pairs: Sequence[Pair]) -> list[Row]:
    """Medians over the rounds; the ratio is the median of the rounds' ratios."""
    judged = []
    for goal in case.goals:
        name = goal.figure
        both = [(a[name], b[name]) for a, b in pairs if name in a and name in b]
        if not both:
            continue
        ratios = [b / a if a else float("inf") for a, b in both]
        judged.append(
            Row(
                case,
                goal,
                statistics.median(a for a, _ in both),
                statistics.median(b for _, b in both),
                statistics.median(ratios),
                min(ratios),
                max(ratios),
                len(both),
            )
        )
    return judged


def amount(figure: str, value: float) -> str:
    """A figure with its unit, as many digits as mean something."""
    unit = UNITS.get(figure.rpartition("_")[2], "")
    return f"{value:,.0f}{unit}" if value >= 100 else f"{value:.3g}{unit}"


def table(judged: Sequence[Row], names: tuple[str, str]) -> str:
    """A Markdown table of all rows."""
    lines = [
        f"| case | figure | {names[0]} | {names[1]} | ratio | min … max | goal | |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in judged:
        name = row.goal.figure
        goal = f"{row.goal} {'itself' if row.goal.own else ''}".strip()
        lines.append(
            f"| {row.case.title} | {name} | {amount(name, row.baseline)} | {amount(name, row.candidate)} "
            f"| {row.ratio:.3g} | {row.ratio_min:.3g} … {row.ratio_max:.3g} ({row.pairs}) | {goal} "
            f"| {'reached' if row.passed else '**missed**'} |"
        )
    return "\n".join(lines)


def section(judged: Sequence[Row], names: tuple[str, str], facts: Mapping[str, str]) -> str:
    """What stands between the markers of the document."""
    described = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    explained = (
        "Each figure is the median over the rounds; the ratio is the median of the rounds' ratios, "
        "with the smallest and the largest beside it and the number of pairs in brackets."
    )
    return f"{described}\n\n{explained}\n\n{table(judged, names)}"


def write(document: Path, text: str) -> None:
    """Replace what stands between the markers; a document without them gets them at its end."""
    old = document.read_text() if document.exists() else "# Performance\n"
    before, begin, rest = old.partition(BEGIN)
    after = rest.partition(END)[2] if begin else "\n"
    document.parent.mkdir(parents=True, exist_ok=True)
    if not begin:
        before = before.rstrip("\n") + "\n\n"
    document.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
