"""What members know of the cluster, as files, log entries and snapshots say it."""

from __future__ import annotations

import json
from typing import Final

import google_crc32c

from quorate.consensus import membership
from quorate.consensus.membership import Member, Membership, Meta, pack_meta, unpack_meta
from quorate.consensus.raft import confchange
from quorate.consensus.raft.messages import ConfState
from quorate.consensus.snapshots import Described
from tests.fuzzing.octets import Octets, odd

CLUSTER: Final = Membership.founded([Member(1, ("http://a:1",), "a", ("http://a:2",)), Member(2, ("http://b:1",))])
DESCRIPTION: Final = Described(5, 1, 3, "ab" * 16, CLUSTER)
META, DESCRIBED, CONF = range(3)


def seeds() -> list[bytes]:
    """One of each."""
    meta = pack_meta(3, Meta(1, CLUSTER, 5, 6)).partition(b"\n")[2]
    conf = confchange.encode(ConfState((1, 2), (), (3,)), membership.pack_newcomer(Member(3, ("http://c:1",))))
    return [
        bytes((META,)) + meta,
        bytes((DESCRIBED,)) + DESCRIPTION.pack(),
        bytes((CONF,)) + conf,
        *(bytes((kind, 0)) + bytes(range(60)) for kind in (META, DESCRIBED)),
    ]


def run(data: bytes) -> bool:
    """Each is read or refused with ValueError; what was read can be written and read again."""
    octets = Octets(data)
    kind = octets.choice((META, DESCRIBED, CONF))
    body = octets.rest()
    if body[:1] == b"\0" and kind != CONF:  # a good one in which some values are of another kind
        good = pack_meta(3, Meta(1, CLUSTER, 5, 6)).partition(b"\n")[2] if kind == META else DESCRIPTION.pack()
        body = json.dumps(odd(Octets(body[1:]), json.loads(good))).encode()
    try:
        match kind:
            case 0:
                counter, meta = unpack_meta(b"%08x\n" % google_crc32c.value(body) + body)
                assert unpack_meta(pack_meta(counter, meta)) == (counter, meta)
            case 1:
                found = Described.unpack(body)
                assert Described.unpack(found.pack()) == found
            case _:
                _check(CLUSTER.with_conf(7, body))
    except ValueError:
        return False
    return True


def _check(found: Membership) -> None:
    assert unpack_meta(pack_meta(1, Meta(1, found)))[1].membership == found
