"""etcd's checks of KV requests, rule by rule."""

import random

import pytest

from quorate.api.v3rpc.kv import is_serializable
from quorate.proto.rpc_pb2 import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from quorate.wire import errors
from quorate.wire.errors import CallFailed, EtcdError
from quorate.wire.requests import (
    check_put,
    check_range,
    check_txn,
    is_plain_put,
    is_plain_range,
    is_read_only,
    txn_cost,
)


def put(key: bytes) -> RequestOp:
    return RequestOp(request_put=PutRequest(key=key))


def delete(key: bytes, range_end: bytes = b"") -> RequestOp:
    return RequestOp(request_delete_range=DeleteRangeRequest(key=key, range_end=range_end))


def get(key: bytes, *, serializable: bool = False) -> RequestOp:
    return RequestOp(request_range=RangeRequest(key=key, serializable=serializable))


def txn(success: list[RequestOp], failure: list[RequestOp] | None = None) -> RequestOp:
    return RequestOp(request_txn=TxnRequest(success=success, failure=failure or []))


def error_of(request: TxnRequest, ops_max: int = 128) -> EtcdError | None:
    try:
        check_txn(request, ops_max)
    except CallFailed as failed:
        return failed.error
    return None


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (RangeRequest(), errors.EMPTY_KEY),
        (RangeRequest(key=b"a", sort_order=3), errors.INVALID_SORT_OPTION),  # type: ignore[arg-type]
        (RangeRequest(key=b"a", sort_order=-1), errors.INVALID_SORT_OPTION),  # type: ignore[arg-type]
        (RangeRequest(key=b"a", sort_target=5), errors.INVALID_SORT_OPTION),  # type: ignore[arg-type]
    ],
)
def test_range_that_etcd_refuses(request_: RangeRequest, error: EtcdError) -> None:
    with pytest.raises(CallFailed) as caught:
        check_range(request_)
    assert caught.value.error == error


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (PutRequest(value=b"v"), errors.EMPTY_KEY),
        (PutRequest(key=b"a", value=b"v", ignore_value=True), errors.VALUE_PROVIDED),
        (PutRequest(key=b"a", lease=1, ignore_lease=True), errors.LEASE_PROVIDED),
    ],
)
def test_put_that_etcd_refuses(request_: PutRequest, error: EtcdError) -> None:
    with pytest.raises(CallFailed) as caught:
        check_put(request_)
    assert caught.value.error == error


def test_requests_without_a_fault_pass() -> None:
    """A refusal would be raised."""
    check_range(RangeRequest(key=b"a", sort_order=RangeRequest.DESCEND, sort_target=RangeRequest.VALUE))
    check_put(PutRequest(key=b"a", ignore_value=True, ignore_lease=True))
    check_put(PutRequest(key=b"a", value=b"v", lease=7))


TXNS: dict[str, tuple[TxnRequest, EtcdError | None]] = {
    "empty": (TxnRequest(), None),
    "compare without a key": (TxnRequest(compare=[Compare()]), errors.EMPTY_KEY),
    "op without a request": (TxnRequest(success=[RequestOp()]), errors.KEY_NOT_FOUND),
    "op without a key": (TxnRequest(failure=[put(b"")]), errors.EMPTY_KEY),
    "nested op without a key": (TxnRequest(success=[txn([get(b"")])]), errors.EMPTY_KEY),
    "two puts of one key": (TxnRequest(success=[put(b"a"), put(b"a")]), errors.DUPLICATE_KEY),
    "puts in different branches": (TxnRequest(success=[put(b"a")], failure=[put(b"a")]), None),
    "put of a deleted key": (TxnRequest(success=[put(b"a"), delete(b"a")]), errors.DUPLICATE_KEY),
    "put inside a deleted range": (TxnRequest(success=[put(b"b"), delete(b"a", b"c")]), errors.DUPLICATE_KEY),
    "put at the end of a deleted range": (TxnRequest(success=[put(b"c"), delete(b"a", b"c")]), None),
    "put inside an open deleted range": (TxnRequest(success=[put(b"z"), delete(b"a", b"\0")]), None),
    "empty deleted range": (TxnRequest(success=[put(b"b"), delete(b"c", b"a")]), None),
    "overlapping deletes": (TxnRequest(success=[delete(b"a", b"c"), delete(b"b")]), None),
    "range of a put key": (TxnRequest(success=[put(b"a"), get(b"a")]), None),
    "nested put of an outer key": (TxnRequest(success=[put(b"a"), txn([put(b"a")])]), errors.DUPLICATE_KEY),
    "nested put of an outer deleted key": (
        TxnRequest(success=[txn([], [put(b"a")]), delete(b"a")]),
        errors.DUPLICATE_KEY,
    ),
    "outer put of a nested deleted key": (
        TxnRequest(success=[txn([delete(b"a")]), put(b"a")]),
        errors.DUPLICATE_KEY,
    ),
    "both branches of one nested put": (TxnRequest(success=[txn([put(b"a")], [put(b"a")])]), None),
    "siblings that put one key": (TxnRequest(success=[txn([put(b"a")]), txn([], [put(b"a")])]), errors.DUPLICATE_KEY),
    "delete in an earlier sibling of a put": (
        TxnRequest(success=[txn([delete(b"a")]), txn([put(b"a")])]),
        errors.DUPLICATE_KEY,
    ),
    "delete in a later sibling of a put": (TxnRequest(success=[txn([put(b"a")]), txn([delete(b"a")])]), None),
}


