"""One run: a cluster, its clients, a plan of faults, then silence, and the verdict."""

from __future__ import annotations

import asyncio
import random
import time
import traceback
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from quorate.proto import rpc_pb2
from tests.chaos import of_damage, of_machines, of_network, of_operators, of_processes
from tests.chaos.calls import AsyncCaller, refusal
from tests.chaos.cluster import Battlefield, battlefield
from tests.chaos.crowd import Crowd
from tests.chaos.faults import FAULTS, Fault, NotNow
from tests.chaos.people import Person, Stranger
from tests.chaos.plan import Planned, draw
from tests.chaos.record import Record
from tests.chaos.registers import Registers
from tests.chaos.tenants import Locker, Lodger
from tests.chaos.wardens import GUEST, WORKER, Guest, Warden
from tests.chaos.watchers import Collector, Watcher

KINDS: Final = (of_damage, of_machines, of_network, of_operators, of_processes)  # they enter their faults when imported
CLIENTS: Final = 48  # of registers
TIMEOUTS_S: Final = (1.0, 2.0, 8.0)
RATE: Final = 3000.0  # operations per second that clients aim at together
POLL_S: Final = 0.05
LOOK_AGAIN_S: Final = 1.0
CONVERGES_WITHIN_S: Final = 90.0
FAULTS_END_WITHIN_S: Final = 120.0
SERVED_AFTERWARDS: Final = 500  # operations, when all faults are over
LEASES_END_WITHIN_S: Final = 30.0


@dataclass(slots=True)
class Clients:
    """Everybody who speaks with the cluster during a run."""

    crowd: Crowd
    registers: list[Registers] = field(default_factory=list)
    lodgers: list[Lodger] = field(default_factory=list)
    lockers: list[Locker] = field(default_factory=list)
    watchers: list[Watcher] = field(default_factory=list)
    collectors: list[Collector] = field(default_factory=list)
    guests: list[Guest] = field(default_factory=list)
    warden: Warden | None = None  # where there are users
    callers: list[AsyncCaller] = field(default_factory=list)

    def work(self) -> Iterator[Coroutine[Any, Any, None]]:
        """What those do who stop when they are told."""
        for register in self.registers:
            yield register.run()
        for tenant in (*self.lodgers, *self.lockers):
            yield tenant.run()
        for guest in self.guests:
            yield guest.run()
        if self.warden is not None:
            yield self.warden.run()
        for watcher in self.watchers:
            yield watcher.run()

    async def collected(self, revision: int) -> None:
        """Return when every collector has seen the revision."""
        while any(each.next_revision <= revision for each in self.collectors):  # noqa: ASYNC110 - counters
            await asyncio.sleep(POLL_S)

    @classmethod
    def made(cls, ground: Battlefield, seconds: float) -> Clients:
        crowd = Crowd(ground.seed, RATE)
        clients = cls(crowd)
        worker = Person(WORKER)
        places = [[(node, AsyncCaller(node.endpoint, worker)) for node in ground.nodes] for _ in range(2)]
        clients.callers += [caller for row in places for _, caller in row]
        for name in range(CLIENTS):
            home = name % len(ground.nodes)
            row = places[name % 2]
            # Every third one stays: somebody has to be there when its member is back.
            reached = [*row[home:], *row[:home]] if name // len(ground.nodes) % 3 else [row[home]]
            clients.registers.append(Registers(crowd, name, reached, TIMEOUTS_S[name % len(TIMEOUTS_S)]))
        for number, node in enumerate(ground.nodes):
            callers = [AsyncCaller(node.endpoint, worker) for _ in range(2)]
            clients.callers += callers
            clients.lodgers += [Lodger(crowd, 1000 + 10 * number + n, callers[0]) for n in range(2)]
            clients.lockers += [Locker(crowd, 2000 + 10 * number + n, callers[0]) for n in range(2)]
            clients.watchers += [Watcher(crowd, f"watcher {number}/{n}", callers[1]) for n in range(2)]
            clients.collectors.append(Collector(crowd, f"collector {number}", callers[1]))
        crowd.clients = len(clients.registers)
        if ground.users is not None:
            operators = list(ground.callers.values())
            clients.warden = warden = Warden(crowd, operators, ground.users.begin_share * seconds)
            known, strangers = Person(GUEST), (Stranger(""), Stranger("", "made.up"))
            for number, node in enumerate(ground.nodes):
                for n, person in enumerate((known, known, strangers[number % 2])):
                    caller = AsyncCaller(node.endpoint, person)
                    clients.callers.append(caller)
                    clients.guests.append(Guest(crowd, 3000 + 10 * number + n, caller, warden))
        return clients


