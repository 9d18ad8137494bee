"""A database that was lost: when it counts as rebuilt, from the log or from an image."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from quorate.consensus.driver import Driver
from quorate.consensus.rebuilding import Rebuilding
from tests.consensus.fakes import Applied, FakeApi, FakeStorage, closing, grown, until
from tests.consensus.test_driver import member, run

ENTRIES = 100


def rebuilding_of(driver: Driver) -> Rebuilding:
    rebuilding = Rebuilding(driver)
    driver.on_tick = rebuilding.look
    return rebuilding


def test_a_database_that_is_made_anew_from_the_log_counts_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        state: list[Applied] = []
        loop = asyncio.get_running_loop()
        api = FakeApi(tmp_path)
        async with member(tmp_path) as driver, AsyncExitStack() as stack:
            stack.enter_context(closing(api))
            rebuilding = rebuilding_of(driver)
            storage = FakeStorage(tmp_path, state)
            with closing(storage):
                api.attach(loop)
                storage.attach(loop)
                await until(lambda: api.channel.opened)
                for number in range(ENTRIES):
                    api.propose(b"%d" % number)
                await grown(state, ENTRIES)
                assert (rebuilding.rebuilt, rebuilding.is_waiting) == (0, False)
            for times in (1, 2):
                storage = FakeStorage(tmp_path, state)
                storage.is_anew = True
                with closing(storage):
                    storage.attach(loop)
                    await until(lambda: rebuilding.rebuilt == times)  # noqa: B023 - awaited at once
                    assert len(state) == ENTRIES
                    assert not rebuilding.is_waiting

    run(scenario())


def test_a_storage_that_only_lost_its_last_rows_is_not_rebuilt(tmp_path: Path) -> None:
    async def scenario() -> None:
        state: list[Applied] = []
        loop = asyncio.get_running_loop()
        async with member(tmp_path) as driver:
            rebuilding = rebuilding_of(driver)
            storage, api = FakeStorage(tmp_path, state), FakeApi(tmp_path)
            with closing(storage, api):
                storage.attach(loop)
                api.attach(loop)
                await until(lambda: api.channel.opened)
                api.propose(b"a")
                await grown(state, 1)
            storage = FakeStorage(tmp_path, state)
            with closing(storage):
                storage.attach(loop)
                await grown(state, 1)
                await until(lambda: driver.stream.has(driver.core.commit_index))
                rebuilding.look(0.0)
            assert (rebuilding.rebuilt, rebuilding.is_waiting) == (0, False)

    run(scenario())
