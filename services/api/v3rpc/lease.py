"""etcdserverpb.Lease: grants, revocations and renewals are ordered; what is left of a lease is read.

A renewal takes its place in the log like a write, so that every member counts the same time to live, whoever leads
next, and a renewal and an expiry of the same lease never cross. The answers of a KeepAlive stream come in the order of
its requests because the log has that order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from quorate.api.callers import Callers
from quorate.api.calling import CallStream, Done
from quorate.api.calls import Context, Responses, Route, StreamDone, StreamRoute
from quorate.api.quota import Quota
from quorate.api.ring import Ring
from quorate.api.v3rpc.renewals import Renewals
from quorate.api.watches import MESSAGE_PREFIX
from quorate.proto.rpc_pb2 import (
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
)
from quorate.wire import errors
from quorate.wire.errors import CallFailed
from quorate.wire.messages import Op
from quorate.wire.requests import LEASE_COST_BYTES

_SUFFIX_BITS: Final = 48
_COUNTER_BITS: Final = 8
_POSITIVE: Final = (1 << 63) - 1


class LeaseIds:
    """Ids for those who choose none, as etcd makes them: the member's low 16 bits, 40 bits of the start in
    milliseconds and a counter of 8 bits that runs over into them. Workers of one member count from different starts,
    and an id that is taken nevertheless is followed by the next."""

    def __init__(self, started_at_ms: int, worker: int) -> None:
        self._suffix = (started_at_ms << _COUNTER_BITS) + (worker << (_COUNTER_BITS + 10))

    def next(self, member_id: int) -> int:
        self._suffix += 1
        suffix = self._suffix & ((1 << _SUFFIX_BITS) - 1)
        return ((member_id << _SUFFIX_BITS) | suffix) & _POSITIVE


class Lease:
    """The service; `ids` is shared with whoever else grants leases in this process."""

    def __init__(self, ring: Ring, ids: LeaseIds, quota: Quota, callers: Callers) -> None:
        self._ring = ring
        self._quota = quota
        self._callers = callers
        self._ids = ids
        self._renewals = Renewals(ring)

    def routes(self) -> dict[str, Route]:
        service = "/etcdserverpb.Lease"
        return {
            f"{service}/LeaseGrant": Route(self.grant),
            f"{service}/LeaseRevoke": Route(self.revoke),
            f"{service}/LeaseTimeToLive": Route(self.time_to_live),
            f"{service}/LeaseLeases": Route(self.leases),
        }

    def streams(self) -> dict[str, StreamRoute]:
        return {"/etcdserverpb.Lease/LeaseKeepAlive": StreamRoute(self.keep_alive, is_lasting=True)}

    def grant(self, body: bytes, context: Context, done: Done, expires_at: float | None) -> None:
        request = LeaseGrantRequest.FromString(body)
        if self._quota.refuses(LEASE_COST_BYTES, done, expires_at):
            return
        if request.ID:
            self._ring.add(self._ring.writes, Op.LEASE_GRANT, body, done, expires_at, context.identity)
        else:
            self._grant_any(request, context, done, expires_at)

    def _grant_any(self, request: LeaseGrantRequest, context: Context, done: Done, expires_at: float | None) -> None:
        """Grant a lease with an id of ours. One that exists was refused without effect, so the next may be tried."""
        role = self._ring.role
        request.ID = self._ids.next(role.member_id if role is not None else 0)

        def granted(code: int, message: str, response: bytes) -> None:
            if message != errors.LEASE_EXIST.text:
                done(code, message, response)
                return
            try:
                self._grant_any(request, context, done, expires_at)
            except CallFailed as failed:
                done(failed.error.code, failed.error.text, b"")

        body = request.SerializeToString()
        self._ring.add(self._ring.writes, Op.LEASE_GRANT, body, granted, expires_at, context.identity)

    def revoke(self, body: bytes, context: Context, done: Done, expires_at: float | None) -> None:
        LeaseRevokeRequest.FromString(body)
        self._ring.add(self._ring.writes, Op.LEASE_REVOKE, body, done, expires_at, context.identity)

    def time_to_live(self, body: bytes, context: Context, done: Done, expires_at: float | None) -> None:
        LeaseTimeToLiveRequest.FromString(body)
        self._ring.add(self._ring.reads, Op.LEASE_TIME_TO_LIVE, body, done, expires_at, context.identity)

    def leases(self, body: bytes, context: Context, done: Done, expires_at: float | None) -> None:
        LeaseLeasesRequest.FromString(body)
        self._ring.add(self._ring.local, Op.LEASE_LEASES, body, done, expires_at, context.identity)

    def keep_alive(self, context: Context, responses: Responses, done: StreamDone) -> CallStream:
        return _KeepAlive(self._ring, self._renewals, self._callers, context, responses, done)


class _KeepAlive:
    """A stream of renewals: one answer to each, the first error ends it."""

    def __init__(
        self,
        ring: Ring,
        renewals: Renewals,
        callers: Callers,
        context: Context,
        responses: Responses,
        done: StreamDone,
    ) -> None:
        self._ring = ring
        self._renewals = renewals
        self._callers = callers
        self._context = context
        self._responses = responses
        self._done = done
        self._waiting = 0
        self._is_half_closed = False
        self._is_over = False

    # --- the caller ------------------------------------------------------------------------------------------

    def send(self, body: bytes) -> None:
        if self._is_over:
            return
        context = self._context
        if context.epoch == self._callers.epoch and not context.identity:
            self._renewals.add(self, body)  # the most by far: nobody in particular
            self._waiting += 1
            return
        self._renewals.send()  # it was here before
        self._waiting += 1
        self._callers.identify(context, partial(self._renew, body, self._answered_first))

    def half_close(self) -> None:
        self._is_half_closed = True
        if not self._waiting:
            self._ring.soon(self._end, 0, "")

    def cancel(self) -> None:
        self._is_over = True

    def pause(self) -> None:
        """An answer is no larger than its request, and requests wait while the connection is full."""

    def resume(self) -> None:
        """See `pause`."""

    # --- many at once ----------------------------------------------------------------------------------------

    def renewed(self, count: int, messages: bytes) -> None:
        self._waiting -= count
        if self._is_over:
            return
        self._responses.send_framed(messages)
        if self._is_half_closed and not self._waiting:
            self._end(0, "")

    def refused(self, lease_ids: tuple[int, ...], code: int, message: str) -> None:
        if message == errors.AUTH_OLD_REVISION.text and not self._is_over:  # auth was turned on since
            for lease_id in lease_ids:
                body = LeaseKeepAliveRequest(ID=lease_id).SerializeToString()
                self._callers.identify(self._context, partial(self._renew, body, self._answered_first))
            return
        self._waiting -= len(lease_ids)
        if not self._is_over:
            self._end(code, message)

    # --- one by one ------------------------------------------------------------------------------------------

    def _renew(self, body: bytes, answered: Callable[[bytes, int, str, bytes], None], code: int, message: str) -> None:
        if code:
            self._answered(code, message, b"")
            return
        identity = self._context.identity
        try:
            self._ring.add(self._ring.writes, Op.LEASE_KEEP_ALIVE, body, partial(answered, body), identity=identity)
        except CallFailed as failed:
            self._answered(failed.error.code, failed.error.text, b"")

    def _answered_first(self, body: bytes, code: int, message: str, response: bytes) -> None:
        """Users or roles that changed on the way end no lease: who calls is looked at again, once."""
        if message == errors.AUTH_OLD_REVISION.text and not self._is_over:
            self._callers.identify(self._context, partial(self._renew, body, self._answered_again))
        else:
            self._answered(code, message, response)

    def _answered_again(self, _body: bytes, code: int, message: str, response: bytes) -> None:
        self._answered(code, message, response)

    def _answered(self, code: int, message: str, response: bytes) -> None:
        if not code:
            self.renewed(1, MESSAGE_PREFIX.pack(0, len(response)) + response)
            return
        self._waiting -= 1
        if not self._is_over:
            self._end(code, message)

    def _end(self, code: int, message: str) -> None:
        if not self._is_over:
            self._is_over = True
            self._done(code, message)
