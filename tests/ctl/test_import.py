"""`quorateutl import` from running etcds: what arrives, what is refused, and that no kill loses or repeats a change."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import servers
from bench.ports import free_port
from bench.servers import Cluster
from quorate.client import Client, methods
from quorate.client.tls import TlsFiles
from quorate.ctl.import_mark import Mark, Phase
from quorate.node.certificates import Purpose, Subject
from quorate.proto import rpc_pb2 as rpc
from quorate.proto.kv_pb2 import Event
from tests.ctl.importing import LEASE, LEASE_TTL_S, MARK, Importing, etcds, fill, history, imported, importing, pairs
from tests.support.authority import Authority
from tests.support.cluster import SERVICES, product_cluster, restart_service, wait_until
from tests.support.secure import client_flags, issue, secured_cluster

ETCDS = etcds()
SMALL_STEPS = ("--follow", "--max-txn-ops", "5")
pytestmark = pytest.mark.skipif(not ETCDS, reason="etcd is not installed")


@contextmanager
def empty_cluster() -> Iterator[Cluster]:
    """A node of ours without a key."""
    with product_cluster(servers.quorate()) as cluster, Client(cluster.endpoints) as client:
        client.delete("ready")
        yield cluster


@pytest.fixture(params=ETCDS, ids=lambda product: f"etcd-{product.version}")
def source(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with product_cluster(request.param) as cluster:
        yield cluster


def test_keys_leases_users_and_roles_arrive(source: Cluster, tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text("root:new root's\nbob\n")
    with empty_cluster() as cluster, Client(source.endpoints) as etcd, Client(cluster.endpoints) as client:
        fill(etcd)
        told = imported(source.endpoints[0], cluster.endpoints[0], tmp_path, "--passwords", str(tmp_path / "passwords"))
        assert pairs(etcd) == pairs(client)
        left = client.time_to_live(LEASE, keys=True)
        assert (LEASE_TTL_S, 5) == (left.grantedTTL, len(left.keys))
        assert client.time_to_live(LEASE + 1).TTL > 0
        for user in ("root", "alice", "bob"):
            theirs, ours = (
                side.call(methods.USER_GET, rpc.AuthUserGetRequest(name=user)).roles for side in (etcd, client)
            )
            assert theirs == ours
        theirs_app, ours_app = (
            side.call(methods.ROLE_GET, rpc.AuthRoleGetRequest(role="app")).perm for side in (etcd, client)
        )
        assert theirs_app == ours_app
        assert '"users": ["alice"]' in told
        client.call(methods.AUTH_ENABLE, rpc.AuthEnableRequest())
        with Client(cluster.endpoints, user="root", password="new root's") as root:
            request = rpc.AuthUserChangePasswordRequest(name="alice", password="hers")
            root.call(methods.USER_CHANGE_PASSWORD, request)
        with Client(cluster.endpoints, user="alice", password="hers") as alice:
            assert alice.get("k/0001").kvs[0].value == b"second"


def test_changes_are_followed_until_the_switch_over(source: Cluster, tmp_path: Path) -> None:
    with empty_cluster() as cluster, Client(source.endpoints) as etcd, Client(cluster.endpoints) as client:
        fill(etcd)
        with importing(source.endpoints[0], cluster.endpoints[0], tmp_path, "--follow") as command:
            command.wait_said("following")
            etcd.put("k/0003", "changed", lease=LEASE)
            etcd.put("leased/0", "without a lease now")
            etcd.delete("k/0004")
            etcd.put("late", "1")
            wait_until(lambda: bool(client.get("late").kvs), "the last change arrives")
            assert client.get("k/0003").kvs[0].lease == 0
            command.finish()
        assert pairs(etcd) == pairs(client)
        assert client.get("k/0003").kvs[0].lease == LEASE


def test_changes_of_one_revision_arrive_in_one_revision(source: Cluster, tmp_path: Path) -> None:
    with empty_cluster() as cluster, Client(source.endpoints) as etcd, Client(cluster.endpoints) as client:
        with importing(source.endpoints[0], cluster.endpoints[0], tmp_path, "--follow") as command:
            command.wait_said("following")
            txn = rpc.TxnRequest()
            for number in range(100):
                txn.success.add().request_put.key = b"together/%d" % number
            etcd.call(methods.TXN, txn)
            etcd.delete_prefix("together/")
            command.finish()
        seen = [(kind, kv.mod_revision) for kind, kv in history(client) if kv.key.startswith(b"together/")]
        for kind in (Event.PUT, Event.DELETE):
            assert len({revision for found, revision in seen if found == kind}) == 1
        assert len(seen) == 200


class Writes(threading.Thread):
    """Keeps changing keys of a store, never to a value that was there before."""

    def __init__(self, endpoints: list[str], seed: int) -> None:
        super().__init__(daemon=True)
        self._client = Client(endpoints)
        self._dice = random.Random(seed)
        self.enough = threading.Event()

    def run(self) -> None:
        for number in itertools.count():
            if self.enough.wait(0.001):
                return
            key = f"k/{self._dice.randrange(400):04}"
            match self._dice.randrange(10):
                case 0:
                    self._client.delete(key)
                case 1:
                    self._client.delete(key, key[:-1].encode() + b"9")
                case 2:
                    txn = rpc.TxnRequest()
                    for n in range(9):
                        put = txn.success.add().request_put
                        put.key, put.value = b"k/txn%d" % n, b"%d" % number
                    self._client.call(methods.TXN, txn)
                case 3:
                    self._client.put(key, f"{number}", lease=LEASE)
                case _:
                    self._client.put(key, f"{number}")

    def stop(self) -> None:
        self.enough.set()
        self.join()
        self._client.close()


def mark_of(client: Client) -> tuple[Mark | None, int]:
    """The mark and how often it was written."""
    kvs = client.get(MARK).kvs
    return (Mark.unpack(kvs[0].value), kvs[0].version) if kvs else (None, 0)


def killed_after(steps: int, source: str, cluster: Cluster, client: Client, directory: Path) -> Phase:
    """An import that is killed when it has done so many more transactions; what it was at."""
    enough = mark_of(client)[1] + steps
    with importing(source, cluster.endpoints[0], directory, *SMALL_STEPS) as command:
        wait_until(
            lambda: mark_of(client)[1] >= enough or command.process.poll() is not None,
            f"{steps} steps are done: {command.said}",
        )
        assert command.process.poll() is None, command.said
    mark, _ = mark_of(client)
    assert mark is not None
    return mark.phase


def test_killed_again_and_again_it_loses_and_repeats_nothing(source: Cluster, tmp_path: Path) -> None:
    seed = random.randrange(1000)
    print("seed", seed)
    dice = random.Random(seed)
    with empty_cluster() as cluster, Client(source.endpoints) as etcd, Client(cluster.endpoints) as client:
        fill(etcd)
        writes = Writes(source.endpoints, seed)
        writes.start()
        try:
            phases = {
                killed_after(dice.randrange(1, 40), source.endpoints[0], cluster, client, tmp_path) for _ in range(10)
            }
        finally:
            writes.stop()
        assert phases == {Phase.COPYING, Phase.FOLLOWING}
        with importing(source.endpoints[0], cluster.endpoints[0], tmp_path, *SMALL_STEPS) as command:
            command.wait_said("following; ")
            command.finish()
        assert pairs(etcd) == pairs(client)
        assert_nothing_repeated(client)


def assert_nothing_repeated(client: Client) -> None:
    """No key was made what it was already; putting it on its lease aside."""
    last: dict[bytes, bytes | None] = {}
    for kind, kv in history(client):
        if kv.key in (MARK, b"ready") or kv.lease:
            continue
        now = kv.value if kind == Event.PUT else None
        assert kv.key not in last or last[kv.key] != now, kv
        last[kv.key] = now


def test_killed_while_it_finishes_it_finishes_again(source: Cluster, tmp_path: Path) -> None:
    leases = 60
    with empty_cluster() as cluster, Client(source.endpoints) as etcd, Client(cluster.endpoints) as client:
        for number in range(leases):
            etcd.grant(3 if number % 2 else LEASE_TTL_S, lease_id=1000 + number)
            etcd.put(f"leased/{number}", "1", lease=1000 + number)

        def is_finishing() -> bool:
            mark, _ = mark_of(client)
            return mark is not None and mark.phase is Phase.FINISHING

        with importing(source.endpoints[0], cluster.endpoints[0], tmp_path) as command:
            wait_until(lambda: is_finishing() or command.process.poll() is not None, "it finishes")
        if mark_of(client)[0] is not None:
            imported(source.endpoints[0], cluster.endpoints[0], tmp_path)
        long = {b"leased/%d" % number for number in range(0, leases, 2)}
        wait_until(lambda: pairs(etcd).keys() == long | {b"ready"}, "the short leases have ended at the source")
        wait_until(lambda: pairs(etcd) == pairs(client), "both have the same keys on the same leases")


def test_keys_are_compared_when_the_source_has_compacted_what_comes_next(source: Cluster, tmp_path: Path) -> None:
    with empty_cluster() as cluster, Client(source.endpoints) as etcd, Client(cluster.endpoints) as client:
        fill(etcd)
        killed_after(30, source.endpoints[0], cluster, client, tmp_path)
        etcd.delete_prefix("k/00")
        etcd.put("k/0050", "new")
        etcd.compact(etcd.put("k/0100", "new").header.revision)
        assert "has compacted" in imported(source.endpoints[0], cluster.endpoints[0], tmp_path)
        assert pairs(etcd) == pairs(client)
        assert_nothing_repeated(client)


def test_of_two_imports_one_stops(source: Cluster, tmp_path: Path) -> None:
    with empty_cluster() as cluster, Client(source.endpoints) as etcd, Client(cluster.endpoints) as client:
        with importing(source.endpoints[0], cluster.endpoints[0], tmp_path, "--follow") as first:
            first.wait_said("following; ")
            (tmp_path / "second").mkdir()
            with importing(source.endpoints[0], cluster.endpoints[0], tmp_path / "second", "--follow") as second:
                second.wait_said("following; ")
                etcd.put("k", "v")
                assert first.wait() == 1
                assert "another import into this destination goes on" in first.said
                second.finish()
        assert pairs(etcd) == pairs(client)


def test_what_must_not_be_imported_is_refused(source: Cluster, tmp_path: Path) -> None:
    with empty_cluster() as cluster, Client(source.endpoints) as etcd, Client(cluster.endpoints) as client:
        here, there = cluster.endpoints[0], source.endpoints[0]
        etcd.put("k", "theirs")
        client.put("k", "ours")
        client.put("only ours", "1")

        def refused(*arguments: str) -> str:
            with importing(arguments[0], arguments[1], tmp_path, *arguments[2:]) as command:
                assert command.wait() == 1
                return command.said

        assert "the destination has 2 keys; --overwrite" in refused(there, here)
        assert "same cluster" in refused(here, here, "--overwrite")
        assert client.get_prefix("").count == 2
        nobody = f"127.0.0.1:{free_port()}"
        (tmp_path / "passwords").write_text("alice:\n")
        assert "line 1 of" in refused(there, here, "--passwords", str(tmp_path / "passwords"))
        client.put(MARK, Mark("x", 4711, Phase.COPYING, 1).pack())
        assert "import from another cluster, 1267" in refused(there, here)
        assert "source is the destination of an import" in refused(here, nobody)
        client.delete(MARK)
        imported(there, here, tmp_path, "--overwrite")
        assert pairs(etcd) == pairs(client)
        assert client.get("k").kvs[0].value == b"theirs"


def test_both_sides_may_want_certificates_and_a_user(source: Cluster, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "cluster")
    member = source.nodes[0]
    with Client(source.endpoints) as etcd:
        fill(etcd)
    issue(authority, member)
    member.stop()
    member.flags = (*member.flags, *client_flags(authority, member))
    member.flags = tuple(
        flag.replace(f"http://{member.endpoint}", f"https://{member.endpoint}") for flag in member.flags
    )
    member.start()
    cert, key, _ = authority.files("somebody", Subject("somebody"), Purpose.CLIENT)
    files = TlsFiles(str(authority.ca_file), cert, key)
    with secured_cluster(tmp_path / "new", 1) as secured:
        there, here = (f"https://{endpoint}" for endpoint in (member.endpoint, secured.cluster.endpoints[0]))
        with Client(there, tls=files, timeout_s=20) as etcd:
            etcd.call(methods.AUTH_ENABLE, rpc.AuthEnableRequest())
        ours = TlsFiles(str(secured.authority.ca_file), secured.cert, secured.key)
        with Client(here, tls=ours) as client:
            client.delete("ready")
            client.call(methods.USER_ADD, rpc.AuthUserAddRequest(name="root", password="secret"))
            client.call(methods.ROLE_ADD, rpc.AuthRoleAddRequest(name="root"))
            client.call(methods.USER_GRANT_ROLE, rpc.AuthUserGrantRoleRequest(user="root", role="root"))
            client.call(methods.AUTH_ENABLE, rpc.AuthEnableRequest())
        flags = ("--cacert", str(authority.ca_file), "--cert", cert, "--key", key, "--user", "root:root's")
        theirs = ("--to-cacert", str(secured.authority.ca_file), "--to-cert", secured.cert, "--to-key", secured.key)
        imported(there, here, tmp_path, *flags, *theirs, "--to-user", "root:secret")
        with (
            Client(there, tls=files, user="root", password="root's") as etcd,
            Client(here, tls=ours, user="root", password="secret") as client,
        ):
            assert pairs(etcd) == pairs(client)
            assert client.call(methods.USER_LIST, rpc.AuthUserListRequest()).users == ["alice", "bob", "root"]
        with importing(there, here, tmp_path, *flags[:-2], *theirs) as command:
            assert command.wait() == 1
            assert "source" in command.said


def wait_for_a_step(client: Client, command: Importing) -> None:
    before = mark_of(client)[1]
    wait_until(lambda: mark_of(client)[1] != before or command.process.poll() is not None, "the import goes on")


def test_the_destination_may_lose_every_process_meanwhile(source: Cluster, tmp_path: Path) -> None:
    with empty_cluster() as cluster, Client(source.endpoints) as etcd, Client(cluster.endpoints) as client:
        fill(etcd)
        with importing(source.endpoints[0], cluster.endpoints[0], tmp_path, "--max-txn-ops", "3") as command:
            for service in SERVICES:
                wait_for_a_step(client, command)
                restart_service(cluster.nodes[0], service)
            assert command.wait() == 0, command.said
        assert pairs(etcd) == pairs(client)
        assert_nothing_repeated(client)
