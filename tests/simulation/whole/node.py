"""One simulated node: its machine, and its four processes with what each of them runs."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from quorate.api.callers import Callers
from quorate.api.response_headers import ResponseHeaders
from quorate.api.ring import Ring
from quorate.api.watches import Watches
from quorate.consensus import bootstrap
from quorate.consensus.driver import Driver, LogFailed
from quorate.consensus.frames import PeerMessage
from quorate.consensus.healing import Help
from quorate.consensus.joining import Known, Patience
from quorate.consensus.membership import Membership
from quorate.consensus.node import Node, assemble
from quorate.consensus.peers import PeerSettings
from quorate.consensus.raft.messages import InstallSnapshot
from quorate.consensus.wal import NoSpace
from quorate.consensus.wal_format import DamagedLog
from quorate.node import logs
from quorate.node.lifecycle import OperatorError, StartAgain
from quorate.storage import snapshot as images
from quorate.storage.schema import DamagedDatabase, tells_damage
from quorate.storage.service import IDLE_MS
from quorate.storage.service import Service as Storage
from quorate.storage.settings import lease_ttl_min
from quorate.storage.state import State
from quorate.watch.service import Service as Watch
from quorate.wire.messages import Kind, Part
from quorate.wire.sockets import Address, Endpoint
from tests.simulation.whole import threads
from tests.simulation.whole.bus import buses
from tests.simulation.whole.config import NodeKnobs, make_config, peer_url
from tests.simulation.whole.courier import SimSnapshots, write_image
from tests.simulation.whole.disk import Disk
from tests.simulation.whole.loop import Future, Loop, new_loop
from tests.simulation.whole.network import NodeNetwork
from tests.simulation.whole.rot import Asking, Waits
from tests.simulation.whole.world import MS, SECOND, Clock, Died, Process, Violation
from tests.support.failing_sqlite import FULL, IO_ERRORS, Failure

if TYPE_CHECKING:
    from tests.simulation.whole.cluster import SimCluster

WAL_HEADER_BYTES = 32  # SQLite's; its salts change when the file is begun anew
AT_ONCE = Patience(total_s=0.0)  # no time passes while a process begins
TURN = 20  # microseconds between two turns of a busy loop


class ConsensusHost:
    """The consensus process."""

    def __init__(self, node: SimNode) -> None:
        self.node = node
        self.process = Process(node.cluster.world, f"{node.name}.consensus", node.clock)
        self.driver: Driver | None = None
        self.parts: Node | None = None
        self.loop: Loop | None = None
        self.is_removed = False
        self.process.after_event = self._after_event

    def boot(self) -> None:
        self.is_removed = False  # what the process before knew of it may not be on the disk
        node = self.node
        cluster = node.cluster
        process = self.process
        self.loop = new_loop(process)
        help_ = Help(node.asking.ask) if cluster.may_rot else None
        start = bootstrap.start(node.config, cluster.fetch_members, node.knobs.segment_bytes, help_, AT_ONCE)
        node.member_id, node.cluster_id = start.meta.member_id, start.meta.membership.cluster_id
        cluster.network.by_id[node.member_id] = node
        cluster.ledger.watch_log(node, start.wal)
        endpoint = Endpoint(node.config.run_path, Address(Part.CONSENSUS))
        parts = self.parts = assemble(node.config, start, endpoint, random.Random(process.rng.getrandbits(48)))
        driver = self.driver = parts.driver
        core = driver.core._state
        core.config = replace(core.config, apply_bytes_max=cluster.plan.links.apply_bytes_max)
        settings = PeerSettings(node.member_id, 1.0, 5000, cast("Any", None))
        driver.network = NodeNetwork(cluster.network, node)
        driver.network.update(driver.membership)
        driver.courier = SimSnapshots(node, self.loop, driver, settings)
        driver.on_removed = self._removed
        driver.start(1, hasten=start.is_new or process.rng.random() < 0.5)

    def turn_away(self, number: int) -> None:
        """A peer refuses to talk to a member that was removed; it may be here under another id by now."""
        if self.process.is_up and number == self.node.member_id:
            self.process.at(self.process.world.now, self._turned_away, number)

    def _turned_away(self, number: int) -> None:
        if number == self.node.member_id:  # the process may have begun with another id meanwhile
            self._removed()

    @property
    def has_healed(self) -> bool:
        """It serves, votes again if it did, and misses nothing."""
        driver, parts = self.driver, self.parts
        if driver is None or parts is None or parts.rejoining.is_recovering or parts.rebuilding.is_waiting:
            return False
        return driver.stream.has(max(1, driver.core.commit_index))

    def _removed(self) -> None:
        if not self.is_removed:
            self.is_removed = True
            self.process.soon(SECOND, self.node.leave)

    def hear(self, message: PeerMessage) -> None:
        """A message arrives."""
        if self.process.is_up:
            self.process.now(self._hear, message)

    def _hear(self, message: PeerMessage) -> None:
        if self.driver is not None:
            self.driver.hear([message])

    def take_snapshot(
        self, message: InstallSnapshot, membership: Membership, data: bytes, done: Callable[[], None]
    ) -> None:
        """A whole image has arrived."""
        assert self.driver is not None
        self.process.step()
        write_image(self.node, message.snapshot.index, data)
        self.process.step()
        self.driver.install_snapshot(message, membership)
        self.driver.turn()
        done()

    def _after_event(self) -> None:
        driver = self.driver
        if driver is None:
            return
        failure = cast("Future", driver.failure).error
        if failure is not None:
            raise failure
        if driver.impossible_messages:
            raise Violation(f"{self.node.name} was told what no member says")
        self.node.cluster.ledger.look(self.node, driver.core)


class TurnHost:
    """A process whose loop is a row of turns."""

    idle_ms = 1  # how long it waits when nothing is due

    def __init__(self, node: SimNode, name: str) -> None:
        self.node = node
        self.process = Process(node.cluster.world, f"{node.name}.{name}", node.clock)
        self._due = 0  # counts what was planned: only the last plan is carried out
        self._is_due_now = False

    def turn(self, _is_quiet: bool) -> None:
        raise AssertionError("a host knows its turn")

    def serve(self, endpoint: Endpoint) -> None:
        """Turns from now on, and whenever something arrives."""
        buses[0].by_descriptor[endpoint.fileno()].notify = self.notify
        self._is_due_now = False
        self.notify()

    def notify(self) -> None:
        if not self._is_due_now:
            self._is_due_now = True
            self._plan(TURN, False)

    def _plan(self, delay: int, is_quiet: bool) -> None:
        self._due += 1
        self.process.soon(delay, self._run, self._due, is_quiet)

    def _run(self, due: int, is_quiet: bool) -> None:
        if due != self._due:
            return
        process = self.process
        self._is_due_now = False
        process.waits_ms = -1
        self.turn(is_quiet)
        if self._is_due_now:
            return
        waits_ms = process.waits_ms
        if waits_ms > 0 and (not is_quiet or waits_ms >= self.idle_ms):  # then nothing was left to be done either
            self._plan(waits_ms * MS, True)
        else:
            self._is_due_now = True
            self._plan(TURN, False)


class StorageHost(TurnHost):
    """The storage process."""

    idle_ms = IDLE_MS

    def __init__(self, node: SimNode) -> None:
        super().__init__(node, "storage")
        self.state: State | None = None
        self.service: Storage | None = None
        self.is_full = False
        self.failing = 0.0  # share of SQLite's `failing_calls` that fail
        self.failing_calls: tuple[str, ...] = ()
        self._failures = 0
        self._dice = random.Random(f"{node.cluster.world.seed} database of {node.name}")
        self.process.on_end = lambda why: None

    def boot(self) -> None:
        self._open(None)

    def _open(self, image: Path | None) -> None:
        """As storage's main function does: a damaged image is left, a damaged database goes aside."""
        if image is not None:
            with suppress(images.BadImage) if self.node.cluster.may_rot else nullcontext():
                images.install(image, self.node.config.database_path)
        try:
            self._begin()
        except (DamagedDatabase, sqlite3.DatabaseError) as error:
            self._set_aside(error)

    def _set_aside(self, error: Exception) -> None:
        if not self.node.cluster.may_rot or (isinstance(error, sqlite3.DatabaseError) and not tells_damage(error)):
            raise error
        path = self.node.config.database_path
        state, service, self.state, self.service = self.state, self.service, None, None
        if service is not None:
            service.close()
            service.endpoint.close()
        if state is not None:
            state.database.connection.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        self._begin(is_anew=True)

    def _begin(self, *, is_anew: bool = False) -> None:
        node = self.node
        path = node.config.database_path
        process = self.process
        threads.wake_ups[process] = self.notify
        config = node.config
        self.state = State(path, lease_ttl_min(config.election_timeout), config.auth_token_ttl * 1000, process.time())
        self._guard_space(self.state)
        endpoint = Endpoint(config.run_path, Address(Part.STORAGE))
        clock = _ProcessClock(process)
        self.service = Storage(self.state, endpoint, config, clock, logs.named("storage"), is_anew=is_anew)
        node.cluster.ledger.watch_storage(node, self.service)
        self.serve(endpoint)

    def _guard_space(self, state: State) -> None:
        """Its transactions fail while the disk is full; and what a checkpoint has synced of the WAL is noted."""
        write = state.database._write
        run_checkpoint = state.database._run_checkpoint
        log = self._log_path()
        self._synced = log.read_bytes() if log.exists() else b""  # the checkpoint at the start is over

        def checkpointed() -> None:
            before = self._failures
            run_checkpoint()
            if self._failures == before:
                self._synced = log.read_bytes() if log.exists() else b""

        def guarded() -> bool:
            if self.is_full and state.database.is_dirty:
                raise _no_space()
            return write()

        state.database._write = guarded  # type: ignore[method-assign]
        state.database._run_checkpoint = checkpointed  # type: ignore[method-assign]

    _synced = b""

    def decide(self, call: str) -> Failure | None:
        """Whether SQLite's next write or sync fails: with EIO, or for want of space."""
        if not self.failing or call not in self.failing_calls or self._dice.random() >= self.failing:
            return None
        self._failures += 1
        if call == "write" and self._dice.random() < 0.3:
            return Failure(FULL)
        return Failure(IO_ERRORS[call], self._dice.choice((0.0, 0.5, 1.0)))

    def _log_path(self) -> Path:
        path = self.node.config.database_path
        return path.with_name(path.name + "-wal")

    def _keep(self, tail: bytes, rng: random.Random) -> bytes:
        """What a loss of power leaves of the WAL: all that was synced of it, and a part of the rest."""
        synced = self._synced
        is_same = tail[:WAL_HEADER_BYTES] == synced[:WAL_HEADER_BYTES]  # else it was begun anew
        floor = len(synced) if is_same and tail.startswith(synced) else 0
        return tail[: rng.choice((floor, len(tail), rng.randint(floor, len(tail))))]

    def turn(self, is_quiet: bool) -> None:
        service = self.service
        assert service is not None
        self.process.is_quiet = is_quiet
        try:
            service.turn(IDLE_MS)
        except (DamagedDatabase, sqlite3.DatabaseError) as error:
            self._set_aside(error)
            return
        if service.is_stopping:
            assert self.state is not None
            image = service.images.to_install
            service.close()
            service.endpoint.close()
            self.state.close()
            self.state = self.service = None
            self._open(image)

    def lose(self, power: bool, rng: random.Random) -> None:
        """What the end of the process leaves of the database: what was committed, or less after a loss of power."""
        state, self.state, self.service = self.state, None, None
        if state is None:
            return
        path = self.node.config.database_path
        log = self._log_path()
        data, tail = path.read_bytes(), log.read_bytes() if log.exists() else b""
        state.database.connection.close()
        for leftover in (log, path.with_name(path.name + "-shm")):
            leftover.unlink(missing_ok=True)
        if power:
            tail = self._keep(tail, rng)
        path.write_bytes(data)
        if tail:
            log.write_bytes(tail)


