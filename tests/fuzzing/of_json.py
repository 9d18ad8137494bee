"""The gateway's JSON: every message type beside protobuf's own reader and writer, and refusals of any text."""

from __future__ import annotations

import json
from typing import Any, Final, cast

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from quorate.api.gateway_answers import error_body, error_line
from quorate.api.json_codec import BadJson, Decoder, encoder, pieces
from quorate.api.routes import ROUTES
from tests.fuzzing.octets import Octets

TYPES: Final = [
    descriptor
    for _, descriptor in sorted(
        {one.full_name: one for route in ROUTES.values() for one in (route.request, route.response)}.items()
    )
]
DECODERS: Final = {descriptor.full_name: Decoder(descriptor) for descriptor in TYPES}
TEXT, BINARY = range(2)
ODDITIES: Final = (
    b'{"ID":"\\ud800","key":"\\ud83d\\ude00","name":"\\udfff"}',
    b'{"ID":1e400,"limit":-0.0,"TTL":123456789012345678901234567890,"revision":1.5,"rev":NaN}',
    b'{"key":"YQ","key":null,"range_end":"_-8=","rangeEnd":"\\u0000","value":"AA==AA=="}',
    b'{"success":[{"request_txn":' * 120,
    b"\xef\xbb\xbf{}",
    b"{} {} trailing",
)


def seeds() -> list[bytes]:
    """A filled message of every type as text, and in its binary form."""
    found = []
    for number, descriptor in enumerate(TYPES):
        message = filled(descriptor, 3)
        found.append(bytes((TEXT, number)) + encoder(descriptor)(message).encode())
        found.append(bytes((BINARY, number)) + message.SerializeToString())
        if number % 10 == 0:
            found += [bytes((TEXT, number)) + text for text in ODDITIES]
    return found


def filled(descriptor: Descriptor, depth: int) -> Message:
    """A message with something in every field, the last of each oneof."""
    message: Any = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if field.message_type is not None:
            if depth:
                inner = filled(field.message_type, depth - 1)
                place = getattr(message, field.name)
                place.add().CopyFrom(inner) if field.is_repeated else place.CopyFrom(inner)
            continue
        by_type = {field.TYPE_BYTES: b"\x00key\xff", field.TYPE_STRING: "nam\xe9", field.TYPE_BOOL: True}
        value: Any = by_type.get(field.type, 1)
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)
    return cast(Message, message)


def run(data: bytes) -> bool:
    """A request as text, or a response in its binary form."""
    octets = Octets(data)
    kind = octets.choice((TEXT, BINARY))
    descriptor = octets.choice(TYPES)
    return _read(descriptor, octets.rest()) if kind == TEXT else _write(descriptor, octets.rest())


def _read(descriptor: Descriptor, text: bytes) -> bool:
    ours: Message | None = None
    try:
        ours = DECODERS[descriptor.full_name].message(text)
    except BadJson as bad:
        for answer in (error_body(3, f"Failed to decode request: {bad}"), error_line(3, str(bad))):
            json.loads(answer)
        return False
    ours.SerializeToString()
    theirs = GetMessageClass(descriptor)()
    try:
        json_format.Parse(text, theirs, ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError, RecursionError, OverflowError, TypeError, AttributeError):
        return True
    assert ours == theirs
    return True


def _write(descriptor: Descriptor, body: bytes) -> bool:
    message = GetMessageClass(descriptor)()
    try:
        message.ParseFromString(body)
    except DecodeError:
        return False
    written = encoder(descriptor)(message)
    written.encode()
    assert "".join(pieces(descriptor, message)) == written
    expected = json.loads(json_format.MessageToJson(message, preserving_proto_field_name=True))
    assert json.loads(written) == expected
    return True
