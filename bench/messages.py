"""The few etcd messages the load generator sends and reads, encoded by hand.

The benchmark must run against a real etcd without anything of the server under test, and encode a request
with one concatenation. Field numbers are those of etcd's rpc.proto.
"""

from collections.abc import Iterator
from typing import Final

KV_PUT: Final = "/etcdserverpb.KV/Put"
KV_RANGE: Final = "/etcdserverpb.KV/Range"
KV_TXN: Final = "/etcdserverpb.KV/Txn"
KV_COMPACT: Final = "/etcdserverpb.KV/Compact"
STATUS: Final = "/etcdserverpb.Maintenance/Status"
SNAPSHOT: Final = "/etcdserverpb.Maintenance/Snapshot"
DEFRAGMENT: Final = "/etcdserverpb.Maintenance/Defragment"
MEMBER_ADD: Final = "/etcdserverpb.Cluster/MemberAdd"
MEMBER_REMOVE: Final = "/etcdserverpb.Cluster/MemberRemove"
MEMBER_PROMOTE: Final = "/etcdserverpb.Cluster/MemberPromote"
WATCH: Final = "/etcdserverpb.Watch/Watch"
LEASE_GRANT: Final = "/etcdserverpb.Lease/LeaseGrant"
LEASE_KEEP_ALIVE: Final = "/etcdserverpb.Lease/LeaseKeepAlive"
AUTHENTICATE: Final = "/etcdserverpb.Auth/Authenticate"
AUTH_ENABLE: Final = "/etcdserverpb.Auth/AuthEnable"
USER_ADD: Final = "/etcdserverpb.Auth/UserAdd"
USER_GRANT_ROLE: Final = "/etcdserverpb.Auth/UserGrantRole"
ROLE_ADD: Final = "/etcdserverpb.Auth/RoleAdd"
ROLE_GRANT_PERMISSION: Final = "/etcdserverpb.Auth/RoleGrantPermission"


def varint(value: int) -> bytes:
    """Base-128 encoding of a non-negative integer."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    """An integer field; zero is left out, as proto3 does."""
    return varint(field << 3) + varint(value) if value else b""


def blob(field: int, value: bytes) -> bytes:
    """A bytes, string or message field, sent even when empty."""
    return varint(field << 3 | 2) + varint(len(value)) + value


def put(key: bytes, value: bytes, lease: int = 0) -> bytes:
    """PutRequest."""
    return blob(1, key) + blob(2, value) + number(3, lease)


def range_(key: bytes, range_end: bytes = b"", limit: int = 0) -> bytes:
    """RangeRequest, linearizable."""
    return blob(1, key) + (blob(2, range_end) if range_end else b"") + number(3, limit)


def txn_put_if_absent(key: bytes, guard: bytes, value: bytes) -> bytes:
    """TxnRequest: if `guard` was never created (one compare), put `key`."""
    compare = number(2, 1) + blob(3, guard) + varint(5 << 3) + b"\0"  # target CREATE, EQUAL, create_revision 0
    return blob(1, compare) + blob(2, blob(2, put(key, value)))


def txn_puts(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """TxnRequest that puts every pair (at most 128, etcd's default limit)."""
    return b"".join(blob(2, blob(2, put(key, value))) for key, value in pairs)


def watch_create(key: bytes, range_end: bytes = b"", start_revision: int = 0, watch_id: int = 0) -> bytes:
    """WatchRequest with a create_request."""
    create = blob(1, key) + (blob(2, range_end) if range_end else b"")
    return blob(1, create + number(3, start_revision) + number(7, watch_id))


def lease_grant(ttl_seconds: int, lease_id: int) -> bytes:
    """LeaseGrantRequest with a chosen id."""
    return number(1, ttl_seconds) + number(2, lease_id)


def lease_keep_alive(lease_id: int) -> bytes:
    """LeaseKeepAliveRequest."""
    return number(1, lease_id)


def authenticate(user: bytes, password: bytes) -> bytes:
    """AuthenticateRequest."""
    return blob(1, user) + blob(2, password)


def user_add(user: bytes, password: bytes = b"") -> bytes:
    """AuthUserAddRequest; without a password the user can log in by certificate alone."""
    return blob(1, user) + (blob(2, password) if password else blob(3, number(1, 1)))


def user_grant_role(user: bytes, role: bytes) -> bytes:
    """AuthUserGrantRoleRequest."""
    return blob(1, user) + blob(2, role)


def role_add(role: bytes) -> bytes:
    """AuthRoleAddRequest."""
    return blob(1, role)


def role_grant(role: bytes, key: bytes, range_end: bytes = b"") -> bytes:
    """AuthRoleGrantPermissionRequest: to read and write."""
    return blob(1, role) + blob(2, number(1, 2) + blob(2, key) + (blob(3, range_end) if range_end else b""))


def member_add(peer_url: bytes, is_learner: bool) -> bytes:
    """MemberAddRequest."""
    return blob(1, peer_url) + number(2, is_learner)


def added_member(response: bytes) -> int:
    """The id in a MemberAddResponse."""
    return first_number(next(v for f, v in fields(response) if f == 2 and isinstance(v, bytes)), 1)


def token(response: bytes) -> str:
    """The token of an AuthenticateResponse."""
    return next(v for f, v in fields(response) if f == 2 and isinstance(v, bytes)).decode()


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Every field of a message that has only varints and length-delimited fields."""
    position = 0
    while position < len(message):
        tag, position = _read_varint(message, position)
        value, position = _read_varint(message, position)
        match tag & 7:
            case 0:
                yield tag >> 3, value
            case 2:
                yield tag >> 3, message[position : position + value]
                position += value
            case kind:
                raise ValueError(f"wire type {kind}")


def first_number(message: bytes, field: int) -> int:
    """The first value of an integer field, 0 when absent."""
    return next((v for f, v in fields(message) if f == field and isinstance(v, int)), 0)


def header_revision(response: bytes) -> int:
    """The revision of a response's header (field 1 of every etcd response)."""
    header = next((v for f, v in fields(response) if f == 1 and isinstance(v, bytes)), b"")
    return first_number(header, 3)


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
