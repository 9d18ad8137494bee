"""etcdserverpb.Auth: users, roles, and the tokens that stand for a user.

Passwords are hashed and checked here, off the event loop, and go no further. A login is a linearizable read of the
user's hash, the check, and an ordered command that gives the token; when users or roles changed in between, it is done
again. Everything else passes to storage as it is and is judged there.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import string
import time
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message_factory import GetMessageClass

from quorate.api import faults
from quorate.api.calling import Cancel, Done, Failed, awaited
from quorate.api.calls import Context, Route, Unary
from quorate.api.lanes import Lane
from quorate.api.passwords import Passwords
from quorate.api.ring import Ring
from quorate.api.v3rpc.permission import Permission
from quorate.proto.rpc_pb2 import (
    DESCRIPTOR,
    AuthenticateRequest,
    AuthenticateResponse,
    AuthUserAddRequest,
    AuthUserChangePasswordRequest,
)
from quorate.wire import errors
from quorate.wire.errors import CallFailed, EtcdError
from quorate.wire.identity import Caller, Credentials, Need, TokenGrant
from quorate.wire.messages import Op

if TYPE_CHECKING:
    from quorate.api.tokens import JsonWebTokens

LETTERS: Final = 16  # in a simple token, as etcd draws them
SERVICE: Final = "/etcdserverpb.Auth"
READS: Final = {
    "AuthStatus": Op.AUTH_STATUS,
    "UserGet": Op.USER_GET,
    "UserList": Op.USER_LIST,
    "RoleGet": Op.ROLE_GET,
    "RoleList": Op.ROLE_LIST,
}
CHANGES: Final = {
    "AuthEnable": Op.AUTH_ENABLE,
    "AuthDisable": Op.AUTH_DISABLE,
    "UserDelete": Op.USER_DELETE,
    "UserGrantRole": Op.USER_GRANT_ROLE,
    "UserRevokeRole": Op.USER_REVOKE_ROLE,
    "RoleAdd": Op.ROLE_ADD,
    "RoleDelete": Op.ROLE_DELETE,
    "RoleGrantPermission": Op.ROLE_GRANT_PERMISSION,
    "RoleRevokePermission": Op.ROLE_REVOKE_PERMISSION,
}


class Auth:
    """The service; `signer` is there for JWT and absent for simple tokens."""

    def __init__(self, ring: Ring, passwords: Passwords, signer: JsonWebTokens | None = None) -> None:
        self._ring = ring
        self._permission = Permission(ring)
        self._passwords = passwords
        self._signer = signer
        self._tasks: set[asyncio.Task[bytes]] = set()

    def routes(self) -> dict[str, Route]:
        reads = {f"{SERVICE}/{name}": Route(self._passing(name, self._ring.reads, op)) for name, op in READS.items()}
        changes = {
            f"{SERVICE}/{name}": Route(self._passing(name, self._ring.writes, op)) for name, op in CHANGES.items()
        }
        return {
            **reads,
            **changes,
            f"{SERVICE}/Authenticate": Route(self.authenticate, is_open=True),
            f"{SERVICE}/UserAdd": Route(self.add_user),
            f"{SERVICE}/UserChangePassword": Route(self.change_password),
        }

    def authenticate(self, body: bytes, context: Context, done: Done, expires_at: float | None) -> Cancel:
        request = AuthenticateRequest.FromString(body)
        return self._start(self._token(request.name, request.password, expires_at), done)

    def add_user(self, body: bytes, context: Context, done: Done, expires_at: float | None) -> None:
        request = AuthUserAddRequest.FromString(body)
        password, request.password, request.hashedPassword = request.password, "", ""

        async def added() -> bytes:
            if not request.options.no_password:
                request.hashedPassword = await self._hashed(password)
            return await self._ask(
                self._ring.writes, Op.USER_ADD, request.SerializeToString(), expires_at, context.identity
            )

        self._permission.ask(Need.ADMIN, context, done, expires_at, lambda: self._start(added(), done))

    def change_password(self, body: bytes, context: Context, done: Done, expires_at: float | None) -> None:
        request = AuthUserChangePasswordRequest.FromString(body)
        password, request.password = request.password, ""

        async def changed() -> bytes:
            if password:  # without one etcd takes the hash as it is; an empty one is nobody's password
                request.hashedPassword = await self._hashed(password)
            return await self._ask(
                self._ring.writes, Op.USER_CHANGE_PASSWORD, request.SerializeToString(), expires_at, context.identity
            )

        self._permission.ask(Need.ADMIN, context, done, expires_at, lambda: self._start(changed(), done))

    # --- parts -------------------------------------------------------------------------------------------------------

    def _passing(self, name: str, lane: Lane, op: Op) -> Unary:
        request = GetMessageClass(DESCRIPTOR.services_by_name["Auth"].methods_by_name[name].input_type)

        def start(body: bytes, context: Context, done: Done, expires_at: float | None) -> None:
            request.FromString(body)
            self._ring.add(lane, op, body, done, expires_at, context.identity)

        return start

    async def _token(self, name: str, password: str, expires_at: float | None) -> bytes:
        while True:
            found = await self._ask(self._ring.reads, Op.CREDENTIALS, name.encode(), expires_at)
            credentials = Credentials.unpack(found)
            if credentials.no_password:
                raise _failed(errors.NO_PASSWORD_USER)
            revision = credentials.auth_revision
            if not await self._passwords.check(name, password, credentials.password_hash, revision):
                raise _failed(errors.AUTH_FAILED)
            token = self._signer.sign(Caller(name, revision), time.time()) if self._signer is not None else ""
            grant = TokenGrant(name, "" if token else _letters(), revision)
            try:
                given = await self._ask(self._ring.writes, Op.AUTHENTICATE, grant.pack(), expires_at)
            except Failed as failed:
                if failed.message != errors.AUTH_OLD_REVISION.text:
                    raise
                continue
            return given + AuthenticateResponse(token=token).SerializeToString()

    async def _hashed(self, password: str) -> str:
        return base64.b64encode(await self._passwords.hash(password)).decode()

    async def _ask(self, lane: Lane, op: Op, body: bytes, expires_at: float | None, identity: bytes = b"") -> bytes:
        answer, done = awaited()
        self._ring.add(lane, op, body, done, expires_at, identity)
        return await answer

    def _start(self, work: Coroutine[Any, Any, bytes], done: Done) -> Cancel:
        """Do `work` as a task and answer with what comes of it; the result calls it off."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(partial(self._finish, done))

        def cancel() -> None:
            task.cancel()

        return cancel

    def _finish(self, done: Done, task: asyncio.Task[bytes]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        failure = task.exception()
        if isinstance(failure, Failed):
            done(failure.code, failure.message, b"")
        elif isinstance(failure, CallFailed):
            done(failure.error.code, failure.error.text, b"")
        elif failure is not None:
            done(*faults.report(failure), b"")
        else:
            done(0, "", task.result())


def _letters() -> str:
    return "".join(secrets.choice(string.ascii_letters) for _ in range(LETTERS))


def _failed(error: EtcdError) -> Failed:
    return Failed(error.code, error.text)
