"""Members that come, are promoted, move and go, and members that speak TLS: real processes again."""

from __future__ import annotations

import asyncio
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from bench.ports import free_port
from quorate.node import certificates
from quorate.proto import rpc_pb2 as rpc
from quorate.wire import errors
from quorate.wire.errors import EtcdError
from quorate.wire.messages import ClusterOp
from tests.consensus.fakes import until
from tests.consensus.test_three import Cluster, Node, cluster, run


async def members(node: Node) -> dict[int, rpc.Member]:
    error_id, body = await node.call(ClusterOp.MEMBER_LIST, rpc.MemberListRequest().SerializeToString())
    assert 0 == error_id
    return {member.ID: member for member in rpc.MemberListResponse.FromString(body).members}


async def added(node: Node, url: str, is_learner: bool = False) -> rpc.MemberAddResponse:
    request = rpc.MemberAddRequest(peerURLs=[url], isLearner=is_learner).SerializeToString()
    error_id, body = await node.call(ClusterOp.MEMBER_ADD, request)
    assert 0 == error_id, errors.by_id(error_id).text
    return rpc.MemberAddResponse.FromString(body)


async def outcome_after(node: Node, op: ClusterOp, request: bytes, passing: EtcdError) -> int:
    """The error id of a call that is repeated while it fails with `passing`."""
    outcome = passing.id
    for _ in range(400):
        outcome, _body = await node.call(op, request)
        if outcome != passing.id:
            break
        await asyncio.sleep(0.02)
    return outcome


def join(whole: Cluster, name: str) -> Node:
    node = whole.add(name, whole.urls, initial_cluster_state="existing", strict_reconfig_check=False)
    node.start()
    return node


def new_url(whole: Cluster, name: str) -> str:
    url = whole.urls[name] = f"http://127.0.0.1:{free_port()}"
    return url


def test_a_cluster_grows_from_one_to_three_and_shrinks_again() -> None:
    async def scenario() -> None:
        async with cluster(["a"]) as whole:
            first = whole.nodes["a"]
            await whole.led()
            commands = whole.propose(first, 5)
            response = await added(first, new_url(whole, "b"), is_learner=True)
            assert response.member.isLearner
            assert "" == response.member.name
            second = join(whole, "b")
            await until(lambda: second.bodies() == commands)
            own = response.member.ID
            promote = rpc.MemberPromoteRequest(ID=own).SerializeToString()
            assert 0 == await outcome_after(first, ClusterOp.MEMBER_PROMOTE, promote, errors.LEARNER_NOT_READY)
            assert not (await members(first))[own].isLearner
            assert errors.MEMBER_NOT_LEARNER.id == (await first.call(ClusterOp.MEMBER_PROMOTE, promote))[0]
            await until(lambda: not second.api.roles[-1].is_learner)
            commands += whole.propose(second, 5)
            await until(lambda: first.bodies() == second.bodies() == commands)

            remove = rpc.MemberRemoveRequest(ID=own).SerializeToString()
            assert 0 == await outcome_after(first, ClusterOp.MEMBER_REMOVE, remove, errors.UNHEALTHY)
            assert own not in await members(first)
            assert errors.MEMBER_NOT_FOUND.id == (await first.call(ClusterOp.MEMBER_REMOVE, remove))[0]
            assert 1 == await asyncio.to_thread(second.join)
            assert "the member has been permanently removed from the cluster" in second.log_text()
            commands += whole.propose(first, 5)
            await until(lambda: first.bodies() == commands)

    run(scenario())


def test_a_second_voter_is_added_at_once_and_gets_its_vote_when_it_is_there() -> None:
    async def scenario() -> None:
        async with cluster(["a"]) as whole:
            first = whole.nodes["a"]
            await whole.led()
            own = (await added(first, new_url(whole, "b"))).member.ID
            listed = await members(first)
            assert [False, False] == [member.isLearner for member in listed.values()]
            commands = whole.propose(first, 5)  # who is not there is not needed yet
            await until(lambda: first.bodies() == commands)
            third = rpc.MemberAddRequest(peerURLs=["http://127.0.0.1:1"]).SerializeToString()
            outcome, _body = await first.call(ClusterOp.MEMBER_ADD, third)
            assert errors.MEMBER_NOT_ENOUGH_STARTED.id == outcome
            second = join(whole, "b")
            await until(lambda: second.bodies() == commands)
            await until(lambda: f'"member_id":"{own:x}"' in first.log_text().partition("gets its vote")[2])
            commands += whole.propose(second, 5)
            await until(lambda: first.bodies() == second.bodies() == commands)
            assert 0 == await outcome_after(first, ClusterOp.MEMBER_ADD, third, errors.UNHEALTHY)
            assert 3 == len(await members(second))

    run(scenario())


