"""What is left of a run: its history, judged, and a line of figures that can be added up."""

from __future__ import annotations

import json
import pickle
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import servers
from tests.chaos.cluster import Battlefield
from tests.chaos.watchers import joined
from tests.checking.checker import check
from tests.checking.history import Change, Fate, Operation, Txn
from tests.checking.leases import Fenced, Holding, Leasing, check_leases, check_locks
from tests.checking.rights import Grant, Visit, check_rights
from tests.checking.watches import Log, Watching, check_watch

if TYPE_CHECKING:
    from tests.chaos.run import Clients

FIGURES: Final = Path("build") / "chaos" / "figures.jsonl"
FINDINGS_MAX: Final = 20


@dataclass(slots=True)
class History:
    """All that the verdict needs."""

    operations: list[Operation]
    leased: list[Operation]
    txns: list[Txn]
    leasings: list[Leasing]
    holdings: list[Holding]
    fences: list[Fenced]
    watchings: list[Watching]
    log: list[Change]
    seen_ns: dict[int, int]
    compacted: int  # the highest revision that may have been compacted
    grants: list[Grant] = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)

    def violations(self) -> Iterable[str]:
        """By rule; each list is short."""
        yield from check([*self.operations, *self.leased], self.log, self.ended(), self.txns)
        yield from check_leases(self.leasings, self.log, self.seen_ns)
        yield from check_locks(self.holdings, self.fences, self.log)
        yield from check_rights(self.grants, self.visits)
        log = Log(self.log)
        for watching in self.watchings:
            yield from check_watch(watching, log, self.compacted)

    def ended(self) -> set[bytes]:
        """Keys that may go without being deleted by anyone."""
        return {key for leasing in self.leasings for key in leasing.keys}


@dataclass(slots=True)
class Record:
    """One run."""

    seed: int
    size: int
    seconds: float
    lasted: float
    history: History
    faults: Counter[str]
    failures: dict[str, int]
    knobs: dict[str, tuple[str, ...]]
    notes: list[str]
    findings: list[str]
    directory: Path
    served: int
    judged_s: float = 0.0

    @classmethod
    def made(cls, ground: Battlefield, clients: Clients, faults: Counter[str], seconds: float, lasted: float) -> Record:
        log, seen_ns = joined(clients.collectors)
        tenants = (*clients.lodgers, *clients.lockers)
        watchings = [w for watcher in (*clients.collectors, *clients.watchers) for w in watcher.done]
        history = History(
            [op for client in clients.registers for op in client.operations],
            [op for tenant in tenants for op in tenant.operations]
            + [op for guest in clients.guests for op in guest.operations],
            [txn for client in clients.registers for txn in client.txns],
            [leasing for tenant in tenants for leasing in tenant.leasings],
            [holding for locker in clients.lockers for holding in locker.holdings],
            [fence for locker in clients.lockers for fence in locker.fences],
            watchings,
            log,
            seen_ns,
            ground.compacted,
            clients.warden.grants if clients.warden is not None else [],
            [visit for guest in clients.guests for visit in guest.visits],
        )
        return cls(
            ground.seed, len(ground.nodes), seconds, lasted, history, faults, clients.crowd.failures, ground.knobs,
            ground.notes, list(ground.findings), ground.directory, clients.crowd.done,
        )  # fmt: skip

    def judge(self) -> None:
        """Apply all rules; on a finding keep everything."""
        began = time.monotonic()
        for violation in self.history.violations():
            self.findings.append(violation)
            if len(self.findings) >= FINDINGS_MAX:
                break
        self.judged_s = time.monotonic() - began
        if self.findings:
            (self.directory / "history.pickle").write_bytes(pickle.dumps(self.history))
            (self.directory / "notes.txt").write_text("\n".join(self.notes) + "\n")
            (self.directory / "findings.txt").write_text("\n".join(self.findings) + "\n")

    @property
    def replay(self) -> str:
        """The command that plays the same plan again."""
        return f"make chaos SEED={self.seed} SECONDS={self.seconds:g} NODES={self.size} RUNS=1"

    def figures(self) -> dict[str, object]:
        """What is added up over many runs."""
        history = self.history
        fates = Counter(op.fate.name for op in history.operations)
        return {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": servers.quorate().version,
            "seed": self.seed,
            "nodes": self.size,
            "seconds": round(self.lasted, 1),
            "operations": len(history.operations) + len(history.leased) + len(history.txns),
            "served_per_s": round(self.served / self.lasted),
            "unknown": fates[Fate.UNKNOWN.name],
            "changes": len(history.log),
            "events": sum(len(told.events) for watching in history.watchings for told in watching.told),
            "watchers": len(history.watchings),
            "leases": len(history.leasings),
            "locks": len(history.holdings),
            "rights": len(history.grants),
            "visits": len(history.visits),
            "faults": dict(sorted(self.faults.items())),
            "judged_s": round(self.judged_s, 2),
            "findings": self.findings[:3],
        }

    def keep(self, path: Path = FIGURES) -> None:
        """Append the figures."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(self.figures()) + "\n")
