"""Faults of processes: killed, paused and asked to end, one by one, node by node and all at once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import AsyncExitStack, suppress
from functools import partial

from bench import processes
from tests.chaos.cluster import Battlefield, Member, until_ready
from tests.chaos.faults import NotNow, anyone_free, fault, several, victim
from tests.support.cluster import SERVICES, Service, service_pids

KILLS_MAX = 3  # of one service in a row: it may still be starting


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


async def kill_service(service: Service, field: Battlefield, dice: random.Random, seconds: float) -> None:
    node = await victim(field, dice)
    for _ in range(dice.randrange(KILLS_MAX) + 1):
        pids = service_pids(node, service)
        field.note(f"kill {service} of {node.name} {pids}")
        _signal(pids, signal.SIGKILL)
        await asyncio.sleep(min(seconds, 1.5))


async def pause_service(service: Service, field: Battlefield, dice: random.Random, seconds: float) -> None:
    node = await victim(field, dice)
    await _pause(field, node, service_pids(node, service), service, seconds)


async def _pause(field: Battlefield, node: Member, pids: list[int], what: str, seconds: float) -> None:
    field.note(f"pause {what} of {node.name}")
    _signal(pids, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        alive = set(processes.marked(node.mark))
        _signal([pid for pid in pids if pid in alive], signal.SIGCONT)
        field.note(f"continue {what} of {node.name}")


for _service in SERVICES:
    fault(f"kill {_service}")(partial(kill_service, _service))
    fault(f"pause {_service}")(partial(pause_service, _service))


@fault("stutter")
async def stutter(field: Battlefield, dice: random.Random, seconds: float) -> None:
    """A process that runs now and then, as on an overloaded machine."""
    node, service = await victim(field, dice), dice.choice(SERVICES)
    field.note(f"stutter {service} of {node.name}")
    ends = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < ends:
        pids = service_pids(node, service)
        _signal(pids, signal.SIGSTOP)
        try:
            await asyncio.sleep(dice.uniform(0.05, 0.4))
        finally:
            alive = set(processes.marked(node.mark))
            _signal([pid for pid in pids if pid in alive], signal.SIGCONT)
        await asyncio.sleep(dice.uniform(0.01, 0.2))


@fault("pause node")
async def pause_node(field: Battlefield, dice: random.Random, seconds: float) -> None:
    node = await victim(field, dice)
    await _pause(field, node, processes.marked(node.mark), "all", seconds)


@fault("pause all nodes")
async def pause_all(field: Battlefield, dice: random.Random, seconds: float) -> None:
    async with asyncio.TaskGroup() as group:
        for node in field.nodes:
            await asyncio.sleep(dice.random() * 0.1)
            group.create_task(_pause(field, node, processes.marked(node.mark), "all", min(seconds, 3.0)))


@fault("kill supervisor")
async def kill_supervisor(field: Battlefield, dice: random.Random, seconds: float) -> None:
    """The kernel ends the services with it; who watches over nodes starts it again."""
    node = await victim(field, dice)
    if node.busy.locked():
        raise NotNow
    node.stopped_by.append("kill supervisor")
    try:
        field.note(f"kill the supervisor of {node.name}")
        if node.process is not None:
            node.process.kill()
        await asyncio.sleep(max(1.0, seconds))
    finally:
        node.stopped_by.remove("kill supervisor")


async def down(field: Battlefield, node: Member, seconds: float, how: str) -> None:
    """A node that is away for a while; its lock is held already."""
    field.note(f"{how} {node.name}")
    if how == "stop":
        if node.process is not None:
            node.process.terminate()
        await asyncio.to_thread(node.stop)
    else:
        await asyncio.to_thread(node.kill)
    try:
        await asyncio.sleep(seconds)
    finally:
        field.note(f"start {node.name}")
        node.start()


@fault("kill node", weight=2)
async def kill_node(field: Battlefield, dice: random.Random, seconds: float) -> None:
    node = anyone_free(field, dice)
    async with node.busy:
        await down(field, node, seconds, "kill")


@fault("kill leader node")
async def kill_leader(field: Battlefield, dice: random.Random, seconds: float) -> None:
    node = await field.leader(1.0)
    if node is None or node.busy.locked():
        raise NotNow
    async with node.busy:
        await down(field, node, seconds, "kill")


@fault("stop leader node")
async def stop_leader(field: Battlefield, dice: random.Random, seconds: float) -> None:
    node = await field.leader(1.0)
    if node is None or node.busy.locked():
        raise NotNow
    async with node.busy:
        await down(field, node, seconds, "stop")


@fault("kill all nodes")
async def kill_all(field: Battlefield, dice: random.Random, seconds: float) -> None:
    async with AsyncExitStack() as stack:
        for node in field.nodes:
            await stack.enter_async_context(node.busy)
        field.note("kill all nodes")
        await asyncio.gather(*(asyncio.to_thread(node.kill) for node in field.nodes))
        for node in field.nodes:
            node.start()


@fault("rolling restart", several)
async def rolling_restart(field: Battlefield, dice: random.Random, seconds: float) -> None:
    for node in dice.sample(field.nodes, len(field.nodes)):
        async with node.busy:
            await down(field, node, 0.0, dice.choice(("stop", "kill")))
        await until_ready(field, node, 10.0)
