"""The HTTP of the peer port: what is asked, who dials, how it is answered, and what a member answers who is dialled."""

from __future__ import annotations

import contextlib
import json
import socket
import time

from quorate.consensus.connections import read_body, read_head
from quorate.consensus.handshake import (
    BadRequest,
    Hello,
    answer,
    judge_hello,
    pack_hello,
    pack_response,
    parse_hello,
    parse_request,
    parse_status,
)
from quorate.consensus.membership import Member, Membership

MEMBERSHIP = Membership.founded([Member(number, (f"http://m{number}:2380",)) for number in (1, 2, 3)])


def seeds() -> list[bytes]:
    """The hellos of members and the requests of people."""
    hello = pack_hello(Hello("bulk", MEMBERSHIP.cluster_id, 1, 2), "m2:2380")
    paths = ("members", "version", "health", "downgrade/enabled", "members/replace", "debug", "raft/stream/urgent")
    plain = [f"GET /{path}?x HTTP/1.1\r\nHost: m\r\nContent-Length: 3\r\n\r\nabc".encode() for path in paths]
    return [hello, *plain, b"HTTP/1.1 101 Switching Protocols\r\n\r\n", plain[0].replace(b"GET", b"POST")]


def run(data: bytes) -> bool:
    """Read it as a request and as a response, through a socket as a node does."""
    request = head = None
    is_read = False
    near, far = socket.socketpair()
    with near, far:
        far.sendall(data[:60_000])
        far.shutdown(socket.SHUT_WR)
        try:
            head = read_head(near, time.monotonic() + 60)
            request = parse_request(head)
            read_body(near, request.headers.get("content-length", ""), time.monotonic() + 60)
            hello = parse_hello(request)
        except (BadRequest, OSError):
            pass
        else:
            is_read = True
            if hello is None:
                _check_answer(answer(request, MEMBERSHIP, has_leader=len(data) % 2 == 0, seen_index=len(data) % 3))
            else:
                status, reason = judge_hello(hello, MEMBERSHIP, 2)
                _check_answer(pack_response(status, reason.encode(), "text/plain", MEMBERSHIP.cluster_id))
                assert hello.kind in ("urgent", "bulk", "snapshot")
                assert 0 <= hello.from_id < 1 << 64
    with contextlib.suppress(BadRequest):
        parse_status(head or data)
    return is_read


def _check_answer(response: bytes) -> None:
    head, _, body = response.partition(b"\r\n\r\n")
    assert parse_status(response)
    if b"application/json" in head:
        json.loads(body)
