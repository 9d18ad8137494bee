"""Maintenance.Snapshot from an api worker: blobs that count down, a digest at the end, and no file left behind."""

from hashlib import sha256
from pathlib import Path

import grpc.aio
import pytest

from quorate.proto.rpc_pb2 import SnapshotRequest, SnapshotResponse
from quorate.wire import errors
from tests.api.worker import TIMEOUT_S, failure, run, until, worker

METHOD = "/etcdserverpb.Maintenance/Snapshot"
CONTENT = bytes(range(256)) * 1024 + b"\1" * 512  # eight blobs and a short one


async def download(channel: grpc.aio.Channel) -> list[SnapshotResponse]:
    call = channel.unary_stream(METHOD)(SnapshotRequest().SerializeToString(), timeout=TIMEOUT_S)
    return [SnapshotResponse.FromString(message) async for message in call]


def test_a_snapshot_comes_in_blobs_and_ends_with_its_digest(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with worker() as one, one.channel() as channel:
            one.fake.export = tmp_path / "export"
            one.fake.export.write_bytes(CONTENT)
            *blobs, last = await download(channel)
            assert CONTENT == b"".join(each.blob for each in blobs)
            assert {32 * 1024} == {len(each.blob) for each in blobs[:-1]}
            left = [len(CONTENT) - sum(len(each.blob) for each in blobs[: n + 1]) for n in range(len(blobs))]
            assert left == [each.remaining_bytes for each in blobs]
            assert (0, sha256(CONTENT).digest()) == (last.remaining_bytes, last.blob)
            assert {"3.6.0"} == {each.version for each in (*blobs, last)}
            assert not one.fake.export.exists()

    run(scenario)


def test_the_file_of_a_client_that_went_away_is_removed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with worker() as one, one.channel() as channel:
            export = one.fake.export = tmp_path / "export"
            export.write_bytes(CONTENT)
            one.fake.holds = True
            call = channel.unary_stream(METHOD)(b"", timeout=TIMEOUT_S)
            await until(lambda: one.fake.held == 1)
            call.cancel()
            one.fake.release()
            await until(lambda: not export.exists())

    run(scenario)


def test_a_snapshot_waits_longer_than_other_calls(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with worker(election_timeout_s=0.01, request_timeout_s=0.01) as one, one.channel() as channel:
            one.fake.export = tmp_path / "export"
            one.fake.export.write_bytes(CONTENT)
            one.fake.holds = True
            call = channel.unary_stream(METHOD)(b"", timeout=TIMEOUT_S)
            await until(lambda: one.fake.held == 1)
            other = channel.unary_unary("/etcdserverpb.KV/Put")(b"\x0a\x01k")
            assert (await failure(other))[1] == errors.TIMEOUT.text
            one.fake.release()
            assert len([message async for message in call]) == 10

    run(scenario)


def test_a_snapshot_that_storage_has_no_room_for_fails() -> None:
    async def scenario() -> None:
        async with worker() as one, one.channel() as channel:
            one.fake.export = None
            with pytest.raises(grpc.aio.AioRpcError, match="no room for a copy"):
                await download(channel)

    run(scenario)


def test_a_snapshot_whose_file_is_gone_fails(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with worker() as one, one.channel() as channel:
            one.fake.export = tmp_path / "gone"
            with pytest.raises(grpc.aio.AioRpcError, match="server stopped"):
                await download(channel)

    run(scenario)
