"""What operators do while everything else goes on: compaction, copies, members that come, go and are replaced."""

from __future__ import annotations

import asyncio
import hashlib
import random
import shutil
from collections.abc import Awaitable

import grpc
from google.protobuf.message import Message

from quorate.proto import rpc_pb2
from tests.chaos.calls import refusal
from tests.chaos.cluster import Battlefield, Member
from tests.chaos.faults import NotNow, anyone_free, fault, several

CALL_S_MAX = 5.0
LONG_CALL_S_MAX = 20.0


@fault("compaction", weight=2)
async def compaction(field: Battlefield, dice: random.Random, seconds: float) -> None:
    """Up to what every collector of the log has seen, but for a few revisions."""
    caller = field.callers[dice.choice(field.nodes).name]
    revision = field.compactable() - dice.choice((0, 1, 10, 500))
    if revision <= 2:
        raise NotNow
    field.compacted = max(field.compacted, revision)
    request = rpc_pb2.CompactionRequest(revision=revision, physical=dice.random() < 0.3)
    field.note(f"compact to {revision}{' physically' if request.physical else ''}")
    await _asked(field, caller.unary("KV/Compact", request, CALL_S_MAX))


@fault("defragmentation")
async def defragmentation(field: Battlefield, dice: random.Random, seconds: float) -> None:
    node = dice.choice(field.nodes)
    field.note(f"defragment {node.name}")
    await _asked(
        field, field.callers[node.name].unary("Maintenance/Defragment", rpc_pb2.DefragmentRequest(), LONG_CALL_S_MAX)
    )


@fault("backup")
async def backup(field: Battlefield, dice: random.Random, seconds: float) -> None:
    """Save a snapshot: what ends well carries its own hash."""
    node = dice.choice(field.nodes)
    field.note(f"back up {node.name}")
    size, digest, tail = 0, hashlib.sha256(), b""
    call = field.callers[node.name].told("Maintenance/Snapshot", rpc_pb2.SnapshotRequest(), LONG_CALL_S_MAX)
    try:
        async for answer in call:
            size += len(answer.blob)
            data = tail + answer.blob
            digest.update(data[:-32])
            tail = data[-32:]
    except grpc.RpcError as error:
        field.note(f"refused: {' '.join(refusal(error))}")
        return
    finally:
        call.cancel()
    if digest.digest() != tail:
        field.finding(f"a backup of {node.name} of {size} bytes does not carry its hash")


@fault("leader moves", several, weight=2)
async def move_leader(field: Battlefield, dice: random.Random, seconds: float) -> None:
    leader = await field.leader(1.0)
    if leader is None:
        raise NotNow
    own = field.nodes.index(leader)
    to = dice.choice([member for member, number in field.network.names.items() if number != own])
    field.note(f"move the leader from {leader.name} to {to:x}")
    request = rpc_pb2.MoveLeaderRequest(targetID=to)
    await _asked(field, field.callers[leader.name].unary("Maintenance/MoveLeader", request, CALL_S_MAX))


@fault("hash of one member")
async def hash_one(field: Battlefield, dice: random.Random, seconds: float) -> None:
    node = dice.choice(field.nodes)
    await _asked(field, field.callers[node.name].unary("Maintenance/HashKV", rpc_pb2.HashKVRequest(), CALL_S_MAX))


@fault("member replacement", several)
async def replace_member(field: Battlefield, dice: random.Random, seconds: float) -> None:
    """A member is removed, its disk wiped, and it comes back as a learner or a voter."""
    if field.renewal.locked():
        raise NotNow  # one after the other
    node = anyone_free(field, dice)
    async with field.renewal:
        await _replace(field, dice, node)


async def _replace(field: Battlefield, dice: random.Random, node: Member) -> None:
    others = [other for other in field.nodes if other is not node]
    data, url = node.data_dir, f"http://127.0.0.1:{field.network.ports[field.nodes.index(node)]}"
    async with node.busy:
        old = next((member.ID for member in await field.members(others) or () if list(member.peerURLs) == [url]), 0)
        if not old:
            raise NotNow
        field.note(f"remove {node.name} ({old:x})")
        request = rpc_pb2.MemberRemoveRequest(ID=old)
        while not await _until_done(
            field, others, "Cluster/MemberRemove", request
        ):  # one without an answer may be done
            listed = await field.members(others)
            if listed is not None and old not in {member.ID for member in listed}:
                break
        await asyncio.to_thread(node.kill)
        await asyncio.to_thread(shutil.rmtree, data, True)
        if node.disk is not None:
            await asyncio.to_thread(node.disk.sync)  # a power cut would bring the old member back
        learner = dice.random() < 0.5
        added = await _add(field, others, url, learner)
        field.network.know(added, field.nodes.index(node))
        flags = node.flags
        if "--initial-cluster-state" not in flags:
            node.flags = (*flags, "--initial-cluster-state", "existing")
        node.start()
        field.note(f"{node.name} is new ({added:x}{', learner' if learner else ''})")
    if learner:
        await promote(field, node, added)


async def promote(field: Battlefield, node: Member, member: int) -> None:
    others = [other for other in field.nodes if other is not node]
    request = rpc_pb2.MemberPromoteRequest(ID=member)
    while not await _until_done(field, others, "Cluster/MemberPromote", request):
        listed = await field.members(others)
        if listed is not None and member not in {each.ID for each in listed if each.isLearner}:
            return  # it votes already, or somebody removed it


async def _add(field: Battlefield, others: list[Member], url: str, learner: bool) -> int:
    """Add a member until it is one; its id."""
    request = rpc_pb2.MemberAddRequest(peerURLs=[url], isLearner=learner)
    while True:
        for other in others:
            try:
                answer = await field.callers[other.name].unary("Cluster/MemberAdd", request, CALL_S_MAX)
                return int(answer.member.ID)
            except grpc.RpcError as error:
                field.note(f"refused: {' '.join(refusal(error))}")
            try:
                members = await field.callers[other.name].unary(
                    "Cluster/MemberList", rpc_pb2.MemberListRequest(linearizable=True), CALL_S_MAX
                )
                for member in members.members:
                    if list(member.peerURLs) == [url]:
                        return int(member.ID)
            except grpc.RpcError:
                pass
            await asyncio.sleep(0.3)


async def _until_done(field: Battlefield, nodes: list[Member], name: str, request: Message) -> bool:
    """Ask one after the other, some rounds; whether somebody agreed."""
    for _ in range(5):
        for node in nodes:
            if await _asked(field, field.callers[node.name].unary(name, request, CALL_S_MAX)):
                return True
            await asyncio.sleep(0.2)
    return False


async def _asked(field: Battlefield, call: Awaitable[object]) -> bool:
    """Whether the call succeeded; a refusal is noted."""
    try:
        await call
    except grpc.RpcError as error:
        field.note(f"refused: {' '.join(refusal(error))}")
        return False
    return True
