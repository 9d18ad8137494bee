"""What belongs to one run of a process is not taken for another's, and what was judged once is judged again."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from http import HTTPStatus
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import google_crc32c
import pytest

from quorate.consensus import retention as retention_of
from quorate.consensus import snapshots as snapshots_of
from quorate.consensus.calls import Calls, Rules
from quorate.consensus.driver import Driver
from quorate.consensus.frames import Call, CallReply, PeerMessage, SnapshotAck, SnapshotChunk, SnapshotEnd, SnapshotMeta
from quorate.consensus.handshake import SNAPSHOT, Hello
from quorate.consensus.membership import Member, pack_newcomer
from quorate.consensus.peers import PeerSettings
from quorate.consensus.raft.messages import (
    NOBODY,
    ConfChange,
    ConfChangeKind,
    EntryKind,
    Forward,
    ForwardRefused,
    Heartbeat,
    Refusal,
)
from quorate.consensus.raft.messages import Role as RaftRole
from quorate.consensus.replacing import Claim, Replacing
from quorate.consensus.snapshots import RETRY_S, Described, Image, Snapshots
from quorate.proto import rpc_pb2 as rpc
from quorate.wire import errors
from quorate.wire.messages import APPLIED, CLUSTER_CALL, STORAGE_HELLO, ClusterOp, Kind, Origin, pack_chunk
from tests.consensus.fakes import FakeApi, FakeStorage, NoNetwork, closing, grown, until
from tests.consensus.test_driver import member, put, run

TWO = "default=http://localhost:2380,other=http://localhost:1"


def told_of_a_leader(driver: Driver) -> int:
    """The other of two members leads, and is not there."""
    (other,) = driver.membership.members.keys() - {driver.member_id}
    driver.hear([Heartbeat(other, driver.member_id, 1, 0, 0)])
    driver.turn()
    assert driver.core.leader_id == other
    return other


def sent_by(driver: Driver, kind: type[Any]) -> list[Any]:
    return [message for message in cast("NoNetwork", driver.network).sent if isinstance(message, kind)]


def test_an_answer_to_a_call_of_an_earlier_run_is_nobodys(tmp_path: Path) -> None:
    async def scenario() -> None:
        numbers: list[int] = []
        for _ in range(2):
            async with member(tmp_path, initial_cluster=TWO) as driver:
                other = told_of_a_leader(driver)
                calls = Calls(driver, Rules(strict=True, learners_max=1))
                driver.on_peer_call = calls.take_peer
                outcomes: list[object] = []
                request = rpc.MemberRemoveRequest(ID=5).SerializeToString()
                calls.perform(ClusterOp.MEMBER_REMOVE, request, outcomes.append)
                driver.turn()
                numbers += [call.number for call in sent_by(driver, Call)]
                driver.hear([CallReply(other, driver.member_id, 1, numbers[0], 0, b"")])
                driver.turn()
        assert len(numbers) == 2
        assert not outcomes, "the answer was to what was asked before the restart"

    run(scenario())


def test_a_refusal_of_what_an_earlier_run_forwarded_refuses_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        channel = cast("Any", SimpleNamespace(send=lambda *_parts: None))
        chunk = pack_chunk(Origin(1, 1, 0), 1, [put(b"x")])
        references: list[int] = []
        for _ in range(2):
            async with member(tmp_path, initial_cluster=TWO) as driver:
                other = told_of_a_leader(driver)
                driver.proposals.add(channel, chunk, time.monotonic())
                driver.turn()
                references += [forward.ref for forward in sent_by(driver, Forward) if forward.kind == EntryKind.BATCH]
                driver.hear([ForwardRefused(other, driver.member_id, 0, references[0], Refusal.OVERLOADED)])
                driver.turn()
                failed = driver.proposals.failed
        assert len(references) == 2
        assert failed == 0, "what the leader took would be told as refused"

    run(scenario())


def test_what_storage_said_before_it_was_restarted_is_not_said_of_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with member(tmp_path) as driver:
            await until(lambda: driver.core.commit_index > 0)
            stream = driver.stream

            def received(_frames_max: int) -> list[object]:
                driver._opened(stream.channel, STORAGE_HELLO.pack(0, False))
                return [(stream.channel, [(Kind.APPLIED, APPLIED.pack(99, 99))])]

            with monkeypatch.context() as patch:
                patch.setattr(driver._endpoint, "receive", received)
                driver.turn()
            assert stream.is_open
            assert (stream.applied_index, stream.durable_index) == (0, 0)

    run(scenario())


def test_storage_may_be_ahead_of_what_its_log_knows_and_an_image_of_then_has_no_membership_yet(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with member(tmp_path) as driver:
            await until(lambda: driver.seen_index > 0)
            assert driver.membership_at(driver.seen_index) is not None
            assert driver.membership_at(driver.seen_index + 1) is None

    run(scenario())


def test_a_storage_that_has_more_than_a_snapshot_keeps_it(tmp_path: Path) -> None:
    """A healing member keeps its database; the image of a leader whose storage lags may be older."""

    async def scenario() -> None:
        async with member(tmp_path, initial_cluster=TWO) as driver:
            storage = FakeStorage(tmp_path, [], durable_index=200)
            with closing(storage):
                storage.attach(asyncio.get_running_loop())
                await until(lambda: driver.stream.start_index == 200)
                for index in (100, 200, 201):
                    driver.stream.install(index, 1, "image")
                driver.schedule()
                await until(lambda: storage.installed)
                assert storage.installed == [(201, 1, "image")]

    run(scenario())


def test_of_two_additions_of_one_address_at_once_the_second_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with member(tmp_path) as driver:
            calls = Calls(driver, Rules(strict=True, learners_max=5))
            driver.on_call, driver.on_tick = calls.take, calls.look
            driver.on_membership = lambda: calls.look(0.0)
            storage, api = FakeStorage(tmp_path, []), FakeApi(tmp_path)
            with closing(storage, api):
                for neighbour in (storage, api):
                    neighbour.attach(asyncio.get_running_loop())
                await until(lambda: api.channel.opened and driver.core.commit_index > 0)
                urls = ["http://localhost:1"], ["http://localhost:1", "http://localhost:2"]
                for number, listed in enumerate(urls, 1):
                    request = rpc.MemberAddRequest(peerURLs=listed, isLearner=True).SerializeToString()
                    api.channel.send(Kind.CLUSTER_CALL, CLUSTER_CALL.pack(number, ClusterOp.MEMBER_ADD), request)
                api.flush()
                await grown(api.replies, 2)
                assert [api.replies[1][0], api.replies[2][0]] == [0, errors.PEER_URL_EXIST.id]
                assert len(driver.membership.members) == 2

    run(scenario())


def test_a_member_that_was_replaced_meanwhile_is_not_replaced_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed 133: what an earlier leader had begun was done after all, and one of two new ids was nobody's."""

    async def scenario() -> None:
        async with member(tmp_path) as driver:
            calls = Calls(driver, Rules(strict=True, learners_max=5))
            driver.on_membership = lambda: calls.look(0.0)
            replacing = Replacing(driver, calls)
            clock = SimpleNamespace(time=count(1000).__next__)  # each second has ids of its own
            monkeypatch.setattr("quorate.consensus.replacing.time", clock)
            storage = FakeStorage(tmp_path, [])
            with closing(storage):
                storage.attach(asyncio.get_running_loop())
                await until(lambda: driver.core.commit_index > 0)
                learner = Member(5, ("http://localhost:1",), is_learner=True)
                change = [ConfChange(ConfChangeKind.ADD_LEARNER, 5)]
                assert driver.core.propose_conf_change(change, pack_newcomer(learner)) is None
                answers: list[Future[tuple[HTTPStatus, bytes]]] = [Future(), Future()]
                driver.turn()
                await until(lambda: 5 in driver.membership.members)
                for answer in answers:
                    replacing._decide(Claim(0, 5, learner.peer_urls), answer)
                await until(lambda: all(answer.done() for answer in answers))
                assert [status for status, _ in map(Future.result, answers)] == [
                    HTTPStatus.OK,
                    HTTPStatus.SERVICE_UNAVAILABLE,
                ]
                granted = json.loads(answers[0].result()[1])["id"]
                assert driver.membership.members.keys() == {driver.member_id, granted}

    run(scenario())