class WatchHost(TurnHost):
    """The watch process."""

    def __init__(self, node: SimNode) -> None:
        super().__init__(node, "watch")
        self.service: Watch | None = None

    def boot(self) -> None:
        endpoint = Endpoint(self.node.config.run_path, Address(Part.WATCH))
        self.service = Watch(endpoint, self.node.config, _ProcessClock(self.process), logs.named("watch"))
        self.serve(endpoint)

    def turn(self, _is_quiet: bool) -> None:
        assert self.service is not None
        self.service.turn(250)


class ApiHost:
    """The part of an api process behind its sockets: the ring and the watches. Clients call it."""

    def __init__(self, node: SimNode) -> None:
        self.node = node
        self.process = Process(node.cluster.world, f"{node.name}.api", node.clock)
        self.ring: Ring | None = None
        self.watches: Watches | None = None
        self.callers: Callers | None = None
        self.loop: Loop | None = None
        self.on_end: dict[int, Callable[[], None]] = {}  # clients with a connection
        self.process.on_end = lambda _why: self._hang_up()

    def boot(self) -> None:
        self.loop = new_loop(self.process)
        config = self.node.config
        ring = Ring(Endpoint(config.run_path, Address(Part.API)), config.election_timeout / 1000)
        watches = Watches(ResponseHeaders(ring).at)

        def send(*parts: bytes) -> None:
            ring.watch.send(Kind.WATCH, *parts)
            ring.flush_soon()

        ring.on_message(Part.WATCH, Kind.DELIVER, watches.deliver)
        ring.on_open(Part.WATCH, lambda _hello: watches.opened(send))
        self.callers = Callers(ring, self.node.cluster.signer, config.auth_token_ttl)
        self.ring, self.watches = ring, watches

    @property
    def is_open(self) -> bool:
        """A client can connect."""
        return self.process.is_up and self.ring is not None and self.ring.is_ready

    def _hang_up(self) -> None:
        ended, self.on_end = self.on_end, {}
        self.ring = self.watches = self.callers = None
        for tell in ended.values():
            self.node.cluster.world.after(MS, tell)


