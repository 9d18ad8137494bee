"""Every method that names a key keeps its client below the prefix, and shows it keys without the prefix."""

import pytest
from google.protobuf.descriptor import Descriptor

from quorate.proto import rpc_pb2 as rpc
from quorate.proto import v3election_pb2 as election
from quorate.proto import v3lock_pb2 as lock
from quorate.proto.kv_pb2 import Event, KeyValue
from quorate.proxy.namespace import Namespace, rewritings

PREFIX = b"team/"
KV = "/etcdserverpb.KV/"


def asked(path: str, request: rpc.RangeRequest | rpc.DeleteRangeRequest) -> tuple[bytes, bytes]:
    changed = type(request).FromString(rewritings(PREFIX)[path].request(request.SerializeToString()))
    return changed.key, changed.range_end


@pytest.mark.parametrize("path", [f"{KV}Range", f"{KV}DeleteRange"])
def test_an_interval_stays_below_the_prefix(path: str) -> None:
    kind = rpc.RangeRequest if path.endswith("/Range") else rpc.DeleteRangeRequest
    expected = {
        (b"a", b""): (b"team/a", b""),
        (b"a", b"c"): (b"team/a", b"team/c"),
        (b"a", b"\0"): (b"team/a", b"team0"),
        (b"\0", b"\0"): (b"team/\0", b"team0"),
        (b"", b"c"): (b"", b"c"),  # refused by the server
    }
    found = {(key, end): asked(path, kind(key=key, range_end=end)) for key, end in expected}
    assert found == expected


def test_everything_behind_a_prefix_of_highest_bytes_is_below_it() -> None:
    request = rpc.RangeRequest(key=b"a", range_end=b"\0")
    Namespace(b"\xff\xff").interval(request)
    assert request.range_end == b"\0"


def test_nested_transactions_are_rewritten_as_deep_as_they_go() -> None:
    inner = rpc.TxnRequest(
        compare=[rpc.Compare(key=b"c", range_end=b"d")],
        failure=[rpc.RequestOp(request_put=rpc.PutRequest(key=b"p"))],
    )
    outer = rpc.TxnRequest(
        success=[
            rpc.RequestOp(request_txn=inner),
            rpc.RequestOp(request_range=rpc.RangeRequest(key=b"r")),
            rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=b"x", range_end=b"\0")),
        ]
    )
    Namespace(PREFIX).txn(outer)
    nested = outer.success[0].request_txn
    assert (nested.compare[0].key, nested.compare[0].range_end) == (b"team/c", b"team/d")
    assert nested.failure[0].request_put.key == b"team/p"
    assert outer.success[1].request_range.key == b"team/r"
    assert outer.success[2].request_delete_range.range_end == b"team0"


def test_answers_of_nested_transactions_show_no_prefix() -> None:
    kv = KeyValue(key=b"team/k")
    inner = rpc.TxnResponse(
        responses=[
            rpc.ResponseOp(response_put=rpc.PutResponse(prev_kv=kv)),
            rpc.ResponseOp(response_delete_range=rpc.DeleteRangeResponse(prev_kvs=[kv])),
        ]
    )
    outer = rpc.TxnResponse(
        responses=[
            rpc.ResponseOp(response_txn=inner),
            rpc.ResponseOp(response_range=rpc.RangeResponse(kvs=[kv])),
        ]
    )
    Namespace(PREFIX).txn_answer(outer)
    assert b"team/" not in outer.SerializeToString()
    assert outer.responses[0].response_txn.responses[0].response_put.prev_kv.key == b"k"


def test_a_put_without_previous_value_answers_without_one() -> None:
    answer = rpc.PutResponse()
    Namespace(PREFIX).put_answer(answer)
    assert not answer.HasField("prev_kv")


def test_a_watcher_of_everything_watches_the_prefix() -> None:
    request = rpc.WatchRequest(create_request=rpc.WatchCreateRequest(range_end=b"\0"))
    Namespace(PREFIX).watch(request)
    assert (request.create_request.key, request.create_request.range_end) == (b"team/\0", b"team0")


def test_requests_for_progress_are_left_alone() -> None:
    request = rpc.WatchRequest(progress_request=rpc.WatchProgressRequest())
    Namespace(PREFIX).watch(request)
    assert request == rpc.WatchRequest(progress_request=rpc.WatchProgressRequest())


def test_events_show_no_prefix() -> None:
    answer = rpc.WatchResponse(events=[Event(kv=KeyValue(key=b"team/a"), prev_kv=KeyValue(key=b"team/a"))])
    Namespace(PREFIX).watch_answer(answer)
    assert (answer.events[0].kv.key, answer.events[0].prev_kv.key) == (b"a", b"a")


def test_of_a_leases_keys_only_those_of_the_namespace_are_told() -> None:
    answer = rpc.LeaseTimeToLiveResponse(keys=[b"team/a", b"other", b"team/b"])
    Namespace(PREFIX).lease_answer(answer)
    assert list(answer.keys) == [b"a", b"b"]


def test_a_lock_is_taken_and_given_back_under_the_same_key() -> None:
    asked_for, shown = lock.LockRequest(name=b"n"), lock.LockResponse(key=b"team/n/1")
    space = Namespace(PREFIX)
    space.name(asked_for)
    space.lock_answer(shown)
    returned = lock.UnlockRequest(key=shown.key)
    space.key(returned)
    assert (asked_for.name, shown.key, returned.key) == (b"team/n", b"n/1", b"team/n/1")


def test_a_candidate_gets_its_key_without_the_prefix_and_proves_itself_with_it() -> None:
    space = Namespace(PREFIX)
    leader = election.LeaderKey(name=b"team/e", key=b"team/e/1", rev=3)
    answer = election.CampaignResponse(leader=leader)
    space.campaign_answer(answer)
    assert (answer.leader.name, answer.leader.key) == (b"e", b"e/1")
    request = election.ResignRequest(leader=answer.leader)
    space.leader_key(request)
    assert request.leader == leader


def _names_key(message: Descriptor, seen: tuple[str, ...] = ()) -> bool:
    for field in message.fields:
        if field.name in ("key", "range_end", "keys", "name") and field.type == field.TYPE_BYTES:
            return True
        inner = field.message_type
        if inner is not None and inner.full_name not in seen and _names_key(inner, (*seen, message.full_name)):
            return True
    return False


def test_no_method_that_names_keys_of_the_store_is_forgotten() -> None:
    rewritten = rewritings(PREFIX)
    for file in (rpc, lock, election):
        for service in file.DESCRIPTOR.services_by_name.values():
            if service.name == "Auth":  # permissions are the cluster's, as in etcd
                continue
            for method in service.methods:
                names = _names_key(method.input_type) or _names_key(method.output_type)
                assert names == (f"/{service.full_name}/{method.name}" in rewritten), method.full_name
