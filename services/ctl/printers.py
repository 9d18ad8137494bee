"""The output formats: what each writes for which answer, and which answers a format does not know."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from quorate.ctl.failures import BAD_FEATURE, Failure
from quorate.proto import rpc_pb2 as rpc


@dataclass(frozen=True, slots=True)
class EndpointHealth:
    """How one endpoint is; `took` is a duration as Go prints it, `error` empty when it is well."""

    endpoint: str
    health: bool
    took: str
    error: str


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """What one endpoint says of itself."""

    endpoint: str
    status: rpc.StatusResponse


@dataclass(frozen=True, slots=True)
class EndpointHash:
    """The checksum of one endpoint's keys."""

    endpoint: str
    hash: rpc.HashKVResponse


def name_of(kinds: Any, number: int) -> str:
    """The name of an enumeration's value, or its number when it has none, as Go prints it."""
    known = kinds.DESCRIPTOR.values_by_number.get(number)
    return str(number) if known is None else str(known.name)


def emit(text: str | bytes) -> None:
    """Write to standard output, keys and values as the bytes they are."""
    sys.stdout.buffer.write(text.encode(errors="surrogateescape") if isinstance(text, str) else text)
    sys.stdout.buffer.flush()


def line(text: str | bytes) -> None:
    """Write a line to standard output."""
    emit((text.encode(errors="surrogateescape") if isinstance(text, str) else text) + b"\n")


class Printer:
    """A format. Answers of calls go to the method of their kind; most formats treat most of them alike in `answer`."""

    name = ""
    is_simple = False

    def unsupported(self) -> Failure:
        """The failure of a format that does not know an answer."""
        return Failure(f"{self.name} not supported as output format", BAD_FEATURE)

    def answer(self, message: Message) -> None:
        """An answer that has no form of its own."""
        raise self.unsupported()

    def put(self, answer: rpc.PutResponse) -> None:
        """Of a put."""
        self.answer(answer)

    def get(self, answer: rpc.RangeResponse) -> None:
        """Of a read."""
        self.answer(answer)

    def delete(self, answer: rpc.DeleteRangeResponse) -> None:
        """Of a delete."""
        self.answer(answer)

    def txn(self, answer: rpc.TxnResponse) -> None:
        """Of a transaction."""
        self.answer(answer)

    def operation(self, response: rpc.ResponseOp) -> None:
        """Of one operation in a transaction: as if it had been called alone."""
        match response.WhichOneof("response"):
            case "response_put":
                self.put(response.response_put)
            case "response_range":
                self.get(response.response_range)
            case "response_delete_range":
                self.delete(response.response_delete_range)
            case "response_txn":
                self.txn(response.response_txn)

    def watch(self, response: rpc.WatchResponse) -> None:
        """Events of a watcher."""
        self.answer(response)

    def grant(self, answer: rpc.LeaseGrantResponse) -> None:
        """Of a lease's grant."""
        self.answer(answer)

    def revoke(self, lease_id: int, answer: rpc.LeaseRevokeResponse) -> None:
        """Of a lease's end."""
        self.answer(answer)

    def keep_alive(self, answer: rpc.LeaseKeepAliveResponse) -> None:
        """Of a lease's renewal."""
        self.answer(answer)

    def time_to_live(self, answer: rpc.LeaseTimeToLiveResponse, keys: bool) -> None:
        """Of a question after a lease."""
        self.answer(answer)

    def leases(self, answer: rpc.LeaseLeasesResponse) -> None:
        """The list of leases."""
        self.answer(answer)

    def members(self, answer: rpc.MemberListResponse) -> None:
        """The list of members."""
        self.answer(answer)

    def member_add(self, answer: rpc.MemberAddResponse) -> None:
        """Of a new member."""
        self.answer(answer)

    def member_change(self, done: str, member_id: int, answer: Message) -> None:
        """Of a change to a member; `done` as in "removed from"."""
        self.answer(answer)

    def alarms(self, answer: rpc.AlarmResponse) -> None:
        """Active alarms, or those that were disarmed."""
        self.answer(answer)

    def move_leader(self, leader: int, target: int, answer: rpc.MoveLeaderResponse) -> None:
        """Of a handed over leadership."""
        self.answer(answer)

    def done(self, text: str, answer: Message) -> None:
        """Of a change that needs only a word; the simple format prints the text."""
        self.answer(answer)

    def auth_status(self, answer: rpc.AuthStatusResponse) -> None:
        """Whether users are checked."""
        self.answer(answer)

    def user_get(self, name: str, answer: rpc.AuthUserGetResponse) -> None:
        """One user."""
        self.answer(answer)

    def names(self, names: Sequence[str], answer: Message) -> None:
        """Users or roles."""
        self.answer(answer)

    def role_get(self, name: str, answer: rpc.AuthRoleGetResponse) -> None:
        """One role."""
        self.answer(answer)

    def health(self, endpoints: Sequence[EndpointHealth]) -> None:
        """How endpoints are."""
        raise self.unsupported()

    def status(self, endpoints: Sequence[EndpointStatus]) -> None:
        """What endpoints say of themselves."""
        raise self.unsupported()

    def hashes(self, endpoints: Sequence[EndpointHash]) -> None:
        """Checksums of endpoints."""
        raise self.unsupported()


class Protobuf(Printer):
    """The answer's own bytes, without a newline."""

    name = "protobuf"

    def answer(self, message: Message) -> None:
        emit(message.SerializeToString())
