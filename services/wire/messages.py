"""Every message that crosses a local socket: from whom, to whom, what it carries and whether it may be lost.

Loss means a crash of sender or receiver; between living processes nothing is lost (see `sockets`). What the neighbours
do about a loss is in the last column.

| message       | from → to                        | when lost                                                         |
|---------------|----------------------------------|-------------------------------------------------------------------|
| PROPOSE       | api, storage → consensus         | the caller times out; never sent again: its fate is unknown |
| READ          | api → consensus → storage        | api asks again: reads change nothing                              |
| LOCAL         | api, consensus → storage         | api asks again; who asked the peer port does                      |
| START         | consensus → storage              | said after every hello of storage                                 |
| ENTRY         | consensus → storage              | replayed from the durable applied index of storage's hello        |
| ROLE          | consensus → api, storage, watch  | said after every hello and at every change                        |
| APPLIED       | storage → consensus              | the next one says more                                            |
| RESULTS       | storage → api, consensus         | api asks reads again; writes time out                             |
| REFUSE        | consensus → api, storage         | the call times out; storage proposes again what is still true     |
| CLUSTER_CALL  | api → consensus                  | the call times out                                                |
| CLUSTER_REPLY | consensus → api                  | the call times out                                                |
| EVENTS        | storage → watch                  | watch sees the gap in revisions and reads history                 |
| HISTORY_READ, HISTORY | watch → storage, storage → watch | watch asks again                                          |
| WATCH_NEEDS   | watch → storage                  | said after every hello and at every change                        |
| WATCH_IDLE    | watch → storage                  | said after every hello and at every change                        |
| WATCH         | api → watch                      | api registers its live watchers again                             |
| DELIVER       | watch → api                      | api registers again at the next revision                          |
| IMAGE_TAKE, IMAGE_TAKEN, IMAGE_INSTALL | consensus ↔ storage | consensus asks again                                  |
| SPACE         | storage → api                    | the next one says more; storage judges again              |
| STATS_READ, STATS | any → any                    | the scrape shows what the others said                             |
| AUTH          | storage → api                    | said with every hello of storage and at every change              |

A *command* is one client request in its protobuf bytes with a small header; a *chunk* is what one api worker said
during one turn of its loop, and an entry of the Raft log is a row of chunks. `consensus` never looks into a chunk;
`storage` answers a chunk in order, so that neither needs an id per request.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from struct import error as StructError  # noqa: N812 - it is one
from typing import Final, NamedTuple


class Part(IntEnum):
    """The four processes of a node."""

    API = 1
    CONSENSUS = 2
    STORAGE = 3
    WATCH = 4


class Kind(IntEnum):
    """The type byte of a message."""

    PROPOSE = 1  # a chunk whose commands are to be ordered and made durable
    READ = 2  # a chunk of linearizable reads; forwarded unchanged once a quorum confirmed the read index
    LOCAL = 3  # a chunk of serializable reads and local questions
    START = 4  # Start
    ENTRY = 5  # Entry: header and payload
    ROLE = 6  # Role
    APPLIED = 7  # Applied
    RESULTS = 8  # Results
    REFUSE = 9  # Refuse
    CLUSTER_CALL = 10  # ClusterCall
    CLUSTER_REPLY = 11  # ClusterReply
    EVENTS = 12  # Events
    HISTORY_READ = 13  # this and the next four: see wire.watching
    HISTORY = 14
    WATCH_NEEDS = 15
    WATCH = 16
    DELIVER = 17
    IMAGE_TAKE = 18  # empty: write an image of the database and say where it is
    IMAGE_TAKEN = 19  # Image
    IMAGE_INSTALL = 20  # Image: replace the database by this file; storage says hello again afterwards
    STATS_READ = 21  # request id (8 bytes, little endian); from an api worker to another also its number (1 byte)
    STATS = 22  # request id, then Prometheus text of this process
    AUTH = 23  # wire.identity.AuthState: what api knew of callers before it is void
    WATCH_IDLE = 25  # one byte, 1: nobody waits, storage need not publish each change; 0: somebody does; answered alike
    SPACE = 24  # Space


class EntryKind(IntEnum):
    """What an entry of the Raft log carries; storage acts on BATCH alone, the others only move its applied index."""

    BATCH = 0  # chunks
    NOOP = 1
    CONF = 2  # membership, for consensus
    ATTRIBUTES = 3  # names, client urls, cluster version: for consensus


class Op(IntEnum):
    """What a command asks of storage; the body is the protobuf request of that name unless a comment says else."""

    RANGE = 1
    PUT = 2
    DELETE_RANGE = 3
    TXN = 4
    COMPACT = 5
    LEASE_GRANT = 6  # with the ID already chosen
    LEASE_REVOKE = 7
    LEASE_KEEP_ALIVE = 8
    LEASE_EXPIRE = 9  # from storage itself: lease id i64, index of its last renewal u64; void if renewed since
    LEASE_TIME_TO_LIVE = 10
    LEASE_LEASES = 11
    ALARM = 12
    STATUS = 13  # storage's share of StatusResponse: dbSize, dbSizeInUse, storageVersion, dbSizeQuota, alarms as errors
    HASH = 14
    HASH_KV = 15
    DEFRAGMENT = 16
    SNAPSHOT = (
        17  # the answer is the path of a file with everything, to be opened and removed by the worker; empty: no room
    )
    COMPACTED = 22  # revision u64: answered when compaction up to it has removed everything from the disk
    CORRUPT_CHECK = 18  # from storage itself, as the next two: every member hashes its history here and reports it
    CORRUPT_REPORT = 19  # log index of the check u64, member id u64, hash u32
    LEASE_CHECKPOINT = 20  # of long leases: (lease id i64, index of its last renewal u64, seconds left u32), …
    LEASE_RENEW = 21  # ids i64 of leases that callers without a name keep alive; the answer is the header field of a
    # response and their TTLs i64, 0 for a lease that is not there
    AUTH_ENABLE = 32
    AUTH_DISABLE = 33
    AUTH_STATUS = 34
    AUTHENTICATE = 35  # wire.identity.TokenGrant
    USER_ADD = 36
    USER_GET = 37
    USER_LIST = 38
    USER_DELETE = 39
    USER_CHANGE_PASSWORD = 40
    USER_GRANT_ROLE = 41
    USER_REVOKE_ROLE = 42
    ROLE_ADD = 43
    ROLE_GET = 44
    ROLE_LIST = 45
    ROLE_DELETE = 46
    ROLE_GRANT_PERMISSION = 47
    ROLE_REVOKE_PERMISSION = 48
    OUT_OF_SPACE = 23  # no body: a worker refuses a change that does not fit; NO_SPACE, when the alarm is on
    PERMISSION = 49  # one byte, wire.identity.Need: may the caller ask another part for this
    CREDENTIALS = 50  # user name as UTF-8; answered with wire.identity.Credentials
    TOKEN = 51  # token as UTF-8; answered with wire.identity.Caller, or empty while auth is off


# --- commands and chunks ---------------------------------------------------------------------------------------------

COMMAND: Final = Struct("<BBHI")  # op, flags (0), length of the caller's identity, length of the body
CHUNK: Final = Struct(
    "<QIHHQI"
)  # member id, worker incarnation, worker number, commands, chunk number, bytes that follow
STORAGE_WORKER: Final = 0xFFFF  # the worker number under which storage itself proposes
CONSENSUS_WORKER: Final = 0xFFFE  # the worker number under which consensus asks
COMMANDS_MAX: Final = 512  # a chunk: the batch that Raft replicates as a unit stays small beside an fsync
CHUNK_BYTES_MAX: Final = 256 * 1024  # a chunk is closed above this; one large request may exceed it alone


class Origin(NamedTuple):
    """Who waits for the answers of a chunk."""

    member_id: int
    incarnation: int
    worker: int


class Chunk(NamedTuple):
    """A chunk taken apart: `commands` are still packed (see `commands_of`)."""

    origin: Origin
    number: int  # counts per worker incarnation; the key of the answer
    size: int  # commands
    commands: bytes


def pack_command(op: int, body: bytes, identity: bytes = b"") -> bytes:
    """One command; `identity` names the caller where auth is on (its form belongs to api and storage)."""
    return COMMAND.pack(op, 0, len(identity), len(body)) + identity + body


def pack_chunk(origin: Origin, number: int, commands: list[bytes]) -> bytes:
    """A chunk of packed commands."""
    packed = b"".join(commands)
    member_id, incarnation, worker = origin
    return CHUNK.pack(member_id, incarnation, worker, len(commands), number, len(packed)) + packed


class BadBatch(ValueError):  # noqa: N818 - it names the finding
    """Octets that are not the sum of their parts; what came before the first bad part was good."""


def chunks_of(payload: bytes) -> Iterator[Chunk]:
    """The chunks of an entry's payload, in order; BadBatch where it is no row of them."""
    position = 0
    end = len(payload)
    while position < end:
        try:
            member_id, incarnation, worker, count, number, length = CHUNK.unpack_from(payload, position)
        except StructError as error:
            raise BadBatch("an entry is not the sum of its chunks") from error
        position += CHUNK.size
        if position + length > end:
            raise BadBatch("an entry is not the sum of its chunks")
        yield Chunk(Origin(member_id, incarnation, worker), number, count, payload[position : position + length])
        position += length