@pytest.mark.parametrize("name", TXNS)
def test_txn_is_judged_as_etcd_does(name: str) -> None:
    request, error = TXNS[name]
    assert error_of(request) == error


def test_longest_list_of_a_txn_is_limited() -> None:
    three = [get(b"a")] * 3
    assert error_of(TxnRequest(success=three), 3) is None
    assert error_of(TxnRequest(success=three), 2) == errors.TOO_MANY_OPS
    assert error_of(TxnRequest(failure=three), 2) == errors.TOO_MANY_OPS
    assert error_of(TxnRequest(compare=[Compare(key=b"a")] * 3), 2) == errors.TOO_MANY_OPS


def test_nested_txn_has_what_its_parent_left() -> None:
    nested = TxnRequest(success=[txn([get(b"a"), get(b"b")])])
    assert error_of(nested, 3) is None
    assert error_of(nested, 2) == errors.TOO_MANY_OPS


def test_a_nested_transaction_costs_what_is_in_it() -> None:
    """etcd #22140: its puts were not counted with the quota."""
    flat = TxnRequest(success=[put(b"key"), put(b"other")])
    nested = TxnRequest(success=[put(b"key"), txn([txn([], [put(b"other")])])], failure=[put(b"key")])
    assert 0 < txn_cost(TxnRequest(success=[put(b"key")])) < txn_cost(flat) == txn_cost(nested)


def test_too_many_ops_is_found_before_other_faults() -> None:
    assert error_of(TxnRequest(compare=[Compare()], success=[put(b"")] * 3), 2) == errors.TOO_MANY_OPS


def test_read_only_and_serializable_are_told_apart() -> None:
    local, read = get(b"a", serializable=True), get(b"a")
    assert is_read_only(TxnRequest(success=[local], failure=[read]))
    assert not is_read_only(TxnRequest(success=[read], failure=[put(b"a")]))
    assert not is_read_only(TxnRequest(success=[txn([read])]))
    assert is_serializable(TxnRequest(compare=[Compare(key=b"a")]))
    assert is_serializable(TxnRequest(success=[local], failure=[local]))
    assert not is_serializable(TxnRequest(success=[local], failure=[read]))


@pytest.mark.parametrize("key_bytes", [1, 31, 32, 127])
@pytest.mark.parametrize("value_bytes", [1, 127, 128, 256, 16_383])
def test_common_ranges_and_puts_are_told_without_decoding(key_bytes: int, value_bytes: int) -> None:
    key, value = b"k" * key_bytes, b"v" * value_bytes
    assert is_plain_range(RangeRequest(key=key).SerializeToString())
    assert is_plain_put(PutRequest(key=key, value=value).SerializeToString())


def test_nothing_but_a_valid_request_of_one_key_is_taken_for_a_plain_one() -> None:
    """Requests of every shape, cut off and with octets changed, against what protobuf makes of them."""
    chance = random.Random(1)
    plain = 0
    for _ in range(20_000):
        body = bytearray(_any_request(chance).SerializeToString())
        for _ in range(chance.choice((0, 0, 1, 2))):
            if body:
                body[chance.randrange(len(body))] = chance.choice((0, 1, 0x0A, 0x12, 0x7F, 0x80, 0xFF))
        octets = bytes(body[: chance.choice((len(body), chance.randint(0, len(body))))])
        if is_plain_range(octets):
            plain += 1
            request = RangeRequest.FromString(octets)
            check_range(request)
            assert request == RangeRequest(key=request.key)
        if is_plain_put(octets):
            plain += 1
            request_ = PutRequest.FromString(octets)
            check_put(request_)
            assert request_ == PutRequest(key=request_.key, value=request_.value)
    assert plain > 2_000


def _any_request(chance: random.Random) -> RangeRequest | PutRequest:
    key = chance.randbytes(chance.choice((0, 1, 2, 100, 127, 128, 200)))
    if chance.random() < 0.3:
        return RangeRequest(key=key, serializable=chance.random() < 0.3, limit=chance.choice((0, 0, 7)))
    return PutRequest(
        key=key,
        value=chance.randbytes(chance.choice((0, 1, 3, 127, 128, 300, 16_383, 16_384))),
        lease=chance.choice((0, 0, 0, 9)),
        prev_kv=chance.random() < 0.1,
        ignore_lease=chance.random() < 0.1,
    )
