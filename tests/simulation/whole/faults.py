"""What goes wrong, and what operators do meanwhile: one function a kind. Each ends by itself after its duration."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Final

from quorate.proto import rpc_pb2 as rpc
from quorate.wire.messages import ClusterOp, Op
from tests.simulation.whole.bus import buses
from tests.simulation.whole.config import NodeKnobs, peer_url
from tests.simulation.whole.people import root_of
from tests.simulation.whole.rot import turn_a_bit
from tests.simulation.whole.world import MS, SECOND, Process

if TYPE_CHECKING:
    from tests.simulation.whole.cluster import SimCluster
    from tests.simulation.whole.node import SimNode
    from tests.simulation.whole.plan import Fault

LOST: Final = -1  # no answer came
PARTS: Final = ("consensus", "storage", "watch", "api")


class Attack:
    """One fault being carried out."""

    def __init__(self, cluster: SimCluster, fault: Fault) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.rng = random.Random(fault.seed)
        self.duration = fault.duration
        self.node: SimNode = self.rng.choice(cluster.members())

    def later(self, undo: Callable[[], None]) -> None:
        """When the fault ends, unless all faults have ended before."""
        self.world.after(self.duration, lambda: None if self.cluster.world_calm else undo())

    def some_nodes(self) -> list[SimNode]:
        """A group of at most half of the members, and never none."""
        members = self.cluster.members()
        return self.rng.sample(members, self.rng.randint(1, max(1, len(members) // 2)))

    def leader(self) -> SimNode:
        return self.cluster.leader() or self.node

    def cut(self, senders: list[SimNode], receivers: list[SimNode]) -> None:
        until = self.world.now + self.duration
        for sender in senders:
            for receiver in receivers:
                if sender is not receiver:
                    self.cluster.network.cut[sender.number, receiver.number] = until

    def split(self, group: list[SimNode], one_way: bool = False) -> None:
        others = [node for node in self.cluster.members() if node not in group]
        self.cut(group, others)
        if not one_way:
            self.cut(others, group)

    def stop(self, process: Process, duration: int | None = None) -> None:
        process.paused_until = max(process.paused_until, self.world.now + (duration or self.duration))


def kill(part: str) -> Callable[[Attack], None]:
    return lambda attack: attack.node.kill(part)


def die_at_a_step(attack: Attack) -> None:
    host = attack.rng.choice(attack.node.hosts)
    host.process.steps_left = attack.rng.randint(1, 20)


def power_loss_at_a_step(attack: Attack) -> None:
    node = attack.node
    process = node.consensus.process
    process.steps_left = attack.rng.randint(1, 12)
    told = process.on_end

    def ended(why: BaseException | None) -> None:
        process.on_end = told
        told(why)
        if not attack.cluster.world_calm:
            node.crash(True, attack.duration)

    process.on_end = ended


def stop_a_process(attack: Attack) -> None:
    attack.stop(attack.rng.choice(attack.node.hosts).process)


def stop_node(attack: Attack, node: SimNode) -> None:
    for host in node.hosts:
        attack.stop(host.process)


def power_loss_of_all(attack: Attack) -> None:
    for node in attack.cluster.members():
        node.crash(True, attack.duration + attack.rng.randrange(SECOND))


def clock_drift(attack: Attack) -> None:
    node = attack.node
    node.clock.change(attack.rng.choice((0.5, 0.8, 0.95, 1.05, 1.2, 2.0)))
    rearm(node)

    def undo() -> None:
        node.clock.change(1.0)
        rearm(node)

    attack.later(undo)


def clock_jump(attack: Attack) -> None:
    node = attack.node
    node.clock.change(node.clock.rate, attack.duration)
    rearm(node)


def rearm(node: SimNode) -> None:
    for loop in (node.consensus.loop, node.api.loop):
        if loop is not None:
            loop.arm()


def ring_partition(attack: Attack) -> None:
    """Each hears its two neighbours only."""
    members = attack.cluster.members()
    size = len(members)
    for one, other in combinations(range(size), 2):
        if (other - one) % size not in (1, size - 1):
            attack.cut([members[one]], [members[other]])
            attack.cut([members[other]], [members[one]])


def bridge_partition(attack: Attack) -> None:
    """Two halves that meet in one node only."""
    members = attack.cluster.members()
    attack.rng.shuffle(members)
    half = len(members) // 2
    attack.cut(members[:half], members[half + 1 :])
    attack.cut(members[half + 1 :], members[:half])


def clog(attack: Attack, group: list[SimNode], until: int) -> None:
    for node in group:
        for other in attack.cluster.members():
            if node is not other:
                attack.cluster.network.clogged[node.number, other.number] = until
                attack.cluster.network.clogged[other.number, node.number] = until


def swizzle(attack: Attack) -> None:
    """Links are clogged one by one and set free in another order (FoundationDB)."""
    nodes = attack.some_nodes()
    for node in nodes:
        until = attack.world.now + attack.rng.randrange(2 * attack.duration)
        attack.world.after(attack.rng.randrange(attack.duration), clog, attack, [node], until)


def weather(**changes: object) -> Callable[[Attack], None]:
    def change(attack: Attack) -> None:
        network = attack.cluster.network
        before = network.weather
        network.weather = replace(before, **changes)  # type: ignore[arg-type]

        def undo() -> None:
            network.weather = before

        attack.later(undo)

    return change


def slow_disk(attack: Attack) -> None:
    disk = attack.node.disk
    disk.sync_delay = attack.rng.choice(((1 * MS, 20 * MS), (50 * MS, 200 * MS), (1, 1000 * MS)))

    def undo() -> None:
        disk.sync_delay = (1, 200)

    attack.later(undo)


def failing_fsync(attack: Attack) -> None:
    disk = attack.node.disk
    attack.cluster.may_fail = True
    disk.failing = attack.rng.choice((0.05, 0.5))

    def undo() -> None:
        disk.failing = 0.0

    attack.later(undo)


def full_log_disk(attack: Attack) -> None:
    disk = attack.node.disk
    attack.cluster.may_fail = True
    disk.is_full = True

    def undo() -> None:
        disk.is_full = False

    attack.later(undo)


def full_database(attack: Attack) -> None:
    storage = attack.node.storage
    storage.is_full = True

    def undo() -> None:
        storage.is_full = False

    attack.later(undo)


def failing_database(attack: Attack) -> None:
    storage = attack.node.storage
    attack.cluster.may_fail = True
    storage.failing = attack.rng.choice((0.02, 0.3, 1.0))
    storage.failing_calls = attack.rng.choice((("sync",), ("write",), ("write", "truncate", "sync")))

    def undo() -> None:
        storage.failing = 0.0

    attack.later(undo)


def turned_bit(attack: Attack) -> None:
    """A bit turns on the disk of one member while that is down; it heals itself by what the others have. No member is
    exchanged meanwhile: what two have lost, three need not know."""
    cluster, node = attack.cluster, attack.node
    if cluster.is_changing or len(cluster.members()) < 3 or not node.consensus.has_healed:
        return
    cluster.is_changing = cluster.may_rot = node.has_rotted = True
    node.crash(False, attack.duration)
    if place := turn_a_bit(node, attack.rng):
        cluster.count(f"turned bit of the {place}")

    def look() -> None:
        if node.consensus.has_healed:
            cluster.is_changing = False
        else:
            attack.world.after(SECOND, look)

    attack.world.after(attack.duration + SECOND, look)


def lying_reads(attack: Attack) -> None:
    disk = attack.node.disk
    attack.cluster.may_fail = True
    disk.lying = 0.05

    def undo() -> None:
        disk.lying = 0.0

    attack.later(undo)


def slow_links_inside(attack: Attack) -> None:
    bus = buses[0]
    bus.slowness = attack.rng.choice((10, 300))

    def undo() -> None:
        bus.slowness = 1

    attack.later(undo)


def ask(node: SimNode, op: Op, request: bytes, lane: str) -> None:
    """An operator's request, whatever comes of it."""

    def asked() -> None:
        ring = node.api.ring
        if ring is not None and ring.is_ready:
            ring.add(getattr(ring, lane), op, request, lambda _code, _text, _body: None, identity=root_of(node.api))

    if node.api.is_open:
        node.api.process.at(node.cluster.world.now, asked)


