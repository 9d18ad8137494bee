"""Faults of machines: power that fails, disks that fail, fill up or take their time, clocks that jump."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import cache, partial
from typing import Final

import grpc

from bench.servers import Product
from quorate.proto import rpc_pb2
from tests.chaos.cluster import Battlefield, Member
from tests.chaos.disks import why_no_disks
from tests.chaos.faults import NotNow, anyone_free, fault, victim
from tests.support.cluster import Service, service_pids
from tests.support.time import FAKETIME_LIBRARY, time_namespaces

TRACER_ENDS_S: Final = 5.0
LOOK_AGAIN_S: Final = 1.0
BALLAST: Final = "ballast"


def _no_disks(field: Battlefield) -> str:
    return "" if field.has_disks else why_no_disks() or "this run has no disks of its own"


@fault("power failure of all nodes", _no_disks, weight=2)
async def power_failure(field: Battlefield, dice: random.Random, seconds: float) -> None:
    await _lose_power(field, list(field.nodes), seconds if dice.random() < 0.3 else 0.0)


@fault("power failure of a node", _no_disks)
async def power_failure_of_one(field: Battlefield, dice: random.Random, seconds: float) -> None:
    await _lose_power(field, [anyone_free(field, dice)], seconds)


async def _lose_power(field: Battlefield, nodes: list[Member], seconds: float) -> None:
    async with AsyncExitStack() as stack:
        for node in nodes:
            await stack.enter_async_context(node.busy)
        field.note(f"power failure of {' '.join(node.name for node in nodes)}")
        await asyncio.gather(*(asyncio.to_thread(node.kill) for node in nodes))
        try:
            for node in nodes:
                if node.disk is not None:
                    await asyncio.to_thread(node.disk.cut_power)
            await asyncio.sleep(seconds)
        finally:
            for node in nodes:
                node.start()


@fault("full disk", _no_disks)
async def full_disk(field: Battlefield, dice: random.Random, seconds: float) -> None:
    node = anyone_free(field, dice)
    assert node.disk is not None
    ballast = node.disk.mount_point / BALLAST
    field.note(f"the disk of {node.name} is full")
    node.stopped_by.append("full disk")
    node.may_trace = True
    try:
        await asyncio.to_thread(_fill, str(ballast))
        await asyncio.sleep(seconds)
    finally:
        ballast.unlink(missing_ok=True)
        await asyncio.shield(asyncio.ensure_future(_there_is_room(field, node)))
        node.stopped_by.remove("full disk")


def _fill(path: str) -> None:
    """Take all room that is left, in steps that become smaller."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    size, step = 0, 64 << 20
    try:
        while step >= 4096:
            try:
                os.posix_fallocate(descriptor, size, step)
                size += step
            except OSError:
                step //= 4
    finally:
        os.close(descriptor)


async def _there_is_room(field: Battlefield, node: Member) -> None:
    """What an operator does then: disarm the alarm."""
    await disarm(field)
    field.note(f"the disk of {node.name} has room")


async def watch_room(field: Battlefield) -> None:
    """Take alarms back that are left over when all disks have room; never returns.

    A power cut may bring back the ballast that had been removed before.
    """
    while True:
        await asyncio.sleep(LOOK_AGAIN_S)
        for node in field.nodes:
            if node.disk is not None and "full disk" not in node.stopped_by:
                (node.disk.mount_point / BALLAST).unlink(missing_ok=True)
        if not any("full" in why or "ENOSPC" in why for node in field.nodes for why in node.stopped_by):
            await disarm(field)


async def disarm(field: Battlefield) -> None:
    """Take back all alarms of full disks, as far as somebody answers."""
    request = rpc_pb2.AlarmRequest(action=rpc_pb2.AlarmRequest.GET)
    for caller in field.callers.values():
        try:
            for alarm in (await caller.unary("Maintenance/Alarm", request, 2.0)).alarms:
                off = rpc_pb2.AlarmRequest(
                    action=rpc_pb2.AlarmRequest.DEACTIVATE, memberID=alarm.memberID, alarm=alarm.alarm
                )
                await caller.unary("Maintenance/Alarm", off, 2.0)
            return
        except grpc.RpcError:
            continue


