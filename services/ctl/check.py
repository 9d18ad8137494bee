"""`check`: whether a cluster is fast enough and how much memory its data takes."""

import asyncio
import os
import re
import statistics
import time
from dataclasses import dataclass, field
from typing import Final
from urllib.request import urlopen

import click

from quorate.client import methods
from quorate.client.aio import AsyncClient
from quorate.ctl import go_text
from quorate.ctl.commands import PROGRAM, Group, command
from quorate.ctl.failures import BAD_FEATURE, ERROR, INVALID_INPUT, Failure
from quorate.ctl.flags import Switch, text
from quorate.ctl.printers import line
from quorate.ctl.settings import Settings
from quorate.proto import rpc_pb2 as rpc

DURATION_S: Final = 60.0
VALUE_BYTES: Final = 1024
KEY_TAIL_BYTES: Final = 256
SLOWEST_S: Final = 0.5
STDDEV_S: Final = 0.1
ENOUGH: Final = 0.9
PERF_LOADS: Final = {"s": (150, 50), "m": (1000, 200), "l": (8000, 500), "xl": (15000, 1000)}
SCALE_LOADS: Final = {"s": (10_000, 50), "m": (100_000, 200), "l": (1_000_000, 500), "xl": (3_000_000, 1000)}
NAMES: Final = {"small": "s", "medium": "m", "large": "l", "xLarge": "xl"}
MEMORY: Final = re.compile(rb"^process_resident_memory_bytes (\S+)", re.MULTILINE)


@click.group(cls=Group)
def check() -> None:
    """Check properties of a cluster."""


@dataclass(slots=True)
class Load:
    """Puts at a steady pace from several workers, and how long each took."""

    client: AsyncClient
    prefix: bytes
    count: int
    per_second: float | None  # None: as fast as they go
    seconds: list[float] = field(default_factory=list)
    _next: int = 0

    async def run(self, workers: int) -> float:
        """Put everything; how many seconds that took."""
        started = time.monotonic()
        await asyncio.gather(*(self._work(started) for _ in range(workers)))
        return time.monotonic() - started

    async def _work(self, started: float) -> None:
        while self._next < self.count:
            due = self._next
            self._next += 1
            if self.per_second is not None:
                await asyncio.sleep(max(0.0, started + due / self.per_second - time.monotonic()))
            key, value = self.prefix + os.urandom(KEY_TAIL_BYTES), os.urandom(VALUE_BYTES)
            sent = time.monotonic()
            await self.client.put(key, value)
            self.seconds.append(time.monotonic() - sent)


def _load(loads: dict[str, tuple[int, int]], name: str) -> tuple[int, int]:
    found = loads.get(NAMES.get(name, name))
    if found is None:
        raise Failure(f"unknown load option {name}", BAD_FEATURE)
    return found


async def _require_empty(client: AsyncClient, prefix: str) -> None:
    if (await client.get_prefix(prefix, limit=1)).kvs:
        shown = go_text.quote(prefix.encode())
        raise Failure(f"prefix {shown} has keys. Delete with {PROGRAM} del --prefix {prefix} first.", INVALID_INPUT)


async def _clean_up(client: AsyncClient, prefix: str, compact: bool, defrag: bool) -> None:
    revision = (await client.delete_prefix(prefix)).header.revision
    if compact:
        line(f"Compacting with revision {revision}")
        await client.compact(revision, physical=True)
        line(f"Compacted with revision {revision}")
    if defrag:
        for endpoint in client.connection.endpoints:
            line(f"Defragmenting {endpoint}")
            await client.call(methods.DEFRAGMENT, rpc.DefragmentRequest())
            line(f"Defragmented {endpoint}")


