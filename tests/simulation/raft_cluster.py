"""A cluster of Raft cores on one virtual clock, with a network and disks that fail as the seed says.

Everything happens in one thread in an order drawn from one random.Random, so a seed replays a run exactly.
The parts are separate on purpose: `SimNetwork` knows nothing of Raft, `SimDisk` only batches of entries,
`SimMember` is the host of one core, and `invariants` watches all of them after each event.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from quorate.consensus.raft import confchange
from quorate.consensus.raft.core import RaftCore
from quorate.consensus.raft.log import take_bytes
from quorate.consensus.raft.messages import (
    ConfChange,
    ConfChangeKind,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    ImpossibleMessage,
    InstallSnapshot,
    Message,
    RaftConfig,
    Ready,
    Role,
    SnapshotMeta,
)
from tests.simulation import invariants

TICK = 100  # units of virtual time
SNAPSHOT_LOST = 0.2
FAULT_KINDS = (
    "crash",
    "partition",
    "transfer",
    "change",
    "campaign",
    "pause",
    "pause leader",
)


class SimDisk:
    """One member's log on disk. Writes finish in order; a crash keeps a prefix of the unfinished ones."""

    def __init__(self, founders: ConfState):
        self.hard_state = HardState()
        self.base = SnapshotMeta(0, 0, founders)  # everything up to here was dropped
        self.log: list[Entry] = []  # durable entries after the base
        self.pending: deque[Ready] = deque()
        self.applied_index = 0  # what storage has made durable of its own

    def first_index(self) -> int:
        return self.base.index + 1

    def last_index(self) -> int:
        return self.base.index + len(self.log)

    def term(self, index: int) -> int:
        if index == self.base.index:
            return self.base.term
        return self.log[index - self.base.index - 1].term

    def entries(self, first: int, end: int, bytes_max: int) -> list[Entry]:
        start = first - self.base.index - 1
        assert start >= 0, "asked for entries that were dropped"
        return take_bytes(self.log[start : end - self.base.index - 1], bytes_max)

    def finish_write(self) -> Ready:
        """Makes the oldest unfinished write durable."""
        ready = self.pending.popleft()
        if ready.snapshot is not None:
            self.base = ready.snapshot
            self.log = []
        if ready.entries:
            first = ready.entries[0].index
            assert self.base.index < first <= self.last_index() + 1, "a hole in the log"
            self.log[first - self.base.index - 1 :] = ready.entries
        if ready.hard_state is not None:
            assert ready.hard_state.term >= self.hard_state.term
            self.hard_state = ready.hard_state
        return ready

    def conf_at(self, index: int) -> ConfState:
        conf = self.base.conf_state
        for entry in self.log[: index - self.base.index]:
            if entry.kind == EntryKind.CONF:
                conf = confchange.decode(entry.payload)[0]
        return conf

    def drop_to(self, index: int) -> None:
        """Forgets entries up to `index`, which storage has durably applied."""
        if index > self.base.index:
            term, conf = self.term(index), self.conf_at(index)
            del self.log[: index - self.base.index]
            self.base = SnapshotMeta(index, term, conf)


@dataclass(frozen=True, slots=True)
class Faults:
    """How bad the world is; probabilities per message or per event."""

    loss: float = 0.0
    duplication: float = 0.0
    delay_max: int = 20
    disk_delay_max: int = 10
    fault_every: int = 0  # mean time between partitions, crashes and the like; 0 for none
    kinds: tuple[str, ...] = FAULT_KINDS


class SimNetwork:
    """Delays, loses, repeats and reorders; cuts links one way or both."""

    def __init__(self, rng: random.Random, faults: Faults):
        self.rng = rng
        self.faults = faults
        self.cut: set[tuple[int, int]] = set()

    def deliveries(self, from_id: int, to_id: int) -> list[int]:
        """The delays after which copies of a message arrive; none if it is lost."""
        if (from_id, to_id) in self.cut or self.rng.random() < self.faults.loss:
            return []
        copies = 2 if self.rng.random() < self.faults.duplication else 1
        return [1 + self.rng.randrange(self.faults.delay_max) for _ in range(copies)]

    def isolate(self, group: set[int], members: Sequence[int], one_way: bool) -> None:
        """Cuts `group` off from the others."""
        for inside in group:
            for outside in members:
                if outside not in group:
                    self.cut.add((inside, outside))
                    if not one_way:
                        self.cut.add((outside, inside))

    def heal(self) -> None:
        self.cut.clear()


