"""A node whose disk is full, damaged, of somebody else, or not to be written to."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message

from bench import servers
from bench.servers import Cluster, Node
from quorate.proto import rpc_pb2
from quorate.wire import errors
from tests.cluster.writing import CALL_S_MAX, Writer, get, put, writing
from tests.support.cluster import product_cluster, quorate_cluster, wait_until
from tests.support.rpc import calling, refusal

DISK_MIB = 24
SMALL_SEGMENTS = {"QUORATE_WAL_SEGMENT_BYTES": str(1 << 20)}
ENDS_WITHIN_S = 30.0
LEASE = 7


@contextmanager
def cluster_on_small_disk() -> Iterator[tuple[Cluster, Node]]:
    """A node that runs on such a disk, with small segments."""
    product = servers.quorate()
    product = replace(product, environment={**product.environment, **SMALL_SEGMENTS})
    with product_cluster(product, 1, ready=False) as cluster:
        node = cluster.nodes[0]
        with small_disk(node.data_dir):
            node.start()
            node.wait_ready()
            yield cluster, node
            node.kill()


@contextmanager
def small_disk(at: Path) -> Iterator[None]:
    """A file system of its own with little room; only root may mount one."""
    at.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(at)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system takes root")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def fill(path: Path) -> None:
    """Take all room that is left."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                pass


def refused(node: Node) -> str | None:
    """The text with which a put is refused, None when it is accepted."""
    with calling(node.endpoint) as caller:
        try:
            caller.unary("KV/Put", rpc_pb2.PutRequest(key=b"refused?", value=b"x" * 1000))
        except grpc.RpcError as error:
            return refusal(error)[1]
    return None


def told(node: Node, text: str) -> int:
    """How many lines of its log say so."""
    return node.log_path.read_text().count(f'"msg":"{text}')


def test_with_a_full_disk_writes_are_refused_and_go_on_when_there_is_room() -> None:
    with cluster_on_small_disk() as (cluster, node):
        with writing(cluster) as writer:
            writer.wait_for(200)
            ballast = node.data_dir / "ballast"
            fill(ballast)
            wait_until(lambda: refused(node) == errors.NO_SPACE.text, "puts are refused")
            assert get(node, b"w/1") == b"1"
            assert get(node, b"w/1", serializable=True) == b"1"
            ballast.unlink()
            with calling(node.endpoint) as caller:
                member_id = node.status()["member_id"]
                disarm = rpc_pb2.AlarmRequest(
                    action=rpc_pb2.AlarmRequest.DEACTIVATE, memberID=member_id, alarm=rpc_pb2.NOSPACE
                )

                def is_accepted() -> bool:
                    caller.unary("Maintenance/Alarm", disarm)
                    return refused(node) is None

                wait_until(is_accepted, "puts are accepted again")
            writer.wait_for(50)
            wait_until(lambda: told(node, "there is room for the database") > 0, "the end is told")
        assert told(node, "no space for the database") == told(node, "there is room for the database") == 1
        everything_is_there(node, writer)
        node.kill()
        node.start()
        everything_is_there(node, writer)