@command(
    "",
    text("--load", default="s", help="workload: s(small), m(medium), l(large), xl(xLarge)"),
    text("--prefix", default="/etcdctl-check-perf/", help="The prefix for writing the performance check's keys."),
    Switch("--auto-compact", help="Compact storage with last revision after test is finished."),
    Switch("--auto-defrag", help="Defragment storage after test is finished."),
)
def perf(
    settings: Settings, words: tuple[str, ...], load: str, prefix: str, auto_compact: bool, auto_defrag: bool
) -> None:
    """Write for a minute and judge throughput and response times."""
    per_second, workers = _load(PERF_LOADS, load)
    passed = settings.run(
        lambda client: measure(client, prefix, per_second, workers, DURATION_S, auto_compact, auto_defrag),
        unlimited=True,
    )
    if not passed:
        raise Failure("", ERROR)


async def measure(
    client: AsyncClient,
    prefix: str,
    per_second: float,
    workers: int,
    duration_s: float,
    compact: bool = False,
    defrag: bool = False,
) -> bool:
    """Whether a cluster keeps up with so many writes; says so, line by line."""
    await _require_empty(client, prefix)
    load = Load(client, prefix.encode(), int(per_second * duration_s), per_second)
    try:
        took_s = await load.run(workers)
    finally:
        await _clean_up(client, prefix, compact, defrag)
    return verdict(load.seconds, took_s, per_second)


def verdict(seconds: list[float], took_s: float, wanted: float) -> bool:
    """Judge response times and throughput, and print the judgement."""
    throughput = len(seconds) / took_s
    slowest, deviation = max(seconds), statistics.pstdev(seconds)
    fast, prompt, steady = throughput > wanted * ENOUGH, slowest <= SLOWEST_S, deviation <= STDDEV_S
    shown = int(throughput) + 1
    line(f"PASS: Throughput is {shown} writes/s" if fast else f"FAIL: Throughput too low: {shown} writes/s")
    line(f"PASS: Slowest request took {slowest:f}s" if prompt else f"Slowest request took too long: {slowest:f}s")
    line(f"PASS: Stddev is {deviation:f}s" if steady else f"Stddev too high: {deviation:f}s")
    passed = fast and prompt and steady
    line("PASS" if passed else "FAIL")
    return passed


@command(
    "",
    text("--load", default="s", help="workload: s(small), m(medium), l(large), xl(xLarge)"),
    text("--prefix", default="/etcdctl-check-datascale/", help="The prefix for writing the datascale check's keys."),
    Switch("--auto-compact", help="Compact storage with last revision after test is finished."),
    Switch("--auto-defrag", help="Defragment storage after test is finished."),
)
def datascale(
    settings: Settings, words: tuple[str, ...], load: str, prefix: str, auto_compact: bool, auto_defrag: bool
) -> None:
    """Store many pairs of 1 KiB at the first endpoint and tell how much memory that took."""
    count, workers = _load(SCALE_LOADS, load)
    endpoint = settings.all_endpoints()[0]
    settings.run(
        lambda client: weigh(client, endpoint, prefix, count, workers, auto_compact, auto_defrag),
        [endpoint],
        unlimited=True,
    )


async def weigh(
    client: AsyncClient,
    endpoint: str,
    prefix: str,
    count: int,
    workers: int,
    compact: bool = False,
    defrag: bool = False,
) -> None:
    """Store so many pairs and print the growth of the server's memory."""
    await _require_empty(client, prefix)
    before = await asyncio.to_thread(_memory_bytes, endpoint)
    line(
        f"Start data scale check for work load [{count} key-value pairs, 1024 bytes per key-value, {workers} clients]."
    )
    try:
        await Load(client, prefix.encode(), count, None).run(workers)
        after = await asyncio.to_thread(_memory_bytes, endpoint)
    finally:
        await _clean_up(client, prefix, compact, defrag)
    if not before or not after:
        raise Failure("FAIL: Could not read process_resident_memory_bytes before or after the put operations.")
    line(f"PASS: Approximate system memory used : {(after - before) / 2**20:.2f} MB.")


def _memory_bytes(endpoint: str) -> float:
    address = endpoint if "://" in endpoint else f"http://{endpoint}"
    try:
        with urlopen(f"{address}/metrics", timeout=5) as answer:  # noqa: S310 - the user's endpoint
            found = MEMORY.search(answer.read())
    except OSError:
        return 0.0
    return float(found[1]) if found else 0.0


check.add_command(perf)
check.add_command(datascale)
