"""One member between a fake api and a fake storage: what goes round, what waits, what survives."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from quorate.consensus import bootstrap
from quorate.consensus.calls import Calls, Rules
from quorate.consensus.driver import Driver
from quorate.consensus.healing import Rejoining
from quorate.consensus.joining import Known
from quorate.consensus.membership import Membership
from quorate.consensus.node import assemble
from quorate.consensus.peers import Peers, PeerSettings
from quorate.consensus.raft.messages import ConfState
from quorate.consensus.raft.messages import Role as RaftRole
from quorate.consensus.raft.progress import Progress
from quorate.consensus.rebuilding import Rebuilding
from quorate.consensus.round_trips import RoundTrips
from quorate.consensus.snapshots import IMAGE_LIFETIME_S, RETRY_S, SUFFIX, Image, Snapshots
from quorate.consensus.stats import Stats
from quorate.node.config import Config
from quorate.proto import rpc_pb2 as rpc
from quorate.wire import errors
from quorate.wire.messages import ClusterOp, EntryKind, Part, pack_command
from quorate.wire.messages import Op as CommandOp
from quorate.wire.sockets import Address, Endpoint
from tests.consensus.fakes import Applied, FakeApi, FakeStorage, NoCourier, NoNetwork, closing, grown, until

SEGMENT_BYTES = 256 * 1024


def run(test: Coroutine[Any, Any, None]) -> None:
    uvloop.run(test)


def config_for(tmp_path: Path, **settings: Any) -> Config:
    return Config(
        data_dir=str(tmp_path / "data"),
        run_dir=str(tmp_path),
        heartbeat_interval=10,
        unsafe_no_fsync=True,
        **({"election_timeout": 50} | settings),
    )


def nobody(_url: str, _timeout: float) -> Known:
    raise OSError("nobody there")


@asynccontextmanager
async def member(tmp_path: Path, hasten: bool = True, **settings: Any) -> AsyncIterator[Driver]:
    """A member of a cluster of one, stopped as by a crash."""
    config = config_for(tmp_path, **settings)
    start = bootstrap.start(config, nobody, SEGMENT_BYTES)
    endpoint = Endpoint(tmp_path, Address(Part.CONSENSUS))
    node = assemble(config, start, endpoint, random.Random(7))
    driver = node.driver
    driver.network = NoNetwork()
    driver.courier = NoCourier()
    driver.start(hasten=hasten)
    try:
        yield driver
    finally:
        driver.stop()
        endpoint.close()
        start.wal.abandon()


def bodies(state: list[Applied]) -> list[bytes]:
    return [one.body for one in state]


def is_led(api: FakeApi) -> bool:
    return bool(api.roles) and api.roles.pop().is_leader


def put(body: bytes) -> bytes:
    return pack_command(CommandOp.PUT, body)


def test_a_chunk_reaches_storage_through_the_log(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with member(tmp_path) as driver:
            storage, api = FakeStorage(tmp_path, []), FakeApi(tmp_path)
            with closing(storage, api):
                for neighbour in (storage, api):
                    neighbour.attach(asyncio.get_running_loop())
                await until(lambda: api.channel.opened)
                api.propose(b"a", b"b")
                await until(lambda: storage.state)
                assert [put(b"a") + put(b"b")] == bodies(storage.state)
                assert driver.membership.cluster_id == 0xCDF818194E3A8C32 == storage.starts[0][0]
                assert driver.member_id == 0x8E9E05C52164694D == storage.starts[0][1]
                assert int(EntryKind.NOOP) == storage.kinds[0]

    run(scenario())


def test_a_member_is_published_without_waiting_for_a_tick(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with member(tmp_path) as driver:
            driver.on_tick = lambda _now: None
            await until(lambda: driver.is_published)

    run(scenario())


def test_a_member_counts_as_published_once_the_log_says_its_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with member(tmp_path, name="first") as driver:
            assert not driver.is_published
            storage, api = FakeStorage(tmp_path, []), FakeApi(tmp_path)
            with closing(storage, api):
                for neighbour in (storage, api):
                    neighbour.attach(asyncio.get_running_loop())
                await until(lambda: any(role.is_leader and role.is_published for role in api.roles))
                assert driver.membership.members[driver.member_id].name == "first"

    run(scenario())


def test_reads_see_the_writes_before_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with member(tmp_path):
            storage, api = FakeStorage(tmp_path, []), FakeApi(tmp_path)
            with closing(storage, api):
                for neighbour in (storage, api):
                    neighbour.attach(asyncio.get_running_loop())
                await until(lambda: api.channel.opened and storage.starts)
                for i in range(50):
                    api.propose(b"%d" % i)
                    await grown(storage.state, i + 1)
                    index = storage.state[i].index
                    api.read(b"r")
                    await grown(storage.reads, i + 1)
                    assert storage.reads[i][0] >= index

    run(scenario())


def test_figures_are_told_under_etcds_names(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with member(tmp_path) as driver:
            loop = asyncio.get_running_loop()
            settings = PeerSettings(driver.member_id, 1.0, 5000, ssl.create_default_context)
            peers = Peers(loop, settings, driver.membership, driver.hear, lambda: None, lambda _c, _h: None)
            snapshots = Snapshots(loop, driver, settings, tmp_path)
            calls = Calls(driver, Rules(strict=True, learners_max=1))
            rejoining, rebuilding = Rejoining(driver, calls), Rebuilding(driver)
            stats = Stats(driver, peers, snapshots, rejoining, rebuilding, RoundTrips(peers), calls.promotions)
            driver.on_stats = stats.render
            storage, api = FakeStorage(tmp_path, []), FakeApi(tmp_path)
            with closing(storage, api):
                for neighbour in (storage, api):
                    neighbour.attach(loop)
                await until(lambda: api.channel.opened and len(storage.kinds) >= 3)
                promote = rpc.MemberPromoteRequest(ID=driver.member_id).SerializeToString()
                calls.perform(ClusterOp.MEMBER_PROMOTE, promote, lambda _outcome: None)
                api.ask_stats()
                await until(lambda: api.stats)
            assert (1).to_bytes(8, "little") == api.stats[0][:8]
            text = api.stats[0][8:].decode()
            for line in (
                "etcd_server_has_leader 1.0",
                "etcd_server_is_leader 1.0",
                "etcd_server_is_learner 0.0",
                'etcd_cluster_version{cluster_version="3.6"} 1.0',
                "etcd_server_slow_read_indexes_total 0.0",
                "etcd_server_snapshot_apply_in_progress_total 0.0",
                "etcd_server_learner_promote_successes 0.0",
                f'etcd_server_learner_promote_failures{{Reason="{errors.MEMBER_NOT_LEARNER.text}"}} 1.0',
                'etcd_snap_db_save_total_duration_seconds_bucket{le="0.1"} 0.0',
                'etcd_server_id{server_id="8e9e05c52164694d"} 1.0',
            ):
                assert line in text
            assert "etcd_disk_wal_fsync_duration_seconds_bucket" in text

    run(scenario())


def test_an_image_that_others_are_sent_outlives_a_restart_of_storage(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with member(tmp_path) as driver:
            settings = PeerSettings(driver.member_id, 1.0, 5000, ssl.create_default_context)
            snapshots = Snapshots(asyncio.get_running_loop(), driver, settings, tmp_path)
            served, arrived = tmp_path / f"{1:016x}{SUFFIX}", tmp_path / f"{0:016x}{SUFFIX}"
            for path in (served, arrived):
                path.write_bytes(b"image")
            snapshots._image = Image(1, 1, served, driver.membership, 0.0, 5)
            snapshots.installed(9)
            assert served.exists()
            assert not arrived.exists()

    run(scenario())


def test_an_image_at_the_index_of_the_one_before_is_not_dropped_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with member(tmp_path) as driver:
            settings = PeerSettings(driver.member_id, 1.0, 5000, ssl.create_default_context)
            snapshots = Snapshots(asyncio.get_running_loop(), driver, settings, tmp_path)
            await until(lambda: driver.seen_index >= 1)
            path = tmp_path / f"{1:016x}.image.db"
            path.write_bytes(b"image")
            snapshots._image = Image(1, 1, path, driver.membership, 0.0, 5)
            with monkeypatch.context() as patch:
                patch.setattr(driver, "stream", SimpleNamespace(incarnation=7))
                snapshots._asked_of = 7  # storage writes another one under the same name
                snapshots.look(1e9)
            snapshots.image_taken(1, 1, str(path))
            assert path.read_bytes() == b"image"
            path.unlink()
            snapshots.image_taken(1, 1, str(path))  # gone meanwhile: it is asked for again
            assert not driver.failure.done()

    run(scenario())


def test_an_image_is_dropped_though_storage_ended_before_it_made_the_next(tmp_path: Path) -> None:
    """Otherwise it would stay, and the log behind it."""

    async def scenario() -> None:
        async with member(tmp_path) as driver:
            settings = PeerSettings(driver.member_id, 1.0, 5000, ssl.create_default_context)
            snapshots = Snapshots(asyncio.get_running_loop(), driver, settings, tmp_path)
            path = tmp_path / f"{1:016x}.image.db"
            path.write_bytes(b"image")
            snapshots._image = Image(1, 1, path, driver.membership, 0.0, 5)
            snapshots._asked_of = 7  # by now it is another one
            snapshots.look(1e9)
            assert not path.exists()
            assert snapshots.held_index() is None

    run(scenario())


def test_a_member_that_needs_an_image_before_storage_is_there_is_looked_after_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with member(tmp_path) as driver:
            loop = asyncio.get_running_loop()
            settings = PeerSettings(driver.member_id, 1.0, 5000, ssl.create_default_context)
            snapshots = Snapshots(loop, driver, settings, tmp_path)
            later: list[tuple[object, ...]] = []
            with monkeypatch.context() as patch:
                patch.setattr(loop, "call_later", lambda *call: later.append(call))
                snapshots.send(5)
            assert [(RETRY_S, snapshots._report, 5, False, 0)] == later

    run(scenario())


def test_an_image_that_does_not_reach_where_a_members_log_begins_is_not_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be received, found useless and asked for again, for as long as the image is kept."""

    async def scenario() -> None:
        async with member(tmp_path) as driver:
            settings = PeerSettings(driver.member_id, 1.0, 5000, ssl.create_default_context)
            snapshots = Snapshots(asyncio.get_running_loop(), driver, settings, tmp_path)
            snapshots._image = Image(6, 1, tmp_path / "6.image.db", driver.membership, time.monotonic(), 5)
            sent: list[int] = []
            asked: list[bool] = []
            monkeypatch.setattr(snapshots, "_start_streams", lambda image: sent.append(image.index))

            def take_image() -> bool:
                asked.append(True)
                return True

            monkeypatch.setattr(driver.stream, "take_image", take_image)
            snapshots.send(5, 6)
            assert ([6], []) == (sent, asked)
            snapshots.send(5, 7)
            assert ([6], [True]) == (sent, asked)

    run(scenario())


