"""protobuf's JSON mapping as etcd's gateway speaks it, compiled once per message type.

google.protobuf.json_format walks descriptors for every message and costs five times as much; here
everything a descriptor can say is looked up once, when the functions of a message type are made.
tests/api/test_json_codec.py compares the two.

Written, as grpc-gateway does with proto names: zero values omitted, 64-bit integers as decimal strings,
bytes as padded standard base64, enums by name, fields in the order of the .proto file.
Read: proto and lowerCamelCase names, integers as numbers or strings, enums by name or number, standard or
URL-safe base64 with or without padding, null as absent. Unknown fields are ignored. Two members of one
oneof, a repeated name or a wrong type are refused. Whatever follows the first JSON value is not looked at,
which is what Go's stream decoder does.
"""

import binascii
import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

Json = Any  # what _parser makes: an object is a tuple of (name, value) pairs, an array a list
Fill = Callable[[Message, Json, int], None]  # message, JSON object, depth of the message
Set = Callable[[Message, Json, int], None]  # the same for one field of the message
Convert = Callable[[Json], Any]
Write = Callable[[Any], str]

PIECE_ITEMS: Final = 500  # take about a millisecond to write

_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WHITESPACE: Final = " \t\r\n"
_EXPONENT_MAX: Final = 20  # a 64-bit integer has at most this many digits
_DEPTH_MAX: Final = 100  # protobuf's own bound on nested messages when it decodes
_TOKEN_MAX: Final = len(r"\uD83D\uDE00")  # the longest piece of JSON, strings aside, that a cut can make invalid


class BadJson(ValueError):  # noqa: N818 - it names the finding
    """The body is not JSON, or not JSON of this message type; the text is for the client."""


class IncompleteJson(BadJson):
    """The text ends inside a JSON value; with more text it may be good."""


class Decoder:
    """Turns JSON text into messages of one type."""

    def __init__(self, descriptor: Descriptor) -> None:
        self._new = GetMessageClass(descriptor)
        self._fill = _filler(descriptor)

    def message(self, text: bytes) -> Message:
        """The message that the first JSON value of `text` describes; no text is the empty message.

        Raises BadJson, and nothing else, whatever the text is.
        """
        try:
            return self.next_message(text.decode(), 0)[0]
        except UnicodeDecodeError as error:
            raise BadJson(str(error)) from None

    def next_message(self, text: str, start: int) -> tuple[Message, int]:
        """The message at `start` of `text` and where its JSON value ends; BadJson as above."""
        message = self._new()
        try:
            start = skip_whitespace(text, start)
            if start == len(text):
                return message, start
            value, end = _parser.raw_decode(text, start)
            self._fill(message, value, 1)
        except BadJson:
            raise
        except json.JSONDecodeError as error:
            unfinished = error.pos >= len(text) - _TOKEN_MAX or error.msg.startswith("Unterminated")
            raise (IncompleteJson if unfinished else BadJson)(str(error)) from None
        except RecursionError:
            raise BadJson("nested too deeply") from None
        except ValueError as error:  # a number out of range, or a string that is not UTF-8
            raise BadJson(str(error)) from None
        return message, end


def skip_whitespace(text: str, start: int) -> int:
    """Position of the first character from `start` on that is no JSON whitespace."""
    while start < len(text) and text[start] in _WHITESPACE:
        start += 1
    return start


def encoder(descriptor: Descriptor) -> Write:
    """The function that writes messages of this type as JSON text without a space."""
    return _writer(descriptor)


def pieces(descriptor: Descriptor, message: Any) -> Iterator[str]:
    """The same text in pieces, none of them with more than PIECE_ITEMS items of a list of the message itself."""
    separator = "{"
    for field in descriptor.fields:
        value = getattr(message, field.name)
        if not (message.HasField(field.name) if field.has_presence else value):
            continue
        yield f'{separator}"{field.name}":'
        separator = ","
        write_one = _value_writer(field)
        if field.is_repeated:
            for start in range(0, len(value), PIECE_ITEMS):
                yield ("," if start else "[") + ",".join(map(write_one, value[start : start + PIECE_ITEMS]))
            yield "]"
        else:
            yield write_one(value)
    yield "}" if separator == "," else "{}"


# Reading