EVERYTHING = rpc_pb2.RangeRequest(key=b"w/", range_end=b"w0")
WITH_A_FULL_DISK: dict[str, Message] = {
    "KV/Put": rpc_pb2.PutRequest(key=b"a", value=b"b"),
    "KV/Range": EVERYTHING,
    "KV/DeleteRange": rpc_pb2.DeleteRangeRequest(key=b"a"),
    "KV/Txn": rpc_pb2.TxnRequest(success=[rpc_pb2.RequestOp(request_range=EVERYTHING)]),
    "KV/Compact": rpc_pb2.CompactionRequest(revision=500, physical=True),
    "Lease/LeaseGrant": rpc_pb2.LeaseGrantRequest(TTL=60),
    "Lease/LeaseRevoke": rpc_pb2.LeaseRevokeRequest(ID=LEASE),
    "Lease/LeaseTimeToLive": rpc_pb2.LeaseTimeToLiveRequest(ID=LEASE),
    "Lease/LeaseLeases": rpc_pb2.LeaseLeasesRequest(),
    "Cluster/MemberList": rpc_pb2.MemberListRequest(linearizable=True),
    "Cluster/MemberAdd": rpc_pb2.MemberAddRequest(peerURLs=["http://127.0.0.1:1"], isLearner=True),
    "Auth/AuthStatus": rpc_pb2.AuthStatusRequest(),
    "Auth/UserAdd": rpc_pb2.AuthUserAddRequest(name="root", password="a"),
    "Auth/RoleAdd": rpc_pb2.AuthRoleAddRequest(name="role"),
    "Auth/AuthEnable": rpc_pb2.AuthEnableRequest(),
    "Maintenance/Alarm": rpc_pb2.AlarmRequest(action=rpc_pb2.AlarmRequest.GET),
    "Maintenance/Status": rpc_pb2.StatusRequest(),
    "Maintenance/Defragment": rpc_pb2.DefragmentRequest(),
    "Maintenance/Hash": rpc_pb2.HashRequest(),
    "Maintenance/HashKV": rpc_pb2.HashKVRequest(),
    "Maintenance/MoveLeader": rpc_pb2.MoveLeaderRequest(targetID=1),
    "Maintenance/Snapshot": rpc_pb2.SnapshotRequest(),
}
MAY_BE_REFUSED = {
    *("KV/Put", "KV/Range", "KV/Txn", "KV/Compact", "Lease/LeaseGrant"),
    *("Maintenance/Defragment", "Maintenance/Hash", "Maintenance/HashKV", "Maintenance/Snapshot"),
}


def outcome(node: Node, name: str, request: Message) -> str:
    """What a call ends with, by its code and text; empty for an answer."""
    with calling(node.endpoint) as caller:
        try:
            if name == "Maintenance/Snapshot":
                for _ in caller.stream(name, [request], CALL_S_MAX):
                    pass
            else:
                caller.unary(name, request, CALL_S_MAX)
        except grpc.RpcError as error:
            return " ".join(refusal(error))
    return ""


def test_with_a_full_disk_every_call_ends_in_time() -> None:
    product = servers.quorate()
    product = replace(product, environment={**product.environment, **SMALL_SEGMENTS})
    with product_cluster(product, 1, ready=False) as cluster:
        node = cluster.nodes[0]
        with small_disk(node.data_dir):
            node.start()
            node.wait_ready()
            with writing(cluster) as writer:
                writer.wait_for(600)
                with calling(node.endpoint) as caller:
                    caller.unary("Lease/LeaseGrant", rpc_pb2.LeaseGrantRequest(ID=LEASE, TTL=600))
                fill(node.data_dir / "ballast")
                wait_until(lambda: refused(node) == errors.NO_SPACE.text, "puts are refused")
                with ThreadPoolExecutor(len(WITH_A_FULL_DISK)) as pool:
                    ends = pool.map(lambda each: outcome(node, *each), WITH_A_FULL_DISK.items())
                    outcomes = dict(zip(WITH_A_FULL_DISK, ends, strict=True))
            node.kill()
    assert not {name: text for name, text in outcomes.items() if "DEADLINE" in text or "UNAVAILABLE" in text}
    without_room = {name for name, text in outcomes.items() if errors.NO_SPACE.text in text or "no room" in text}
    assert without_room <= MAY_BE_REFUSED


def test_a_node_that_is_started_on_a_full_disk_loses_nothing_and_serves_when_there_is_room() -> None:
    with cluster_on_small_disk() as (cluster, node):
        with writing(cluster) as writer:
            writer.wait_for(200)
        node.stop()
        ballast = node.data_dir / "ballast"
        fill(ballast)
        node.start()
        wait_until(lambda: "storage failed" in node.log_path.read_text(), "storage cannot open the database")
        ballast.unlink()
        node.wait_ready()
        everything_is_there(node, writer)


