"""Backups of real nodes, and clusters made from them."""

import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from bench.servers import Node
from quorate.proto import rpc_pb2
from tests.cluster.writing import get, put
from tests.support.cluster import Service, quorate_cluster, restart_service, wait_until
from tests.support.rpc import calling


@pytest.mark.skipif(shutil.which("etcdctl") is None, reason="etcdctl is not installed")
def test_etcdctl_saves_a_snapshot(tmp_path: Path) -> None:
    with quorate_cluster() as cluster:
        for number in range(100):
            put(cluster.nodes[0], b"k%d" % number, b"v" * 1000)
        file = tmp_path / "db"
        command = ["etcdctl", "--endpoints", cluster.nodes[0].endpoint, "snapshot", "save", str(file)]
        subprocess.run(command, check=True, env={**os.environ, "ETCDCTL_API": "3"}, capture_output=True, timeout=30)
        content = file.read_bytes()
        assert sha256(content[:-32]).digest() == content[-32:]
        assert len(content) > 100_000


def saved(endpoint: str, file: Path) -> Path:
    """What Maintenance.Snapshot gives, as etcdctl writes it."""
    with calling(endpoint) as caller:
        answers = caller.stream("Maintenance/Snapshot", [rpc_pb2.SnapshotRequest()])
        file.write_bytes(b"".join(answer.blob for answer in answers))
    return file


def test_three_members_restored_from_one_backup_are_a_cluster_with_its_keys(tmp_path: Path) -> None:
    with quorate_cluster() as old:
        for number in range(50):
            put(old.nodes[0], b"k%d" % number, b"v%d" % number)
        backup = saved(old.nodes[0].endpoint, tmp_path / "backup.db")
    with quorate_cluster(3, ready=False) as cluster:
        for node in cluster.nodes:
            restore(backup, node)
        cluster.start()
        for node in cluster.nodes:
            assert get(node, b"k49", serializable=True) == b"v49"
            with calling(node.endpoint) as caller:
                members = caller.unary("Cluster/MemberList", rpc_pb2.MemberListRequest()).members
            assert ["infra1", "infra2", "infra3"] == sorted(member.name for member in members)
        assert put(cluster.nodes[0], b"new", b"1") > 51
        cluster.nodes[1].stop()
        cluster.nodes[1].start()
        cluster.nodes[1].wait_ready()
        assert get(cluster.nodes[1], b"new") == b"1"


def test_a_member_without_the_restored_data_is_sent_them(tmp_path: Path) -> None:
    with quorate_cluster() as old:
        put(old.nodes[0], b"k", b"v")
        backup = saved(old.nodes[0].endpoint, tmp_path / "backup.db")
    with quorate_cluster(3, ready=False) as cluster:
        for node in cluster.nodes[:2]:
            restore(backup, node)
        cluster.start()
        assert get(cluster.nodes[2], b"k", serializable=True) == b"v"


def restore(backup: Path, node: Node) -> None:
    """As an operator does, with the flags the node is started with."""
    flags = dict(zip(node.flags[::2], node.flags[1::2], strict=True))
    names = ("--name", "--data-dir", "--initial-cluster", "--initial-advertise-peer-urls")
    chosen = [word for name in names for word in (name, flags[name])]
    command = [sys.executable, "-m", "quorate.ctl.quorateutl", "snapshot", "restore", str(backup), *chosen]
    subprocess.run(command, check=True, env={**os.environ, **node.product.environment}, timeout=60)


def test_the_last_member_of_a_lost_cluster_goes_on_alone_with_its_data() -> None:
    with quorate_cluster(3) as cluster:
        put(cluster.nodes[0], b"k", b"v")
        for node in cluster.nodes:
            node.kill()
        survivor = cluster.nodes[0]
        flags = survivor.flags
        survivor.flags = (*flags, "--force-new-cluster")
        survivor.start()
        survivor.wait_ready()
        assert get(survivor, b"k") == b"v"
        survivor.stop()
        survivor.flags = flags
        survivor.start()
        survivor.wait_ready()
        with calling(survivor.endpoint) as caller:
            members = caller.unary("Cluster/MemberList", rpc_pb2.MemberListRequest(linearizable=True)).members
        assert [survivor.name] == [member.name for member in members]


@pytest.mark.parametrize("service", ["api", "storage", "consensus"])
def test_a_backup_whose_server_is_killed_is_whole_or_not_there_and_can_be_made_again(
    service: Service, tmp_path: Path
) -> None:
    file, part = tmp_path / "backup.db", tmp_path / "backup.db.part"
    with quorate_cluster() as cluster:
        node = cluster.nodes[0]
        for number in range(40):
            put(node, b"k%d" % number, b"v" * 500_000)
        words = ("--endpoints", node.endpoint, "snapshot", "save", str(file))
        command = [sys.executable, "-m", "quorate.ctl.quoratectl", *words]
        environment = {**os.environ, **node.product.environment}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as saving:
            wait_until(lambda: part.exists() or saving.poll() is not None, "the backup has begun")
            restart_service(node, service)
            saving.communicate(timeout=60)
        assert (saving.returncode == 0) == file.exists()
        if not file.exists():
            assert not part.exists()
            node.wait_ready()
            subprocess.run(command, check=True, env=environment, capture_output=True, timeout=60)
        content = file.read_bytes()
        assert sha256(content[:-32]).digest() == content[-32:]
