"""Watchers that lose their stream, their history or their permission."""

import asyncio

import pytest

from bench import servers
from bench.servers import Cluster
from quorate.client import AsyncClient, Client, CompactedError, EtcdError
from quorate.client.sync import Watch
from quorate.proto.kv_pb2 import Event
from tests.support.cluster import product_cluster


def told(watch: Watch, count: int) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []
    for response in watch:
        found += [(event.kv.key, event.kv.value) for event in response.events]
        if len(found) >= count:
            break
    return found


def test_history_comes_first_and_then_what_happens(client: Client) -> None:
    first = client.put("w/a", "1").header.revision
    client.put("w/b", "2")
    with client.watch_prefix("w/", start_revision=first) as watch:
        responses = iter(watch)
        assert [event.kv.value for event in next(responses).events] == [b"1", b"2"]
        client.put("w/c", "3")
        assert [event.kv.value for event in next(responses).events] == [b"3"]


def test_a_delete_is_told_with_the_pair_before(client: Client) -> None:
    revision = client.put("wd", "1").header.revision
    client.delete("wd")
    with client.watch("wd", start_revision=revision + 1, prev_kv=True) as watch:
        event = next(iter(watch)).events[0]
    assert (event.type, event.prev_kv.value) == (Event.DELETE, b"1")


def test_a_watcher_goes_on_where_it_was_after_a_restart(product: servers.Product) -> None:
    with product_cluster(product) as cluster, Client(cluster.endpoints, timeout_s=30) as client:
        start = client.put("k", "0").header.revision
        with client.watch("k", start_revision=start) as watch:
            assert told(watch, 1) == [(b"k", b"0")]
        with client.watch("k", start_revision=start) as watch:
            responses = iter(watch)
            seen = [event.kv.value for event in next(responses).events]
            cluster.nodes[0].kill()
            cluster.nodes[0].start()
            for number in range(1, 5):
                client.get("k")
                client.put("k", str(number))
            while len(seen) < 5:
                seen += [event.kv.value for event in next(responses).events]
        assert seen == [b"0", b"1", b"2", b"3", b"4"]


def test_a_watcher_of_compacted_history_says_what_is_left(client: Client) -> None:
    revision = client.put("wc", "1").header.revision
    client.put("wc", "2")
    client.compact(revision + 1)
    with client.watch("wc", start_revision=revision) as watch, pytest.raises(CompactedError) as gone:
        next(iter(watch))
    assert gone.value.compact_revision == revision + 1


def test_a_watcher_that_cannot_be_is_refused(client: Client) -> None:
    with client.watch("z", b"a", start_revision=1) as watch, pytest.raises(EtcdError):
        next(iter(watch))


def test_progress_is_told_when_it_is_asked_for(node: Cluster) -> None:
    async def ask() -> int:
        async with AsyncClient(node.endpoints) as client:
            revision = (await client.put("wp", "1")).header.revision
            async with client.watch("wp", start_revision=revision) as watch:
                assert (await anext(watch)).events
                await watch.request_progress()
                async with asyncio.timeout(10):
                    answer = await anext(watch)
                return answer.header.revision - revision

    assert asyncio.run(ask()) >= 0


def test_closing_a_watcher_ends_its_reader(node: Cluster) -> None:
    async def close_while_reading() -> list[object]:
        async with AsyncClient(node.endpoints) as client:
            watch = client.watch("never")

            async def read() -> list[object]:
                return [response async for response in watch]

            reading = asyncio.create_task(read())
            await client.get("never")
            await watch.close()
            async with asyncio.timeout(10):
                return await reading

    assert asyncio.run(close_while_reading()) == []