def compaction(attack: Attack) -> None:
    revision = attack.cluster.ledger.revision - attack.rng.choice((0, 1, 5, 50))
    is_physical = attack.rng.random() < 0.3
    if revision > 1:
        request = rpc.CompactionRequest(revision=revision, physical=is_physical)
        ask(attack.node, Op.COMPACT, request.SerializeToString(), "writes")
    if attack.rng.random() < 0.4:
        attack.world.after(attack.rng.randrange(20 * MS), attack.node.kill, "storage")


def defragmentation(attack: Attack) -> None:
    ask(attack.node, Op.DEFRAGMENT, b"", "patient")


def leader_transfer(attack: Attack) -> None:
    leader = attack.leader()
    driver = leader.consensus.driver

    def transfer() -> None:
        if driver is not None:
            driver.core.transfer_leader(attack.node.member_id)
            driver.schedule()

    leader.consensus.process.at(attack.world.now, transfer)


def campaign(attack: Attack) -> None:
    driver = attack.node.consensus.driver

    def start() -> None:
        if driver is not None:
            driver.core.campaign()
            driver.schedule()

    attack.node.consensus.process.at(attack.world.now, start)


def stop_in_order(node: SimNode) -> None:
    """As a supervisor's stop: the log is closed, the database committed."""
    driver, service = node.consensus.driver, node.storage.service

    def stop() -> None:
        if driver is not None and not driver.failure.done():
            driver.stop()
            driver.wal.close()
        node.consensus.process.end(None)

    def stop_storage() -> None:
        if service is not None:
            service.is_stopping = True
            service.run()
        node.storage.process.end(None)

    now = node.cluster.world.now
    node.consensus.process.at(now, stop)
    node.storage.process.at(now, stop_storage)