def image_of(driver: Driver, path: Path) -> Image:
    path.write_bytes(b"image")
    return Image(1, 1, path, driver.membership, 0.0, 5)


def test_a_voter_whose_addition_waits_for_it_is_sent_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with member(tmp_path) as driver:
            await until(lambda: driver.core.role is RaftRole.LEADER and driver.core.commit_index > 0)
            newcomer = Member(5, ("http://localhost:1",))
            change = [ConfChange(ConfChangeKind.ADD_VOTER, 5)]
            assert driver.core.propose_conf_change(change, pack_newcomer(newcomer)) is None
            driver.turn()
            assert 5 not in driver.membership.members  # nothing is committed without it
            settings = PeerSettings(driver.member_id, 1.0, 5000, ssl.create_default_context)
            snapshots = Snapshots(asyncio.get_running_loop(), driver, settings, tmp_path)
            streams: list[tuple[int, tuple[str, ...]]] = []
            started = threading.Event()

            def stream(number: int, urls: tuple[str, ...], _image: Image, _term: int) -> None:
                streams.append((number, urls))
                started.set()

            monkeypatch.setattr(snapshots, "_stream", stream)
            snapshots._targets.add(5)
            snapshots._start_streams(image_of(driver, tmp_path / "image"))
            await until(started.is_set)
            assert streams == [(5, newcomer.peer_urls)]

    run(scenario())


