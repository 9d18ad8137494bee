"""`lock` and `elect`: hold something until a signal comes, or for as long as a command runs."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

from quorate.client import methods
from quorate.client.aio import AsyncClient
from quorate.client.lease import AsyncLease
from quorate.client.lock import AsyncLock
from quorate.client.waiters import Hold
from quorate.ctl.commands import command
from quorate.ctl.failures import KILLED, Failure, bad_arguments
from quorate.ctl.flags import Switch, number
from quorate.ctl.printers import Printer
from quorate.ctl.settings import Settings
from quorate.proto import rpc_pb2 as rpc

TTL_S: Final = 10
ELECTION_TTL_S: Final = 60


@contextmanager
def stop_signals() -> Iterator[asyncio.Event]:
    """An event that is set when the process is asked to end."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for signum in numbers:
        loop.add_signal_handler(signum, stopped.set)
    try:
        yield stopped
    finally:
        for signum in numbers:
            loop.remove_signal_handler(signum)


async def first(*events: asyncio.Event) -> None:
    """Return when one of the events is set."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


@command("<name> [command arg ...]", number("--ttl", default=TTL_S, help="timeout for session"), keeps_dashes=True)
def lock(settings: Settings, words: tuple[str, ...], ttl: int) -> None:
    """Take a named lock and hold it until a signal comes, or while a command runs.

    The command finds ETCD_LOCK_KEY and ETCD_LOCK_REV in its environment; its exit status becomes ours.
    """
    words = tuple(word for position, word in enumerate(words) if word != "--" or "--" in words[:position])
    if not words:
        raise bad_arguments("lock takes a lock name argument and an optional command to execute")
    printer = settings.printer()
    program = words[1:]
    status = settings.run(lambda client: _hold(client, words[0], ttl, program, printer), unlimited=True)
    if status:
        raise Failure(f"exit status {status}", status)


async def _acquired(mutex: AsyncLock, stopped: asyncio.Event) -> Hold | None:
    taking = asyncio.create_task(mutex.acquire())
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait((taking, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if taking.done():
        return taking.result()
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
    return None


async def _hold(client: AsyncClient, name: str, ttl_s: int, program: tuple[str, ...], printer: Printer) -> int:
    with stop_signals() as stopped:
        async with await client.lease(ttl_s) as lease:
            mutex = client.lock_on(os.fsencode(name), lease)
            hold = await _acquired(mutex, stopped)
            if hold is None:
                raise Failure("context canceled")
            if program:
                return await _run(program, hold)
            found = await client.get(hold.key)
            if not found.kvs:
                raise Failure("lock lost on init")
            printer.get(found)
            await first(stopped, lease.lost)
            if not stopped.is_set():
                raise Failure("session expired")
            await mutex.release()
    return 0


async def _run(program: tuple[str, ...], hold: Hold) -> int:
    if shutil.which(program[0]) is None:
        raise Failure(f'exec: "{program[0]}": executable file not found in $PATH')
    environment = {"ETCD_LOCK_KEY": os.fsdecode(hold.key), "ETCD_LOCK_REV": str(hold.create_revision)}
    process = await asyncio.create_subprocess_exec(*program, env=os.environ | environment)
    status = await process.wait()
    if status < 0:
        raise Failure(f"signal: {signal.strsignal(-status) or -status}".lower(), KILLED)
    return status


@command("<name> [proposal]", Switch("-l", "--listen", help="observation mode"))
def elect(settings: Settings, words: tuple[str, ...], listen: bool) -> None:
    """Stand for an election with a proposal and lead until a signal comes, or observe one."""
    if not 1 <= len(words) <= 2:
        raise bad_arguments("elect takes one election name argument and an optional proposal argument")
    if len(words) == 1 and not listen:
        raise bad_arguments("no proposal argument but -l not set")
    if len(words) == 2 and listen:
        raise bad_arguments("proposal given but -l is set")
    printer = settings.printer()
    if listen:
        settings.run(lambda client: _observe(client, words[0], printer), unlimited=True)
    else:
        settings.run(lambda client: _campaign(client, words[0], words[1], printer), unlimited=True)


async def _observe(client: AsyncClient, name: str, printer: Printer) -> None:
    async def told(leaders: AsyncIterator[object]) -> None:
        async for kv in leaders:
            answer = rpc.RangeResponse(kvs=[kv], count=1)  # type: ignore[list-item]
            printer.get(answer)
        raise Failure("elect: observer lost")

    with stop_signals() as stopped:
        observing = asyncio.create_task(told(client.observe(os.fsencode(name))))
        stopping = asyncio.create_task(stopped.wait())
        done, _ = await asyncio.wait((observing, stopping), return_when=asyncio.FIRST_COMPLETED)
        for task in (observing, stopping):
            task.cancel()
        await asyncio.gather(observing, stopping, return_exceptions=True)
        if observing in done:
            observing.result()


async def _campaign(client: AsyncClient, name: str, proposal: str, printer: Printer) -> None:
    with stop_signals() as stopped:
        async with await client.lease(ELECTION_TTL_S) as lease:
            leading = asyncio.create_task(_lead(client, lease, name, proposal, printer))
            stopping = asyncio.create_task(stopped.wait())
            await asyncio.wait((leading, stopping), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not leading.done():
                leading.cancel()
                await asyncio.gather(leading, return_exceptions=True)
                return
            leading.result()


async def _lead(client: AsyncClient, lease: AsyncLease, name: str, proposal: str, printer: Printer) -> None:
    election = client.election(os.fsencode(name), lease)
    hold = await election.campaign(os.fsencode(proposal))
    printer.get(await client.call(methods.RANGE, rpc.RangeRequest(key=hold.key)))
    await lease.lost.wait()
    raise Failure("elect: session expired")