def test_a_change_asked_of_a_follower_is_made_by_the_leader() -> None:
    async def scenario() -> None:
        async with cluster(["a", "b", "c"]) as whole:
            leader = await whole.led()
            follower = next(node for node in whole.running if node is not leader)
            response = await added(follower, new_url(whole, "d"), is_learner=True)
            assert follower.api.roles[-1].member_id == response.header.member_id
            newcomer = join(whole, "d")
            await whole.led()
            commands = whole.propose(newcomer, 5)
            await whole.applied(commands)
            assert newcomer.api.roles[-1].is_learner
            move = rpc.MemberUpdateRequest(ID=response.member.ID, peerURLs=["http://127.0.0.1:1"]).SerializeToString()
            assert 0 == (await follower.call(ClusterOp.MEMBER_UPDATE, move))[0]
            assert ["http://127.0.0.1:1"] == list((await members(leader))[response.member.ID].peerURLs)
            taken = rpc.MemberUpdateRequest(ID=response.member.ID, peerURLs=[whole.urls["a"]]).SerializeToString()
            assert errors.PEER_URL_EXIST.id == (await follower.call(ClusterOp.MEMBER_UPDATE, taken))[0]

    run(scenario())


async def written_beyond_the_log(whole: Cluster, member: Node) -> list[bytes]:
    """So much that the beginning is in no log any more: who joins needs an image. The commands."""
    await whole.led()
    commands: list[bytes] = []
    for _ in range(40):
        commands += whole.propose(member, 4, size=20_000)
        await whole.applied_by(member, commands)
    wal = Path(member.config.data_dir) / "member" / "wal"
    await until(lambda: not list(wal.glob("0000000000000001-*")), 10)
    return commands


def test_a_member_that_joins_late_gets_a_snapshot() -> None:
    async def scenario() -> None:
        async with cluster(["a"]) as whole:
            first = whole.nodes["a"]
            commands = await written_beyond_the_log(whole, first)
            await added(first, new_url(whole, "b"), is_learner=True)
            second = join(whole, "b")
            await until(lambda: second.storage is not None and second.storage.installed)
            second.end(signal.SIGKILL)  # before storage could take it: it is told again
            second.start()
            await until(lambda: second.storage is not None and second.storage.installed)
            second.install_image()
            await until(lambda: second.bodies() == commands)

    run(scenario())


@pytest.mark.parametrize("lag", [1, 3])
def test_changes_of_the_membership_behind_an_image_do_not_delay_it(lag: int) -> None:
    async def scenario() -> None:
        async with cluster(["a"]) as whole:
            first = whole.nodes["a"]
            commands = await written_beyond_the_log(whole, first)
            assert first.storage is not None
            first.storage.image_lag = lag
            await added(first, new_url(whole, "b"), is_learner=True)
            second = join(whole, "b")
            await until(lambda: second.storage is not None and bool(second.storage.installed))
            second.install_image()
            await until(lambda: second.bodies() == commands)

    run(scenario())


def test_members_of_two_clusters_do_not_mix() -> None:
    async def scenario() -> None:
        async with cluster(["a", "b"]) as whole:
            await whole.led()
            stranger = whole.nodes["b"]
            stranger.end(signal.SIGKILL)
            other = whole.add("x", {"x": whole.urls["b"], "a": whole.urls["a"]}, initial_cluster_token="other")
            other.start()
            await until(lambda: "cluster ID mismatch" in whole.nodes["a"].log_text())
            await until(lambda: "412 Precondition Failed: cluster ID mismatch" in other.log_text())

    run(scenario())


def test_members_speak_tls(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificates.write(certificates.self_signed(["127.0.0.1"], 1), certificate, key)

    async def scenario() -> None:
        files = {"peer_cert_file": str(certificate), "peer_key_file": str(key)}
        files["peer_trusted_ca_file"] = str(certificate)
        async with cluster(["a", "b", "c"], "https", **files) as whole:
            leader = await whole.led()
            commands = whole.propose(leader, 50, size=50_000)
            await whole.applied(commands)
            leader.end(signal.SIGKILL)
            leader = await whole.led()
            commands = whole.propose(leader, 50)
            await whole.applied(commands)

    run(scenario())


def test_a_wiped_member_that_was_started_to_join_comes_back_under_another_id() -> None:
    """Under its own it could vote a second time, and a write that it acknowledged would count on it."""

    async def scenario() -> None:
        async with cluster(["a", "b", "c"]) as whole:
            leader = await whole.led()
            commands = whole.propose(leader, 20)
            await whole.applied(commands)
            listed = await members(leader)
            while not all(member.clientURLs for member in listed.values()):
                listed = await members(leader)
            wiped = next(node for node in whole.running if node is not leader)
            own = wiped.api.roles[-1].member_id
            wiped.end(signal.SIGKILL)
            shutil.rmtree(wiped.directory / "data")
            wiped.state.clear()
            wiped.durable_index = 0
            wiped.config = replace(wiped.config, initial_cluster_state="existing")
            wiped.start()
            await until(lambda: wiped.bodies() == commands)
            listed = await members(leader)
            assert own not in listed
            assert len(listed) == 3
            await until(lambda: not wiped.api.roles[-1].is_learner)

    run(scenario())
