"""Where storage goes on: after its restarts, after ours, and where that is not possible."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from quorate.node.lifecycle import OperatorError
from tests.consensus.fakes import Applied, FakeApi, FakeStorage, closing, grown, until
from tests.consensus.test_driver import bodies, is_led, member, put, run


def test_everything_acknowledged_survives_a_crash_and_storage_goes_on_where_it_was(tmp_path: Path) -> None:
    state: list[Applied] = []

    async def first() -> None:
        async with member(tmp_path):
            storage, api = FakeStorage(tmp_path, state), FakeApi(tmp_path)
            with closing(storage, api):
                for neighbour in (storage, api):
                    neighbour.attach(asyncio.get_running_loop())
                await until(lambda: api.channel.opened)
                for i in range(100):
                    api.propose(b"%d" % i)
                await grown(state, 100)

    async def second(durable_index: int) -> None:
        async with member(tmp_path) as driver:
            storage, api = FakeStorage(tmp_path, state, durable_index), FakeApi(tmp_path)
            with closing(storage, api):
                for neighbour in (storage, api):
                    neighbour.attach(asyncio.get_running_loop())
                await until(lambda: storage.starts)
                await grown(state, 100)
                assert durable_index + 1 == storage.starts[0][2]
                assert [put(b"%d" % i) for i in range(100)] == bodies(state)
                own = driver.member_id
                await until(lambda: driver.membership.members[own].client_urls == ("http://localhost:2379",))
                await until(lambda: driver.membership.cluster_version == "3.6.0")

    run(first())
    last = state[-1].index
    for durable_index in (0, 5, last - 1, last):
        run(second(durable_index))


def test_a_storage_that_restarts_is_told_what_it_lost(tmp_path: Path) -> None:
    state: list[Applied] = []

    async def scenario() -> None:
        async with member(tmp_path):
            api = FakeApi(tmp_path)
            loop = asyncio.get_running_loop()
            with closing(api):
                api.attach(loop)
                await until(lambda: api.channel.opened)
                for generation in range(5):
                    durable = state[len(state) // 2].index - 1 if state else 0
                    storage = FakeStorage(tmp_path, state, durable)
                    with closing(storage):
                        storage.attach(loop)
                        for i in range(20):
                            api.propose(b"%d.%d" % (generation, i))
                        await grown(state, 20 * (generation + 1))
        assert [put(b"%d.%d" % (g, i)) for g in range(5) for i in range(20)] == bodies(state)

    run(scenario())


def test_a_storage_that_outlives_consensus_is_ahead_of_what_its_hello_says(tmp_path: Path) -> None:
    async def scenario() -> None:
        storage, api = FakeStorage(tmp_path, []), FakeApi(tmp_path)
        storage.is_lazy = True
        with closing(storage, api):
            for neighbour in (storage, api):
                neighbour.attach(asyncio.get_running_loop())
            for generation in range(3):
                api.poll()
                api.roles.clear()  # what the consensus before said counts no more
                async with member(tmp_path, hasten=False, election_timeout=300) as driver:
                    await grown(storage.starts, generation + 1)
                    await until(partial(is_led, api))
                    for i in range(10):
                        api.propose(b"%d.%d" % (generation, i))
                    await grown(storage.state, 10 * (generation + 1))
                    assert driver.core.applied_index <= storage.applied_index
        assert [put(b"%d.%d" % (g, i)) for g in range(3) for i in range(10)] == bodies(storage.state)

    run(scenario())


def test_a_log_without_the_database_that_it_began_with_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with member(tmp_path) as driver:
            storage = FakeStorage(tmp_path, [], durable_index=1000)
            with closing(storage):
                storage.attach(asyncio.get_running_loop())
                with pytest.raises(OperatorError, match="the database is at log index 1000 and the log ends at"):
                    await asyncio.wait_for(driver.failure, 10)

    run(scenario())