def _refuse_constant(name: str) -> None:
    raise BadJson(f"invalid value {name}")


_parser: Final = json.JSONDecoder(object_pairs_hook=tuple, parse_float=Decimal, parse_constant=_refuse_constant)


_fillers: Final[dict[str, Fill]] = {}


def _filler(descriptor: Descriptor) -> Fill:
    if descriptor.full_name in _fillers:
        return _fillers[descriptor.full_name]
    setters: dict[str, tuple[str, str, Set]] = {}

    def fill(message: Message, value: Json, depth: int) -> None:
        if type(value) is not tuple:
            raise BadJson(f"{descriptor.name}: an object is needed, not {_shown(value)}")
        if depth > _DEPTH_MAX:
            raise BadJson("nested too deeply")
        seen: set[str] = set()
        for name, item in value:
            setter = setters.get(name)
            if setter is None or item is None:
                continue
            field_name, group, set_field = setter
            if field_name in seen:
                raise BadJson(f"duplicate field {name}")
            if group in seen:
                raise BadJson(f"{name}: another member of oneof{group} is already set")
            seen.add(field_name)
            if group:
                seen.add(group)
            set_field(message, item, depth)

    _fillers[descriptor.full_name] = fill  # before its fields: a type may contain itself
    for field in descriptor.fields:
        group = f" {field.containing_oneof.name}" if field.containing_oneof else ""
        setters[field.name] = setters[field.json_name] = (field.name, group, _setter(field))
    return fill


def _setter(field: FieldDescriptor) -> Set:
    name = field.name
    if field.message_type is not None:
        fill = _filler(field.message_type)
        return _message_list_setter(name, fill) if field.is_repeated else _message_setter(name, fill)
    convert = _converter(field)
    return _list_setter(name, convert) if field.is_repeated else _value_setter(name, convert)


def _value_setter(name: str, convert: Convert) -> Set:
    def set_value(message: Message, value: Json, _: int) -> None:
        setattr(message, name, convert(value))

    return set_value


def _message_setter(name: str, fill: Fill) -> Set:
    def set_message(message: Message, value: Json, depth: int) -> None:
        inner = getattr(message, name)
        inner.SetInParent()
        fill(inner, value, depth + 1)

    return set_message


def _list_setter(name: str, convert: Convert) -> Set:
    def set_list(message: Message, value: Json, _: int) -> None:
        getattr(message, name).extend(map(convert, _items(name, value)))

    return set_list


def _message_list_setter(name: str, fill: Fill) -> Set:
    def set_messages(message: Message, value: Json, depth: int) -> None:
        items = getattr(message, name)
        for item in _items(name, value):
            fill(items.add(), item, depth + 1)

    return set_messages


def _items(name: str, value: Json) -> list[Json]:
    if type(value) is not list:
        raise BadJson(f"{name}: an array is needed, not {_shown(value)}")
    return value


def _converter(field: FieldDescriptor) -> Convert:
    match field.type:
        case FieldDescriptor.TYPE_BYTES:
            return _bytes_converter(field.name)
        case FieldDescriptor.TYPE_STRING:
            return _type_converter(field.name, str, "a string")
        case FieldDescriptor.TYPE_BOOL:
            return _type_converter(field.name, bool, "true or false")
        case FieldDescriptor.TYPE_ENUM:
            assert field.enum_type is not None
            return _enum_converter(field.name, field.enum_type)
        case _:
            assert field.type in _INTEGERS, field.full_name
            return _integer_converter(field.name)


def _type_converter(name: str, wanted: type, description: str) -> Convert:
    def convert(value: Json) -> Any:
        if type(value) is not wanted:
            raise BadJson(f"{name}: {description} is needed, not {_shown(value)}")
        return value

    return convert


def _integer_converter(name: str) -> Callable[[Json], int]:
    def convert(value: Json) -> int:
        if type(value) is int:
            return value
        if type(value) is str and _NUMBER.fullmatch(value):
            value = Decimal(value)
        if type(value) is Decimal and value.adjusted() < _EXPONENT_MAX and value == value.to_integral_value():
            return int(value)
        raise BadJson(f"{name}: an integer is needed, not {_shown(value)}")

    return convert