def test_the_log_behind_an_image_is_held_from_the_order_until_the_member_has_caught_up(tmp_path: Path) -> None:
    follower = Progress(1)
    core = SimpleNamespace(
        progress=lambda: {5: follower}, last_index=20, first_index=1, term=1, term_at=lambda _index: 1, role=None
    )
    core.report_snapshot = lambda *_report: None
    stream = SimpleNamespace(take_image=lambda: True, incarnation=1, durable_index=6)
    membership = Membership(7, 0, ConfState((9, 5)), {})
    driver: Any = SimpleNamespace(
        core=core,
        stream=stream,
        membership=membership,
        membership_at=lambda _index: membership,
        member=lambda _number: None,
        schedule=lambda: None,
    )
    loop: Any = SimpleNamespace(call_later=lambda *_call: None)
    snapshots = Snapshots(loop, driver, PeerSettings(9, 1.0, 5000, ssl.create_default_context), tmp_path)
    held = [snapshots.held_index()]
    snapshots.send(5)
    held.append(snapshots.held_index())
    path = tmp_path / "8.image.db"
    path.write_bytes(b"image")
    snapshots.image_taken(8, 1, str(path))
    held.append(snapshots.held_index())
    snapshots._finished(5, True, 8)
    held.append(snapshots.held_index())
    later = time.monotonic() + IMAGE_LIFETIME_S + 1.0
    for follower.match_index in (12, 20):
        snapshots.look(later)
        held.append(snapshots.held_index())
    assert [None, 6, 8, 8, 12, None] == held
    assert not path.exists()


