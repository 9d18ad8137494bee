"""etcdserverpb.KV: range, put, delete, txn, compact. The request's bytes go to storage as they came."""

from __future__ import annotations

from functools import partial

from quorate.api.callers import Callers
from quorate.api.calling import Done
from quorate.api.calls import CallLimits, Context, Route
from quorate.api.lanes import Lane
from quorate.api.quota import Quota
from quorate.api.ring import Ring
from quorate.proto.rpc_pb2 import CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest
from quorate.wire import errors
from quorate.wire.errors import CallFailed
from quorate.wire.identity import NODE
from quorate.wire.messages import Op
from quorate.wire.requests import (
    check_delete,
    check_put,
    check_range,
    check_txn,
    is_plain_put,
    is_plain_range,
    is_read_only,
    put_cost,
    txn_cost,
)


def is_serializable(request: TxnRequest) -> bool:
    """A read-only transaction that need not wait for a read index: no op at all asks for a linearizable answer."""
    return all(op.request_range.serializable for op in request.success) and all(
        op.request_range.serializable for op in request.failure
    )


class KV:
    """Reads take the lane their consistency asks for, writes are ordered."""

    def __init__(self, ring: Ring, limits: CallLimits, quota: Quota, callers: Callers) -> None:
        self._ring = ring
        self._callers = callers
        self._limits = limits
        self._quota = quota

    def routes(self) -> dict[str, Route]:
        return {
            "/etcdserverpb.KV/Range": Route(self.range, serves_learner=True),
            "/etcdserverpb.KV/Put": Route(self.put),
            "/etcdserverpb.KV/DeleteRange": Route(self.delete_range),
            "/etcdserverpb.KV/Txn": Route(self.txn),
            "/etcdserverpb.KV/Compact": Route(self.compact),
        }

    def range(self, body: bytes, context: Context, done: Done, expires_at: float | None) -> None:
        ring = self._ring
        request = None if is_plain_range(body) else RangeRequest.FromString(body)
        is_serializable = request is not None and request.serializable
        if ring.is_learner and not is_serializable:
            raise CallFailed(errors.NOT_SUPPORTED_FOR_LEARNER)
        if request is not None:
            check_range(request)
        lane = ring.local if is_serializable else ring.reads
        if context.identity:
            done = partial(self._read, lane, Op.RANGE, body, context, done, expires_at)
        ring.add(lane, Op.RANGE, body, done, expires_at, context.identity)

    def put(self, body: bytes, context: Context, done: Done, expires_at: float | None) -> None:
        quota = self._quota
        request = None if is_plain_put(body) and not quota.is_near else PutRequest.FromString(body)
        if request is not None:
            check_put(request)
        self._limits.check_size(body)
        if (
            request is not None
            and quota.is_near
            and quota.refuses(put_cost(request.key, request.value), done, expires_at)
        ):
            return
        self._ring.add(self._ring.writes, Op.PUT, body, done, expires_at, context.identity)

    def delete_range(self, body: bytes, context: Context, done: Done, expires_at: float | None) -> None:
        check_delete(DeleteRangeRequest.FromString(body))
        self._limits.check_size(body)
        self._ring.add(self._ring.writes, Op.DELETE_RANGE, body, done, expires_at, context.identity)

    def txn(self, body: bytes, context: Context, done: Done, expires_at: float | None) -> None:
        request = TxnRequest.FromString(body)
        check_txn(request, self._limits.txn_ops_max)
        ring = self._ring
        if not is_read_only(request):
            self._limits.check_size(body)
            if self._quota.is_near and self._quota.refuses(txn_cost(request), done, expires_at):
                return
            lane = ring.writes
        else:
            lane = ring.local if is_serializable(request) else ring.reads
            if context.identity:
                done = partial(self._read, lane, Op.TXN, body, context, done, expires_at)
        ring.add(lane, Op.TXN, body, done, expires_at, context.identity)

    def _read(
        self,
        lane: Lane,
        op: Op,
        body: bytes,
        context: Context,
        done: Done,
        expires_at: float | None,
        code: int,
        message: str,
        response: bytes,
    ) -> None:
        """The outcome of a caller's read. Users or roles that changed on its way are looked at again, once: a read is
        judged as things stand when it is answered, and etcd looks no earlier."""
        if code != errors.AUTH_OLD_REVISION.code or message != errors.AUTH_OLD_REVISION.text:
            done(code, message, response)
            return

        def again(code: int, message: str) -> None:
            if code:
                done(code, message, b"")
                return
            try:
                self._ring.add(lane, op, body, done, expires_at, context.identity)
            except CallFailed as failed:
                done(failed.error.code, failed.error.text, b"")

        self._callers.identify(context, again)

    def compact(self, body: bytes, context: Context, done: Done, expires_at: float | None) -> None:
        request = CompactionRequest.FromString(body)
        if request.physical:
            done = partial(self._when_compacted, request.revision, done, expires_at)
        self._ring.add(self._ring.writes, Op.COMPACT, body, done, expires_at, context.identity)

    def _when_compacted(
        self, revision: int, done: Done, expires_at: float | None, code: int, message: str, response: bytes
    ) -> None:
        """The order itself is bounded in time; its end is waited for as long as the client likes, as in etcd."""
        if code:
            done(code, message, response)
            return

        def compacted(code: int, message: str, _nothing: bytes) -> None:
            done(code, message, b"" if code else response)

        try:
            body = revision.to_bytes(8, "little")
            self._ring.add(self._ring.patient, Op.COMPACTED, body, compacted, expires_at, NODE)
        except CallFailed as failed:
            done(failed.error.code, failed.error.text, b"")
