"""The peer port of a live node: requests, and streams of a stranger that knows the cluster's id."""

from __future__ import annotations

import contextlib
import json
from typing import Final

from quorate.consensus import frames
from quorate.consensus.handshake import BULK, SNAPSHOT, URGENT, Hello, pack_hello
from quorate.consensus.membership import Member, Membership
from quorate.consensus.snapshots import Described
from tests.fuzzing import of_peer_requests
from tests.fuzzing.node import live, rest_of
from tests.fuzzing.node import world as world
from tests.fuzzing.octets import Octets, odd

STRANGER: Final = 0x5
REQUEST, STREAM, SNAPSHOT_OF, CALL = range(4)
FOUNDED: Final = Membership.founded([Member(1, ("http://a:1",))])


def seeds() -> list[bytes]:
    """Requests, and streams of every kind with frames that are whole."""
    calls = b"".join(bytes((op, 0, 4)) + b"body" for op in (*range(1, 12), 200))
    return [
        *(bytes((REQUEST,)) + one for one in of_peer_requests.seeds()),
        *(bytes((STREAM, kind)) + b"QR\x01" + bytes(60) for kind in range(3)),
        *(bytes((SNAPSHOT_OF,)) + bytes(range(start, 40)) for start in range(4)),
        bytes((CALL,)) + calls,
    ]


def run(data: bytes) -> None:
    """Say it and hang up: the node hangs up as well, and stays what it is."""
    octets = Octets(data)
    kind = octets.choice((REQUEST, STREAM, SNAPSHOT_OF, CALL))
    node = live()
    way = (STRANGER, node.member_id, 1)
    said = b""
    match kind:
        case 0:
            said = octets.rest()
        case 1:
            said = _hello(octets.choice((URGENT, BULK, SNAPSHOT))) + octets.rest()
        case 2:
            described = json.loads(Described(5, 1, 3, "ab" * 16, FOUNDED).pack())
            body = json.dumps(odd(octets, described)).encode()
            said = _hello(SNAPSHOT) + frames.encode(node.cluster_id, frames.SnapshotMeta(*way, body))
        case _:
            said = _hello(BULK)
            while not octets.is_empty:
                call = frames.Call(*way, 1, octets.number(), octets.take(octets.number(2)))
                said += frames.encode(node.cluster_id, call)
    with node.peer() as connection, contextlib.suppress(ConnectionError):
        connection.sendall(said)
        rest_of(connection)
    node.count()


def _hello(kind: str) -> bytes:
    return pack_hello(Hello(kind, live().cluster_id, STRANGER, live().member_id), "node")
