"""Which right each command and question needs: one table for all of them (contract 10.7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from quorate.proto import rpc_pb2
from quorate.storage.access import Access
from quorate.storage.auth import AuthStore
from quorate.storage.lessor import Lessor
from quorate.wire.identity import Caller
from quorate.wire.messages import Op

Check = Callable[[Caller | None, bytes], None]

# What says itself what it needs (AuthStore), or is asked before there is a caller.
OPEN: Final = frozenset(
    {Op.LEASE_EXPIRE, Op.AUTHENTICATE, Op.CREDENTIALS, Op.TOKEN, Op.AUTH_STATUS}
    | {Op.USER_GET, Op.USER_LIST, Op.ROLE_GET, Op.ROLE_LIST}
)


class Judge:
    """Refuses callers: `check` raises CallFailed, or the request may go on. Only to be asked while auth is on."""

    def __init__(self, auth: AuthStore, lessor: Lessor) -> None:
        self._auth = auth
        self._access = Access(auth, lessor.keys_of)
        self._lessor = lessor
        self._checks: dict[int, Check] = {
            Op.RANGE: self._range,
            Op.PERMISSION: self._range,
            Op.PUT: self._put,
            Op.DELETE_RANGE: self._delete,
            Op.TXN: self._txn,
            Op.LEASE_GRANT: self._user,
            Op.LEASE_REVOKE: self._revoke,
            Op.LEASE_KEEP_ALIVE: self._keep_alive,
            Op.LEASE_TIME_TO_LIVE: self._time_to_live,
            Op.LEASE_LEASES: self._leases,
            Op.ALARM: self._alarm,
            Op.STATUS: self._user,
        }

    def check(self, op: int, caller: Caller | None, body: bytes) -> None:
        """CallFailed unless the caller may; whatever is in no table is for root."""
        check = self._checks.get(op)
        if check is not None:
            check(caller, body)
        elif op not in OPEN:
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