async def run(seed: int, seconds: float, size: int = 3) -> Record:
    """Break a cluster for so long and judge it; what is found is in the record, and kept on disk."""
    async with battlefield(seed, size) as ground:
        clients = Clients.made(ground, seconds)
        ground.compactable = lambda: clients.crowd.last_seen
        faults: Counter[str] = Counter()
        async with asyncio.TaskGroup() as group:
            watching = [group.create_task(ground.watch_over()), group.create_task(of_machines.watch_room(ground))]
            collecting = [group.create_task(collector.run()) for collector in clients.collectors]
            began = time.monotonic()
            working = [group.create_task(_without_excuse(ground, work)) for work in clients.work()]
            await _break(ground, seconds, faults)
            ground.network.heal()
            await _served_again(ground, clients.crowd)
            clients.crowd.stopping.set()
            await asyncio.gather(*working)
            lasted = time.monotonic() - began
            await _settle(ground, clients)
            for task in (*watching, *collecting):
                task.cancel()
        _judge_failures(ground, clients)
        record = Record.made(ground, clients, faults, seconds, lasted)
        for caller in clients.callers:
            await caller.close()
        await asyncio.to_thread(record.judge)
        if record.findings:
            ground.findings = record.findings  # so that its directory stays
        return record


async def _without_excuse(ground: Battlefield, work: Coroutine[Any, Any, None]) -> None:
    """A client that fails on its own is a finding, not the end of the run."""
    try:
        await work
    except Exception as error:  # whatever it is, the other clients go on and the history is judged
        ground.finding(f"a client failed: {error!r}")


async def _break(ground: Battlefield, seconds: float, faults: Counter[str]) -> None:
    possible = [fault for fault in FAULTS.values() if not fault.need(ground)]
    for fault in FAULTS.values():
        if fault not in possible:
            ground.note(f"left out: {fault.name}, as {fault.need(ground)}")
    lanes = draw(ground.seed, seconds, possible)
    began = asyncio.get_running_loop().time()
    under_way: list[str] = []
    try:
        async with asyncio.timeout(seconds + FAULTS_END_WITHIN_S), asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(_lane(ground, lane, (began, began + seconds), faults, under_way))
    except TimeoutError:
        ground.finding(f"faults did not end in {FAULTS_END_WITHIN_S} s: {under_way}")


async def _lane(
    ground: Battlefield, lane: list[Planned], when: tuple[float, float], faults: Counter[str], under_way: list[str]
) -> None:
    """Fault after fault; on a slow machine the last ones do not come any more."""
    loop = asyncio.get_running_loop()
    began, ends = when
    for planned in lane:
        await asyncio.sleep(began + planned.begins - loop.time())
        if loop.time() > ends:
            return
        under_way.append(planned.fault.name)
        if await _one(ground, planned.fault, random.Random(planned.seed), planned.seconds):
            faults[planned.fault.name] += 1
        under_way.remove(planned.fault.name)


