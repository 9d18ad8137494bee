"""Users, tokens, and tokens that are no longer good."""

from collections.abc import Iterator

import pytest

from bench import servers
from bench.servers import Cluster
from quorate.client import Client, EtcdError, errors, methods
from quorate.proto import rpc_pb2 as rpc
from tests.support.cluster import product_cluster


@pytest.fixture
def guarded(product: servers.Product) -> Iterator[Cluster]:
    """A member with auth on and the user root, password secret."""
    with product_cluster(product) as cluster:
        with Client(cluster.endpoints) as client:
            client.call(methods.USER_ADD, rpc.AuthUserAddRequest(name="root", password="secret"))
            client.call(methods.USER_GRANT_ROLE, rpc.AuthUserGrantRoleRequest(user="root", role="root"))
            client.call(methods.AUTH_ENABLE, rpc.AuthEnableRequest())
        yield cluster


def test_only_who_signs_in_is_served(guarded: Cluster) -> None:
    with Client(guarded.endpoints, user="root", password="secret") as root, Client(guarded.endpoints) as nobody:
        root.put("a", "1")
        with pytest.raises(EtcdError, match=errors.USER_EMPTY_TEXT):
            nobody.get("a")
        with Client(guarded.endpoints, user="root", password="wrong") as stranger, pytest.raises(EtcdError) as refused:
            stranger.get("a")
        assert refused.value.text == "etcdserver: authentication failed, invalid user ID or password"


def test_a_token_the_server_forgot_is_fetched_again_for_calls_watchers_and_leases(guarded: Cluster) -> None:
    with Client(guarded.endpoints, user="root", password="secret", timeout_s=30) as root:
        revision = root.put("a", "1").header.revision
        with root.watch("a", start_revision=revision) as watch:
            told = iter(watch)
            assert next(told).events[0].kv.value == b"1"
            guarded.nodes[0].kill()
            guarded.nodes[0].start()
            root.get("a")
            root.put("a", "2")
            assert next(told).events[0].kv.value == b"2"


def test_a_user_is_served_where_auth_is_off_and_when_it_is_turned_on(product: servers.Product) -> None:
    with product_cluster(product) as cluster, Client(cluster.endpoints, user="root", password="secret") as root:
        root.put("a", "1")
        root.call(methods.USER_ADD, rpc.AuthUserAddRequest(name="root", password="secret"))
        root.call(methods.USER_GRANT_ROLE, rpc.AuthUserGrantRoleRequest(user="root", role="root"))
        root.call(methods.AUTH_ENABLE, rpc.AuthEnableRequest())
        root.put("a", "2")
        assert root.get("a").kvs[0].value == b"2"
