"""Which right each command and question needs: one table for all of them (contract 10.7).

A caller is taken apart and looked up once; what it may do is kept until the auth state moves. Root is let through, and
the most usual requests (one key, nothing special) are judged without a protobuf message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from quorate.proto import rpc_pb2
from quorate.storage.access import Access
from quorate.storage.auth import AuthStore, Rights
from quorate.storage.lessor import Lessor
from quorate.wire import errors
from quorate.wire.errors import CallFailed
from quorate.wire.identity import UNJUDGED, Caller, Need
from quorate.wire.messages import Op

Check = Callable[[Caller | None, bytes], None]

# What says itself what it needs (AuthStore), or is asked before there is a caller.
OPEN: Final = frozenset(
    {Op.AUTHENTICATE, Op.CREDENTIALS, Op.TOKEN, Op.AUTH_STATUS, Op.USER_GET, Op.USER_LIST, Op.ROLE_GET, Op.ROLE_LIST}
)
CALLERS_MAX: Final = 65_536  # remembered; beyond it all are looked up anew
NOBODY: Final = Caller("", 0)


class Known(NamedTuple):
    """A caller and what it may do now; no rights where every question has to find its own error."""

    caller: Caller
    rights: Rights | None


class Judge:
    """Refuses callers: `check` raises CallFailed, or the request may go on. Only to be asked while auth is on."""

    def __init__(self, auth: AuthStore, lessor: Lessor) -> None:
        self._auth = auth
        self._access = Access(auth, lessor.keys_of)
        self._lessor = lessor
        self._epoch = auth.epoch
        self._callers: dict[bytes, Known] = {}
        self._checks: dict[int, Check] = {
            Op.RANGE: self._range,
            Op.PERMISSION: self._permission,
            Op.PUT: self._put,
            Op.DELETE_RANGE: self._delete,
            Op.TXN: self._txn,
            Op.LEASE_GRANT: self._user,
            Op.LEASE_REVOKE: self._revoke,
            Op.LEASE_KEEP_ALIVE: self._keep_alive,
            Op.LEASE_RENEW: self._renew,
            Op.LEASE_TIME_TO_LIVE: self._time_to_live,
            Op.LEASE_LEASES: self._leases,
            Op.ALARM: self._alarm,
            Op.STATUS: self._user,
        }

    def check(self, op: int, identity: bytes, body: bytes) -> None:
        """CallFailed unless the caller may; whatever is in no table is for root."""
        caller, rights = self._known(identity)
        if rights is not None:
            if rights.is_root:
                return
            if op == Op.PUT:
                key = plain_put_key(body)
                if key and rights.writable.covers(key, b""):
                    return
            elif op == Op.RANGE:
                key = plain_range_key(body)
                if key and rights.readable.covers(key, b""):
                    return
        elif identity == UNJUDGED and op not in OPEN:
            raise CallFailed(errors.AUTH_OLD_REVISION)  # auth was turned on since
        check = self._checks.get(op)
        if check is not None:
            check(caller, body)
        elif op not in OPEN:
            self._auth.check_admin(caller)

    def caller(self, identity: bytes) -> Caller:
        """Who an identity stands for."""
        return self._known(identity).caller

    def _known(self, identity: bytes) -> Known:
        if self._epoch != self._auth.epoch or len(self._callers) > CALLERS_MAX:
            self._callers.clear()
            self._epoch = self._auth.epoch
        known = self._callers.get(identity)
        if known is None:
            caller = Caller.unpack(identity) if identity else NOBODY
            known = self._callers[identity] = Known(caller, self._auth.rights_of(caller))
        return known

    def _permission(self, caller: Caller | None, body: bytes) -> None:
        if body == bytes((Need.USER,)):
            self._auth.check_user(caller)
        else:
            self._auth.check_admin(caller)

    def _user(self, caller: Caller | None, _body: bytes) -> None:
        self._auth.check_user(caller)

    def _range(self, caller: Caller | None, body: bytes) -> None:
        self._access.check_range(caller, rpc_pb2.RangeRequest.FromString(body))

    def _put(self, caller: Caller | None, body: bytes) -> None:
        self._access.check_put(caller, rpc_pb2.PutRequest.FromString(body))

    def _delete(self, caller: Caller | None, body: bytes) -> None:
        self._access.check_delete(caller, rpc_pb2.DeleteRangeRequest.FromString(body))

    def _txn(self, caller: Caller | None, body: bytes) -> None:
        self._access.check_txn(caller, rpc_pb2.TxnRequest.FromString(body))

    def _revoke(self, caller: Caller | None, body: bytes) -> None:
        self._access.check_lease(caller, True, rpc_pb2.LeaseRevokeRequest.FromString(body).ID)

    def _keep_alive(self, caller: Caller | None, body: bytes) -> None:
        self._access.check_lease(caller, True, rpc_pb2.LeaseKeepAliveRequest.FromString(body).ID)

    def _renew(self, _caller: Caller | None, _body: bytes) -> None:
        """Renewals of different callers are told apart only where each is asked for by itself."""
        raise CallFailed(errors.AUTH_OLD_REVISION)

    def _time_to_live(self, caller: Caller | None, body: bytes) -> None:
        request = rpc_pb2.LeaseTimeToLiveRequest.FromString(body)
        if request.keys:
            self._access.check_lease(caller, False, request.ID)
        else:
            self._auth.check_user(caller)

    def _leases(self, caller: Caller | None, _body: bytes) -> None:
        self._access.check_all_leases(caller, self._lessor.leases)

    def _alarm(self, caller: Caller | None, body: bytes) -> None:
        if rpc_pb2.AlarmRequest.FromString(body).action == rpc_pb2.AlarmRequest.GET:
            self._auth.check_user(caller)
        else:
            self._auth.check_admin(caller)


def plain_range_key(body: bytes) -> bytes:
    """The key of a range that asks for one key, serializable or not, and nothing else; empty for any other request."""
    size = len(body)
    if size < 3 or body[0] != 0x0A or body[1] >= 0x80:
        return b""
    end = body[1] + 2
    return body[2:end] if end == size or (end + 2 == size and body[end] == 0x38) else b""


def plain_put_key(body: bytes) -> bytes:
    """The key of a put with a value and nothing else; empty for any other request."""
    size = len(body)
    if size < 3 or body[0] != 0x0A or body[1] >= 0x80:
        return b""
    end = body[1] + 2
    if end == size:
        return body[2:end]
    if end + 1 >= size or body[end] != 0x12:
        return b""
    length = body[end + 1]
    start = end + 2
    if length >= 0x80:
        if start >= size or body[start] >= 0x80:
            return b""
        length += (body[start] << 7) - 0x80
        start += 1
    return body[2:end] if start + length == size else b""
