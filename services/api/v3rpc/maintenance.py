"""etcdserverpb.Maintenance: alarms are ordered, hashes are storage's, leadership is consensus', status is both's."""

from __future__ import annotations

from quorate.api.callers import Callers
from quorate.api.calling import CallStream, Done
from quorate.api.calls import Context, Responses, Route, StreamDone, StreamRoute
from quorate.api.ring import Ring
from quorate.api.v3rpc.permission import Permission
from quorate.api.v3rpc.snapshot import Download
from quorate.proto.rpc_pb2 import (
    AlarmRequest,
    DefragmentRequest,
    HashKVRequest,
    HashRequest,
    StatusRequest,
    StatusResponse,
)
from quorate.wire import errors
from quorate.wire.identity import Need
from quorate.wire.messages import ClusterOp, Op


class Maintenance:
    """`version` is the etcd release whose API is followed."""

    def __init__(self, ring: Ring, version: str, callers: Callers) -> None:
        self._ring = ring
        self._callers = callers
        self._permission = Permission(ring)
        self._version = version

    def routes(self) -> dict[str, Route]:
        service = "/etcdserverpb.Maintenance"
        return {
            f"{service}/Alarm": Route(self.alarm),
            f"{service}/Status": Route(self.status, serves_learner=True),
            f"{service}/Defragment": Route(self.defragment),
            f"{service}/Hash": Route(self.hash),
            f"{service}/HashKV": Route(self.hash_kv),
            f"{service}/MoveLeader": Route(self.move_leader),
            f"{service}/Downgrade": Route(self.downgrade),
        }

    def streams(self) -> dict[str, StreamRoute]:
        return {"/etcdserverpb.Maintenance/Snapshot": StreamRoute(self.snapshot, serves_learner=True)}

    def snapshot(self, context: Context, responses: Responses, done: StreamDone) -> CallStream:
        return Download(self._ring, self._callers, context, responses, done)

    def alarm(self, body: bytes, context: Context, done: Done, expires_at: float | None) -> None:
        AlarmRequest.FromString(body)
        self._ring.add(self._ring.writes, Op.ALARM, body, done, expires_at, context.identity)

    def defragment(self, body: bytes, context: Context, done: Done, expires_at: float | None) -> None:
        DefragmentRequest.FromString(body)
        self._ring.add(self._ring.patient, Op.DEFRAGMENT, body, done, expires_at, context.identity)

    def hash(self, body: bytes, context: Context, done: Done, expires_at: float | None) -> None:
        HashRequest.FromString(body)
        self._ring.add(self._ring.patient, Op.HASH, body, done, expires_at, context.identity)

    def hash_kv(self, body: bytes, context: Context, done: Done, expires_at: float | None) -> None:
        HashKVRequest.FromString(body)
        self._ring.add(self._ring.patient, Op.HASH_KV, body, done, expires_at, context.identity)

    def move_leader(self, body: bytes, context: Context, done: Done, expires_at: float | None) -> None:
        self._pass_on(ClusterOp.MOVE_LEADER, body, context, done, expires_at)

    def downgrade(self, body: bytes, context: Context, done: Done, expires_at: float | None) -> None:
        self._pass_on(ClusterOp.DOWNGRADE, body, context, done, expires_at)

    def _pass_on(self, op: ClusterOp, body: bytes, context: Context, done: Done, expires_at: float | None) -> None:
        self._permission.ask(Need.ADMIN, context, done, expires_at, lambda: self._ring.call(op, body, done, expires_at))

    def status(self, body: bytes, context: Context, done: Done, expires_at: float | None) -> None:
        """Ask storage and consensus at once and answer with both shares, or with the first error."""
        StatusRequest.FromString(body)
        shares: list[bytes] = []
        is_over = False

        def take(code: int, message: str, share: bytes) -> None:
            nonlocal is_over
            if is_over:
                return
            if code:
                is_over = True
                done(code, message, b"")
                return
            shares.append(share)
            if len(shares) == 2:
                is_over = True
                done(0, "", self._composed(shares))

        self._ring.add(self._ring.local, Op.STATUS, body, take, expires_at, context.identity)
        self._ring.call(ClusterOp.STATUS, body, take, expires_at)

    def _composed(self, shares: list[bytes]) -> bytes:
        """Each share sets what only its maker knows, so that merging them is all; no leader is an error of its own."""
        status = StatusResponse(version=self._version)
        for share in shares:
            status.MergeFromString(share)
        if not status.leader:
            status.errors.insert(0, errors.NO_LEADER.text)
        return status.SerializeToString()
