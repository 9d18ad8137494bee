"""v3electionpb.Election: whoever holds the oldest key under the name leads, and its value is what is proclaimed."""

from __future__ import annotations

import asyncio

from google.protobuf.message import Message

from quorate.api import faults
from quorate.api.calling import CallStream, Failed
from quorate.api.calls import Context, Responses, Route, StreamDone, StreamRoute
from quorate.api.feed import Compacted, Feed
from quorate.api.v3rpc.recipes import Keys, Recipes, first_created, is_created_at, prefix_end
from quorate.proto import kv_pb2
from quorate.proto.rpc_pb2 import DeleteRangeRequest, PutRequest, RequestOp, ResponseHeader, TxnRequest, TxnResponse
from quorate.proto.v3election_pb2 import (
    CampaignRequest,
    CampaignResponse,
    LeaderKey,
    LeaderRequest,
    LeaderResponse,
    ProclaimRequest,
    ProclaimResponse,
    ResignRequest,
    ResignResponse,
)
from quorate.wire import errors
from quorate.wire.errors import Code, EtcdError


class Election:
    """The service. The layout of the keys is etcd's, so that its clients' own elections may be mixed with these."""

    def __init__(self, recipes: Recipes) -> None:
        self._recipes = recipes

    def routes(self) -> dict[str, Route]:
        service = "/v3electionpb.Election"
        return {
            f"{service}/Campaign": self._recipes.route(CampaignRequest, self.campaign),
            f"{service}/Proclaim": self._recipes.route(ProclaimRequest, self.proclaim),
            f"{service}/Leader": self._recipes.route(LeaderRequest, self.leader),
            f"{service}/Resign": self._recipes.route(ResignRequest, self.resign),
        }

    def streams(self) -> dict[str, StreamRoute]:
        return {"/v3electionpb.Election/Observe": StreamRoute(self.observe, is_lasting=True)}

    async def campaign(self, keys: Keys, request: CampaignRequest) -> CampaignResponse:
        """Take the next place and wait to lead."""
        place = await self._recipes.place(keys, request.lease, request.name)
        taken = await self._recipes.taken(place, request.value)
        leader = LeaderKey(name=request.name, key=place.key, rev=place.revision, lease=place.lease_id)
        if not taken.succeeded and taken.responses[0].response_range.kvs[0].value != request.value:
            try:
                await _proclaim(keys, leader, request.value)
            except Failed:
                await _resign(keys, leader)
                raise
        await self._recipes.turn(place)
        return CampaignResponse(header=taken.header, leader=leader)

    async def proclaim(self, keys: Keys, request: ProclaimRequest) -> ProclaimResponse:
        """Change the leader's value, if it still leads."""
        _check_leader(request)
        return ProclaimResponse(header=(await _proclaim(keys, request.leader, request.value)).header)

    async def leader(self, keys: Keys, request: LeaderRequest) -> LeaderResponse:
        found = await keys.get(first_created(request.name + b"/"))
        if not found.kvs:
            raise _failed(errors.ELECTION_NO_LEADER)
        return LeaderResponse(header=found.header, kv=found.kvs[0])

    async def resign(self, keys: Keys, request: ResignRequest) -> ResignResponse:
        """Stop leading; who does not lead has nothing to do."""
        _check_leader(request)
        return ResignResponse(header=(await _resign(keys, request.leader)).header)

    def observe(self, context: Context, responses: Responses, done: StreamDone) -> CallStream:
        return _Observation(self._recipes, self._recipes.keys(context), responses, done)


class _Observation:
    """One Observe call: the leader there is, then everything it proclaims, then the next leader."""

    def __init__(self, recipes: Recipes, keys: Keys, responses: Responses, done: StreamDone) -> None:
        self._recipes = recipes
        self._keys = keys
        self._responses = responses
        self._done = done
        self._task: asyncio.Task[None] | None = None
        self._has_room = asyncio.Event()
        self._has_room.set()

    def send(self, body: bytes) -> None:
        request = LeaderRequest.FromString(body)
        if self._task is None:
            self._task = self._recipes.run(self._run(request.name + b"/"))

    def half_close(self) -> None:
        """The one request was sent."""

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def pause(self) -> None:
        self._has_room.clear()

    def resume(self) -> None:
        self._has_room.set()

    async def _run(self, prefix: bytes) -> None:
        try:
            while True:
                await self._observe_one(prefix)
        except Failed as failed:
            self._done(Code.UNKNOWN, failed.message)
        except Compacted:
            self._done(Code.UNKNOWN, errors.COMPACTED.text)
        except Exception as fault:  # the caller has to hear that there will be nothing more
            self._done(*faults.report(fault))

    async def _observe_one(self, prefix: bytes) -> None:
        """Tell of one leader until its key is deleted."""
        found = await self._keys.get(first_created(prefix))
        if found.kvs:
            header, leader = found.header, found.kvs[0]
        else:
            header, leader = await self._first_put(prefix, found.header.revision + 1)
        await self._tell(header, leader)
        async with Feed(self._recipes.watches, leader.key, b"", 0, header.revision + 1) as feed:
            while True:
                response = await feed.next()
                for event in response.events:
                    if event.type == kv_pb2.Event.DELETE:
                        return
                    response.header.revision = event.kv.mod_revision
                    await self._tell(response.header, event.kv)

    async def _first_put(self, prefix: bytes, first_revision: int) -> tuple[ResponseHeader, kv_pb2.KeyValue]:
        async with Feed(self._recipes.watches, prefix, prefix_end(prefix), 0, first_revision) as feed:
            while True:
                response = await feed.next()
                for event in response.events:
                    if event.type == kv_pb2.Event.PUT:
                        response.header.revision = event.kv.mod_revision
                        return response.header, event.kv

    async def _tell(self, header: ResponseHeader, leader: kv_pb2.KeyValue) -> None:
        await self._has_room.wait()
        self._responses.send(LeaderResponse(header=header, kv=leader).SerializeToString())


async def _proclaim(keys: Keys, leader: LeaderKey, value: bytes) -> TxnResponse:
    put = RequestOp(request_put=PutRequest(key=leader.key, value=value, lease=leader.lease))
    done = await keys.txn(TxnRequest(compare=[is_created_at(leader.key, leader.rev)], success=[put]))
    if not done.succeeded:
        raise _failed(errors.ELECTION_NOT_LEADER)
    return done


async def _resign(keys: Keys, leader: LeaderKey) -> TxnResponse:
    delete = RequestOp(request_delete_range=DeleteRangeRequest(key=leader.key))
    return await keys.txn(TxnRequest(compare=[is_created_at(leader.key, leader.rev)], success=[delete]))


def _check_leader(request: Message) -> None:
    if not request.HasField("leader"):
        raise _failed(errors.LEADER_KEY_MISSING)


def _failed(error: EtcdError) -> Failed:
    return Failed(error.code, error.text)