def orderly_restart(attack: Attack) -> None:
    if attack.rng.random() < 0.5:
        leader_transfer(attack)
    attack.world.after(50 * MS, stop_in_order, attack.node)


def rolling_upgrade(attack: Attack) -> None:
    """Node after node comes back with other settings."""
    rng = attack.rng
    for position, node in enumerate(attack.cluster.members()):
        knobs = replace(
            node.knobs,
            catchup_entries=rng.choice((2, 30, 200)),
            segment_bytes=rng.choice((8, 32, 128)) * 1024,
            pre_vote=rng.random() < 0.9,
        )
        attack.world.after(position * max(attack.duration, SECOND // 2), upgrade, node, knobs)


def upgrade(node: SimNode, knobs: NodeKnobs) -> None:
    if node.cluster.world_calm or node.is_gone:
        return
    node.knobs = knobs
    node.configure()
    stop_in_order(node)


def replace_a_member(attack: Attack) -> None:
    """One goes, and another comes in its place: first the one, then the other, in either order."""
    cluster = attack.cluster
    if len(cluster.members()) < 3 or cluster.is_changing:
        return
    cluster.is_changing = True
    change_members(attack, attack.node, is_learner=False)


def add_learner(attack: Attack) -> None:
    cluster = attack.cluster
    if len(cluster.members()) >= 6 or cluster.is_changing:
        return
    cluster.is_changing = True
    change_members(attack, None, is_learner=True)


def change_members(attack: Attack, leaving: SimNode | None, is_learner: bool) -> None:
    cluster = attack.cluster
    number = max(node.number for node in cluster.nodes) + 1

    def call(op: ClusterOp, request: bytes, then: Callable[[int, bytes], None]) -> None:
        choice = [node for node in cluster.members() if node is not leaving and node.api.is_open]
        if not choice:
            finished()
            return
        api = attack.rng.choice(choice).api
        is_done = False

        def done(code: int, _text: str, body: bytes) -> None:
            nonlocal is_done
            if not is_done:
                is_done = True
                then(code, body)

        def asked() -> None:
            if api.ring is None:
                done(LOST, "", b"")
            else:
                api.ring.call(op, request, done)

        api.process.at(cluster.world.now, asked)
        cluster.world.after(20 * SECOND, done, LOST, "", b"")  # the api process may be gone, and the call with it

    def finished() -> None:
        cluster.is_changing = False

    def remove() -> None:
        assert leaving is not None
        request = rpc.MemberRemoveRequest(ID=leaving.member_id).SerializeToString()
        call(ClusterOp.MEMBER_REMOVE, request, removed)

    def removed(code: int, _body: bytes) -> None:
        if code:
            finished()
            return
        assert leaving is not None
        cluster.world.after(2 * SECOND, leaving.leave)
        add()

    def add() -> None:
        request = rpc.MemberAddRequest(peerURLs=[peer_url(number)], isLearner=is_learner)
        call(ClusterOp.MEMBER_ADD, request.SerializeToString(), added)

    def added(code: int, body: bytes) -> None:
        if code == 0:
            join(rpc.MemberAddResponse.FromString(body).member.ID)
        else:
            look(40)

    def look(tries: int) -> None:
        """The answer was lost, or it was an error: whether there is a new member is seen in a while."""
        leader = cluster.leader()
        if leader is not None and leader.consensus.driver is not None:
            for member in leader.consensus.driver.membership.ordered():
                if member.peer_urls == (peer_url(number),):
                    join(member.id)
                    return
        if tries:
            cluster.world.after(SECOND // 2, look, tries - (leader is not None))  # without one it may yet be proposed
        else:
            finished()

    def join(member_id: int) -> None:
        """A machine for the new member, as soon as it is known who is in."""
        leader = cluster.leader()
        driver = leader.consensus.driver if leader is not None else None
        if driver is None or member_id not in driver.membership.members:
            if driver is None or member_id not in driver.membership.removed:
                cluster.world.after(SECOND // 2, join, member_id)
            return
        urls = {peer_url(node.number): node for node in cluster.nodes}
        known = [urls[member.peer_urls[0]] for member in driver.membership.ordered() if member.id != member_id]
        finished()
        node = cluster.add_node({one.name: one.number for one in known}, attack.node.knobs)
        cluster.world.after(attack.rng.randrange(SECOND), node.start)
        if is_learner:
            promote(attack, member_id, 10)

    def start() -> None:
        if leaving is not None:
            remove()
        else:
            add()

    start()


def promote(attack: Attack, member_id: int, tries: int) -> None:
    """As soon as it has caught up."""

    def promoted(code: int, _text: str, _body: bytes) -> None:
        if code and tries:
            attack.world.after(SECOND // 2, promote, attack, member_id, tries - 1)

    leader = attack.leader()
    request = rpc.MemberPromoteRequest(ID=member_id).SerializeToString()

    def asked() -> None:
        if leader.api.ring is not None:
            leader.api.ring.call(ClusterOp.MEMBER_PROMOTE, request, promoted)

    if leader.api.is_open:
        leader.api.process.at(attack.world.now, asked)
    elif tries:
        attack.world.after(SECOND // 2, promote, attack, member_id, tries - 1)


def read_around_a_stop(attack: Attack) -> None:
    """Answers to one read arrive when the next has begun (etcd #20418)."""
    leader = attack.leader()
    driver = leader.consensus.driver
    ask(leader, Op.RANGE, rpc.RangeRequest(key=b"key/00").SerializeToString(), "reads")
    if driver is not None:
        attack.world.after(MS // 2, attack.stop, leader.consensus.process, attack.duration)


ATTACKS: Final[dict[str, Callable[[Attack], None]]] = {
    **{f"kill {part}": kill(part) for part in PARTS},
    "die at a step": die_at_a_step,
    "stop a process": stop_a_process,
    "stop a node": lambda attack: stop_node(attack, attack.node),
    "stop the leader": lambda attack: stop_node(attack, attack.leader()),
    "crash a node": lambda attack: attack.node.crash(False, attack.duration),
    "power loss of a node": lambda attack: attack.node.crash(True, attack.duration),
    "power loss at a step": power_loss_at_a_step,
    "power loss of all": power_loss_of_all,
    "clock drift": clock_drift,
    "clock jump": clock_jump,
    "partition": lambda attack: attack.split(attack.some_nodes()),
    "one-way partition": lambda attack: attack.split(attack.some_nodes(), one_way=True),
    "ring partition": ring_partition,
    "bridge partition": bridge_partition,
    "isolate the leader": lambda attack: attack.split([attack.leader()]),
    "clogged links": lambda attack: clog(attack, attack.some_nodes(), attack.world.now + attack.duration),
    "swizzle": swizzle,
    "loss": weather(loss=0.3),
    "delay": weather(delay_max=200 * MS),
    "duplication": weather(duplication=0.3),
    "reordering": weather(reordering=0.3),
    "slow disk": slow_disk,
    "failing fsync": failing_fsync,
    "full log disk": full_log_disk,
    "full database": full_database,
    "failing database": failing_database,
    "lying reads": lying_reads,
    "turned bit": turned_bit,
    "slow links inside": slow_links_inside,
    "compaction": compaction,
    "defragmentation": defragmentation,
    "leader transfer": leader_transfer,
    "campaign": campaign,
    "orderly restart": orderly_restart,
    "rolling upgrade": rolling_upgrade,
    "replace a member": replace_a_member,
    "learner": add_learner,
    "read around a stop": read_around_a_stop,
}


def attack(cluster: SimCluster, fault: Fault) -> None:
    """Does what the fault says."""
    cluster.count(fault.kind)
    ATTACKS[fault.kind](Attack(cluster, fault))
