"""Users whose rights come and go: a warden who gives and takes them, guests who use them, strangers without any."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final, NamedTuple

import grpc
from google.protobuf.message import Message

from quorate.proto import auth_pb2, rpc_pb2
from quorate.wire import errors
from tests.chaos.calls import AsyncCaller, refusal
from tests.chaos.crowd import UNAUTHORIZED, Crowd, never_sent
from tests.chaos.people import PASSWORD, TOKEN_TROUBLE, Stranger
from tests.checking.history import Fate, Kind, Operation
from tests.checking.rights import NEVER, Grant, Visit

ROOT: Final = "root"
WORKER: Final = "worker"
GUEST: Final = "guest"
VISITED: Final = b"guest/"
NOBODYS: Final = b"nobody/"
CALL_S_MAX: Final = 3.0
PHASE_S: Final = (0.2, 2.0)
AGAIN_S: Final = 0.2
CURRENT: Final = 0.7  # share of a guest's calls that go to what was given last
GUEST_PAUSE_S: Final = 0.1
# What it means when an attempt before was not answered.
DONE_BEFORE: Final = frozenset(
    (
        errors.USER_ALREADY_EXIST.text,
        errors.ROLE_ALREADY_EXIST.text,
        errors.PERMISSION_NOT_GRANTED.text,
        errors.ROLE_NOT_GRANTED.text,
        errors.ROLE_NOT_FOUND.text,
    )
)


class Way(NamedTuple):
    """How a right is given and taken away."""

    before: tuple[tuple[str, Message], ...]
    give: tuple[str, Message]
    take: tuple[str, Message]


def ways(number: int, prefix: bytes) -> dict[str, Way]:
    """By what changes."""
    role = f"visitor {number}"
    add = ("Auth/RoleAdd", rpc_pb2.AuthRoleAddRequest(name=role))
    lay_out = ("Auth/RoleGrantPermission", _permission(role, prefix, prefix[:-1] + b"0"))
    give = ("Auth/UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user=GUEST, role=role))
    return {
        "a range of a role": Way(
            (),
            ("Auth/RoleGrantPermission", _permission(GUEST, prefix, prefix[:-1] + b"0")),
            (
                "Auth/RoleRevokePermission",
                rpc_pb2.AuthRoleRevokePermissionRequest(role=GUEST, key=prefix, range_end=prefix[:-1] + b"0"),
            ),
        ),
        "a role of a user": Way(
            (add, lay_out), give, ("Auth/UserRevokeRole", rpc_pb2.AuthUserRevokeRoleRequest(name=GUEST, role=role))
        ),
        "a role": Way((add, lay_out), give, ("Auth/RoleDelete", rpc_pb2.AuthRoleDeleteRequest(role=role))),
    }


class Warden:
    """Switches users on after a while, and then gives one right after the other and takes it away again."""

    def __init__(self, crowd: Crowd, callers: list[AsyncCaller], begins_s: float) -> None:
        self.grants: list[Grant] = [Grant(NOBODYS)]
        self.enabled_ns = NEVER
        self._crowd = crowd
        self._callers = callers
        self._begins_s = begins_s
        self._dice = random.Random(f"warden {crowd.seed}")

    async def run(self) -> None:
        await self._pause(self._begins_s)
        for name, end in ((ROOT, None), (WORKER, b"\0"), (GUEST, None)):
            await self._until_done("Auth/UserAdd", rpc_pb2.AuthUserAddRequest(name=name, password=PASSWORD))
            await self._until_done("Auth/RoleAdd", rpc_pb2.AuthRoleAddRequest(name=name))
            if end is not None:
                await self._until_done("Auth/RoleGrantPermission", _permission(name, b"\0", end))
            await self._until_done("Auth/UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user=name, role=name))
        await self._until_done("Auth/AuthEnable", rpc_pb2.AuthEnableRequest())
        if not self._crowd.stopping.is_set():
            self.enabled_ns = time.monotonic_ns()
        while not self._crowd.stopping.is_set():
            await self._give_and_take(len(self.grants))

    async def _give_and_take(self, number: int) -> None:
        prefix = VISITED + b"%d/" % number
        way = self._dice.choice(list(ways(number, prefix).values()))
        for step in way.before:
            await self._until_done(*step)
        self.grants.append(Grant(prefix))
        await self._pause(self._dice.uniform(*PHASE_S))
        self._note(give_invoked_ns=time.monotonic_ns())
        is_settled = await self._until_done(*way.give)
        self._note(is_settled=is_settled)
        if self._crowd.stopping.is_set():
            return
        self._note(given_ns=time.monotonic_ns())
        await self._pause(self._dice.uniform(*PHASE_S))
        self._note(take_invoked_ns=time.monotonic_ns())
        await self._until_done(*way.take)
        if not self._crowd.stopping.is_set():
            self._note(taken_ns=time.monotonic_ns())

    def _note(self, **changed: int | bool) -> None:
        self.grants[-1] = self.grants[-1]._replace(**changed)  # type: ignore[arg-type]

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._crowd.stopping.wait()
        except TimeoutError:
            pass

    async def _until_done(self, name: str, request: Message) -> bool:
        """Ask one member after the other until it is done, or the run is over; whether each attempt's fate is known."""
        is_settled = True
        while not self._crowd.stopping.is_set():
            try:
                await self._dice.choice(self._callers).unary(name, request, CALL_S_MAX)
            except grpc.RpcError as error:
                refused = refusal(error)
                if refused[1] in DONE_BEFORE and not is_settled:
                    break  # an attempt before did it
                await self._crowd.failed(refused)
                if refused[1] not in TOKEN_TROUBLE and not never_sent(refused):
                    is_settled = False
                await self._pause(AGAIN_S)
            else:
                self._crowd.done += 1
                break
        return is_settled