def test_while_a_neighbour_takes_nothing_one_more_try_is_due_however_many_turns_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with member(tmp_path) as driver:
            loop = asyncio.get_running_loop()
            tries: list[float] = []
            with monkeypatch.context() as patch:
                patch.setattr(driver._endpoint, "flush", lambda: False)
                patch.setattr(loop, "call_later", lambda delay, _callback: tries.append(delay))
                for _ in range(20):
                    driver.turn()
            assert 1 == len(tries)

    run(scenario())


def test_a_full_disk_refuses_writes_and_passes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with member(tmp_path) as driver:
            storage, api = FakeStorage(tmp_path, []), FakeApi(tmp_path)
            with closing(storage, api):
                for neighbour in (storage, api):
                    neighbour.attach(asyncio.get_running_loop())
                await until(lambda: api.channel.opened and storage.starts)
                has_room = driver.wal.has_room
                driver.wal.has_room = lambda: False  # type: ignore[method-assign]
                await until(lambda: not driver._has_room)
                chunk = api.propose(b"x")
                await until(lambda: api.refusals)
                assert [(chunk, errors.NO_SPACE.id)] == api.refusals
                driver.wal.has_room = has_room  # type: ignore[method-assign]
                await until(lambda: driver._has_room)
                api.propose(b"y")
                await until(lambda: storage.state)

    run(scenario())