def test_a_member_that_restarts_reaches_those_whose_addition_was_not_committed(tmp_path: Path) -> None:
    async def scenario() -> None:
        newcomer = Member(5, ("http://localhost:1",))
        async with member(tmp_path) as driver:
            await until(lambda: driver.core.role is RaftRole.LEADER and driver.core.commit_index > 0)
            change = [ConfChange(ConfChangeKind.ADD_VOTER, 5)]
            assert driver.core.propose_conf_change(change, pack_newcomer(newcomer)) is None
            driver.turn()
        async with member(tmp_path) as driver:
            assert 5 in driver.core.conf_state.voters
            assert driver.member(5) == newcomer
            assert driver.member(6) is None

    run(scenario())


def test_a_member_that_nobody_knows_is_not_waited_for_with_its_image(
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
                snapshots._targets.add(5)
                snapshots._start_streams(image_of(driver, tmp_path / "image"))
            assert [(RETRY_S, snapshots._report, 5, False, 0)] == later

    run(scenario())


def test_a_read_that_the_leader_never_answers_is_refused_in_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with member(tmp_path, initial_cluster=TWO) as driver:
            api = FakeApi(tmp_path)
            with closing(api):
                api.attach(asyncio.get_running_loop())
                await until(lambda: api.channel.opened)
                other = told_of_a_leader(driver)
                driver.reads._timeout_s = 0.1
                chunk = api.read(b"x")

                def refused() -> bool:
                    driver.hear([Heartbeat(other, driver.member_id, driver.core.term, 0, 0)])
                    return bool(api.refusals)

                await until(refused)
                assert driver.core.leader_id != NOBODY
                assert [(chunk, errors.TIMEOUT.id)] == api.refusals
                assert not driver.reads._asked

    run(scenario())


def test_a_full_disk_keeps_the_log_longer_and_does_not_end_the_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with member(tmp_path) as driver:
            await until(lambda: driver.core.commit_index > 0)
            retention = driver._retention
            dropped: list[int] = []
            is_full = True

            def write(_meta: object) -> None:
                if is_full:
                    raise OSError(errno.ENOSPC, "No space left on device")

            with monkeypatch.context() as patch:
                patch.setattr(retention_of, "CHECK_S", 0.0)
                patch.setattr(driver.wal, "can_drop", lambda _index: True)
                patch.setattr(driver.wal, "compact", dropped.append)
                patch.setattr(retention._files, "write", write)
                retention.drop_segments(1.0, driver.seen_index, driver.membership, driver.seen_index)
                assert not dropped
                is_full = False
                retention.drop_segments(2.0, driver.seen_index, driver.membership, driver.seen_index)
                assert len(dropped) == 1

    run(scenario())


@dataclass
class Frames:
    """A stream that brings an image of two chunks."""

    pieces: tuple[bytes, bytes]
    membership: Any
    sent: list[PeerMessage]
    told: int = 0

    def send(self, message: PeerMessage) -> None:
        self.sent.append(message)

    def receive(self) -> PeerMessage:
        first, second = self.pieces
        described = Described(7, 1, len(first) + len(second), "0" * 32, self.membership)
        self.told += 1
        match self.told:
            case 1:
                return SnapshotMeta(2, 1, 1, described.pack())
            case 2:
                return SnapshotChunk(2, 1, 1, 0, google_crc32c.value(first), first)
            case 3:
                return SnapshotChunk(2, 1, 1, len(first), google_crc32c.value(second), second)
            case _:
                return SnapshotEnd(2, 1, 1, google_crc32c.value(first + second))


@pytest.mark.parametrize("name", ["fdatasync", "fsync"])
def test_an_image_that_the_disk_did_not_take_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The kernel tells of pages it could not write once: the last sync of the file says that all is well."""

    async def scenario() -> None:
        async with member(tmp_path) as driver:
            settings = PeerSettings(driver.member_id, 1.0, 5000, ssl.create_default_context)
            directory = tmp_path / "images"
            directory.mkdir()
            snapshots = Snapshots(asyncio.get_running_loop(), driver, settings, directory)
            frames = Frames((b"a" * 100, b"b" * 100), driver.membership, [])
            hello = Hello(SNAPSHOT, driver.membership.cluster_id, 2, 1)
            failures = [OSError(errno.EIO, "Input/output error")]
            real: Callable[[int], None] = getattr(os, name)

            def sync(descriptor: int) -> None:
                if failures and Path(f"/proc/self/fd/{descriptor}").readlink().suffix == ".part":
                    raise failures.pop()
                real(descriptor)

            with monkeypatch.context() as patch:
                patch.setattr(snapshots_of, "SYNC_BYTES", 50)
                patch.setattr(os, name, sync)
                with pytest.raises(OSError, match=r"No such file|Input/output"):
                    await asyncio.to_thread(snapshots._receive_image, cast("Any", frames), hello)
            assert not failures
            assert not list(directory.iterdir())
            assert all(isinstance(message, SnapshotAck) and message.offset < 200 for message in frames.sent)

    run(scenario())
