"""The node as the pages see it: status, reads, versions and figures come round the ring."""

import asyncio
from dataclasses import replace

import pytest

from quorate.api.calling import Failed
from quorate.api.fellows import Fellows
from quorate.api.this_node import ThisNode
from quorate.wire import errors
from tests.api.worker import Worker, run, until, worker
from tests.fakes.ring import LEADER


def node(door: Worker) -> ThisNode:
    return ThisNode(door.ring, door.calls, Fellows(door.ring, 0, 1, str))


def test_status_is_both_shares() -> None:
    async def scenario() -> None:
        async with worker() as door:
            status = await node(door).status()
            assert (LEADER.leader_id, 4096) == (status.leader, status.dbSize)

    run(scenario)


def test_a_read_is_answered_and_its_error_raised() -> None:
    async def scenario() -> None:
        async with worker() as door:
            member = node(door)
            for serializable in (True, False):
                await member.read(serializable)
            door.fake.read_error = errors.CORRUPT
            with pytest.raises(Failed, match="corrupt cluster"):
                await member.read(serializable=True)

    run(scenario)


def test_the_cluster_version_is_consensus_and_may_be_undecided() -> None:
    async def scenario() -> None:
        async with worker() as door:
            assert await node(door).cluster_version() == "3.6.0"
            door.fake.version = ""
            assert await node(door).cluster_version() is None

    run(scenario)


def test_figures_come_from_those_who_answer() -> None:
    async def scenario() -> None:
        async with worker() as door:
            member = node(door)
            asking = asyncio.ensure_future(member.statistics())
            (text,) = await asking
            assert "etcd_server_has_leader 1" in text

    run(scenario)


def test_the_raft_state_is_the_role_heard_last() -> None:
    async def scenario() -> None:
        async with worker() as door:
            member = node(door)
            assert member.raft_state()["raftState"] == "StateLeader"
            door.fake.say_role(replace(LEADER, is_leader=False, leader_id=7))
            await until(lambda: not door.ring.role or not door.ring.role.is_leader)
            assert ("StateFollower", "7") == (member.raft_state()["raftState"], member.raft_state()["lead"])

    run(scenario)