class SimMember:
    """The host of one core: fulfils Readys with a slow disk and a storage that applies at its own pace."""

    def __init__(self, cluster: SimCluster, config: RaftConfig, founders: ConfState):
        self.cluster = cluster
        self.config = config
        self.disk = SimDisk(founders)
        self.applied_index = 0
        self.applying: deque[int] = deque()  # last indexes of batches handed to storage
        self.life = 0  # counts restarts: events of a former life are void
        self.is_up = True
        self.paused_until = 0  # a stopped process: nothing is lost, everything is late
        self.reads: dict[int, int] = {}  # ctx -> what was committed when it was asked
        self.core = self._boot()

    @property
    def id(self) -> int:
        return self.config.id

    def _boot(self) -> RaftCore:
        """Starts from the disk; sometimes with most of the log left there."""
        disk, rng = self.disk, self.cluster.rng
        base = disk.base.index
        known = max(base, min(disk.hard_state.commit, disk.last_index()))
        if rng.random() < 0.5:
            base = rng.randint(base, known)
        return RaftCore(
            self.config,
            random.Random(rng.getrandbits(32)),
            hard_state=disk.hard_state._replace(commit=known),
            conf_state=disk.conf_at(base),
            base_index=base,
            base_term=disk.term(base),
            entries=disk.log[base - disk.base.index :],
            storage=disk,
            applied_index=self.applied_index,
        )

    def crash(self) -> None:
        """Loses everything that was not durable; writes under way may or may not have made it."""
        self.is_up = False
        self.life += 1
        rng = self.cluster.rng
        for _ in range(rng.randint(0, len(self.disk.pending))):
            self.disk.finish_write()
        self.disk.pending.clear()
        self.applying.clear()
        self.reads.clear()
        self.applied_index = max(self.disk.applied_index, self.disk.base.index)

    def restart(self) -> None:
        self.is_up = True
        self.core = self._boot()
        self.cluster.schedule_tick(self)
        self.pump()

    def pump(self) -> None:
        """Takes Readys until there is nothing more to do."""
        while (ready := self.core.ready()) is not None:
            for message in ready.messages:
                invariants.check_promise(self, message)
                self.cluster.send(message)
            if ready.must_sync:
                self.disk.pending.append(ready)
                self.cluster.later_for(self, self.cluster.disk_delay(), self._write_done)
            if ready.snapshot is not None:
                self.cluster.ledger.note_snapshot(self, ready.snapshot.index)
                self.applying.append(ready.snapshot.index)
                self.cluster.later_for(self, self.cluster.disk_delay(), self._applied)
            if ready.committed:
                self.cluster.ledger.note_committed(self, ready.committed)
                self.applying.append(ready.committed[-1].index)
                self.cluster.later_for(self, self.cluster.disk_delay(), self._applied)
            for ctx, index in ready.read_states:
                self.cluster.ledger.check_read(self, self.reads.pop(ctx), index)
            for ctx, _ in ready.refused_reads:
                del self.reads[ctx]
            for peer in ready.snapshot_peers:
                self.cluster.send_snapshot(self, peer)

    def _write_done(self) -> None:
        number = self.disk.finish_write().number
        self.core.on_persisted(number)

    def _applied(self) -> None:
        index = self.applying.popleft()
        if index <= self.applied_index:
            return
        self.applied_index = index
        self.core.on_applied(index)
        if self.cluster.rng.random() < 0.3:
            self.disk.applied_index = index
        if self.cluster.rng.random() < 0.1:
            self.core.compact(index)
            self.disk.drop_to(min(self.disk.applied_index, self.core.stable_index) - 3)

    def read(self) -> None:
        ctx = self.cluster.next_number()
        if self.core.read_index(ctx) is None:
            self.reads[ctx] = self.cluster.ledger.committed_index