def _enum_converter(name: str, enum: EnumDescriptor) -> Convert:
    numbers = {value.name: value.number for value in enum.values}
    convert_number = _integer_converter(name)

    def convert(value: Json) -> int:
        if type(value) is not str:
            return convert_number(value)
        if value not in numbers:
            raise BadJson(f"{name}: {_shown(value)} is none of {', '.join(numbers)}")
        return numbers[value]

    return convert


def _bytes_converter(name: str) -> Convert:
    def convert(value: Json) -> bytes:
        if type(value) is not str:
            raise BadJson(f"{name}: a base64 string is needed, not {_shown(value)}")
        try:
            return _strict_base64(value)
        except ValueError:
            return _lenient_base64(name, value)

    return convert


def _strict_base64(text: str) -> bytes:
    decoded = binascii.a2b_base64(text, strict_mode=True)
    if len(text) != (len(decoded) + 2) // 3 * 4:
        raise ValueError("excess padding")  # which strict_mode lets pass after a full group
    return decoded


def _lenient_base64(name: str, value: str) -> bytes:
    """URL-safe, without padding or with line breaks; not both alphabets in one string."""
    text = value.replace("\r", "").replace("\n", "")
    if "-" in text or "_" in text:
        if "+" in text or "/" in text:
            raise BadJson(f"{name}: {_shown(value)} mixes the two base64 alphabets")
        text = text.replace("-", "+").replace("_", "/")
    if len(text) % 4 and "=" not in text:
        text += "=" * (-len(text) % 4)
    try:
        return _strict_base64(text)
    except ValueError:
        raise BadJson(f"{name}: {_shown(value)} is not base64") from None


def _shown(value: Json) -> str:
    """A short form of a JSON value for an error text."""
    match value:
        case tuple():
            return "an object"
        case list():
            return "an array"
        case str():
            return encode_basestring(value if len(value) <= 40 else value[:40] + "...")
        case True | False | None:
            return str(value).lower().replace("none", "null")
        case _:
            return "a number"


# Writing

_INTEGERS: Final = {
    FieldDescriptor.TYPE_INT32: False,
    FieldDescriptor.TYPE_UINT32: False,
    FieldDescriptor.TYPE_INT64: True,
    FieldDescriptor.TYPE_UINT64: True,
}  # the integer types of the API, and whether JSON carries them as strings
_writers: Final[dict[str, Write]] = {}


def _writer(descriptor: Descriptor) -> Write:
    if descriptor.full_name in _writers:
        return _writers[descriptor.full_name]
    fields: list[tuple[str, bool, str, Write]] = []

    def write(message: Any) -> str:
        parts = []
        for name, has_presence, prefix, write_value in fields:
            if has_presence:
                if message.HasField(name):
                    parts.append(prefix + write_value(getattr(message, name)))
            elif value := getattr(message, name):
                parts.append(prefix + write_value(value))
        return "{" + ",".join(parts) + "}"

    _writers[descriptor.full_name] = write  # before its fields: a type may contain itself
    for field in descriptor.fields:
        write_one = _value_writer(field)
        write_field = _list_writer(write_one) if field.is_repeated else write_one
        fields.append((field.name, field.has_presence, f'"{field.name}":', write_field))
    return write


def _value_writer(field: FieldDescriptor) -> Write:
    match field.type:
        case FieldDescriptor.TYPE_MESSAGE:
            assert field.message_type is not None
            return _writer(field.message_type)
        case FieldDescriptor.TYPE_BYTES:
            return _base64
        case FieldDescriptor.TYPE_STRING:
            return encode_basestring
        case FieldDescriptor.TYPE_BOOL:
            return _boolean
        case FieldDescriptor.TYPE_ENUM:
            assert field.enum_type is not None
            return _enum_writer(field.enum_type)
        case _:
            return _quoted if _INTEGERS[field.type] else str


def _list_writer(write_one: Write) -> Write:
    return lambda values: "[" + ",".join(map(write_one, values)) + "]"


def _enum_writer(enum: EnumDescriptor) -> Write:
    names = {value.number: f'"{value.name}"' for value in enum.values}
    return lambda number: names.get(number) or str(number)


def _base64(value: bytes) -> str:
    return '"' + binascii.b2a_base64(value, newline=False).decode() + '"'


def _quoted(value: int) -> str:
    return f'"{value}"'


def _boolean(value: bool) -> str:
    return "true" if value else "false"
