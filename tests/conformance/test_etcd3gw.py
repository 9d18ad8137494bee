"""PyPI's etcd3gw, unmodified, over the JSON gateway."""

from concurrent.futures import ThreadPoolExecutor
from itertools import islice

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


def test_watch_tells_every_change_of_a_burst_once_and_in_order(client: etcd3gw.Etcd3Client) -> None:
    events, cancel = client.watch_prefix("burst/")
    with ThreadPoolExecutor(8) as writers:
        assert all(writers.map(lambda number: client.put(f"burst/{number}", "v"), range(200)))
    client.delete("burst/7")
    seen = list(islice(events, 201))
    cancel()
    revisions = [int(event["kv"]["mod_revision"]) for event in seen]
    assert sorted(set(revisions)) == revisions
    assert {b"burst/%d" % number for number in range(200)} == {event["kv"]["key"] for event in seen[:200]}
    assert ("DELETE", b"burst/7") == (seen[200].get("type"), seen[200]["kv"]["key"])


def test_watch_from_a_revision_tells_the_past(client: etcd3gw.Etcd3Client) -> None:
    for value in ("one", "two"):
        client.put("past", value)
    _, meta = client.get("past", metadata=True)[0]
    event = client.watch_once("past", timeout=20, start_revision=int(meta["create_revision"]))
    assert b"one" == event["kv"]["value"]
    with pytest.raises(etcd3gw.exceptions.WatchTimedOut):
        client.watch_once("nobody writes this", timeout=0.2)


def test_lease_holds_its_keys_until_it_is_revoked(client: etcd3gw.Etcd3Client) -> None:
    lease = client.lease(ttl=30)
    client.put("leased", "v", lease=lease)
    assert [b"leased"] == lease.keys()
    assert 30 == lease.refresh()
    assert 25 <= lease.ttl() <= 30
    assert lease.revoke()
    assert [] == client.get("leased")
    assert -1 == lease.refresh()


def test_lock_is_held_by_one(client: etcd3gw.Etcd3Client) -> None:
    first, second = client.lock("one", ttl=30), client.lock("one", ttl=30)
    assert [True, False] == [first.acquire(), second.acquire()]
    assert not second.release()
    assert [True, False] == [first.is_acquired(), second.is_acquired()]
    assert 30 == first.refresh()
    assert first.release()
    with second:
        assert second.is_acquired()
    assert not second.is_acquired()
