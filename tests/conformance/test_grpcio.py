"""Calls that no command line makes, through grpcio: the same answers from Quorate and from real etcd."""

from collections.abc import Iterator

import grpc
import pytest

from bench import servers
from quorate.proto import health_pb2, rpc_pb2
from tests.support.rpc import Caller, calling, refusal


@pytest.fixture(scope="module")
def caller(node: servers.Node) -> Iterator[Caller]:
    with calling(node.endpoint) as connected:
        yield connected


def put(caller: Caller, key: bytes, value: bytes = b"v") -> int:
    revision: int = caller.unary("KV/Put", rpc_pb2.PutRequest(key=key, value=value)).header.revision
    return revision


@pytest.mark.parametrize(
    ("target", "operand"),
    [
        ("VERSION", {"version": 2}),
        ("CREATE", {"create_revision": -1}),
        ("MOD", {"mod_revision": -1}),
        ("VALUE", {"value": b"b"}),
        ("LEASE", {"lease": 0}),
    ],
)
def test_compares_order_as_numbers_and_bytes(caller: Caller, target: str, operand: dict[str, int | bytes]) -> None:
    key = f"compare/{target}".encode()
    created = put(caller, key, b"a")
    modified = put(caller, key, b"b")
    actual = {"create_revision": created, "mod_revision": modified}
    operand = {name: actual.get(name, value) for name, value in operand.items()}
    held = {}
    for result, number in rpc_pb2.Compare.CompareResult.items():
        compare = rpc_pb2.Compare(
            key=key,
            target=rpc_pb2.Compare.CompareTarget.Value(target),
            result=number,
            **operand,  # type: ignore[arg-type]
        )
        held[result] = caller.unary("KV/Txn", rpc_pb2.TxnRequest(compare=[compare])).succeeded
    assert held == {"EQUAL": True, "GREATER": False, "LESS": False, "NOT_EQUAL": False}


def test_compare_of_a_range_holds_for_every_key(caller: Caller) -> None:
    for key in (b"all/1", b"all/2"):
        put(caller, key, b"same")
    compare = rpc_pb2.Compare(key=b"all/", range_end=b"all0", target=rpc_pb2.Compare.VALUE, value=b"same")
    assert caller.unary("KV/Txn", rpc_pb2.TxnRequest(compare=[compare])).succeeded
    put(caller, b"all/2", b"other")
    assert not caller.unary("KV/Txn", rpc_pb2.TxnRequest(compare=[compare])).succeeded


def test_nested_txn_compares_before_any_change(caller: Caller) -> None:
    inner = rpc_pb2.TxnRequest(
        compare=[rpc_pb2.Compare(key=b"nested", target=rpc_pb2.Compare.VERSION, version=0)],
        success=[rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"inner", value=b"saw nothing"))],
    )
    outer = rpc_pb2.TxnRequest(
        success=[
            rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"nested", value=b"1")),
            rpc_pb2.RequestOp(request_txn=inner),
        ]
    )
    answer = caller.unary("KV/Txn", outer)
    assert answer.responses[1].response_txn.succeeded
    kv = caller.unary("KV/Range", rpc_pb2.RangeRequest(key=b"inner")).kvs[0]
    assert (kv.mod_revision, kv.value) == (answer.header.revision, b"saw nothing")


def test_txn_operations_share_one_revision(caller: Caller) -> None:
    ops = [rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"share/%d" % n)) for n in range(128)]
    revision = caller.unary("KV/Txn", rpc_pb2.TxnRequest(success=ops)).header.revision
    kvs = caller.unary("KV/Range", rpc_pb2.RangeRequest(key=b"share/", range_end=b"share0")).kvs
    assert {revision} == {kv.mod_revision for kv in kvs}
    assert len(kvs) == 128


REFUSED = {
    "empty key": ("KV/Put", rpc_pb2.PutRequest(), "INVALID_ARGUMENT", "etcdserver: key is not provided"),
    "too many operations": (
        "KV/Txn",
        rpc_pb2.TxnRequest(
            success=[rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"%d" % n)) for n in range(129)]
        ),
        "INVALID_ARGUMENT",
        "etcdserver: too many operations in txn request",
    ),
    "request too large": (
        "KV/Put",
        rpc_pb2.PutRequest(key=b"large", value=b"x" * 1_572_864),
        "INVALID_ARGUMENT",
        "etcdserver: request is too large",
    ),
    "future revision": (
        "KV/Range",
        rpc_pb2.RangeRequest(key=b"a", revision=1 << 40),
        "OUT_OF_RANGE",
        "etcdserver: mvcc: required revision is a future revision",
    ),
    "nested duplicate": (
        "KV/Txn",
        rpc_pb2.TxnRequest(
            success=[
                rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"twice")),
                rpc_pb2.RequestOp(
                    request_txn=rpc_pb2.TxnRequest(
                        failure=[rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"twice"))]
                    )
                ),
            ]
        ),
        "INVALID_ARGUMENT",
        "etcdserver: duplicate key given in txn request",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusal_has_etcds_code_and_text(caller: Caller, case: str) -> None:
    method, request, code, text = REFUSED[case]
    with pytest.raises(grpc.RpcError) as refused:
        caller.unary(method, request)
    assert refusal(refused.value) == (code, text)


def test_message_beyond_the_limit_is_refused_by_the_transport(caller: Caller) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        caller.unary("KV/Put", rpc_pb2.PutRequest(key=b"huge", value=b"x" * 3_000_000))
    code, text = refusal(refused.value)
    assert code == "RESOURCE_EXHAUSTED"
    assert text.startswith("grpc: received message larger than max (")


def test_unknown_method_and_service_are_unimplemented(caller: Caller) -> None:
    for path in ("/etcdserverpb.KV/Frobnicate", "/nobody.Nothing/Call"):
        with pytest.raises(grpc.RpcError) as refused:
            caller.raw(path, b"")
        assert refusal(refused.value)[0] == "UNIMPLEMENTED"


def test_health_service_knows_only_the_whole_server(caller: Caller) -> None:
    answer = caller.unary("Health/Check", health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as refused:
        caller.unary("Health/Check", health_pb2.HealthCheckRequest(service="etcdserverpb.KV"))
    assert refusal(refused.value) == ("NOT_FOUND", "unknown service")


def test_large_range_arrives_whole(caller: Caller) -> None:
    for number in range(40):
        put(caller, b"large/%02d" % number, bytes([number]) * 250_000)
    answer = caller.unary("KV/Range", rpc_pb2.RangeRequest(key=b"large/", range_end=b"large0"))
    assert [kv.value for kv in answer.kvs] == [bytes([number]) * 250_000 for number in range(40)]
