"""How a connection between members begins: an HTTP/1.1 request, as the peer port is HTTP to everybody. Pure.

A member that dials asks to upgrade to a stream of frames and says who it is, whom it wants and of which cluster. Any
other GET is a question somebody asks with a plain HTTP client. The headers are etcd's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from quorate.consensus.membership import CLUSTER_VERSION, Membership

PROTOCOL: Final = "quorate-raft/1"
STREAM_PATH: Final = "/raft/stream/"
REPLACE_PATH: Final = "/members/replace"  # a member that lost its log asks for a new id
URGENT: Final = "urgent"
BULK: Final = "bulk"
SNAPSHOT: Final = "snapshot"
KINDS: Final = (URGENT, BULK, SNAPSHOT)  # of streams
HEAD_BYTES_MAX: Final = 8192
ID_LARGEST: Final = (1 << 64) - 1
SERVER_VERSION: Final = "3.6.14"  # the etcd whose interface this is
MEMBERSHIP_INDEX: Final = "X-Quorate-Membership-Index"  # beside /members: as of which index of the log they are
REMOVED_TEXT: Final = "the member has been permanently removed from the cluster"


class BadRequest(Exception):  # noqa: N818 - it names an outcome
    """Not an HTTP request or response that belongs here."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What a dialling member says."""

    kind: str  # of the stream: urgent, bulk or snapshot
    cluster_id: int
    from_id: int
    to_id: int


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request."""

    method: str
    path: str
    headers: dict[str, str]  # by lower-case name


def pack_hello(hello: Hello, host: str) -> bytes:
    """The request of a dialling member."""
    lines = (
        f"GET {STREAM_PATH}{hello.kind} HTTP/1.1",
        f"Host: {host}",
        "Connection: Upgrade",
        f"Upgrade: {PROTOCOL}",
        f"X-Etcd-Cluster-ID: {hello.cluster_id:x}",
        f"X-Server-From: {hello.from_id:x}",
        f"X-Raft-To: {hello.to_id:x}",
        f"X-Server-Version: {SERVER_VERSION}",
        "",
        "",
    )
    return "\r\n".join(lines).encode()


def parse_request(head: bytes) -> Request:
    """The head up to and with its empty line; BadRequest for anything that is none."""
    try:
        first, *rest = head.decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
        method, target, version = first.split(" ")
        headers = {}
        for line in rest:
            name, colon, value = line.partition(":")
            if not colon:
                raise BadRequest(line)
            headers[name.strip().lower()] = value.strip()
    except ValueError as error:
        raise BadRequest("not an HTTP request") from error
    if not version.startswith("HTTP/1."):
        raise BadRequest(version)
    return Request(method, target.partition("?")[0], headers)


def parse_hello(request: Request) -> Hello | None:
    """What the dialling member says; None if `request` is something else."""
    if not request.path.startswith(STREAM_PATH) or request.headers.get("upgrade") != PROTOCOL:
        return None
    try:
        ids = [int(request.headers[name], 16) for name in ("x-etcd-cluster-id", "x-server-from", "x-raft-to")]
    except (KeyError, ValueError) as error:
        raise BadRequest("the headers of a stream are incomplete") from error
    kind = request.path.removeprefix(STREAM_PATH)
    if kind not in KINDS or not 0 <= min(ids) <= max(ids) <= ID_LARGEST:
        raise BadRequest("a stream that members do not have")
    return Hello(kind, *ids)


def judge_hello(hello: Hello, membership: Membership, own_id: int) -> tuple[HTTPStatus, str]:
    """SWITCHING_PROTOCOLS, or why not.

    A member of the cluster may be unknown here: it was added while this one was away. It may be the leader that this
    member needs to learn of it (etcd's AddRemote), so only who was removed is turned away.
    """
    if hello.cluster_id != membership.cluster_id:
        text = f"cluster ID mismatch: got {hello.cluster_id:x}, want {membership.cluster_id:x}"
        return HTTPStatus.PRECONDITION_FAILED, text
    if hello.from_id in membership.removed:
        return HTTPStatus.GONE, REMOVED_TEXT
    if hello.to_id != own_id:
        return HTTPStatus.PRECONDITION_FAILED, f"member ID mismatch: got {hello.to_id:x}, want {own_id:x}"
    return HTTPStatus.SWITCHING_PROTOCOLS, ""


def pack_response(
    status: HTTPStatus, body: bytes, content_type: str, cluster_id: int, headers: Iterable[str] = ()
) -> bytes:
    """A whole response that ends the connection; for SWITCHING_PROTOCOLS one that begins the stream."""
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", f"X-Etcd-Cluster-ID: {cluster_id:x}", *headers]
    if status is HTTPStatus.SWITCHING_PROTOCOLS:
        lines += ["Connection: Upgrade", f"Upgrade: {PROTOCOL}"]
    else:
        lines += [f"Content-Type: {content_type}", f"Content-Length: {len(body)}", "Connection: close"]
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            lines.append("Allow: GET")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def parse_status(head: bytes) -> HTTPStatus:
    """The status of a response; BadRequest for anything that is none."""
    parts = head.split(b" ", 2)
    try:
        if not parts[0].startswith(b"HTTP/1."):
            raise BadRequest("not an HTTP response")
        return HTTPStatus(int(parts[1]))
    except (ValueError, IndexError) as error:
        raise BadRequest("not an HTTP response") from error


def answer(request: Request, membership: Membership, has_leader: bool, seen_index: int) -> bytes:
    """What plain HTTP clients get on the peer port. The membership is as of `seen_index` at least; 0 for a member that
    cannot tell whether that is up to date."""
    cluster = membership.cluster_id
    if request.path == "/downgrade/enabled" and request.method == "GET":
        return pack_response(HTTPStatus.OK, b"false", "text/plain", cluster)
    if request.path not in ("/members", "/version", "/health", "/downgrade/enabled"):
        return pack_response(HTTPStatus.NOT_FOUND, b"404 page not found\n", "text/plain; charset=utf-8", cluster)
    if request.method != "GET":
        body = b"Method Not Allowed\n"
        return pack_response(HTTPStatus.METHOD_NOT_ALLOWED, body, "text/plain; charset=utf-8", cluster)
    headers: list[str] = []
    if request.path == "/members":
        content: object = [member.as_json() for member in membership.ordered()]
        headers += [f"{MEMBERSHIP_INDEX}: {seen_index}"]
    elif request.path == "/version":
        version = membership.cluster_version or "not_decided"
        content = {"etcdserver": SERVER_VERSION, "etcdcluster": version, "storage": CLUSTER_VERSION}
    else:
        content = {"health": "true" if has_leader else "false", "reason": "" if has_leader else "RAFT NO LEADER"}
        if not has_leader:
            body = json.dumps(content, separators=(",", ":")).encode() + b"\n"
            return pack_response(HTTPStatus.SERVICE_UNAVAILABLE, body, "text/plain; charset=utf-8", cluster)
    body = json.dumps(content, separators=(",", ":")).encode() + (b"\n" if request.path == "/members" else b"")
    return pack_response(HTTPStatus.OK, body, "application/json", cluster, headers)