class SimCluster:
    """Members, their network, the clock, and the watcher of the invariants."""

    def __init__(self, seed: int, founders: int, spares: int, faults: Faults, config: RaftConfig | None = None):
        self.rng = random.Random(seed)
        self.faults = faults
        self.network = SimNetwork(self.rng, faults)
        self.ledger = invariants.Ledger()
        self.now = 0
        self.events = 0
        self._number = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        base = config or RaftConfig(id=1)
        conf = ConfState(tuple(range(1, founders + 1)))
        self.members: dict[int, SimMember] = {}
        for member_id in range(1, founders + spares + 1):
            known = conf if member_id <= founders else ConfState()
            self.members[member_id] = SimMember(self, replace(base, id=member_id), known)
            self.schedule_tick(self.members[member_id])
        self._schedule_client()
        if faults.fault_every:
            self._schedule_fault()

    # The clock

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def later(self, delay: int, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + delay, self.next_number(), action))

    def later_for(self, member: SimMember, delay: int, action: Callable[[], None]) -> None:
        """Like `later`, but void if the member crashes before."""
        life = member.life

        def act() -> None:
            if member.life == life and member.is_up and not self._is_deferred(member, act):
                action()
                self._settle(member)

        self.later(delay, act)

    def _is_deferred(self, member: SimMember, act: Callable[[], None]) -> bool:
        """True if the member is paused; then `act` comes again when it is not."""
        if member.paused_until <= self.now:
            return False
        self.later(member.paused_until - self.now + self.rng.randrange(5), act)
        return True

    def run(self, until: Callable[[], bool], time_max: int) -> bool:
        """Lets events happen until `until()` or the time is over; True if `until()`."""
        end = self.now + time_max
        while self._queue and self._queue[0][0] <= end:
            if until():
                return True
            self.now, _, action = heapq.heappop(self._queue)
            self.events += 1
            action()
        return until()

    def _settle(self, member: SimMember) -> None:
        member.pump()
        self.ledger.check(self, member)

    # What happens by itself

    def schedule_tick(self, member: SimMember) -> None:
        def tick() -> None:
            member.core.tick()
            self.schedule_tick(member)

        self.later_for(member, TICK + self.rng.randint(-5, 5), tick)

    def disk_delay(self) -> int:
        return 1 + self.rng.randrange(self.faults.disk_delay_max)

    def send(self, message: Message) -> None:
        for delay in self.network.deliveries(message.from_id, message.to_id):
            self.later(delay, lambda: self._deliver(message))

    def _deliver(self, message: Message) -> None:
        member = self.members[message.to_id]
        if not member.is_up or (message.from_id, message.to_id) in self.network.cut:
            return
        if not self._is_deferred(member, lambda: self._deliver(message)):
            try:
                member.core.step(message)
            except ImpossibleMessage as finding:
                raise AssertionError(f"{member.id} was told what no member says") from finding
            self._settle(member)

    def send_snapshot(self, sender: SimMember, to_id: int) -> None:
        """Streams the sender's applied state; the receiver sees it whole or not at all."""
        meta = SnapshotMeta(
            sender.applied_index,
            sender.core.term_at(sender.applied_index) or 0,
            sender.core.conf_state_at(sender.applied_index),
        )
        message = InstallSnapshot(sender.id, to_id, sender.core.term, meta)
        ok = self.rng.random() > SNAPSHOT_LOST and (sender.id, to_id) not in self.network.cut
        if ok:
            self.later(50, lambda: self._deliver(message))
        self.later_for(sender, 60, lambda: sender.core.report_snapshot(to_id, ok, meta.index))

    # Clients and operators

    def up(self) -> list[SimMember]:
        return [member for member in self.members.values() if member.is_up]

    def awake(self) -> list[SimMember]:
        return [member for member in self.up() if member.paused_until <= self.now]

    def leader(self) -> SimMember | None:
        """The leader of the highest term, if any."""
        leaders = [member for member in self.awake() if member.core.role is Role.LEADER]
        return max(leaders, key=lambda member: member.core.term, default=None)

    def _schedule_client(self) -> None:
        def act() -> None:
            members = self.awake()
            if members:
                member = self.rng.choice(members)
                if self.rng.random() < 0.6:
                    member.core.propose(b"%d" % self.next_number())
                else:
                    member.read()
                self._settle(member)
            self._schedule_client()

        self.later(1 + self.rng.randrange(40), act)

    def change_membership(self) -> None:
        """One random change, asked of whoever believes to lead."""
        leader = self.leader()
        if leader is None:
            return
        kinds = [ConfChangeKind.ADD_VOTER, ConfChangeKind.ADD_LEARNER, ConfChangeKind.REMOVE]
        count = self.rng.randint(1, 4)
        changes = [
            ConfChange(self.rng.choice(kinds), member_id)
            for member_id in self.rng.sample(sorted(self.members), min(count, len(self.members)))
        ]
        voters = set(leader.core.conf_state.voters)
        voters -= {change.member_id for change in changes if change.kind != ConfChangeKind.ADD_VOTER}
        if len(voters) >= 2 or len(leader.core.conf_state.voters) <= 1:
            leader.core.propose_conf_change(changes)
            self._settle(leader)

    def _schedule_fault(self) -> None:
        def act() -> None:
            if self.faults.fault_every:
                self.inject_fault()
                self._schedule_fault()

        self.later(1 + self.rng.randrange(2 * self.faults.fault_every), act)

    def inject_fault(self) -> None:
        """One of the kinds this run knows."""
        member = self.rng.choice(list(self.members.values()))
        match self.rng.choice(self.faults.kinds):
            case "crash":
                if member.is_up:
                    member.crash()
                    self.later(self.rng.randrange(20 * TICK), lambda: self._restart(member))
            case "partition":
                self.partition()
            case "transfer":
                leader = self.leader()
                if leader is not None:
                    leader.core.transfer_leader(member.id)
                    self._settle(leader)
            case "change":
                self.change_membership()
                if self.rng.random() < 0.3:
                    self.later(self.rng.randrange(TICK), self.partition)
            case "campaign":
                if member in self.awake():
                    member.core.campaign()
                    self._settle(member)
            case "pause":
                member.paused_until = self.now + self.rng.randrange(40 * TICK)
            case "pause leader":
                self.pause_leader_between_reads()
            case kind:
                raise AssertionError(f"unknown kind of fault {kind}")

    def partition(self) -> None:
        """Cuts a random group off for a while."""
        rng = self.rng
        group = set(rng.sample(sorted(self.members), rng.randint(0, len(self.members) // 2)))
        self.network.isolate(group, sorted(self.members), one_way=rng.random() < 0.3)
        self.later(rng.randrange(40 * TICK), self.network.heal)

    def pause_leader_between_reads(self) -> None:
        """The answers to one read arrive when the next has begun (etcd #20418)."""
        leader = self.leader()
        if leader is None:
            return
        leader.read()
        self._settle(leader)
        leader.paused_until = self.now + self.rng.randrange(40 * TICK)
        self.later_for(leader, leader.paused_until - self.now, leader.read)

    def _restart(self, member: SimMember) -> None:
        if not member.is_up:
            member.restart()
            self.ledger.check(self, member)

    # The end of a run

    def calm(self) -> None:
        """No more faults; everybody comes back."""
        self.faults = replace(self.faults, loss=0.0, duplication=0.0, fault_every=0)
        self.network.faults = self.faults
        self.network.heal()
        for member in self.members.values():
            member.paused_until = 0
            self._restart(member)

    def converges(self, time_max: int) -> bool:
        """True if the voters agree on a leader, something new is committed and applied on all members, and none of
        them waits any more for what it asked before."""
        goal = self.ledger.committed_index + 5
        asked = self._number

        def has_converged() -> bool:
            leader = self.leader()
            if leader is None or leader.core.conf_state.is_joint:
                return False
            members = [self.members[member_id] for member_id in leader.core.conf_state.members()]
            if any(min(m.reads, default=asked) < asked for m in members):
                return False
            return all(m.applied_index >= goal and m.core.leader_id == leader.id for m in members)

        return self.run(has_converged, time_max)