class SimNode:
    """A machine of the cluster: clock, disk, processes and whoever starts them again."""

    def __init__(
        self, cluster: SimCluster, number: int, founders: dict[str, int], state: str, knobs: NodeKnobs
    ) -> None:
        world = cluster.world
        self.cluster = cluster
        self.number = number
        self.name = f"n{number}"
        self.knobs = knobs
        self.founders = founders
        self.initial_state = state
        self.rng = random.Random(f"{world.seed} node {number}")
        self.clock = Clock(world, self.rng.randrange(1, 1000) * SECOND)
        self.disk = Disk(random.Random(f"{world.seed} disk {number}"))
        self.member_id = self.cluster_id = 0
        self.asking = Asking(self)
        self.has_rotted = False
        self.is_gone = False  # removed from the cluster
        self.down_until = 0
        self.configure()
        self.consensus = ConsensusHost(self)
        self.storage = StorageHost(self)
        self.watch = WatchHost(self)
        self.api = ApiHost(self)
        self.hosts = (self.consensus, self.storage, self.watch, self.api)
        for host in self.hosts:
            self._mind(host)

    def configure(self) -> None:
        self.config = make_config(
            self.cluster.base, self.name, self.number, self.founders, self.initial_state, self.knobs
        )

    def start(self) -> None:
        """Switches the machine on."""
        for host in self.hosts:
            if not host.process.is_up:
                self._start(host)

    def kill(self, part: str) -> None:
        """Ends one process; it is started again."""
        host = cast("ConsensusHost", getattr(self, part))
        host.process.end(None)

    def crash(self, power: bool, back_after: int) -> None:
        """Ends everything on the machine at once; with a loss of power what was not synced may be gone."""
        self.down_until = self.cluster.world.now + back_after
        self._had_power_loss = power
        for host in self.hosts:
            host.process.end(None)
        if power:
            self.disk.lose_power()
        self.cluster.world.after(back_after, self._back)

    def leave(self) -> None:
        """Removed from the cluster: it never comes back."""
        self.is_gone = True
        for host in self.hosts:
            host.process.end(None)

    _had_power_loss = False

    def _back(self) -> None:
        if not self.is_gone and self.cluster.world.now >= self.down_until:
            self.start()

    def _start(self, host: Any) -> None:
        if self.is_gone or host.process.is_up or self.cluster.world.now < self.down_until:
            return
        host.process.begin(host.boot)

    def _mind(self, host: Any) -> None:
        """The supervisor: what ends is started again, and what ended for a bad reason is a finding."""
        told = host.process.on_end

        def ended(why: BaseException | None) -> None:
            told(why)
            if host is self.storage:
                self.storage.lose(self._had_power_loss and why is None, self.rng)
            elif host is self.consensus:
                self.consensus.driver = self.consensus.parts = None
                if not isinstance(why, Waits):
                    self.asking.forget()
                self.cluster.ledger.ended(self)
            self._judge(why, host)
            if not self.is_gone:
                self.cluster.world.after(self.rng.randint(20, 800) * MS, self._start, host)

        host.process.on_end = ended

    def _judge(self, why: BaseException | None, host: Any) -> None:
        if why is None or isinstance(why, Died | Waits):
            return
        if isinstance(why, LogFailed | NoSpace | DamagedLog | StartAgain) and (
            self.cluster.may_fail or self.has_rotted
        ):
            return
        if isinstance(why, OSError | OperatorError | sqlite3.OperationalError) and self.cluster.may_fail:
            self.cluster.refusals.append(f"{host.process.name}: {why}")
            return
        is_joining = self.initial_state == "existing" and not self.member_id
        if isinstance(why, OperatorError) and is_joining:
            self.cluster.refusals.append(f"{host.process.name}: {why}")
            self._mend_flags()
            return  # nobody who answers has heard of it yet: it ends, and asks again
        raise Violation(f"{host.process.name} ended: {type(why).__name__}: {why}") from why

    def _mend_flags(self) -> None:
        """What --initial-cluster says may have been true no longer when the machine was switched on."""
        leader = self.cluster.leader()
        driver = leader.consensus.driver if leader is not None else None
        if driver is not None:
            urls = {url for member in driver.membership.ordered() for url in member.peer_urls}
            members = [node for node in self.cluster.nodes if peer_url(node.number) in urls]
            if self in members:
                self.founders = {node.name: node.number for node in members}
                self.configure()

    def has_leases(self) -> bool:
        state = self.storage.state
        return state is not None and bool(state.lessor.leases)

    def as_members(self) -> Known:
        """What it tells a node that wants to join or to found."""
        driver = self.consensus.driver
        if driver is None or not self.consensus.process.is_up:
            raise OSError("connection refused")
        known = driver.membership
        is_current = driver.network.has_leader and not driver.core.awaits_commit
        return Known(known.cluster_id, known.ordered(), driver.seen_index if is_current else 0)


class _ProcessClock:
    def __init__(self, process: Process) -> None:
        self.monotonic = process.time


def _no_space() -> Exception:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    return error
