"""JSON as etcdctl writes it, which is Go's encoding of its structures and not protobuf's JSON mapping.

Fields have their names of the .proto file and are left out when zero; numbers and enums are numbers, bytes base64.
"""

import base64
import json
from collections.abc import Sequence
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from quorate.ctl.printers import EndpointHash, EndpointHealth, EndpointStatus, Printer, line
from quorate.proto import rpc_pb2 as rpc

_ONEOFS: Final = {"response": "Response", "request": "Request"}  # as Go names the holder of the one that is set


def plain(message: Message) -> dict[str, Any]:
    """A message as Go's JSON encoder sees it."""
    shown: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            if value:
                shown[field.name] = [_value(field, one) for one in value]
        elif field.message_type is not None:
            if message.HasField(field.name):
                held = _value(field, value)
                oneof = field.containing_oneof
                if oneof is not None:
                    shown[_ONEOFS[oneof.name]] = {field.name: held}
                else:
                    shown[field.name] = held
        elif value:
            shown[field.name] = _value(field, value)
    return shown


def _value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return plain(value)
    return base64.b64encode(value).decode() if field.type == FieldDescriptor.TYPE_BYTES else value


def dump(shown: object) -> str:
    """A line of JSON, with the characters escaped that Go escapes."""
    text = json.dumps(shown, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


class Json(Printer):
    """One line for each answer."""

    name = "json"

    def __init__(self, hex_wanted: bool) -> None:
        self._hex = hex_wanted

    def answer(self, message: Message) -> None:
        line(dump(plain(message)))

    def watch(self, response: rpc.WatchResponse) -> None:
        shown = {
            "Header": plain(response.header),
            "Events": [plain(event) for event in response.events] or None,
            "CompactRevision": response.compact_revision,
            "Canceled": response.canceled,
            "Created": response.created,
        }
        line(dump(shown))

    def grant(self, answer: rpc.LeaseGrantResponse) -> None:
        line(dump({**plain(answer.header), "ID": answer.ID, "TTL": answer.TTL, "Error": answer.error}))

    def keep_alive(self, answer: rpc.LeaseKeepAliveResponse) -> None:
        line(dump({**plain(answer.header), "ID": answer.ID, "TTL": answer.TTL}))

    def time_to_live(self, answer: rpc.LeaseTimeToLiveResponse, keys: bool) -> None:
        attached = [base64.b64encode(key).decode() for key in answer.keys] or None
        shown = {"id": answer.ID, "ttl": answer.TTL, "granted-ttl": answer.grantedTTL, "keys": attached}
        line(dump({**plain(answer.header), **shown}))

    def leases(self, answer: rpc.LeaseLeasesResponse) -> None:
        line(dump({**plain(answer.header), "leases": [{"id": lease.ID} for lease in answer.leases]}))

    def members(self, answer: rpc.MemberListResponse) -> None:
        shown = plain(answer)
        if self._hex:
            header = shown.get("header", {})  # a proxy's list has none
            for holder, name in [(header, "cluster_id"), (header, "member_id")] + [
                (member, "ID") for member in shown.get("members", ())
            ]:
                if name in holder:
                    holder[name] = f"{holder[name]:x}"
        line(dump(shown))

    def health(self, endpoints: Sequence[EndpointHealth]) -> None:
        shown = [
            {"endpoint": one.endpoint, "health": one.health, "took": one.took}
            | ({"error": one.error} if one.error else {})
            for one in endpoints
        ]
        line(dump(shown))

    def status(self, endpoints: Sequence[EndpointStatus]) -> None:
        line(dump([{"Endpoint": one.endpoint, "Status": plain(one.status)} for one in endpoints]))

    def hashes(self, endpoints: Sequence[EndpointHash]) -> None:
        line(dump([{"Endpoint": one.endpoint, "HashKV": plain(one.hash)} for one in endpoints]))
