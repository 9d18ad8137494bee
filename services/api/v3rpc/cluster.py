"""etcdserverpb.Cluster: calls about members, which consensus answers."""

from __future__ import annotations

from quorate.api.calling import Done
from quorate.api.calls import Context, Route, Unary
from quorate.api.ring import Ring
from quorate.wire.messages import ClusterOp

_OPS = {
    "MemberList": ClusterOp.MEMBER_LIST,
    "MemberAdd": ClusterOp.MEMBER_ADD,
    "MemberRemove": ClusterOp.MEMBER_REMOVE,
    "MemberUpdate": ClusterOp.MEMBER_UPDATE,
    "MemberPromote": ClusterOp.MEMBER_PROMOTE,
}


class Cluster:
    """Passes each call on as it is."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring

    def routes(self) -> dict[str, Route]:
        return {f"/etcdserverpb.Cluster/{name}": Route(self._passing(op)) for name, op in _OPS.items()}

    def _passing(self, op: ClusterOp) -> Unary:
        def start(body: bytes, context: Context, done: Done, expires_at: float | None) -> None:
            self._ring.call(op, body, done, expires_at)

        return start