def test_chunks_wait_for_a_leader_and_are_refused_after_their_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        urls = "default=http://localhost:2380,other=http://localhost:1"
        async with member(tmp_path, initial_cluster=urls) as driver:
            api = FakeApi(tmp_path)
            with closing(api):
                api.attach(asyncio.get_running_loop())
                await until(lambda: api.channel.opened)
                driver.proposals._timeout_s = 0.1
                chunk = api.propose(b"x")
                await until(lambda: api.refusals)
                assert [(chunk, errors.TIMEOUT.id)] == api.refusals
                assert driver.core.role is not RaftRole.LEADER

    run(scenario())


def test_members_and_status_are_answered(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with member(tmp_path):
            storage, api = FakeStorage(tmp_path, []), FakeApi(tmp_path)
            with closing(storage, api):
                for neighbour in (storage, api):
                    neighbour.attach(asyncio.get_running_loop())
                await until(lambda: api.channel.opened and storage.starts)
                await until(lambda: len(storage.kinds) >= 3)
                for linearizable in (False, True):
                    request = rpc.MemberListRequest(linearizable=linearizable)
                    number = api.call(ClusterOp.MEMBER_LIST, request.SerializeToString())
                    await grown(api.replies, len(api.replies) + 1)
                    error_id, body = api.replies[number]
                    assert 0 == error_id
                    (one,) = rpc.MemberListResponse.FromString(body).members
                    assert (0x8E9E05C52164694D, "default") == (one.ID, one.name)
                    assert ["http://localhost:2379"] == list(one.clientURLs)
                number = api.call(ClusterOp.STATUS)
                await until(lambda: number in api.replies)
                status = rpc.StatusResponse.FromString(api.replies[number][1])
                assert (0x8E9E05C52164694D, False) == (status.leader, status.isLearner)
                assert status.raftIndex >= 3
                number = api.call(ClusterOp.MOVE_LEADER, rpc.MoveLeaderRequest(targetID=5).SerializeToString())
                await until(lambda: number in api.replies)
                assert errors.BAD_LEADER_TRANSFEREE.id == api.replies[number][0]

    run(scenario())
