"""The header of responses that this process makes itself, from what consensus last said of the member."""

from __future__ import annotations

from quorate.api.ring import Ring
from quorate.proto.rpc_pb2 import LeaseGrantResponse, ResponseHeader
from quorate.wire.messages import Role


class ResponseHeaders:
    """Headers as bytes. In every response message the header is field 1."""

    def __init__(self, ring: Ring) -> None:
        self._role: Role | None = ring.role
        self._cached = (-1, b"")
        ring.on_role(self._on_role)

    def at(self, revision: int) -> bytes:
        """The header field of a response at a revision."""
        cached, header = self._cached
        if cached != revision:
            made = ResponseHeader(revision=revision)
            if self._role is not None:
                made.cluster_id = self._role.cluster_id
                made.member_id = self._role.member_id
                made.raft_term = self._role.term
            header = LeaseGrantResponse(header=made).SerializeToString()
            self._cached = (revision, header)
        return header

    def _on_role(self, role: Role) -> None:
        self._role = role
        self._cached = (-1, b"")