class Guest:
    """Puts and reads, one call at a time, where it may now, where it might have, and where nobody may."""

    def __init__(self, crowd: Crowd, number: int, caller: AsyncCaller, warden: Warden) -> None:
        self.operations: list[Operation] = []
        self.visits: list[Visit] = []
        self._crowd = crowd
        self._number = number
        self._caller = caller
        self._warden = warden
        self._dice = random.Random(f"guest {crowd.seed} {number}")
        self._count = 0

    async def run(self) -> None:
        while not self._crowd.stopping.is_set():
            if self._warden.enabled_ns < NEVER:
                self._count += 1
                try:
                    await self._visit(self._prefix())
                except grpc.RpcError as error:
                    await self._crowd.failed(refusal(error))
            await asyncio.sleep(self._dice.random() * 2 * GUEST_PAUSE_S)

    def _prefix(self) -> bytes:
        if isinstance(self._caller.person, Stranger):
            return NOBODYS
        grants = self._warden.grants
        return (grants[-1] if self._dice.random() < CURRENT else self._dice.choice(grants)).prefix

    async def _visit(self, prefix: bytes) -> None:
        key = prefix + b"%d" % self._dice.randrange(3)
        name = self._dice.choice(("KV/Put", "KV/Range", "KV/Txn"))
        value = b"%d/%d/visit" % (self._number, self._count)
        put = rpc_pb2.PutRequest(key=key, value=value)
        requests: dict[str, Message] = {
            "KV/Put": put,
            "KV/Range": rpc_pb2.RangeRequest(key=key),
            "KV/Txn": rpc_pb2.TxnRequest(success=[rpc_pb2.RequestOp(request_put=put)]),
        }
        invoked, revision = time.monotonic_ns(), 0
        try:
            answer = await self._caller.unary(name, requests[name], CALL_S_MAX)
            fate, revision = Fate.DONE, answer.header.revision
            self._crowd.done += 1
        except grpc.RpcError as error:
            refused = refusal(error)
            if never_sent(refused):
                raise
            fate = Fate.REFUSED if refused[1] in UNAUTHORIZED else Fate.UNKNOWN
            is_judged = refused[1] == errors.PERMISSION_DENIED.text or isinstance(self._caller.person, Stranger)
            if fate is Fate.UNKNOWN or not is_judged:
                await self._crowd.failed(refused)
        returned = time.monotonic_ns()
        if name != "KV/Range":
            self.operations.append(Operation(self._number, Kind.PUT, key, value, 0, invoked, returned, fate, revision))
        elif fate is Fate.DONE:
            seen = (answer.kvs[0].value, answer.kvs[0].mod_revision) if answer.kvs else (None, 0)
            read = Operation(self._number, Kind.GET, key, b"", 0, invoked, returned, fate, revision, False, *seen)
            self.operations.append(read)
        if fate is Fate.DONE or (fate is Fate.REFUSED and is_judged):
            self.visits.append(Visit(prefix, name, invoked, returned, fate is Fate.DONE))


def _permission(role: str, key: bytes, end: bytes) -> rpc_pb2.AuthRoleGrantPermissionRequest:
    both = auth_pb2.Permission(permType=auth_pb2.Permission.READWRITE, key=key, range_end=end)
    return rpc_pb2.AuthRoleGrantPermissionRequest(name=role, perm=both)
