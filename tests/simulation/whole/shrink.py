"""A failing plan made smaller: fewer faults, fewer clients, less time; whatever still fails in the same way stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tests.simulation.whole.plan import Plan
from tests.simulation.whole.run import Outcome, run
from tests.simulation.whole.world import SECOND

RUNS_MAX = 60


class Shrinker:
    """Tries smaller plans; `kind` of a violation is its first words."""

    def __init__(self, plan: Plan, outcome: Outcome, runs_max: int = RUNS_MAX) -> None:
        self.plan = plan
        self.outcome = outcome
        self.runs = 0
        self._kind = kind_of(outcome.violation)
        self._runs_max = runs_max

    def shrink(self) -> Plan:
        """The smallest failing plan that was found."""
        self._drop("faults", self.plan.faults)
        self._drop("visitors", self.plan.visitors)
        self._shorten()
        return self.plan

    def _fails(self, plan: Plan) -> bool:
        if self.runs >= self._runs_max:
            return False
        self.runs += 1
        outcome = run(plan)
        if kind_of(outcome.violation) != self._kind:
            return False
        self.plan, self.outcome = plan, outcome
        return True

    def _drop(self, name: str, items: Sequence[Any]) -> None:
        """Leaves out halves, quarters, … and in the end single items."""
        size = max(1, len(items) // 2)
        while True:
            start = 0
            while start < len(getattr(self.plan, name)):
                kept = getattr(self.plan, name)
                if not self._fails(self.plan.without(**{name: kept[:start] + kept[start + size :]})):
                    start += size
            if size == 1:
                return
            size //= 2

    def _shorten(self) -> None:
        """Bisects the time during which there are clients and faults."""
        low, high = 0, self.plan.length
        while high - low > SECOND // 2:
            middle = (low + high) // 2
            faults = tuple(fault for fault in self.plan.faults if fault.at < middle)
            if self._fails(self.plan.without(length=middle, faults=faults)):
                high = middle
            else:
                low = middle


def kind_of(violation: str) -> str:
    """What kind of violation this is: two of a kind are taken for the same bug."""
    words = violation.partition("violations: ")[2] or violation
    return " ".join([word for word in words.split()[:6] if not any(letter.isdigit() for letter in word)])


def described(plan: Plan, say: Callable[[str], None]) -> None:
    """What is left of a plan."""
    say(f"  {plan.nodes} nodes, {plan.length / SECOND:.1f} s, knobs {plan.knobs}, {plan.constants}")
    say(f"  weather {plan.weather}")
    for fault in plan.faults:
        say(f"  {fault.at / SECOND:8.3f} s  {fault.kind} for {fault.duration / SECOND:.2f} s")
    for visitor in plan.visitors:
        say(f"  client {visitor.number}: {visitor.kind}, a call every {visitor.think / 1000:.0f} ms")