def commands_of(packed: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """The commands of a chunk as (op, identity, body), in order; BadBatch where it is no row of them."""
    position = 0
    end = len(packed)
    while position < end:
        try:
            op, _flags, identity_length, body_length = COMMAND.unpack_from(packed, position)
        except StructError as error:
            raise BadBatch("a chunk is not the sum of its commands") from error
        position += COMMAND.size
        body = position + identity_length
        if (after := body + body_length) > end:
            raise BadBatch("a chunk is not the sum of its commands")
        yield op, packed[position:body], packed[body:after]
        position = after


# --- answers ---------------------------------------------------------------------------------------------------------

RESULTS: Final = Struct("<QIHH")  # chunk number, worker incarnation, position of the first answer, answers that follow
RESULT: Final = Struct("<BI")  # error id of wire.errors (0: none), length of the body
REFUSE: Final = Struct("<QIB")  # chunk number, worker incarnation, error id; the whole chunk is refused


def pack_result(error_id: int, body: bytes) -> bytes:
    """One answer: the protobuf response, or an error's text where it differs from the catalogue's (else empty)."""
    return RESULT.pack(error_id, len(body)) + body


def pack_results(number: int, incarnation: int, first: int, results: list[bytes]) -> bytes:
    """The answers to the commands `first`, `first` + 1, … of a chunk. Answers to the rest follow in messages of their
    own: a large range is answered later than its neighbours."""
    return RESULTS.pack(number, incarnation, first, len(results)) + b"".join(results)


def unpack_results(body: bytes) -> tuple[int, int, int, list[tuple[int, bytes]]]:
    """(chunk number, worker incarnation, position of the first, [(error id, body), …]); BadBatch for anything else."""
    try:
        return _unpack_results(body)
    except StructError as error:
        raise BadBatch("results are not the sum of their answers") from error


def _unpack_results(body: bytes) -> tuple[int, int, int, list[tuple[int, bytes]]]:
    number, incarnation, first, count = RESULTS.unpack_from(body)
    position = RESULTS.size
    results = []
    unpack = RESULT.unpack_from
    for _ in range(count):
        error_id, length = unpack(body, position)
        position += 5
        results.append((error_id, body[position : position + length]))
        position += length
    if position != len(body):
        raise BadBatch("results are not the sum of their answers")
    return number, incarnation, first, results


# --- consensus and storage -------------------------------------------------------------------------------------------

ENTRY: Final = Struct("<QQB")  # log index, term, EntryKind; the payload follows
START: Final = Struct("<QQQQ")  # cluster id, member id, log index of the first ENTRY to come, commit index now
APPLIED: Final = Struct("<QQ")  # applied index, durable applied index (in the database and synced with it)
# durable applied index: entries up to here are not needed again; whether the database takes a damaged one's place
STORAGE_HELLO: Final = Struct("<QB")
SPACE: Final = Struct("<q")  # bytes that fit under the quota, negative when it is used up; UNBOUNDED without one
UNBOUNDED: Final = (1 << 63) - 1
ROLE: Final = Struct(
    "<QQQQQBBBB"
)  # cluster id, member id, term, leader id (0: none), commit index, is leader, is learner, is published, 0
IMAGE: Final = Struct("<QQ")  # log index the image stands at, its term; then the path as UTF-8
CLUSTER_CALL: Final = Struct("<QB")  # request number of the worker, ClusterOp; then the protobuf request
CLUSTER_REPLY: Final = Struct("<QB")  # request number, error id; then the protobuf response (or the error's own text)


class ClusterOp(IntEnum):
    """Calls that consensus answers itself; the body is the protobuf request of that name."""

    MEMBER_LIST = 1
    MEMBER_ADD = 2
    MEMBER_REMOVE = 3
    MEMBER_UPDATE = 4
    MEMBER_PROMOTE = 5
    MOVE_LEADER = 6
    STATUS = 7  # consensus' share of StatusResponse: leader, raftIndex, raftTerm, isLearner
    DOWNGRADE = 8
    VERSION = 9  # the answer is a DowngradeResponse with the cluster version, empty while there is none
    IMAGE = 10  # between members only, not answered: the sender needs an image of the database that reaches this index


@dataclass(frozen=True, slots=True)
class Role:
    """What consensus knows of the node's place in its cluster."""

    cluster_id: int
    member_id: int
    term: int
    leader_id: int  # 0 while there is none
    commit_index: int  # at the time of the message
    is_leader: bool
    is_learner: bool
    is_published: bool = True  # the log says the member's name and client urls as they are configured

    def pack(self) -> bytes:
        return ROLE.pack(
            self.cluster_id,
            self.member_id,
            self.term,
            self.leader_id,
            self.commit_index,
            self.is_leader,
            self.is_learner,
            self.is_published,
            0,
        )

    @classmethod
    def unpack(cls, body: bytes) -> Role:
        cluster_id, member_id, term, leader_id, commit_index, *flags, _ = ROLE.unpack_from(body)
        is_leader, is_learner, is_published = map(bool, flags)
        return cls(cluster_id, member_id, term, leader_id, commit_index, is_leader, is_learner, is_published)


# --- history and events ----------------------------------------------------------------------------------------------

# A change of a key is known by its record id: the main revision, the sub revision inside it, and whether it is a
# tombstone. Ordered by record id is ordered by (main, sub).
SUB_BITS: Final = 23
MAIN_SHIFT: Final = SUB_BITS + 1
SUBS_MAX: Final = 1 << SUB_BITS  # changes in one transaction
MAINS_MAX: Final = 1 << (63 - MAIN_SHIFT)


def record_id(main: int, sub: int, tombstone: bool) -> int:
    return main << MAIN_SHIFT | sub << 1 | tombstone


def main_revision(record: int) -> int:
    return record >> MAIN_SHIFT


EVENTS: Final = Struct("<QQI")  # store revision before, store revision after, events that follow
EVENT: Final = Struct(
    "<QIIIB"
)  # record id, lengths of key, KeyValue and previous KeyValue, where the key starts in KeyValue
# An event is followed by the mvccpb.KeyValue (of a tombstone: key and mod_revision) and, where the need for it was
# announced with WATCH_NEEDS, the KeyValue before the change.


def pack_event(record: int, key_value: bytes, key_start: int, key_length: int, previous: bytes) -> bytes:
    """One change; `key_start` is 2 for keys below 128 bytes, as the length before the key is a varint."""
    return EVENT.pack(record, key_length, len(key_value), len(previous), key_start) + key_value + previous