# --- system calls that fail or take long ------------------------------------------------------------------------------


@cache
def why_no_injection() -> str:
    """Why system calls cannot be tampered with here; empty if they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    trial = ["strace", "-qq", "-o", "/dev/null", "-e", "inject=fdatasync:error=EIO", "true"]
    if subprocess.run(trial, capture_output=True, check=False, timeout=20).returncode:
        return "processes may not be traced"
    return ""


INJECTIONS: Final[Mapping[str, tuple[tuple[Service, ...], str]]] = {
    "EIO on sync": (("consensus", "storage"), "fdatasync,fsync:error=EIO:when={n}"),
    "EIO on write": (("consensus", "storage"), "pwrite64,write:error=EIO:when={n}"),
    "ENOSPC on write": (("consensus", "storage"), "pwrite64:error=ENOSPC:when={n}..{m}"),
    "slow sync": (("consensus", "storage"), "fdatasync,fsync:delay_exit={microseconds}"),
}


async def inject(name: str, field: Battlefield, dice: random.Random, seconds: float) -> None:
    services, rule = INJECTIONS[name]
    node, service = await victim(field, dice), dice.choice(services)
    pids = service_pids(node, service)
    if not pids:
        raise NotNow
    first = dice.randrange(1, 40)
    rule = rule.format(n=first, m=first + dice.randrange(1, 30), microseconds=dice.randrange(10_000, 400_000))
    calls = rule.partition(":")[0]
    field.note(f"{name}: {service} of {node.name}, {rule}")
    node.stopped_by.append(name)
    node.may_trace = node.may_trace or "slow" not in name
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(pids[0]), f"--trace={calls}", f"--inject={rule}"]
    tracer = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    try:
        await asyncio.sleep(seconds)
    finally:
        await _ended(tracer)
        field.note(f"{name} is over")
        if name.startswith("ENOSPC"):
            await disarm(field)
        node.stopped_by.remove(name)


async def _ended(tracer: asyncio.subprocess.Process) -> None:
    """It may be stuck when what it traces was stopped or killed in the wrong moment; the kernel lets go then."""
    for end in (tracer.terminate, tracer.kill):
        with suppress(ProcessLookupError, TimeoutError):
            if tracer.returncode is None:
                end()
            await asyncio.wait_for(tracer.wait(), TRACER_ENDS_S)
            return


for _name in INJECTIONS:
    fault(_name, lambda _: why_no_injection())(partial(inject, _name))


# --- clocks -----------------------------------------------------------------------------------------------------------


@fault("wall clock jumps at a restart", lambda _: "" if FAKETIME_LIBRARY else "libfaketime is not installed")
async def wall_clock(field: Battlefield, dice: random.Random, seconds: float) -> None:
    node = anyone_free(field, dice)
    jump_s = dice.choice((-86_400, -3600, -5, 5, 3600, 86_400 * 30))
    faked = {
        "LD_PRELOAD": FAKETIME_LIBRARY,
        "FAKETIME": f"{jump_s:+d}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    node.may_trace = True
    product = replace(node.plain, environment={**node.plain.environment, **faked})
    await _restart_as(field, node, product, f"{jump_s:+d} s")


@fault("monotonic clock jumps at a restart", lambda _: "" if time_namespaces() else "time namespaces take root")
async def monotonic_clock(field: Battlefield, dice: random.Random, seconds: float) -> None:
    node = anyone_free(field, dice)
    jump_s = str(dice.choice((1000, 86_400, 86_400 * 100)))
    elsewhere = ("unshare", "--time", "--monotonic", jump_s, "--boottime", jump_s)
    product = replace(node.plain, command=(*elsewhere, *node.plain.command))
    await _restart_as(field, node, product, f"monotonic +{jump_s} s")


async def _restart_as(field: Battlefield, node: Member, product: Product, what: str) -> None:
    async with node.busy:
        field.note(f"restart {node.name} with its clock at {what}")
        await asyncio.to_thread(node.kill)
        node.product = product
        node.start()