async def _one(ground: Battlefield, fault: Fault, dice: random.Random, seconds: float) -> bool:
    """Whether the fault found its victim, within the time it was to last."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while True:
        try:
            await fault.act(ground, dice, seconds)
        except NotNow:
            if loop.time() >= until:
                return False
            await asyncio.sleep(LOOK_AGAIN_S)
        except Exception:  # the other faults go on, and what was done up to now is kept with the finding
            ground.finding(f"the fault {fault.name!r} failed on its own:\n{traceback.format_exc()}")
            return False
        else:
            return True


async def _served_again(ground: Battlefield, crowd: Crowd) -> None:
    """Some traffic after the last fault."""
    target = crowd.done + SERVED_AFTERWARDS
    try:
        async with asyncio.timeout(CONVERGES_WITHIN_S):
            while crowd.done < target:  # noqa: ASYNC110 - a counter of many clients
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        ground.finding(f"clients were not served after the last fault: {crowd.failures}")


async def _settle(ground: Battlefield, clients: Clients) -> None:
    """Faults are over: every member accepts a write and knows everything, and all leases end."""
    try:
        async with asyncio.timeout(CONVERGES_WITHIN_S):
            await of_machines.disarm(ground)
            last = 0
            for node in ground.nodes:
                last = max(last, await _put_until_accepted(ground, node.name))
            await clients.collected(last)
            while not await _everyone_votes(ground):  # noqa: ASYNC110 - the state of another process
                await asyncio.sleep(0.2)
    except TimeoutError:
        ground.finding(f"the cluster did not converge in {CONVERGES_WITHIN_S} s")
        ground.note_processes()
        return
    try:
        async with asyncio.timeout(LEASES_END_WITHIN_S):
            while await _leases(ground):  # noqa: ASYNC110 - the state of another process
                await asyncio.sleep(0.2)
    except TimeoutError:
        ground.finding(f"leases that nobody renews are still there: {await _leases(ground)}")
    await _compare(ground, clients)


async def _put_until_accepted(ground: Battlefield, name: str) -> int:
    request = rpc_pb2.PutRequest(key=b"final", value=name.encode())
    while True:
        try:
            return int((await ground.callers[name].unary("KV/Put", request, 5.0)).header.revision)
        except grpc.RpcError as error:
            ground.note(f"final put at {name}: {' '.join(refusal(error))}")
            if "space exceeded" in refusal(error)[1]:
                await of_machines.disarm(ground)
        await asyncio.sleep(0.2)


async def _everyone_votes(ground: Battlefield) -> bool:
    members = await ground.members(ground.nodes)
    return members is not None and len([m for m in members if not m.isLearner]) == len(ground.nodes) == len(members)


async def _leases(ground: Battlefield) -> list[int]:
    try:
        caller = ground.callers[ground.nodes[0].name]
        answer = await caller.unary("Lease/LeaseLeases", rpc_pb2.LeaseLeasesRequest(), 5.0)
    except grpc.RpcError:
        return [-1]
    return [status.ID for status in answer.leases]


async def _compare(ground: Battlefield, clients: Clients) -> None:
    """All members have the same content at the last revision, by hash and key by key."""
    try:
        last = await _put_until_accepted(ground, ground.nodes[0].name)
        await clients.collected(last)
        hashes, contents = {}, {}
        for node in ground.nodes:
            caller = ground.callers[node.name]
            answer = await caller.unary("Maintenance/HashKV", rpc_pb2.HashKVRequest(revision=last), 20.0)
            hashes[node.name] = (answer.hash, answer.compact_revision)
            read = rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0", serializable=True)
            contents[node.name] = [kv.SerializeToString() for kv in (await caller.unary("KV/Range", read, 20.0)).kvs]
    except grpc.RpcError as error:
        ground.finding(f"a member does not answer in the end: {refusal(error)}")
        return
    if len(set(hashes.values())) > 1:
        ground.finding(f"the hashes differ: {hashes}")
    first = contents[ground.nodes[0].name]
    if any(content != first for content in contents.values()):
        ground.finding("the contents differ")


TRACE: Final = "Traceback"
TRACE_CHARACTERS: Final = 3000


def _judge_failures(ground: Battlefield, clients: Clients) -> None:
    for text, count in clients.crowd.unexpected.items():
        ground.finding(f"{count} times an answer that nobody expects: {text}")
    for node in ground.nodes:
        for line in node.log_path.read_text(errors="replace").splitlines():
            if TRACE in line:
                (ground.note if node.may_trace else ground.finding)(f"log of {node.name}: {line[:TRACE_CHARACTERS]}")
