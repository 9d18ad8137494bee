"""Reads, writes and transactions, and what happens to them when a server is lost."""

import pytest

from bench import servers
from bench.ports import free_port
from bench.servers import Cluster
from quorate.client import Client, CompactedError, EtcdError, OutcomeUnknownError, Txn, errors, methods, txn
from quorate.client.errors import NoEndpointsError
from quorate.proto import rpc_pb2 as rpc
from tests.support.cluster import paused, product_cluster


def test_a_value_that_was_put_is_read_back(client: Client) -> None:
    put = client.put("calls/a", "1")
    found = client.get("calls/a")
    assert (found.kvs[0].value, found.kvs[0].mod_revision) == (b"1", put.header.revision)


def test_a_prefix_names_its_keys_and_no_others(client: Client) -> None:
    for key in ("p/1", "p/2", "p0", "q"):
        client.put(f"prefix-{key}", "x")
    assert [kv.key for kv in client.get_prefix("prefix-p/", keys_only=True).kvs] == [b"prefix-p/1", b"prefix-p/2"]
    assert client.delete_prefix("prefix-p/").deleted == 2
    assert client.get_prefix("prefix-", count_only=True).count == 2


def test_a_transaction_takes_the_branch_its_conditions_choose(client: Client) -> None:
    create = Txn().when(txn.version("calls/t").equals(0)).then(txn.put("calls/t", "new")).otherwise(txn.get("calls/t"))
    assert client.commit(create).succeeded
    again = client.commit(create)
    assert not again.succeeded
    assert again.responses[0].response_range.kvs[0].value == b"new"


def test_every_comparison_says_what_its_name_says(client: Client) -> None:
    revision = client.put("calls/c", "m").header.revision
    holds = [
        txn.version("calls/c").greater(0),
        txn.create_revision("calls/c").equals(revision),
        txn.mod_revision("calls/c").less(revision + 1),
        txn.lease("calls/c").differs(7),
        txn.value("calls/c").equals("m"),
        txn.value("calls/c").greater("l"),
        txn.value("calls/c").less("n"),
        txn.value("calls/c").differs("x"),
    ]
    assert client.commit(Txn().when(*holds)).succeeded
    fails = [txn.version("calls/c").equals(5), txn.value("calls/absent").differs("x"), txn.lease("calls/c").greater(0)]
    assert [client.commit(Txn().when(*holds, one)).succeeded for one in fails] == [False] * 3


def test_a_nested_transaction_is_done_with_the_outer_one(client: Client) -> None:
    inner = Txn().when(txn.version("calls/n").equals(0)).then(txn.put("calls/n", "deep"))
    client.commit(Txn().then(txn.nested(inner)))
    assert client.get("calls/n").kvs[0].value == b"deep"


def test_reading_compacted_history_is_an_error_of_its_own(client: Client) -> None:
    revision = client.put("calls/old", "1").header.revision
    client.put("calls/old", "2")
    client.compact(revision + 1)
    with pytest.raises(CompactedError):
        client.get("calls/old", revision=revision)


def test_an_error_carries_the_servers_code_and_text(client: Client) -> None:
    with pytest.raises(EtcdError) as refused:
        client.put("", "x")
    assert (refused.value.code, refused.value.text) == (3, "etcdserver: key is not provided")
    assert not isinstance(refused.value, OutcomeUnknownError)


def test_every_call_of_the_api_can_be_made(client: Client) -> None:
    assert client.call(methods.STATUS, rpc.StatusRequest()).version
    assert len(client.call(methods.MEMBER_LIST, rpc.MemberListRequest()).members) == 1


def test_a_client_without_endpoints_cannot_be_made() -> None:
    with pytest.raises(NoEndpointsError):
        Client("")


def test_an_unreachable_endpoint_is_passed_over_by_reads_and_writes(node: Cluster) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    with Client([nobody, *node.endpoints], timeout_s=20) as client:
        for number in range(4):
            client.put("calls/over", str(number))
            assert client.get("calls/over").kvs[0].value == str(number).encode()


def test_a_write_that_nobody_could_receive_has_a_known_outcome() -> None:
    with Client(f"127.0.0.1:{free_port()}", timeout_s=0.3) as client:
        with pytest.raises(EtcdError, match="context deadline exceeded") as failed:
            client.put("a", "1")
        assert not isinstance(failed.value, OutcomeUnknownError)


def test_a_write_that_is_not_answered_has_an_unknown_outcome_and_a_read_has_not(product: servers.Product) -> None:
    with product_cluster(product) as cluster, Client(cluster.endpoints, timeout_s=20) as client:
        client.put("a", "1")
        with paused(cluster.nodes[0]):
            with pytest.raises(OutcomeUnknownError):
                client.call(methods.PUT, rpc.PutRequest(key=b"a", value=b"2"), timeout_s=0.3)
            with pytest.raises(EtcdError) as late:
                client.call(methods.RANGE, rpc.RangeRequest(key=b"a"), timeout_s=0.3)
            assert not isinstance(late.value, OutcomeUnknownError)
            assert late.value.code == errors.DEADLINE_EXCEEDED


def test_reads_go_on_when_a_member_dies(product: servers.Product) -> None:
    with product_cluster(product, 3) as cluster, Client(cluster.endpoints, timeout_s=20) as client:
        for _ in cluster.nodes:  # a key that is there, as a write of our own may fall into an election
            client.get("ready")
        cluster.nodes[0].kill()
        assert [client.get("ready").kvs[0].value for _ in range(6)] == [b"1"] * 6


@pytest.mark.parametrize("host", ["127.0.0.1", "nowhere.invalid"])
def test_a_call_that_found_no_connection_in_time_says_why_and_was_never_sent(host: str) -> None:
    with Client(f"{host}:{free_port()}", timeout_s=2) as client, pytest.raises(EtcdError) as failed:
        client.put("calls/nowhere", "1")
    assert not isinstance(failed.value, OutcomeUnknownError)
    assert failed.value.text == "context deadline exceeded"
    assert any(host in note for note in failed.value.__notes__)
