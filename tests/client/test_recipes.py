"""Leases, locks and elections between clients, and between this library and the server's own recipes."""

import asyncio

import pytest

from bench.servers import Cluster
from quorate.client import AsyncClient, Client, LeaseExpiredError, NotLeaderError, Txn, txn
from quorate.client.waiters import Hold
from quorate.proto import v3lock_pb2
from tests.support.rpc import calling

WAIT_S = 20


def test_a_lease_outlives_its_ttl_while_it_is_kept_alive_and_takes_its_keys_along(client: Client) -> None:
    with client.lease(2) as lease:
        client.put("leased", "x", lease=lease.lease_id)
        client.renew(lease.lease_id)
        assert client.time_to_live(lease.lease_id, keys=True).keys == [b"leased"]
        lease.check()
    assert not client.get("leased").kvs
    assert client.time_to_live(lease.lease_id).TTL == -1
    with pytest.raises(LeaseExpiredError):
        client.renew(lease.lease_id)


def test_a_lease_revoked_by_somebody_else_is_lost(client: Client) -> None:
    with client.lease(2) as lease:
        client.revoke(lease.lease_id)
        lease.wait_lost()
        with pytest.raises(LeaseExpiredError):
            lease.check()


def test_a_lock_has_one_holder_at_a_time_in_the_order_of_asking(node: Cluster) -> None:
    async def contend() -> tuple[list[int], list[Hold]]:
        entered: list[int] = []
        holds: list[Hold] = []
        inside = 0

        async def hold(number: int, client: AsyncClient) -> None:
            nonlocal inside
            async with client.lock("busy", ttl_s=WAIT_S) as hold:
                inside += 1
                assert inside == 1
                entered.append(number)
                holds.append(hold)
                await client.put("busy-work", str(number))
                inside -= 1

        async with AsyncClient(node.endpoints) as client:
            await asyncio.gather(*(hold(number, client) for number in range(5)))
        return entered, holds

    entered, holds = asyncio.run(contend())
    assert sorted(entered) == list(range(5))
    revisions = [hold.create_revision for hold in holds]
    assert revisions == sorted(revisions)


def test_a_writer_that_lost_its_lock_is_fenced_off(client: Client) -> None:
    with client.lock("fence", ttl_s=WAIT_S) as stale:
        client.delete(stale.key)
    with client.lock("fence", ttl_s=WAIT_S) as hold:
        assert hold.create_revision > stale.create_revision
        assert client.commit(Txn().when(hold.guard()).then(txn.put("fenced", "new"))).succeeded
        assert not client.commit(Txn().when(stale.guard()).then(txn.put("fenced", "stale"))).succeeded
    assert client.get("fenced").kvs[0].value == b"new"


def test_a_lock_held_through_the_servers_own_recipe_is_waited_for(node: Cluster) -> None:
    async def wait_for_server() -> None:
        async with AsyncClient(node.endpoints) as client:
            lease_id = (await client.grant(WAIT_S)).ID
            with calling(node.endpoints[0]) as caller:
                theirs = caller.unary("Lock/Lock", v3lock_pb2.LockRequest(name=b"shared", lease=lease_id))
            async with await client.lease(WAIT_S) as lease:
                waiting = asyncio.create_task(client.lock_on("shared", lease).acquire())
                async with asyncio.timeout(WAIT_S):
                    while (await client.get_prefix("shared/", count_only=True)).count < 2:
                        pass
                assert not waiting.done()
                await client.delete(theirs.key)
                async with asyncio.timeout(WAIT_S):
                    hold = await waiting
                assert hold.key == f"shared/{lease.lease_id:x}".encode()

    asyncio.run(wait_for_server())


def test_a_waiter_that_gives_up_or_loses_its_lease_leaves_no_key(node: Cluster) -> None:
    async def give_up() -> None:
        async with (
            AsyncClient(node.endpoints) as client,
            client.lock("left", ttl_s=WAIT_S),
            await client.lease(WAIT_S) as lease,
        ):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await client.lock_on("left", lease).acquire()
            assert (await client.get_prefix("left/", count_only=True)).count == 1
            waiting = asyncio.create_task(client.lock_on("left", lease).acquire())
            async with asyncio.timeout(WAIT_S):
                while (await client.get_prefix("left/", count_only=True)).count < 2:
                    pass
            await lease.revoke()
            with pytest.raises(LeaseExpiredError):
                await waiting

    asyncio.run(give_up())


def test_the_oldest_candidate_leads_and_observers_are_told(client: Client) -> None:
    with client.lease(WAIT_S) as lease:
        election = client.election("boss", lease)
        assert client.leader("boss") is None
        election.campaign("me")
        observed = client.observe("boss")
        assert next(observed).value == b"me"
        election.proclaim("still me")
        assert next(observed).value == b"still me"
        election.resign()
        assert client.leader("boss") is None
        with pytest.raises(NotLeaderError):
            election.proclaim("nobody")
