"""v3lockpb.Lock: whoever holds the oldest key under the name holds the lock, as long as its lease lives."""

from __future__ import annotations

from quorate.api.calling import Failed
from quorate.api.calls import Route
from quorate.api.v3rpc.recipes import Keys, Recipes
from quorate.proto.rpc_pb2 import RangeRequest
from quorate.proto.v3lock_pb2 import LockRequest, LockResponse, UnlockRequest, UnlockResponse
from quorate.wire import errors


class Lock:
    """The service. The layout of the keys is etcd's, so that its clients' own locks may be mixed with these."""

    def __init__(self, recipes: Recipes) -> None:
        self._recipes = recipes

    def routes(self) -> dict[str, Route]:
        return {
            "/v3lockpb.Lock/Lock": self._recipes.route(LockRequest, self.lock),
            "/v3lockpb.Lock/Unlock": self._recipes.route(UnlockRequest, self.unlock),
        }

    async def lock(self, keys: Keys, request: LockRequest) -> LockResponse:
        """Take the next place and wait for the turn. The same lease under the same name is the same holder."""
        place = await self._recipes.place(keys, request.lease, request.name)
        taken = await self._recipes.taken(place, b"")
        oldest = taken.responses[1].response_range.kvs
        if not oldest or oldest[0].create_revision == place.revision:
            return LockResponse(header=taken.header, key=place.key)
        await self._recipes.turn(place)
        mine = await keys.get(RangeRequest(key=place.key))
        if not mine.kvs:
            raise Failed(errors.SESSION_EXPIRED.code, errors.SESSION_EXPIRED.text)
        return LockResponse(header=mine.header, key=place.key)

    async def unlock(self, keys: Keys, request: UnlockRequest) -> UnlockResponse:
        """Delete the key, whoever asks and whether it is there or not."""
        return UnlockResponse(header=(await keys.delete(request.key)).header)
