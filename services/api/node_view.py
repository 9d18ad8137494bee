"""What the pages of the front door may know of the node they belong to."""

from typing import Protocol

from quorate.proto import rpc_pb2


class NodeView(Protocol):
    """Questions about this node, asked with the node's own rights whatever authentication says."""

    async def status(self) -> rpc_pb2.StatusResponse:
        """Maintenance.Status of this member; raises Failed. Needs no quorum."""

    async def read(self, serializable: bool) -> None:
        """Read one key, from this member's own state or after asking a quorum; raises Failed, within etcd's limit."""

    async def cluster_version(self) -> str | None:
        """Version the members have agreed on, as "3.6.0"; None while they have not."""

    async def statistics(self) -> list[str]:
        """The figures of the node's other processes as Prometheus text; those that do not answer soon are missing."""

    def raft_state(self) -> dict[str, object]:
        """The member's place in its cluster as far as this worker has heard: id, term, commit, lead, raftState."""
