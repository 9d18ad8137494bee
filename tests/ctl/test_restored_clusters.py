"""Backups of running nodes, of Quorate and of etcd, become clusters that serve what was in them."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bench import servers
from bench.servers import Cluster, Node
from quorate.client import Client, CompactedError, EtcdError, methods
from quorate.client.txn import Txn, put
from quorate.ctl import quoratectl
from quorate.ctl.quorateutl import main
from quorate.proto import rpc_pb2 as rpc
from quorate.proto.auth_pb2 import Permission
from tests.ctl.importing import etcds
from tests.support.cluster import product_cluster


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def fill(client: Client) -> int:
    """Keys, history, a compaction, a lease and a user; the revision at the end."""
    for number in range(5):
        client.put(f"k{number}", f"v{number}")
    client.put("k1", "again")
    client.delete("k2")
    lease = client.grant(1000, lease_id=77)
    client.put("leased", "x", lease=lease.ID)
    client.compact(client.put("k3", "late").header.revision - 3)
    return client.put("last", "1").header.revision


def save(node: Node, path: Path) -> None:
    assert quoratectl.run(["--endpoints", node.endpoint, "snapshot", "save", str(path)]) == 0


def restored_as(node: Node, image: Path, *flags: str) -> Result:
    """Make the data of a node that was not started yet."""
    own = dict(zip(node.flags[::2], node.flags[1::2], strict=False))
    names = ("--name", "--data-dir", "--initial-cluster", "--initial-advertise-peer-urls")
    return run("snapshot", "restore", image, *(word for name in names for word in (name, own[name])), *flags)


@pytest.fixture(params=[servers.quorate(), *etcds()], ids=lambda product: f"{product.name}-{product.version[:6]}")
def product(request: pytest.FixtureRequest) -> servers.Product:
    chosen: servers.Product = request.param
    return chosen


def new_cluster(size: int = 1) -> Cluster:
    return servers.cluster(servers.quorate(), size)


def test_an_image_becomes_a_cluster_with_the_same_keys_history_and_leases(
    product: servers.Product, tmp_path: Path
) -> None:
    image = tmp_path / "image.db"
    with product_cluster(product) as old, Client(old.endpoints) as client:
        revision = fill(client)
        hashed = client.call(methods.HASH_KV, rpc.HashKVRequest())
        before = client.get_prefix("")
        save(old.nodes[0], image)
    status = json.loads(run("snapshot", "status", image, "-w", "json").stdout)
    assert (status["revision"], status["totalKey"]) == (revision, len(before.kvs))
    found = json.loads(run("hashkv", image, "-w", "json").stdout)
    assert found == {"hash": hashed.hash, "hashRevision": revision, "compactRevision": hashed.compact_revision}
    with new_cluster(3) as cluster:
        for node in cluster.nodes:
            made = restored_as(node, image)
            assert made.exit_code == 0, made.output
        cluster.start()
        with Client(cluster.endpoints, timeout_s=20) as client:
            after = client.get_prefix("", revision=revision)
            assert [kv.SerializeToString() for kv in after.kvs] == [kv.SerializeToString() for kv in before.kvs]
            assert client.get("k3", revision=revision - 2).kvs[0].value == b"v3"
            assert client.time_to_live(77, keys=True).keys == [b"leased"]
            assert len(client.call(methods.MEMBER_LIST, rpc.MemberListRequest()).members) == 3
            again = client.call(methods.HASH_KV, rpc.HashKVRequest(revision=revision))
            assert again.hash == hashed.hash
            client.put("k1", "new")


def test_users_roles_passwords_and_many_revisions_come_along(product: servers.Product, tmp_path: Path) -> None:
    image, rounds = tmp_path / "image.db", 40
    with product_cluster(product) as old, Client(old.endpoints) as client:
        for number in range(rounds):
            client.commit(Txn().then(*(put(f"k{key}", f"{number}") for key in range(100))))
        client.delete("k7")
        end = client.get("k1").header.revision
        for user, role in (("root", "root"), ("alice", "app")):
            client.call(methods.ROLE_ADD, rpc.AuthRoleAddRequest(name=role))
            client.call(methods.USER_ADD, rpc.AuthUserAddRequest(name=user, password=f"{user}'s"))
            client.call(methods.USER_GRANT_ROLE, rpc.AuthUserGrantRoleRequest(user=user, role=role))
        permission = Permission(permType=Permission.READ, key=b"k1", range_end=b"k2")
        client.call(methods.ROLE_GRANT_PERMISSION, rpc.AuthRoleGrantPermissionRequest(name="app", perm=permission))
        save(old.nodes[0], image)
    refused_when_altered(image, tmp_path / "altered")
    with new_cluster() as cluster:
        made = restored_as(cluster.nodes[0], image)
        assert made.exit_code == 0, made.output
        cluster.start()
        with Client(cluster.endpoints) as client:
            for number in (0, rounds // 2, rounds - 1):
                then = client.get_prefix("k", revision=end - rounds + number)
                assert {kv.value for kv in then.kvs} == {b"%d" % number}
            client.call(methods.AUTH_ENABLE, rpc.AuthEnableRequest())
        with Client(cluster.endpoints, user="alice", password="alice's") as alice:
            assert alice.get("k1").kvs[0].version == rounds
            with pytest.raises(EtcdError, match="permission denied"):
                alice.get("k2")
        with Client(cluster.endpoints, user="root", password="root's") as root:
            assert root.call(methods.USER_LIST, rpc.AuthUserListRequest()).users == ["alice", "root"]


def refused_when_altered(image: Path, directory: Path) -> None:
    whole = image.read_bytes()
    altered = bytearray(whole)
    altered[len(whole) // 2] ^= 1
    other = image.with_name("altered.db")
    for content, text in (
        (bytes(altered), "expected sha256 ["),
        (whole[: len(whole) // 2 // 4096 * 4096], "snapshot missing hash"),
        (whole[:-32], "snapshot missing hash"),
        (whole[:-4096], "expected sha256 ["),
    ):
        other.write_bytes(content)
        refused = run("snapshot", "restore", other, "--data-dir", directory)
        assert (1, True) == (refused.exit_code, text in refused.output), refused.output
        assert not (directory / "member").exists()
    other.write_bytes(whole[:-32])
    assert run("snapshot", "restore", other, "--data-dir", directory, "--skip-hash-check").exit_code == 0


def test_a_bumped_revision_makes_watchers_read_again(product: servers.Product, tmp_path: Path) -> None:
    image = tmp_path / "image.db"
    with product_cluster(product) as old, Client(old.endpoints) as client:
        revision = fill(client)
        save(old.nodes[0], image)
    with new_cluster() as cluster:
        made = restored_as(cluster.nodes[0], image, "--bump-revision", "1000", "--mark-compacted")
        assert made.exit_code == 0, made.output
        cluster.start()
        with Client(cluster.endpoints) as client:
            assert client.get("last").header.revision > revision + 1000
            assert client.get("k1").kvs[0].value == b"again"
            with pytest.raises(CompactedError):
                client.get("k1", revision=revision)
            with client.watch("k1", start_revision=revision) as watch, pytest.raises(CompactedError):
                next(iter(watch))
