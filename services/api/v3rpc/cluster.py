"""etcdserverpb.Cluster: calls about members, which consensus answers."""

from __future__ import annotations

from quorate.api.calling import Done
from quorate.api.calls import Context, Route, Unary
from quorate.api.ring import Ring
from quorate.api.v3rpc.permission import Permission
from quorate.wire.identity import Need
from quorate.wire.messages import ClusterOp

_OPS = {
    "MemberList": (ClusterOp.MEMBER_LIST, Need.USER),
    "MemberAdd": (ClusterOp.MEMBER_ADD, Need.ADMIN),
    "MemberRemove": (ClusterOp.MEMBER_REMOVE, Need.ADMIN),
    "MemberUpdate": (ClusterOp.MEMBER_UPDATE, Need.ADMIN),
    "MemberPromote": (ClusterOp.MEMBER_PROMOTE, Need.ADMIN),
}


class Cluster:
    """Passes each call on as it is, if the caller may."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._permission = Permission(ring)

    def routes(self) -> dict[str, Route]:
        return {f"/etcdserverpb.Cluster/{name}": Route(self._passing(op, need)) for name, (op, need) in _OPS.items()}

    def _passing(self, op: ClusterOp, need: Need) -> Unary:
        def start(body: bytes, context: Context, done: Done, expires_at: float | None) -> None:
            self._permission.ask(need, context, done, expires_at, lambda: self._ring.call(op, body, done, expires_at))

        return start
