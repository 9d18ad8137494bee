"""A whole simulated cluster: nodes, network, faults, clients, and the verdict in the end."""

from __future__ import annotations

import gc
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from quorate.api.token_settings import JwtSettings
from quorate.api.tokens import JsonWebTokens
from quorate.consensus.joining import Known
from quorate.consensus.raft.messages import Role
from quorate.storage.auth import AuthStore
from quorate.wire.messages import MAIN_SHIFT
from tests.simulation.whole import disk as disks
from tests.simulation.whole.bus import buses
from tests.simulation.whole.config import NodeKnobs, peer_url
from tests.simulation.whole.installed import System, installed
from tests.simulation.whole.ledger import Ledger, demand
from tests.simulation.whole.network import SimNetwork, Weather
from tests.simulation.whole.node import SimNode
from tests.simulation.whole.plan import OF_SQLITE, Plan
from tests.simulation.whole.world import SECOND, World, enter
from tests.support.failing_sqlite import Failure, failing

MEMORY = Path("/dev/shm")


class SimCluster:
    """`plan` says everything that is not chance."""

    def __init__(self, plan: Plan, base: str, system: System) -> None:
        self.plan = plan
        self.base = base
        self.system = system
        self.world = World(plan.seed)
        self.ledger = Ledger()
        self.network = SimNetwork(self.world, Weather(**plan.weather), plan.encodes)
        self.rng = random.Random(f"{plan.seed} cluster")
        buses[0].frames_max, buses[0].gap = plan.links.frames_max, plan.links.gap
        self.world_calm = False  # no more faults
        self.may_fail = False  # a fault is on that may end a process
        self.may_rot = False
        self.is_changing = False
        self.refusals: list[str] = []
        self.signer = signer(base) if plan.users == "jwt" else None
        self.faults_done: dict[str, int] = {}
        self.nodes: list[SimNode] = []
        founders = {f"n{number}": number for number in range(1, plan.nodes + 1)}
        for number in founders.values():
            self.nodes.append(SimNode(self, number, founders, "new", NodeKnobs(**plan.knobs)))
        self._mount()
        enter(self.world)

    def _mount(self) -> None:
        disks.mount({node.name: node.disk for node in self.nodes})

    def start(self) -> None:
        for node in self.nodes:
            self.world.after(self.rng.randrange(SECOND // 5), node.start)

    def add_node(self, members: dict[str, int], knobs: NodeKnobs) -> SimNode:
        """A machine for a member that was added."""
        number = max(node.number for node in self.nodes) + 1
        node = SimNode(self, number, {**members, f"n{number}": number}, "existing", knobs)
        self.nodes.append(node)
        self._mount()
        return node

    def fetch_members(self, url: str, _timeout_s: float) -> Known:
        """What `/members` of a peer says."""
        for node in self.nodes:
            if peer_url(node.number) == url:
                return node.as_members()
        raise OSError("connection refused")

    def decide(self, path: str, call: str) -> Failure | None:
        """Whether a call of SQLite fails."""
        for node in self.nodes:
            if node.storage.failing and path.startswith(f"{self.base}/{node.name}/"):
                return node.storage.decide(call)
        return None

    # --- looking ---

    def members(self) -> list[SimNode]:
        """The nodes that belong to the cluster."""
        return [node for node in self.nodes if not node.is_gone]

    def leader(self) -> SimNode | None:
        """Who leads in the highest term."""
        best: SimNode | None = None
        term = 0
        for node in self.members():
            driver = node.consensus.driver
            if driver is not None and driver.core.role is Role.LEADER and driver.core.term > term:
                best, term = node, driver.core.term
        return best

    def count(self, kind: str) -> None:
        self.faults_done[kind] = self.faults_done.get(kind, 0) + 1

    # --- the end of a run ---

    def calm(self) -> None:
        """No more faults; everything comes back."""
        self.world_calm = True
        self.network.heal()
        self.network.weather = Weather()
        for node in self.members():
            node.down_until = 0
            node.disk.is_full = node.storage.is_full = False
            node.storage.failing = 0.0
            node.disk.failing = node.disk.lying = 0.0
            node.disk.sync_delay = (1, 200)
            node.clock.change(1.0)
            for host in node.hosts:
                host.process.paused_until = 0
                host.process.steps_left = -1
            self.world.after(SECOND, node.start)

    def has_converged(self) -> bool:
        """One leader, all members at its index and revision, and nothing left to compact."""
        leader = self.leader()
        if leader is None or leader.consensus.driver is None:
            return False
        driver = leader.consensus.driver
        if driver.core.conf_state.is_joint:
            return False
        goal = driver.core.commit_index
        present = {node.member_id for node in self.members()}
        for node in self.members():
            state, other = node.storage.state, node.consensus.driver
            if state is None or other is None or other.core.leader_id != leader.member_id:
                return False
            if node.has_rotted and not node.consensus.has_healed:
                return False
            if state.database.marks.applied_index != goal or not node.api.is_open:
                return False
            marks = state.database.marks
            if marks.scheduled_compact_revision != marks.finished_compact_revision:
                return False
        return driver.core.conf_state.members() <= present

    def has_leases(self) -> bool:
        return any(node.has_leases() for node in self.members())

    def check_replicas(self) -> None:
        """All members hold the same, byte for byte."""
        first: tuple[object, ...] | None = None
        for node in self.members():
            state = node.storage.state
            assert state is not None
            state.commit()
            held = contents(state.database.connection, state.database.marks.scheduled_compact_revision)
            leases = {
                lease.lease_id: (lease.granted_ttl, lease.renewed_index, sorted(lease.keys))
                for lease in state.lessor.leases.values()
            }
            marks = state.database.marks
            users = rights(state.auth)
            everything = (marks.revision, marks.applied_index, marks.scheduled_compact_revision, held, leases, users)
            if first is None:
                first = everything
            demand(first == everything, f"{node.name} does not hold what {self.members()[0].name} holds")


def rights(auth: AuthStore) -> tuple[object, ...]:
    """What all members must know of users: tokens end by each member's own clock."""
    users = sorted(user.SerializeToString() for user in auth._users.values())
    return auth.enabled, auth.revision, users, sorted(role.SerializeToString() for role in auth._roles.values())


def signer(base: str) -> JsonWebTokens:
    """Of JSON web tokens, with a key that all nodes share."""
    key = Path(base) / "jwt.key"
    key.write_text("a key of a cluster that is not there")
    return JsonWebTokens(JwtSettings("HS256", private_key_file=str(key)))


def contents(connection: sqlite3.Connection, compact_revision: int) -> list[tuple[object, ...]]:
    """All records. What a member has dropped already is not among what the others are compared by, nor the checksum
    over it, which storage checks by itself."""
    bound = (compact_revision + 1) << MAIN_SHIFT if compact_revision >= 0 else 0
    rows = connection.execute("SELECT id, prev, crc, key, kv FROM history ORDER BY id").fetchall()
    return [
        (record, 0, 0, key, blob)
        if record < bound or previous & 1 or not previous
        else (record, previous, crc, key, blob)
        for record, previous, crc, key, blob in rows
    ]


@contextmanager
def simulated(plan: Plan) -> Iterator[SimCluster]:
    """A cluster as `plan` says, and nothing of it afterwards."""
    base = tempfile.mkdtemp(prefix="quorate-sim-", dir=MEMORY if MEMORY.is_dir() else None)
    cluster: SimCluster | None = None
    try:
        with installed(plan.constants) as system:
            cluster = SimCluster(plan, base, system)
            has_failures = any(fault.kind in OF_SQLITE for fault in plan.faults)
            with failing(cluster.decide) if has_failures else nullcontext():
                yield cluster
    finally:
        if cluster is not None:
            cluster.world.clear()
            for node in cluster.nodes:
                if node.storage.state is not None:
                    node.storage.state.database.connection.close()
        gc.unfreeze()
        shutil.rmtree(base, ignore_errors=True)
