"""PyPI's etcd3gw, unmodified, over the JSON gateway."""

import etcd3gw
import pytest

from bench import servers


@pytest.fixture
def client(node: servers.Node) -> etcd3gw.Etcd3Client:
    return etcd3gw.client(host=servers.HOST, port=node.client_port, timeout=20, api_path="/v3/")


def test_put_get_and_delete(client: etcd3gw.Etcd3Client) -> None:
    assert client.put("gw/foo", "bar")
    assert client.get("gw/foo") == [b"bar"]
    assert client.delete("gw/foo")
    assert client.get("gw/foo") == []
    assert not client.delete("gw/foo")


def test_prefix_is_read_in_order(client: etcd3gw.Etcd3Client) -> None:
    for name in ("c", "a", "b"):
        client.put(f"prefix/{name}", name)
    found = [value for value, _ in client.get_prefix("prefix/", sort_order="ascend")]
    assert found == [b"a", b"b", b"c"]
    assert client.delete_prefix("prefix/")
    assert client.get_prefix("prefix/") == []


def test_create_succeeds_only_once(client: etcd3gw.Etcd3Client) -> None:
    client.delete("once")
    assert client.create("once", "first")
    assert not client.create("once", "second")
    assert client.get("once") == [b"first"]


def test_replace_needs_the_old_value(client: etcd3gw.Etcd3Client) -> None:
    client.put("replaced", "old")
    assert not client.replace("replaced", "wrong", "new")
    assert client.replace("replaced", "old", "new")
    assert client.get("replaced") == [b"new"]


def test_status_and_members(client: etcd3gw.Etcd3Client, node: servers.Node) -> None:
    status = client.status()
    assert status["leader"] == status["header"]["member_id"]
    assert [member["clientURLs"] for member in client.members()] == [[f"http://{node.endpoint}"]]