def everything_is_there(node: Node, writer: Writer) -> None:
    request = rpc_pb2.RangeRequest(key=b"w/", range_end=b"w0").SerializeToString()
    answer = rpc_pb2.RangeResponse.FromString(node.wait_answer("/etcdserverpb.KV/Range", request))
    found = {bytes(kv.key): kv.mod_revision for kv in answer.kvs}
    assert writer.acknowledged.items() <= found.items()


# --- what ends a node with one sentence ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped() -> Iterator[Node]:
    """A node that has data and has ended; tests work on copies of its directory."""
    with quorate_cluster(1) as cluster:
        node = cluster.nodes[0]
        for number in range(50):
            put(node, b"k%d" % number, b"v" * 1000)
        node.stop()
        yield node


@pytest.fixture
def copy(stopped: Node) -> Iterator[Cluster]:
    """A node that may be damaged: same data and flags, another place."""
    with product_cluster(stopped.product, 1, ready=False) as cluster:
        shutil.copytree(stopped.data_dir, cluster.nodes[0].data_dir, ignore=shutil.ignore_patterns("run"))
        yield cluster


def last_words(node: Node) -> str:
    """Start a node that has to end with status 1 and one sentence; the sentence."""
    node.start()
    assert node.process is not None
    assert node.process.wait(ENDS_WITHIN_S) == 1, node.log_tail()
    sentence = node.log_tail().splitlines()[-1]
    assert sentence.startswith("quorate: "), node.log_tail()
    assert "Traceback" not in node.log_tail()
    return sentence.removeprefix("quorate: ")


def scribble(path: Path, offset: int, size: int = 64) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xa5" * size)


def test_a_database_that_is_damaged_is_made_anew_from_the_log(copy: Cluster) -> None:
    node = copy.nodes[0]
    (database,) = node.data_dir.glob("**/snap/db")
    damaged = b"\xa5" * 64 + database.read_bytes()[64:]
    scribble(database, 0)
    node.start()
    node.wait_ready()
    assert get(node, b"k49") == b"v" * 1000
    (kept,) = database.parent.glob("quarantine/*/db")
    assert kept.read_bytes()[:64] == damaged[:64]


def test_a_database_whose_pages_are_damaged_is_made_anew_from_the_log(copy: Cluster) -> None:
    node = copy.nodes[0]
    (database,) = node.data_dir.glob("**/snap/db")
    for page in range(1, database.stat().st_size // 4096):
        scribble(database, page * 4096, 256)
    node.start()
    node.wait_ready()
    assert get(node, b"k49") == b"v" * 1000


def test_a_damaged_log_is_named_with_its_place(copy: Cluster) -> None:
    node = copy.nodes[0]
    segment = sorted((node.data_dir / "member" / "wal").glob("*"))[0]
    scribble(segment, 9000, 4)
    sentence = last_words(node)
    assert str(segment.name) in sentence
    assert re.search(r"\d", sentence)
    assert "restore a backup" in sentence
    assert not (segment.parent / "quarantine").exists()


def test_the_log_of_another_cluster_is_named(copy: Cluster) -> None:
    node = copy.nodes[0]
    with quorate_cluster(1) as another:
        other = another.nodes[0]
        other.stop()
        shutil.rmtree(node.data_dir / "member" / "wal")
        shutil.copytree(other.data_dir / "member" / "wal", node.data_dir / "member" / "wal")
    assert "replaced" in last_words(node)


def test_a_port_in_use_is_named(copy: Cluster) -> None:
    node = copy.nodes[0]
    with socket.create_server((servers.HOST, node.client_port)):
        assert last_words(node) == (
            f"cannot listen on http://{node.endpoint} (--listen-client-urls): address already in use"
        )


def test_a_directory_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with quorate_cluster(1, "--data-dir", str(tmp_path / "file" / "data"), ready=False) as cluster:
        assert "(--data-dir): not a directory" in last_words(cluster.nodes[0])
