"""Who calls: a name with its password, and the token that all connections of that person share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import grpc

from quorate.proto import rpc_pb2
from quorate.wire import errors

if TYPE_CHECKING:
    from tests.chaos.calls import AsyncCaller

PASSWORD: Final = "secret"
# The token is missing, over, or older than a change of users: a client gets another one. Nothing was done.
TOKEN_TROUBLE: Final = frozenset(
    (errors.USER_EMPTY.text, errors.INVALID_AUTH_TOKEN.text, errors.AUTH_OLD_REVISION.text)
)


class Person:
    """Shows no token as long as nobody asks for one."""

    def __init__(self, name: str, token: str = "") -> None:
        self.name = name
        self.token = token
        self._is_asked = False
        self._login = asyncio.Lock()

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("token", self.token),) if self.token else ()

    async def come_in(self, caller: AsyncCaller, timeout_s: float) -> None:
        """Have a token if one is asked for; `grpc.RpcError` if the member does not give one."""
        if self.token or not self._is_asked:
            return
        async with self._login:
            if self.token or not self._is_asked:
                return
            request = rpc_pb2.AuthenticateRequest(name=self.name, password=PASSWORD)
            try:
                self.token = (await caller.login(request, timeout_s)).token
            except grpc.aio.AioRpcError as error:
                if error.details() != errors.AUTH_NOT_ENABLED.text:
                    raise
                self._is_asked = False

    def refused(self, token: str, text: str) -> None:
        """Take note of why a call with this token was refused."""
        if text in TOKEN_TROUBLE:
            self._is_asked = True
            if token == self.token:
                self.token = ""


class Stranger(Person):
    """Shows what it has, and nobody gives it anything else."""

    async def come_in(self, caller: AsyncCaller, timeout_s: float) -> None:
        return

    def refused(self, token: str, text: str) -> None:
        return
