"""What comes over a node's own sockets and in the entries of its log: chunks of commands, and answers.

An entry is applied by every member, again after each restart: whatever is in it, storage goes on, and what it wrote
then is what it reads again.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from quorate.proto import auth_pb2, kv_pb2
from quorate.proto import rpc_pb2 as rpc
from quorate.storage.apply import EXPIRE, Applier
from quorate.storage.compaction import Compaction
from quorate.storage.corruption import REPORT
from quorate.storage.headers import Headers
from quorate.storage.records import key_value_of
from quorate.storage.state import State
from quorate.wire.identity import Caller, TokenGrant
from quorate.wire.messages import (
    BadBatch,
    Op,
    Origin,
    chunks_of,
    pack_chunk,
    pack_command,
    pack_result,
    pack_results,
    unpack_results,
)
from tests.fuzzing import scratch
from tests.fuzzing.octets import Octets
from tests.fuzzing.scratch import world as world

ENTRIES, RAW, ANSWERS = range(3)
ORIGIN: Final = Origin(5, 7, 0)
PUT: Final = rpc.PutRequest(key=b"a", value=b"1", lease=9)
RANGE: Final = rpc.RangeRequest(key=b"a", range_end=b"z", limit=2, revision=1)
EQUAL: Final = rpc.Compare(key=b"a", version=0)
TXN: Final = rpc.TxnRequest(
    compare=[EQUAL], success=[rpc.RequestOp(request_put=PUT)], failure=[rpc.RequestOp(request_range=RANGE)]
)
GRANT: Final = auth_pb2.Permission(permType=auth_pb2.Permission.READ, key=b"a", range_end=b"b")
BODIES: Final[tuple[tuple[Op, bytes], ...]] = (
    (Op.LEASE_GRANT, rpc.LeaseGrantRequest(ID=9, TTL=60).SerializeToString()),
    (Op.PUT, PUT.SerializeToString()),
    (Op.PUT, rpc.PutRequest(key=b"b" * 200, value=b"v", prev_kv=True).SerializeToString()),
    (Op.TXN, TXN.SerializeToString()),
    (Op.DELETE_RANGE, rpc.DeleteRangeRequest(key=b"a", range_end=b"c", prev_kv=True).SerializeToString()),
    (Op.RANGE, RANGE.SerializeToString()),
    (Op.COMPACT, rpc.CompactionRequest(revision=2).SerializeToString()),
    (Op.LEASE_KEEP_ALIVE, rpc.LeaseKeepAliveRequest(ID=9).SerializeToString()),
    (Op.LEASE_RENEW, (9).to_bytes(8, "little") * 2),
    (Op.LEASE_EXPIRE, EXPIRE.pack(9, 1)),
    (Op.LEASE_CHECKPOINT, bytes(20)),
    (Op.LEASE_REVOKE, rpc.LeaseRevokeRequest(ID=9).SerializeToString()),
    (Op.ALARM, rpc.AlarmRequest(action=rpc.AlarmRequest.ACTIVATE, memberID=5, alarm=rpc.NOSPACE).SerializeToString()),
    (Op.ALARM, rpc.AlarmRequest(action=rpc.AlarmRequest.DEACTIVATE, memberID=5, alarm=rpc.NOSPACE).SerializeToString()),
    (Op.CORRUPT_CHECK, b""),
    (Op.CORRUPT_REPORT, bytes(REPORT.size)),
    (Op.USER_ADD, rpc.AuthUserAddRequest(name="root", hashedPassword="eA==").SerializeToString()),
    (Op.ROLE_ADD, rpc.AuthRoleAddRequest(name="root").SerializeToString()),
    (Op.ROLE_GRANT_PERMISSION, rpc.AuthRoleGrantPermissionRequest(name="root", perm=GRANT).SerializeToString()),
    (Op.USER_GRANT_ROLE, rpc.AuthUserGrantRoleRequest(user="root", role="root").SerializeToString()),
    (Op.AUTH_ENABLE, b""),
    (Op.AUTHENTICATE, TokenGrant("root", "letters", 5).pack()),
    (Op.AUTH_DISABLE, b""),
    (Op.USER_DELETE, rpc.AuthUserDeleteRequest(name="root").SerializeToString()),
    (Op.ROLE_DELETE, rpc.AuthRoleDeleteRequest(role="root").SerializeToString()),
    (Op.LEASE_TIME_TO_LIVE, rpc.LeaseTimeToLiveRequest(ID=9, keys=True).SerializeToString()),
    (Op.HASH_KV, rpc.HashKVRequest(revision=1).SerializeToString()),
    (Op.STATUS, b""),
    (Op.USER_LIST, b""),
    (Op.AUTH_STATUS, b""),
)
IDENTITIES: Final = (b"", Caller("root", 9).pack(), b"node", b"\xff" * 9, bytes(8), b"x")


def seeds() -> list[bytes]:
    """All commands in one chunk, each in one of its own, and answers."""
    everything = bytes((ENTRIES, 0)) + b"".join(bytes((number, 0, 0)) for number in range(len(BODIES)))
    answers = pack_results(3, 7, 0, [pack_result(0, b"body"), pack_result(9, b"")])
    packed = [pack_command(op, body) for op, body in BODIES]
    return [
        everything,
        everything * 2,
        *(bytes((ENTRIES, 0, number, 0, 5)) + BODIES[number][1] for number in range(len(BODIES))),
        bytes((RAW,)) + pack_chunk(ORIGIN, 1, packed) + pack_chunk(ORIGIN, 2, packed[:3]),
        bytes((ANSWERS,)) + answers,
    ]


def run(data: bytes) -> bool:
    """Apply, write, read again: the same state. What is no batch is BadBatch."""
    octets = Octets(data)
    match octets.choice((ENTRIES, RAW, ANSWERS)):
        case 0:
            return _apply(_entry(octets))
        case 1:
            return _apply(octets.rest())
        case _:
            with suppress(BadBatch):
                number, incarnation, first, results = unpack_results(octets.rest())
                again = pack_results(number, incarnation, first, [pack_result(*one) for one in results])
                assert unpack_results(again) == (number, incarnation, first, results)
                return True
            return False


def _entry(octets: Octets) -> bytes:
    """Chunks of commands, most of them nearly right."""
    chunks: list[bytes] = []
    while not octets.is_empty:
        worker = octets.choice((0, 0xFFFF, 3))
        commands = []
        for _ in range(100):
            op, body = octets.choice(BODIES)
            commands.append(pack_command(*_changed(octets, op, body), octets.choice(IDENTITIES)))
            if octets.is_empty or octets.number() > 250:
                break
        chunks.append(pack_chunk(Origin(5, 7, worker), len(chunks), commands))
    return b"".join(chunks)


def _changed(octets: Octets, op: int, body: bytes) -> tuple[int, bytes]:
    match octets.number() % 8:
        case 4:
            return op, octets.some()
        case 5:
            at = octets.number() % (len(body) + 1)
            return op, body[:at] + octets.some() + body[at:]
        case 6:
            return octets.number(), body
        case 7:
            return op, body[: octets.number() % (len(body) + 1)]
        case _:
            return op, body


def _apply(payload: bytes) -> bool:
    scratch.clear()
    path = scratch.directory() / "db"
    state = State(path, 1, 1000, 0.0)
    try:
        applier = Applier(state, Headers(), None)
        applier.index = 1
        is_whole = False
        with suppress(BadBatch):
            for chunk in chunks_of(payload):
                with suppress(BadBatch):
                    applier.chunk(chunk)
                assert state.store.sub == 0, "half a transaction"
            is_whole = True
        assert {REPORT.size} >= {len(report) for report in applier.data_reports}
        state.database.marks.applied_index = 1
        state.database.marks.revision = state.store.revision
        state.commit()
        compaction = Compaction(state.store)
        while compaction.is_due:
            compaction.advance()
        state.commit()
        before = _facts(state)
    finally:
        state.close()
    again = State(path, 1, 1000, 0.0)
    try:
        assert _facts(again) == before, "what was written is not what is read"
    finally:
        again.close()
    return is_whole


def _facts(state: State) -> tuple[object, ...]:
    """What has to be there again after a restart."""
    store, lessor = state.store, state.lessor
    for key in store.index.live:
        record = store.index.newest[key]
        blob = state.database.blob(record)
        assert blob is not None
        assert kv_pb2.KeyValue.FromString(key_value_of(blob)).key == key
    return (
        store.revision,
        store.compact_revision,
        dict(store.index.newest),
        {one.lease_id: (one.granted_ttl, one.renewed_index, frozenset(one.keys)) for one in lessor.leases.values()},
        frozenset(state.alarms.active),
        state.auth.enabled,
        state.auth.revision,
        sorted(state.auth._users),
        sorted(state.auth._roles),
    )
