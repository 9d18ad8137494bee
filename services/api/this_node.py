"""The node as its own pages see it: questions to its parts, asked with the node's own rights."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from struct import Struct
from typing import Final

from quorate.api.calling import Done, Failed, awaited
from quorate.api.calls import NODE_CONTEXT, Calls
from quorate.api.fellows import Fellows
from quorate.api.ring import Ring
from quorate.proto import rpc_pb2
from quorate.wire.errors import CallFailed
from quorate.wire.identity import NODE
from quorate.wire.messages import ClusterOp, Kind, Op, Part

STATISTICS_TIMEOUT_S: Final = 1.0
VERSION_TIMEOUT_S: Final = 1.0
HEALTH_KEY: Final = b"health"  # read, never written; the answer does not matter

_REQUEST_ID: Final = Struct("<Q")


class ThisNode:
    """Implements `node_view.NodeView` over the ring."""

    def __init__(self, ring: Ring, calls: Calls, fellows: Fellows) -> None:
        self._ring = ring
        self._fellows = fellows
        self._calls = calls
        self._numbers = count(1)
        self._figures: dict[int, asyncio.Future[str]] = {}  # by request id
        for part in Part:
            ring.on_message(part, Kind.STATS, self._on_figures)

    async def status(self) -> rpc_pb2.StatusResponse:
        """Maintenance.Status of this member; raises Failed."""
        status = self._calls.routes["/etcdserverpb.Maintenance/Status"]
        body = await self._asked(lambda done: self._calls.start(status, b"", NODE_CONTEXT, done, None))
        return rpc_pb2.StatusResponse.FromString(body)

    async def read(self, serializable: bool) -> None:
        """Read one key; raises Failed."""
        body = rpc_pb2.RangeRequest(key=HEALTH_KEY, limit=1, serializable=serializable).SerializeToString()
        ring = self._ring

        def start(done: Done) -> None:
            ring.add(ring.local if serializable else ring.reads, Op.RANGE, body, done, identity=NODE)

        await self._asked(start)

    async def cluster_version(self) -> str | None:
        """Version the members have agreed on; None while they have not."""
        expires_at = self._ring.now() + VERSION_TIMEOUT_S
        try:
            body = await self._asked(lambda done: self._ring.call(ClusterOp.VERSION, b"", done, expires_at))
        except Failed:
            return None
        return rpc_pb2.DowngradeResponse.FromString(body).version or None

    async def statistics(self) -> list[str]:
        """The figures of the other processes; those that do not answer soon are missing."""
        ring = self._ring
        loop = asyncio.get_running_loop()
        asked: dict[int, asyncio.Future[str]] = {}
        for channel in (ring.consensus, ring.storage, ring.watch, *self._fellows.open):
            if channel.opened:
                number = next(self._numbers)
                asked[number] = self._figures[number] = loop.create_future()
                is_fellow = channel.peer.part is Part.API
                question = self._fellows.question(number) if is_fellow else _REQUEST_ID.pack(number)
                channel.send(Kind.STATS_READ, question)
        ring.flush_soon()
        if asked:
            await asyncio.wait(asked.values(), timeout=STATISTICS_TIMEOUT_S)
        for number in asked:
            self._figures.pop(number, None)
        return [figures.result() for figures in asked.values() if figures.done()]

    def raft_state(self) -> dict[str, object]:
        """The member's place in its cluster as far as this worker has heard."""
        role = self._ring.role
        if role is None:
            return {}
        state = "StateLeader" if role.is_leader else "StateFollower"
        return {
            "id": f"{role.member_id:x}",
            "term": role.term,
            "commit": role.commit_index,
            "lead": f"{role.leader_id:x}",
            "raftState": state,
        }

    async def _asked(self, start: Callable[[Done], object]) -> bytes:
        """The answer to one question to the ring; raises Failed."""
        answer, done = awaited()
        try:
            start(done)
        except CallFailed as failed:
            raise Failed(failed.error.code, failed.error.text) from failed
        return await answer

    def _on_figures(self, body: bytes) -> None:
        (number,) = _REQUEST_ID.unpack_from(body)
        figures = self._figures.pop(number, None)
        if figures is not None and not figures.done():
            figures.set_result(body[_REQUEST_ID.size :].decode())
