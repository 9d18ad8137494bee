"""The compiled JSON codec agrees with protobuf's own and refuses what Go's refuses."""

import base64
import contextlib
import json
from typing import Any, cast

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from quorate.api.json_codec import PIECE_ITEMS, BadJson, Decoder, encoder, pieces
from quorate.api.routes import ROUTES
from quorate.proto import kv_pb2, rpc_pb2

INTEGERS = {
    FieldDescriptor.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: st.integers(0, 2**64 - 1),
}
TYPES = sorted(
    {
        descriptor.full_name: descriptor for route in ROUTES.values() for descriptor in (route.request, route.response)
    }.items()
)


def values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    match field.type:
        case FieldDescriptor.TYPE_MESSAGE:
            assert field.message_type is not None
            return messages(field.message_type, depth - 1)
        case FieldDescriptor.TYPE_BYTES:
            return st.binary(max_size=9)
        case FieldDescriptor.TYPE_STRING:
            return st.text(max_size=9)
        case FieldDescriptor.TYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.TYPE_ENUM:
            assert field.enum_type is not None
            return st.sampled_from([value.number for value in field.enum_type.values])
        case _:
            return INTEGERS[field.type]


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, depth: int = 3) -> Message:
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if (depth == 0 and field.message_type is not None) or draw(st.booleans()):
            continue
        value = values(field, depth)
        item = draw(st.lists(value, max_size=3) if field.is_repeated else value)
        if field.is_repeated:
            getattr(message, field.name).extend(item)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(item)
        else:
            setattr(message, field.name, item)
    return message


def descriptor_of(message: Message) -> Descriptor:
    return cast(Descriptor, message.DESCRIPTOR)


def any_message() -> st.SearchStrategy[Message]:
    return st.sampled_from([descriptor for _, descriptor in TYPES]).flatmap(messages)


@settings(max_examples=300, deadline=None)
@given(any_message())
def test_written_json_means_what_protobufs_own_means(message: Message) -> None:
    ours = encoder(descriptor_of(message))(message)
    assert json.loads(json_format.MessageToJson(message, preserving_proto_field_name=True)) == json.loads(ours)


@settings(max_examples=300, deadline=None)
@given(any_message(), st.booleans())
def test_json_written_by_protobuf_is_read_back(message: Message, proto_names: bool) -> None:
    text = json_format.MessageToJson(message, preserving_proto_field_name=proto_names)
    assert message == Decoder(descriptor_of(message)).message(text.encode())


@settings(max_examples=300, deadline=None)
@given(any_message())
def test_what_is_written_is_read_back(message: Message) -> None:
    assert message == Decoder(descriptor_of(message)).message(encoder(descriptor_of(message))(message).encode())


@settings(max_examples=300, deadline=None)
@given(any_message())
def test_the_pieces_together_are_the_whole(message: Message) -> None:
    assert encoder(descriptor_of(message))(message) == "".join(pieces(descriptor_of(message), message))


def test_a_long_list_comes_in_several_pieces() -> None:
    kvs = [kv_pb2.KeyValue(key=b"%d" % number) for number in range(3 * PIECE_ITEMS + 1)]
    response = rpc_pb2.RangeResponse(kvs=kvs, count=len(kvs))
    written = list(pieces(rpc_pb2.RangeResponse.DESCRIPTOR, response))
    assert encoder(rpc_pb2.RangeResponse.DESCRIPTOR)(response) == "".join(written)
    assert max(piece.count("{") for piece in written) == PIECE_ITEMS


def says_the_same_when_written_again(descriptor: Descriptor, text: bytes) -> None:
    message = Decoder(descriptor).message(text)
    assert message == Decoder(descriptor).message(encoder(descriptor)(message).encode())


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_bad_json(text: bytes) -> None:
    for descriptor in (rpc_pb2.TxnRequest.DESCRIPTOR, rpc_pb2.PutRequest.DESCRIPTOR):
        with contextlib.suppress(BadJson):
            says_the_same_when_written_again(descriptor, text)


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*rpc_pb2.TxnRequest.DESCRIPTOR.fields_by_name, "request_put", "key"]), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(any_json)
def test_any_json_is_a_message_or_bad_json(value: Any) -> None:
    with contextlib.suppress(BadJson):
        says_the_same_when_written_again(rpc_pb2.TxnRequest.DESCRIPTOR, json.dumps(value).encode())


def put(text: str) -> rpc_pb2.PutRequest:
    message = Decoder(rpc_pb2.PutRequest.DESCRIPTOR).message(text.encode())
    assert isinstance(message, rpc_pb2.PutRequest)
    return message


def test_a_put_response_is_written_as_etcd_writes_it() -> None:
    header = rpc_pb2.ResponseHeader(
        cluster_id=14841639068965178418, member_id=10276657743932975437, revision=2, raft_term=2
    )
    assert encoder(rpc_pb2.PutResponse.DESCRIPTOR)(rpc_pb2.PutResponse(header=header)) == (
        '{"header":{"cluster_id":"14841639068965178418","member_id":"10276657743932975437",'
        '"revision":"2","raft_term":"2"}}'
    )


def test_zero_values_are_omitted_but_present_messages_stay() -> None:
    event = kv_pb2.Event(kv=kv_pb2.KeyValue())
    assert encoder(kv_pb2.Event.DESCRIPTOR)(event) == '{"kv":{}}'


