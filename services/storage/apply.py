"""Commands in log order: the one place where revisions are assigned.

Requests were checked by the api that took them; what depends on nothing but the request is not looked at again.
Applying depends on the state and the command alone, so every member ends up with the same store and the same errors.
The two exceptions are etcd's own: a member whose database is full answers NOSPACE although the change was made (and
raises the alarm), and the minimum of a lease's TTL is a setting.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct, pack
from struct import error as StructError  # noqa: N812 - it is one
from typing import Final

from google.protobuf.message import DecodeError

from quorate.proto import rpc_pb2
from quorate.storage import txn
from quorate.storage.corruption import REPORT
from quorate.storage.database import Database
from quorate.storage.headers import MALFORMED, UNKNOWN, Headers, OutOfSpace, failed
from quorate.storage.judge import Judge
from quorate.storage.records import VALUE_TAG, integer_field
from quorate.storage.state import State
from quorate.wire import errors
from quorate.wire.errors import CallFailed
from quorate.wire.identity import TokenGrant
from quorate.wire.messages import RESULT, STORAGE_WORKER, UNBOUNDED, Chunk, Op, commands_of
from quorate.wire.requests import LEASE_COST_BYTES, put_cost, txn_cost

AUTH_COMMANDS: Final = frozenset(
    {Op.AUTH_ENABLE, Op.AUTH_DISABLE, Op.USER_ADD, Op.USER_DELETE, Op.USER_CHANGE_PASSWORD, Op.USER_GRANT_ROLE}
    | {Op.USER_REVOKE_ROLE, Op.ROLE_ADD, Op.ROLE_DELETE, Op.ROLE_GRANT_PERMISSION, Op.ROLE_REVOKE_PERMISSION}
)
EXPIRE: Final = Struct("<qQ")  # lease id, log index of the last renewal seen
CHECKPOINT: Final = Struct("<qQI")  # lease id, log index of the last renewal seen, seconds left


class NoRoom(CallFailed):
    """The change was made, and with it the database has reached its quota."""

    def __init__(self) -> None:
        super().__init__(errors.NO_SPACE)


class Applier:
    """Applies commands to the state of one member. `now` is the monotonic time of the batch, set by the loop."""

    def __init__(self, state: State, headers: Headers, quota_bytes: int | None) -> None:
        self.store = state.store
        self.lessor = state.lessor
        self.alarms = state.alarms
        self.auth = state.auth
        self.judge = Judge(state.auth, state.lessor)
        self.headers = headers
        self.quota_bytes = quota_bytes
        self.now = 0.0
        self.wants_space_alarm = False  # this member ran out of space: the loop proposes the alarm
        self.counts = dict.fromkeys(("put", "delete", "txn", "range"), 0)
        self.put_bytes = 0  # keys and values
        self.index = state.database.marks.applied_index  # of the entry being applied
        self.data_checks: list[tuple[int, int, int]] = []  # log index, revision, compact revision: to be hashed
        self.data_reports: list[bytes] = []  # as they were applied
        self._database: Database = state.database
        self._guarded = False  # an alarm is on, or the chunk might reach the quota
        self._commands: dict[int, Callable[[bytes], bytes]] = {
            Op.PUT: self.put,
            Op.DELETE_RANGE: self.delete_range,
            Op.TXN: self.txn,
            Op.COMPACT: self.compact,
            Op.LEASE_GRANT: self.grant,
            Op.LEASE_REVOKE: self.revoke,
            Op.LEASE_KEEP_ALIVE: self.keep_alive,
            Op.LEASE_RENEW: self.renew,
            Op.LEASE_EXPIRE: self.expire,
            Op.LEASE_CHECKPOINT: self.checkpoint,
            Op.CORRUPT_CHECK: self.corrupt_check,
            Op.CORRUPT_REPORT: self.corrupt_report,
            Op.ALARM: self.alarm,
            Op.AUTHENTICATE: self.authenticate,
        }

    def chunk(self, chunk: Chunk) -> list[bytes | OutOfSpace]:
        """Apply the commands of a chunk: their results in order."""
        alarms = self.alarms
        self._guarded = alarms.is_out_of_space or alarms.is_corrupt or self._may_reach_quota(chunk)
        commands = self._commands
        judged = self.auth.enabled and chunk.origin.worker != STORAGE_WORKER
        results: list[bytes | OutOfSpace] = []
        for op, identity, body in commands_of(chunk.commands):
            command = commands.get(op)
            try:
                if judged:
                    self.judge.check(op, identity, body)
                if command is not None:
                    answer = command(body)
                elif op in AUTH_COMMANDS:
                    answer = self._change_auth(op, identity, body)
                    judged = self.auth.enabled and chunk.origin.worker != STORAGE_WORKER
                else:
                    results.append(UNKNOWN)
                    continue
            except NoRoom:
                results.append(OutOfSpace())
            except CallFailed as failure:
                assert not self.store.sub, "a command that fails has changed nothing"
                results.append(failed(failure.error))
            except (
                DecodeError,
                StructError,
                ValueError,
            ):  # a message, a row of numbers, a text or base 64 that is none
                assert not self.store.sub, "a command that cannot be read has changed nothing"
                results.append(MALFORMED)
            else:
                results.append(RESULT.pack(0, len(answer)) + answer if isinstance(answer, bytes) else answer)
        return results

    # --- keys --------------------------------------------------------------------------------------------------------

    def put(self, body: bytes) -> bytes:
        """Put; the usual request (key and value alone) is read without a protobuf message."""
        size = len(body)
        if size <= 2 or body[0] != 0x0A or not 0 < body[1] < 0x80:
            return self._put_message(body)
        end = body[1] + 2
        if end == size:
            value_field = b""
        elif end + 1 < size and body[end] == 0x12:
            start = end + 2
            value_bytes = body[end + 1]
            if value_bytes >= 0x80:
                if start == size or not 0 < body[start] < 0x80:  # a longer length, or one written longer than it is
                    return self._put_message(body)
                value_bytes += (body[start] << 7) - 0x80
                start += 1
            if start + value_bytes != size:
                return self._put_message(body)
            value_field = VALUE_TAG + body[end + 1 :] if value_bytes else b""
        else:
            return self._put_message(body)
        key = body[2:end]
        if self._guarded:
            self.alarms.check_write(put_cost(key, value_field))
        store = self.store
        revision_field = store.mod_field
        store.put(key, body[:end], value_field, b"")
        lessor = self.lessor
        if lessor.lease_of and key in lessor.lease_of:
            lessor.attach(key, 0)
        store.finish()
        self.counts["put"] += 1
        self.put_bytes += size
        if self._guarded:
            self._check_space()
        return self.headers.of_change(revision_field)

    def _put_message(self, body: bytes) -> bytes:
        request = rpc_pb2.PutRequest.FromString(body)
        if not request.key:  # api refuses it before; a record without a key could not be read
            raise CallFailed(errors.EMPTY_KEY)
        self.alarms.check_write(put_cost(request.key, request.value))
        store = self.store
        self.lessor.check(request.lease)
        if (request.ignore_value or request.ignore_lease) and not store.alive(request.key):
            raise CallFailed(errors.KEY_NOT_FOUND)
        previous = txn.put(store, self.lessor, request)
        store.finish()
        self.counts["put"] += 1
        self.put_bytes += len(body)
        self._check_space()
        return self.headers.at(store.revision) + previous

    def delete_range(self, body: bytes) -> bytes:
        """DeleteRange."""
        request = rpc_pb2.DeleteRangeRequest.FromString(body)
        self.alarms.check_write(0)
        store = self.store
        if store.count(request.key, request.range_end) > txn.DELETIONS_MAX:
            raise CallFailed(errors.REQUEST_TOO_LARGE)
        fields = txn.delete_range(store, self.lessor, request)
        self.counts["delete"] += store.sub
        store.finish()
        return self.headers.at(store.revision) + fields

    def txn(self, body: bytes) -> bytes:
        """Txn."""
        request = rpc_pb2.TxnRequest.FromString(body)
        if self._guarded:
            self.alarms.check_write(txn_cost(request))
        store = self.store
        fields = txn.run(store, self.lessor, request)
        store.finish()
        self.counts["txn"] += 1
        if self._guarded and txn_cost(request):
            self._check_space()
        return self.headers.at(store.revision) + fields

    def compact(self, body: bytes) -> bytes:
        """Compact: the revision moves now, the records go in slices."""
        request = rpc_pb2.CompactionRequest.FromString(body)
        self.alarms.check_write(0)
        store = self.store
        if request.revision <= store.compact_revision:
            raise CallFailed(errors.COMPACTED)
        if request.revision > store.revision:
            raise CallFailed(errors.FUTURE_REV)
        store.compact_revision = request.revision
        self._database.marks.scheduled_compact_revision = request.revision
        return self.headers.at(store.revision)

    # --- leases ------------------------------------------------------------------------------------------------------

    def grant(self, body: bytes) -> bytes:
        """LeaseGrant, with the id already chosen."""
        request = rpc_pb2.LeaseGrantRequest.FromString(body)
        self.alarms.check_write(LEASE_COST_BYTES)
        lease = self.lessor.grant(request.ID, request.TTL, self.now, self.index)
        self._check_space()
        header = self.headers.at(self.store.revision)
        return header + integer_field(b"\x10", lease.lease_id) + integer_field(b"\x18", lease.granted_ttl)

    def revoke(self, body: bytes) -> bytes:
        """LeaseRevoke: its keys go in one revision."""
        request = rpc_pb2.LeaseRevokeRequest.FromString(body)
        self.alarms.check_write(0)
        self._delete_leased(self.lessor.revoke(request.ID))
        return self.headers.at(self.store.revision)

    def keep_alive(self, body: bytes) -> bytes:
        """LeaseKeepAlive; an unknown lease is answered with no TTL."""
        request = rpc_pb2.LeaseKeepAliveRequest.FromString(body)
        (ttl,) = self.lessor.renew(pack("<q", request.ID), self.now, self.index)
        fields = integer_field(b"\x10", request.ID) + integer_field(b"\x18", ttl)
        return self.headers.at(self.store.revision) + fields

    def renew(self, body: bytes) -> bytes:
        """LEASE_RENEW: many leases at once."""
        if len(body) % 8:
            raise DecodeError("not a row of leases")
        ttls = self.lessor.renew(body, self.now, self.index)
        return self.headers.at(self.store.revision) + pack(f"<{len(ttls)}q", *ttls)

    def expire(self, body: bytes) -> bytes:
        """The leader found a lease overdue; void when it was renewed since, and while nothing may be changed."""
        if self.alarms.is_corrupt:
            return b""
        self._delete_leased(self.lessor.expire(*EXPIRE.unpack(body)))
        return b""

    def checkpoint(self, body: bytes) -> bytes:
        """What is left of long leases."""
        for lease_id, renewed_index, remaining_ttl in CHECKPOINT.iter_unpack(body):
            self.lessor.checkpoint(lease_id, renewed_index, remaining_ttl, self.now)
        return b""

    def _delete_leased(self, keys: list[bytes]) -> None:
        for key in keys:
            if self.store.sub == txn.DELETIONS_MAX:  # millions of keys: more than one revision can number
                self.store.finish()
            self.store.delete(key)
        self.counts["delete"] += len(keys)
        self.store.finish()

    # --- auth --------------------------------------------------------------------------------------------------------

    def authenticate(self, body: bytes) -> bytes:
        """Authenticate, the password already checked by api."""
        response = self.auth.authenticate(TokenGrant.unpack(body), self.index, int(self.now * 1000))
        return self.headers.at(self.store.revision) + response.SerializeToString()

    def _change_auth(self, op: int, identity: bytes, body: bytes) -> bytes:
        response = self.auth.apply(op, self.judge.caller(identity), body)
        return self.headers.at(self.store.revision) + response.SerializeToString()

    # --- alarms and quota --------------------------------------------------------------------------------------------

    def alarm(self, body: bytes) -> bytes:
        """Alarm: list, turn on or off."""
        request = rpc_pb2.AlarmRequest.FromString(body)
        match request.action:
            case rpc_pb2.AlarmRequest.GET:
                listed = self.alarms.get(request.alarm)
            case rpc_pb2.AlarmRequest.ACTIVATE:
                listed = self.alarms.activate(request.memberID, request.alarm)
                self._guarded = True  # from the next command of this chunk on
            case rpc_pb2.AlarmRequest.DEACTIVATE:
                listed = self.alarms.deactivate(request.memberID, request.alarm)
            case _:
                raise CallFailed(errors.UNKNOWN_METHOD)
        response = rpc_pb2.AlarmResponse()
        for kind, member_id in listed:
            response.alarms.add(memberID=member_id, alarm=rpc_pb2.AlarmType.ValueType(kind))
        return self.headers.at(self.store.revision) + response.SerializeToString()

    @property
    def space_left_bytes(self) -> int:
        """What fits under the quota now, negative when it is used up."""
        if self.quota_bytes is None:
            return UNBOUNDED
        return self.quota_bytes - self._database.size_bytes - self._database.pending_bytes

    def corrupt_check(self, _body: bytes) -> bytes:
        """All members hash their history as of this entry; the loop has it done."""
        self.data_checks.append((self.index, self.store.revision, self.store.compact_revision))
        return b""

    def corrupt_report(self, body: bytes) -> bytes:
        """What a member found; the loop compares."""
        REPORT.unpack(body)
        self.data_reports.append(body)
        return b""

    @property
    def space_alarm_is_on(self) -> bool:
        """Whether this member's own alarm is."""
        return (rpc_pb2.NOSPACE, self.headers.member_id) in self.alarms.active

    def _may_reach_quota(self, chunk: Chunk) -> bool:
        return len(chunk.commands) + chunk.size * 256 >= self.space_left_bytes

    def _check_space(self) -> None:
        """NoRoom, although the change was made, when the database has reached its quota."""
        if self.space_left_bytes <= 0:
            self.wants_space_alarm = True
            raise NoRoom
