"""Clusters whose members lose their disks for good, and come back as they do in production: under a new id, without a
vote until they have caught up."""

from __future__ import annotations

import random
from dataclasses import replace

from quorate.consensus.raft.confchange import replacement
from quorate.consensus.raft.messages import ConfChange, ConfChangeKind, ConfState, RaftConfig
from tests.simulation.raft_cluster import TICK, Faults, SimCluster, SimDisk, SimMember

KINDS = ("crash", "partition", "transfer", "campaign", "pause", "pause leader")
LOSSES = 0.3  # of the faults
ASKS_EVERY = 10 * TICK
READY_SHARE = 0.9


class LosingCluster(SimCluster):
    """At most one member at a time is without its disk: more is more than a minority of three."""

    def __init__(self, seed: int, founders: int, faults: Faults, config: RaftConfig) -> None:
        self.lost: SimMember | None = None
        self.gone: set[int] = set()
        self.losses = 0
        super().__init__(seed, founders, 0, faults, config)

    def inject_fault(self) -> None:
        if self.lost is None and self.rng.random() < LOSSES:
            self.lose_disk()
        else:
            super().inject_fault()

    def lose_disk(self) -> None:
        """A voter's disk is damaged; its former self is never heard of again, but for what is under way."""
        leader = self.leader()
        victim = self.rng.choice(list(self.members.values()))
        if leader is None or victim.id not in leader.core.conf_state.voters or len(leader.core.conf_state.voters) < 3:
            return
        if victim.is_up:
            victim.crash()
        self.losses += 1
        self.lost = victim
        self.come_back(victim)

    def come_back(self, victim: SimMember) -> None:
        """The fresh self asks until the leader has taken it in place of the former."""
        self.gone.add(victim.id)
        fresh_id = max(self.members) + 1
        fresh = self.members[fresh_id] = SimMember(self, replace(victim.config, id=fresh_id), ConfState())
        self.schedule_tick(fresh)
        self._ask(victim, fresh)

    def _ask(self, victim: SimMember, fresh: SimMember) -> None:
        leader = self.leader()
        if leader is not None:
            conf = leader.core.conf_state
            if fresh.id in conf.voters and not conf.is_joint:
                self.lost = None
                return
            if victim.id in conf.members():
                leader.core.propose_conf_change(replacement(victim.id, fresh.id))
            elif fresh.id in conf.learners:
                match_index = leader.core.progress()[fresh.id].match_index
                if match_index >= READY_SHARE * leader.core.last_index:
                    leader.core.propose_conf_change([ConfChange(ConfChangeKind.ADD_VOTER, fresh.id)])
            self._settle(leader)
        self.later(ASKS_EVERY, lambda: self._ask(victim, fresh))

    def _restart(self, member: SimMember) -> None:
        if member.id not in self.gone:
            super()._restart(member)


class ForgettingCluster(LosingCluster):
    """The mistake: a member without its disk goes on under its old id, with its vote."""

    def come_back(self, victim: SimMember) -> None:
        victim.disk = SimDisk(victim.disk.conf_at(0) if victim.disk.base.index == 0 else victim.disk.base.conf_state)
        victim.applied_index = 0
        self.lost = None
        self.later(ASKS_EVERY, lambda: self._restart(victim))


def run_seed(seed: int, kind: type[LosingCluster] = LosingCluster) -> LosingCluster:
    """One run; AssertionError when something is lost or does not recover."""
    rng = random.Random(seed)
    faults = Faults(
        loss=rng.choice([0.0, 0.02, 0.1]),
        duplication=rng.choice([0.0, 0.05]),
        delay_max=rng.choice([5, 30, 120]),
        disk_delay_max=rng.choice([3, 20, 150]),
        fault_every=rng.choice([4, 10, 30]) * TICK,
        kinds=tuple(rng.sample(KINDS, rng.randint(2, len(KINDS)))),
    )
    config = RaftConfig(id=1, election_ticks=rng.choice([5, 10]), pre_vote=rng.random() < 0.8)
    cluster = kind(seed, rng.choice([3, 3, 5]), faults, config)
    cluster.run(lambda: False, 150 * TICK)
    cluster.ledger.check_logs_match(cluster)
    cluster.calm()
    healed = cluster.run(lambda: cluster.lost is None, 600 * TICK)
    assert healed, "a member did not come back"
    assert cluster.converges(300 * TICK), "no progress after all faults ended"
    cluster.ledger.check_logs_match(cluster)
    return cluster
