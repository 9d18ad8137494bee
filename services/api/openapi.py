"""The JSON gateway's share of the OpenAPI document, made from the protobuf descriptors and their comments."""

import json
from collections.abc import Iterable, Iterator
from importlib import resources
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor

from quorate.api.gateway_answers import FAILURE
from quorate.api.openapi_examples import REQUESTS, RESPONSES
from quorate.api.routes import ROUTES, Route

Schema = dict[str, Any]

DESCRIPTIONS: Final[dict[str, str]] = json.loads(
    resources.files("quorate.proto").joinpath("descriptions.json").read_text(encoding="utf-8")
)
INTRODUCTION: Final = """
Every call of etcd's v3 API as a POST of JSON below `/v3/`, in the form of etcd's own gateway. Below
`/v1/keys` keys and values are text. What follows is about `/v3/`.

* **Bytes are base64.** `"Zm9v"` is the key `foo`: `printf foo | base64`. Standard and URL-safe base64 are read, padding
  may be missing; answers are standard base64 with padding.
* **64-bit integers are strings** in answers; requests may use strings or numbers.
* Fields that are zero, empty or false are left out of answers.
* A range is `key` and `range_end`; see `range_end` of a range request for prefixes.
* Unknown fields are ignored. `/v3beta/` works in place of `/v3/`.
* With authentication on, send (to `/v1/` too) the token of `/v3/auth/authenticate` as the `Authorization` header.
* `Grpc-Timeout: 5S` limits the time of a call (H, M, S, m, u, n), `Grpc-Metadata-<name>` sets gRPC metadata.
"""

SECURITY: Final[list[Schema]] = [{}, {"token": []}]  # a token where authentication is on

_ERROR_REF: Final = {"$ref": "#/components/schemas/Error"}
_ERROR: Final[Schema] = {
    "type": "object",
    "description": "Why a call failed. `error` and `message` are the same text, for clients of different age.",
    "required": ["error", "code", "message"],
    "properties": {
        "error": {"type": "string", "description": "The text, where clients of etcd 3.4 and 3.5 look for it."},
        "code": {"type": "integer", "description": "The gRPC status code."},
        "message": {"type": "string", "description": "The text."},
    },
    "example": {
        "error": "etcdserver: key is not provided",
        "code": 3,
        "message": "etcdserver: key is not provided",
    },
}
_INTEGERS: Final[dict[int, Schema]] = {
    FieldDescriptor.TYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.TYPE_UINT32: {"type": "integer", "format": "uint32"},
    FieldDescriptor.TYPE_INT64: {"type": "string", "format": "int64", "example": "0"},
    FieldDescriptor.TYPE_UINT64: {"type": "string", "format": "uint64", "example": "0"},
}


def tags() -> list[Schema]:
    """One tag for each service, with its comment."""
    services: dict[str, ServiceDescriptor] = {}
    for route in ROUTES.values():
        service = route.descriptor.containing_service
        services[service.name] = service
    return [{"name": name, "description": DESCRIPTIONS[service.full_name]} for name, service in services.items()]


def paths() -> Schema:
    """The path items of all routes."""
    return {path: {"post": _operation(route)} for path, route in ROUTES.items()}


def schemas() -> Schema:
    """The component schemas of every message a route reads or writes, and of errors."""
    found: dict[str, Schema] = {"Error": _ERROR}
    for route in ROUTES.values():
        for descriptor in _reachable((route.request, route.response)):
            found[descriptor.full_name] = _message(descriptor)
    return found


def _operation(route: Route) -> Schema:
    service = route.descriptor.containing_service
    alias = route.path.startswith("/v3/kv/lease/")
    summary = DESCRIPTIONS[route.descriptor.full_name]
    return {
        "tags": [service.name],
        "operationId": f"{service.name}_{route.descriptor.name}" + ("_alias" if alias else ""),
        "summary": summary.split(". ")[0].rstrip("."),
        "description": "\n\n".join([summary, f"gRPC method `{route.method}`.", *_stream_notes(route)]),
        "requestBody": {"content": {"application/json": _content(route.request, REQUESTS.get(route.path))}},
        "responses": {
            "200": {
                "description": "One line for each response." if route.descriptor.server_streaming else "Success.",
                "content": {"application/json": _response(route)},
            },
            "default": {"description": FAILURE, "content": {"application/json": {"schema": _ERROR_REF}}},
        },
        "security": SECURITY,
    }


def _stream_notes(route: Route) -> Iterator[str]:
    if route.descriptor.client_streaming:
        yield "The body is any number of requests one after another; it may be sent piece by piece."
    if route.descriptor.server_streaming:
        yield (
            'The answer is a stream of lines, each `{"result": ...}`; a failure after the first is a last line '
            '`{"error": {"code": ..., "message": ...}}`.'
        )


def _response(route: Route) -> Schema:
    content = _content(route.response, RESPONSES.get(route.path))
    if not route.descriptor.server_streaming:
        return content
    result: Schema = {"schema": {"type": "object", "properties": {"result": content["schema"]}}}
    if "example" in content:
        result["example"] = {"result": content["example"]}
    return result


def _content(descriptor: Descriptor, example: Any) -> Schema:
    content: Schema = {"schema": _reference(descriptor)}
    if example is not None or not descriptor.fields:
        content["example"] = example or {}
    return content


def _reachable(start: Iterable[Descriptor]) -> Iterator[Descriptor]:
    waiting, seen = list(start), set()
    while waiting:
        descriptor = waiting.pop()
        if descriptor.full_name not in seen:
            seen.add(descriptor.full_name)
            waiting += [field.message_type for field in descriptor.fields if field.message_type is not None]
            yield descriptor


def _reference(descriptor: Descriptor) -> Schema:
    return {"$ref": f"#/components/schemas/{descriptor.full_name}"}


def _message(descriptor: Descriptor) -> Schema:
    schema: Schema = {"type": "object", "title": descriptor.name}
    notes = [DESCRIPTIONS.get(descriptor.full_name, "")]
    for oneof in descriptor.oneofs:
        notes.append(f"At most one of {', '.join(field.name for field in oneof.fields)} is set.")
    if text := " ".join(filter(None, notes)):
        schema["description"] = text
    schema["properties"] = {field.name: _field(field) for field in descriptor.fields}
    return schema


def _field(field: FieldDescriptor) -> Schema:
    schema = _value(field)
    if field.is_repeated:
        schema = {"type": "array", "items": schema}
    if text := DESCRIPTIONS.get(field.full_name):
        schema["description"] = text
    return schema


def _value(field: FieldDescriptor) -> Schema:
    match field.type:
        case FieldDescriptor.TYPE_MESSAGE:
            assert field.message_type is not None
            return _reference(field.message_type)
        case FieldDescriptor.TYPE_BYTES:
            return {"type": "string", "format": "byte", "contentEncoding": "base64", "example": "Zm9v"}
        case FieldDescriptor.TYPE_STRING:
            return {"type": "string"}
        case FieldDescriptor.TYPE_BOOL:
            return {"type": "boolean", "example": False}
        case FieldDescriptor.TYPE_ENUM:
            assert field.enum_type is not None
            return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
        case _:
            return dict(_INTEGERS[field.type])
