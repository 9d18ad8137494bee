"""What PyPI's aetcd sees of a node: `python aetcd_scenarios.py SCENARIO HOST:PORT` prints one line of JSON."""

import asyncio
import json
import os
import sys
from typing import Any

import aetcd

TTL_S = 20


async def kv(client: aetcd.Client) -> Any:
    await client.delete_prefix(b"a/")
    await client.put(b"a/1", b"one")
    await client.put(b"a/2", b"two")
    found = [item.value.decode() for item in await client.get_prefix(b"a/", sort_order="descend")]
    moved = await client.transaction(
        compare=[client.transactions.value(b"a/1") == b"one"],
        success=[client.transactions.put(b"a/3", b"three"), client.transactions.delete(b"a/1")],
        failure=[client.transactions.get(b"a/1")],
    )
    again = await client.replace(b"a/1", b"one", b"uno")
    return [found, moved[0], again, [item.key.decode() for item in await client.get_prefix(b"a/")]]


async def watch(client: aetcd.Client) -> Any:
    start = await client.put(b"w/1", b"before")
    watcher = await client.watch_prefix(b"w/", start_revision=start.header.revision, prev_kv=True)
    await client.put(b"w/1", b"after")
    await client.delete(b"w/1")
    await client.put(b"w/last", b"")
    seen = []
    async for event in watcher:
        before = event.prev_kv.value.decode() if event.prev_kv else ""
        seen.append([str(event.kind), event.kv.key.decode(), event.kv.value.decode(), before])
        if event.kv.key == b"w/last":
            await watcher.cancel()
    return seen


async def lease(client: aetcd.Client) -> Any:
    granted = await client.lease(TTL_S)
    await client.put(b"l/1", b"v", lease=granted)
    keys = [key.decode() for key in await granted.keys()]
    renewed = (await granted.refresh()).TTL
    left = await granted.remaining_ttl()
    await granted.revoke()
    return [keys, renewed, TTL_S - 5 <= left <= TTL_S, await client.get(b"l/1")]


async def lock(client: aetcd.Client) -> Any:
    first, second = client.lock(b"lock", ttl=TTL_S), client.lock(b"lock", ttl=TTL_S)
    got = [await first.acquire(timeout=0), await second.acquire(timeout=0), (await first.lease.refresh()).TTL == TTL_S]
    waiting = asyncio.create_task(second.acquire(timeout=None))
    await first.release()
    got += [await waiting, await first.is_acquired(), await second.is_acquired()]
    await second.release()
    return [*got, await client.get(b"lock")]


async def members(client: aetcd.Client) -> Any:
    status = await client.status()
    found = [member async for member in client.members()]
    return [status.version.split(".")[0], len(found), status.leader is not None]


async def main(scenario: str, endpoint: str) -> None:
    host, _, port = endpoint.rpartition(":")
    names = {"username": os.environ.get("ETCD_USER"), "password": os.environ.get("ETCD_PASSWORD")}
    async with aetcd.Client(host, int(port), timeout=30, **names) as client:
        print(json.dumps(await globals()[scenario](client)), flush=True)


asyncio.run(main(*sys.argv[1:]))
