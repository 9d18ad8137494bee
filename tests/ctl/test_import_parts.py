"""What an import writes, without an etcd: differences, transactions, and answers that are lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import cast

import pytest

from bench import servers
from bench.servers import Cluster
from quorate.client import AsyncClient, OutcomeUnknownError, methods
from quorate.client.methods import A, Method, Q
from quorate.client.txn import put
from quorate.ctl import import_mark
from quorate.ctl.failures import Failure
from quorate.ctl.import_keys import BATCH_BYTES, Change, Keys, differences, slices
from quorate.ctl.import_mark import Destination, Mark, Phase, Side, anew
from quorate.proto.kv_pb2 import Event, KeyValue
from tests.support.cluster import product_cluster

START = Mark("run", 1, Phase.FOLLOWING, 10)


def pair(key: bytes, value: bytes, lease: int = 0) -> KeyValue:
    return KeyValue(key=key, value=value, lease=lease)


def test_only_what_differs_is_written_and_what_the_source_has_not_is_deleted() -> None:
    ours = [pair(b"a", b"1"), pair(b"b", b"2", 7), pair(b"c", b"3"), pair(b"d", b"4")]
    theirs = [pair(b"0", b""), pair(b"a", b"1"), pair(b"b", b"2", 7), pair(b"c", b"x"), pair(import_mark.KEY, b"mark")]
    expected = [Change(b"0", None), Change(b"b", b"2"), Change(b"c", b"3"), Change(b"d", b"4")]
    assert expected == differences(ours, theirs)


def test_transactions_are_bounded_in_operations_and_bytes() -> None:
    changes = [Change(b"%d" % number, b"v") for number in range(10)]
    assert [3, 3, 3, 1] == [len(some) for some in slices(changes, 3)]
    large = [Change(b"a", b"x" * BATCH_BYTES), Change(b"b", b""), Change(b"c", b"")]
    assert [1, 2] == [len(some) for some in slices(large, 100)]
    assert [] == list(slices([], 3))


def test_a_mark_is_read_back_and_anything_else_is_refused() -> None:
    mark = Mark("run", 1 << 63, Phase.COPYING, 5, b"\xff\0", 3, 0, True)
    assert mark == Mark.unpack(mark.pack())
    assert (b"", 0, True) == ((begun := anew(mark, 9)).after, begun.keys, begun.compares)
    for data in (b"", b"{}", b'{"run": 1}', b"[]"):
        with pytest.raises(Failure):
            Mark.unpack(data)


class Losing(AsyncClient):
    """Loses answers to transactions, and transactions, by chance."""

    dice = random.Random(7)

    async def call(self, method: Method[Q, A], request: Q, timeout_s: float | None = None) -> A:
        if method.path == methods.TXN.path and self.dice.random() < 0.3:
            raise OutcomeUnknownError(14, "it never arrived")
        answer = await super().call(method, request, timeout_s)
        if method.path == methods.TXN.path and self.dice.random() < 0.3:
            raise OutcomeUnknownError(14, "its answer was lost")
        return answer


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with product_cluster(servers.quorate()) as started:
        yield started


def test_a_lost_answer_neither_loses_nor_repeats_a_change(cluster: Cluster) -> None:
    async def write() -> tuple[int, Mark | None]:
        async with Losing(cluster.endpoints) as client:
            destination = Destination(client)
            await destination.read()
            for number in range(40):
                operation = put(b"counted", b"%d" % number)
                await destination.write([operation], Mark("lost", 1, Phase.FOLLOWING, number + 1))
            version = (await client.get(b"counted")).kvs[0].version
            mark = await destination.read()
            await destination.remove_mark()
            assert await destination.read() is None
            return version, mark

    version, mark = asyncio.run(write())
    assert (40, 40) == (version, mark.revision if mark else 0)


def test_changes_are_put_together_revision_by_revision(cluster: Cluster) -> None:
    def event(revision: int, key: bytes, value: bytes | None = b"v") -> Event:
        kind = Event.DELETE if value is None else Event.PUT
        return Event(type=kind, kv=KeyValue(key=key, value=value or b"", mod_revision=revision))

    class Written(Destination):
        def __init__(self) -> None:
            super().__init__(cast(AsyncClient, None))
            self.mark = START
            self.steps: list[tuple[int, int, int]] = []

        async def write(self, operations: object, mark: Mark) -> None:
            self.mark = mark
            self.steps.append((len(cast("list[object]", operations)), mark.revision, mark.part))

    def steps(events: list[Event], begin: Mark = START) -> list[tuple[int, int, int]]:
        destination = Written()
        destination.mark = begin
        asyncio.run(Keys(cast(Side, None), destination, 5).apply(events))
        return destination.steps

    few = [event(11, b"a"), event(12, b"b"), event(12, b"c")]
    assert [(3, 12, 0)] == steps(few)
    again = [event(11, b"a"), event(12, b"a"), event(13, b"a", None)]
    assert [(1, 11, 0), (1, 12, 0), (1, 13, 0)] == steps(again)
    many = [event(12, b"%d" % number) for number in range(10)]
    assert [(1, 11, 0), (4, 11, 4), (4, 11, 8), (2, 11, 10), (0, 12, 0)] == steps([event(11, b"a"), *many])
    rest = Mark("run", 1, Phase.FOLLOWING, 11, part=8)
    assert [(2, 11, 10), (0, 12, 0), (1, 13, 0)] == steps([*many, event(13, b"b")], rest)
