"""One run: a plan, its cluster, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b

from tests.checking.checker import check
from tests.checking.history import Fate
from tests.checking.leases import check_leases, check_locks
from tests.checking.model import Model
from tests.checking.rights import check_rights
from tests.checking.watches import Log, Watching, check_watch
from tests.simulation.whole.clients import Client, Histories, Keys, Leases, Locks, Stale, Transactions
from tests.simulation.whole.cluster import SimCluster, simulated
from tests.simulation.whole.faults import attack
from tests.simulation.whole.ledger import demand
from tests.simulation.whole.plan import Plan, Visitor
from tests.simulation.whole.wardens import Guest, Outsider, Warden
from tests.simulation.whole.watchers import Watcher
from tests.simulation.whole.world import SECOND, Violation

CLIENTS: dict[str, type[Client]] = {
    "keys": Keys,
    "stale": Stale,
    "transactions": Transactions,
    "leases": Leases,
    "locks": Locks,
    "warden": Warden,
    "guest": Guest,
    "outsider": Outsider,
}
RECOVERY = 90  # seconds of simulated time, for a cluster that nobody troubles any more


@dataclass(slots=True)
class Outcome:
    """What a run was."""

    seed: int
    violation: str = ""
    events: int = 0
    checks: int = 0
    simulated_us: int = 0
    operations: int = 0
    answered: int = 0
    revisions: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    digest: str = ""
    told: int = 0  # events that watchers got
    visits: int = 0  # calls that were judged by rights


def run(plan: Plan) -> Outcome:
    """Runs to the end, or to the first violation. The same plan gives the same outcome, to the last byte."""
    outcome = Outcome(plan.seed)
    histories, watched = Histories(), list[Watching]()
    with simulated(plan) as cluster:
        try:
            _live(cluster, plan, histories, watched)
        except AssertionError as violation:
            said = f"{type(violation).__name__}: {violation}"
            outcome.violation = said.replace(cluster.base, "")
        world, ledger = cluster.world, cluster.ledger
        outcome.events, outcome.simulated_us, outcome.checks = world.events, world.now, ledger.checks
        outcome.operations = len(histories.operations) + len(histories.txns)
        outcome.answered, outcome.revisions = histories.answered, ledger.revision
        outcome.faults = cluster.faults_done
        outcome.told = sum(len(told.events) for watching in watched for told in watching.told)
        outcome.visits = len(histories.visits)
        seen = (histories.operations, histories.txns, histories.visits)
        everything = (world.trace, ledger.log, *seen, outcome.violation)
        outcome.digest = blake2b(repr(everything).encode(), digest_size=8).hexdigest()
    return outcome


def _live(cluster: SimCluster, plan: Plan, histories: Histories, watched: list[Watching]) -> None:
    world = cluster.world
    cluster.start()
    patience = (RECOVERY + plan.knobs["election_ms"] // 50) * SECOND
    demand(world.run(patience, cluster.has_converged), "the cluster never came up")
    began = world.now
    clients: list[Client] = []
    watchers: list[Watcher] = []
    for visitor in plan.visitors:
        if visitor.kind == "watch":
            watchers.append(Watcher(cluster, visitor, watched))
        else:
            clients.append(CLIENTS[visitor.kind](cluster, visitor, histories))
    for client in clients:
        client.begin()
    for watcher in watchers:
        watcher.begin()
    for fault in plan.faults:
        world.at(began + fault.at, attack, cluster, fault)
    world.run(began + plan.length)
    cluster.calm()
    calm_at = world.now
    for client in clients:
        client.is_over = True
    last = Writer(cluster, histories)
    last.begin()
    recovered = world.run(calm_at + patience, lambda: last.is_over and cluster.has_converged())
    demand(recovered, "no progress after all faults ended")
    for watcher in watchers:
        watcher.resume()

    rested_at = calm_at + (2 * plan.lease_ttl + 10) * SECOND

    def is_quiet() -> bool:
        return world.now > rested_at and cluster.has_converged() and not _behind(watchers)

    # Until the last lease has ended: a leader that is elected only now gives all of them their whole time again.
    world.run(world.now + patience + rested_at - calm_at, lambda: is_quiet() and not cluster.has_leases())
    demand(is_quiet(), f"still behind: {_behind(watchers)}")
    for watcher in watchers:
        watcher.finish()
    cluster.check_replicas()
    judge(cluster, histories, watched)


def _behind(watchers: list[Watcher]) -> list[int]:
    return [watcher.number for watcher in watchers if watcher.is_behind]


class Writer(Keys):
    """The last one: a write that must succeed on every member once all is well."""

    def __init__(self, cluster: SimCluster, histories: Histories) -> None:
        super().__init__(cluster, Visitor(999, "keys", 1, SECOND // 10), histories)
        self._left = list(cluster.members())

    def act(self) -> None:
        done = len(self.histories.operations)
        if done > self._seen:
            last = self.histories.operations[-1]
            if last.client == self.connection and last.fate is Fate.DONE:
                self._left.pop()
        self._seen = done
        self._left = [node for node in self._left if not node.is_gone]
        if not self._left:
            self.is_over = True
            return
        self.node = self._left[-1]
        if self.node.api.is_open:
            super().act()
        else:
            self._next()

    _seen = 1 << 60


def judge(cluster: SimCluster, histories: Histories, watched: list[Watching]) -> None:
    """The checker's verdict over everything that clients saw."""
    ledger = cluster.ledger
    log = ledger.log
    found = check(histories.operations, log, histories.leased, histories.txns)
    facts = Log(log)
    for watching in watched:
        found += check_watch(watching, facts, ledger.compact_revision)
    found += check_rights(histories.grants, histories.visits)
    found += check_locks([], histories.fences, log)
    lease = (cluster.plan.lease_ttl + 2) * SECOND
    margin = (SECOND // 20 + lease * (2 if _clocks_are_wrong(cluster) else 0)) * 1000
    found += check_leases(histories.leasings, log, {r: at * 1000 for r, at in enumerate(ledger.times)}, margin)
    model = Model(log)
    for key in sorted(histories.leased):
        if model.at(key, model.last_revision)[1]:
            found.append(f"{key!r} is still there, though every lease has ended")
    for node in cluster.members():
        if node.has_leases():
            found.append(f"{node.name} still has leases whose time is long over")
    if found:
        raise Violation(f"{len(found)} violations: " + "; ".join(found[:5]))


def _clocks_are_wrong(cluster: SimCluster) -> bool:
    return bool(cluster.faults_done.get("clock drift") or cluster.faults_done.get("clock jump"))
