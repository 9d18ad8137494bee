"""A node whose state a test sets by hand."""

from quorate.api.calling import Failed
from quorate.proto import rpc_pb2
from quorate.wire.errors import EtcdError


class FakeNode:
    """Healthy unless told otherwise."""

    def __init__(self) -> None:
        self.answer = rpc_pb2.StatusResponse(leader=7)
        self.serializable_read_error: EtcdError | None = None
        self.linearizable_read_error: EtcdError | None = None
        self.version: str | None = "3.6.0"
        self.texts: list[str] = []

    async def status(self) -> rpc_pb2.StatusResponse:
        return self.answer

    async def read(self, serializable: bool) -> None:
        error = self.serializable_read_error if serializable else self.linearizable_read_error
        if error is not None:
            raise Failed(error.code, error.text)

    async def cluster_version(self) -> str | None:
        return self.version

    async def statistics(self) -> list[str]:
        return self.texts

    def raft_state(self) -> dict[str, object]:
        return {"id": "8e9e05c52164694d", "term": 2}