def test_an_enum_without_a_name_is_written_as_its_number() -> None:
    member = rpc_pb2.AlarmMember()
    member.ParseFromString(b"\x10\x07")
    assert encoder(rpc_pb2.AlarmMember.DESCRIPTOR)(member) == '{"alarm":7}'


def test_an_empty_body_is_the_empty_message() -> None:
    assert put("") == rpc_pb2.PutRequest() == put(" \n")


@pytest.mark.parametrize("lease", ["10", '"10"', "1e1", '"1e1"', "10.0", "10.0e0"])
def test_integers_come_as_numbers_or_strings(lease: str) -> None:
    assert put(f'{{"lease":{lease}}}').lease == 10


@pytest.mark.parametrize(
    "lease", ['"010"', '"+1"', '" 1"', '""', '"0x1"', "1.5", "1e400000000", "9223372036854775808", "true", "[]", "{}"]
)
def test_what_is_no_64_bit_integer_is_refused(lease: str) -> None:
    with pytest.raises(BadJson):
        put(f'{{"lease":{lease}}}')


def test_a_number_of_thousands_of_digits_is_refused() -> None:
    with pytest.raises(BadJson):
        put('{"lease":' + "9" * 5000 + "}")


@given(st.binary(max_size=20))
def test_base64_is_read_in_both_alphabets_with_and_without_padding(value: bytes) -> None:
    for encoded in (base64.b64encode(value), base64.urlsafe_b64encode(value)):
        for text in (encoded.decode(), encoded.decode().rstrip("=")):
            assert value == put(json.dumps({"key": text})).key


@pytest.mark.parametrize("key", ['"a"', '"Zm9v!"', '"Zm9v===="', '"-+AA"', '"Zg=a"', '"é"', "1", "true", "[]", "{}"])
def test_what_is_no_base64_is_refused(key: str) -> None:
    with pytest.raises(BadJson):
        put(f'{{"key":{key}}}')


def test_both_spellings_of_a_name_are_read() -> None:
    assert put('{"prev_kv":true}').prev_kv
    assert put('{"prevKv":true}').prev_kv


def test_a_field_given_twice_is_refused() -> None:
    for text in ('{"lease":1,"lease":2}', '{"prev_kv":true,"prevKv":true}'):
        with pytest.raises(BadJson, match="duplicate field"):
            put(text)


def test_unknown_fields_and_null_are_ignored() -> None:
    assert put('{"nonsense":{"a":[1]},"lease":null,"value":null}') == rpc_pb2.PutRequest()


def test_what_follows_the_first_value_is_not_read() -> None:
    assert put('{"lease":1} trailing').lease == 1


@pytest.mark.parametrize("text", ["{", '{"lease":', "[1]", "null", "1", '"x"', "x", "{'lease':1}", '{"lease":NaN}'])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(BadJson):
        put(text)


def test_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(BadJson):
        Decoder(rpc_pb2.PutRequest.DESCRIPTOR).message(b'{"x":"\xff"}')
    with pytest.raises(BadJson):
        Decoder(rpc_pb2.AuthUserAddRequest.DESCRIPTOR).message(b'{"name":"\\ud800"}')


def test_enums_are_read_by_name_and_number() -> None:
    decoder = Decoder(rpc_pb2.RangeRequest.DESCRIPTOR)
    for order in ('"DESCEND"', "2", "2.0"):
        assert decoder.message(f'{{"sort_order":{order}}}'.encode()) == rpc_pb2.RangeRequest(
            sort_order=rpc_pb2.RangeRequest.DESCEND
        )
    filters = Decoder(rpc_pb2.WatchCreateRequest.DESCRIPTOR).message(b'{"filters":["NODELETE",0]}')
    assert isinstance(filters, rpc_pb2.WatchCreateRequest)
    assert list(filters.filters) == [1, 0]


def test_an_enum_name_that_does_not_exist_is_refused() -> None:
    with pytest.raises(BadJson, match=r"SIDEWAYS.* is none of NONE, ASCEND, DESCEND"):
        Decoder(rpc_pb2.RangeRequest.DESCRIPTOR).message(b'{"sort_order":"SIDEWAYS"}')


def test_two_members_of_one_oneof_are_refused() -> None:
    decoder = Decoder(rpc_pb2.Compare.DESCRIPTOR)
    with pytest.raises(BadJson, match="oneof target_union"):
        decoder.message(b'{"version":"1","lease":"2"}')
    assert decoder.message(b'{"version":"0","lease":null}') == rpc_pb2.Compare(version=0)


def nested_txn(depth: int) -> bytes:
    return b'{"success":[{"request_txn":' * depth + b"{}" + b"}]}" * depth


def test_nesting_is_bounded_where_protobuf_bounds_it() -> None:
    decoder = Decoder(rpc_pb2.TxnRequest.DESCRIPTOR)
    rpc_pb2.TxnRequest.FromString(decoder.message(nested_txn(49)).SerializeToString())
    for depth in (50, 60, 1000, 100_000):
        with pytest.raises(BadJson, match="nested too deeply"):
            decoder.message(nested_txn(depth))


def test_deeply_nested_unknown_json_is_refused_not_fatal() -> None:
    with pytest.raises(BadJson):
        put('{"x":' + "[" * 100_000 + "]" * 100_000 + "}")
