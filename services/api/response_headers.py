"""The header of responses that this process makes itself, from what consensus last said of the member."""

from __future__ import annotations

from quorate.api.ring import Ring
from quorate.proto.rpc_pb2 import ResponseHeader
from quorate.wire.messages import Role

_FIELD = b"\x0a"  # in every response message the header is field 1


class ResponseHeaders:
    """Headers as bytes. Only the revision changes from one to the next, so it is put between what was made before."""

    def __init__(self, ring: Ring) -> None:
        self._ids = b""
        self._term = b""
        self._cached = (-1, b"")
        if ring.role is not None:
            self._on_role(ring.role)
        ring.on_role(self._on_role)

    def at(self, revision: int) -> bytes:
        """The header field of a response at a revision; without it for 0."""
        cached, header = self._cached
        if cached != revision:
            fields = self._ids + ResponseHeader(revision=revision).SerializeToString() + self._term
            header = _FIELD + bytes((len(fields),)) + fields
            self._cached = (revision, header)
        return header

    def _on_role(self, role: Role) -> None:
        ids = ResponseHeader(cluster_id=role.cluster_id, member_id=role.member_id)
        self._ids = ids.SerializeToString()
        self._term = ResponseHeader(raft_term=role.term).SerializeToString()
        self._cached = (-1, b"")
