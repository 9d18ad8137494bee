"""Debian's Patroni keeps PostgreSQL's leader in a three-node Quorate, over the JSON gateway.

Takes more than a minute, most of which is PostgreSQL; hence only `make clients` runs it.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from bench import servers
from quorate.client import Client, methods
from quorate.proto import auth_pb2
from quorate.proto import rpc_pb2 as rpc
from tests.conformance import patroni
from tests.conformance.clients import long
from tests.support.cluster import quorate_cluster, wait_until
from tests.support.secure import secured_cluster

TTL_S: Final = 10
LOOP_WAIT_S: Final = 2
DYNAMIC: Final[dict[str, Any]] = {
    "ttl": TTL_S,
    "loop_wait": LOOP_WAIT_S,
    "retry_timeout": 3,
    "postgresql": {"use_pg_rewind": True, "use_slots": True, "parameters": {"wal_keep_size": "64MB"}},
}
PROMOTED_AFTER_EXPIRY_S: Final = 15.0
STARTED_WITHIN_S: Final = 90.0

pytestmark = [
    long,
    pytest.mark.skipif(bool(patroni.missing()), reason=patroni.missing()),
    pytest.mark.timeout(400),
]


@pytest.fixture
def cluster() -> Iterator[servers.Cluster]:
    with quorate_cluster(3) as started:
        yield started


@contextmanager
def replicating_pair(cluster: servers.Cluster, **etcd3: str | bool) -> Iterator[tuple[patroni.Member, patroni.Member]]:
    """A leader, and a replica that has what the leader wrote."""
    with patroni.patroni_members(cluster.endpoints, ("alpha", "beta"), DYNAMIC, **etcd3) as (first, second):
        first.start()
        wait_until(first.is_leader, "the first member leads", STARTED_WITHIN_S)
        second.start()
        wait_until(second.is_replica, "the second member follows", STARTED_WITHIN_S)
        first.sql("create table kept (word text)")
        keep(first, second, "before")
        yield first, second


def keep(leader: patroni.Member, replica: patroni.Member, word: str) -> None:
    """Write a word and wait until the replica has it."""
    leader.sql(f"insert into kept values ('{word}')")
    wait_until(lambda: word in replica.words(), f"{word} is replicated", STARTED_WITHIN_S)


def kill_and_wait_for_promotion(killed: patroni.Member, survivor: patroni.Member) -> None:
    """The survivor has to lead when the dead one's lease is over and the next round of Patroni has come."""
    killed.kill()
    wait_until(survivor.is_leader, "the survivor leads", TTL_S + PROMOTED_AFTER_EXPIRY_S)


def test_the_other_member_is_promoted_when_the_leader_is_killed(cluster: servers.Cluster) -> None:
    with replicating_pair(cluster) as (first, second):
        kill_and_wait_for_promotion(first, second)
        first.start()
        wait_until(first.is_replica, "the killed one follows the new leader", STARTED_WITHIN_S)
        keep(second, first, "after")
        assert ["before", "after"] == first.words()


def test_patroni_goes_on_while_any_one_quorate_node_is_dead_and_with_auth(cluster: servers.Cluster) -> None:
    grant_patroni(cluster)
    with replicating_pair(cluster, username="patroni", password="secret", use_proxies=True) as (
        first,
        second,
    ):
        for dead in cluster.nodes:
            dead.kill()
            alive = [node.endpoint for node in cluster.nodes if node is not dead]
            with Client(alive, user="root", password="secret", timeout_s=30) as root:
                revision = status_revision(root)
                keep(first, second, dead.name)
                wait_until(lambda: status_revision(root) > revision, "the leader reports its position", TTL_S)  # noqa: B023 - called in its turn
            if dead is not cluster.nodes[-1]:
                dead.start()
                with Client([dead.endpoint], user="root", password="secret", timeout_s=30) as root:
                    root.get("linearizable reads are served again")
        timeline = first.state()["timeline"]
        assert [True, True, 1] == [first.is_leader(), second.is_replica(), timeline]
        kill_and_wait_for_promotion(first, second)
        assert ["before", *(node.name for node in cluster.nodes)] == second.words()


@pytest.mark.skipif(not patroni.IDNA.exists(), reason="Debian's urllib3 lacks idna: `apt-get install python3-idna`")
def test_patroni_shows_its_certificate(directory_for_all: Path) -> None:
    with secured_cluster(directory_for_all, 3) as secured:
        Path(secured.key).chmod(0o644)
        files = {"cacert": str(secured.authority.ca_file), "cert": secured.cert, "key": secured.key}
        with replicating_pair(secured.cluster, protocol="https", **files) as (first, second):
            kill_and_wait_for_promotion(first, second)
            assert ["before"] == second.words()


@pytest.fixture
def directory_for_all() -> Iterator[Path]:
    """A directory that the user postgres can enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="certificates-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def grant_patroni(cluster: servers.Cluster) -> None:
    """Turn auth on; the user patroni may touch Patroni's prefix and nothing else."""
    with Client(cluster.endpoints) as root:
        for user in ("root", "patroni"):
            root.call(methods.USER_ADD, rpc.AuthUserAddRequest(name=user, password="secret"))
            root.call(methods.ROLE_ADD, rpc.AuthRoleAddRequest(name=user))
            root.call(methods.USER_GRANT_ROLE, rpc.AuthUserGrantRoleRequest(user=user, role=user))
        service = auth_pb2.Permission(permType=auth_pb2.Permission.READWRITE, key=b"/service/", range_end=b"/service0")
        root.call(methods.ROLE_GRANT_PERMISSION, rpc.AuthRoleGrantPermissionRequest(name="patroni", perm=service))
        root.call(methods.AUTH_ENABLE, rpc.AuthEnableRequest())


def status_revision(root: Client) -> int:
    """When the leader last told how far its database is."""
    kvs = root.get(f"/service/{patroni.SCOPE}/status").kvs
    return kvs[0].mod_revision if kvs else 0
