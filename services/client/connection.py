"""Calls that survive a lost endpoint: where to send, what to repeat, when to fetch a new token.

The rule of this file: a call is sent again only when that cannot do it twice. That holds for reads; for a write whose
connection was never made; and for a write that was refused because of its token. A write that was sent and not
answered is an OutcomeUnknownError, for the caller to decide.
"""

import asyncio
import random
import time
from collections.abc import Awaitable
from typing import Any, Final

import grpc

from quorate.client import errors, methods
from quorate.client.endpoints import Channels
from quorate.client.errors import EtcdError, OutcomeUnknownError
from quorate.client.methods import A, Method, Q
from quorate.proto import rpc_pb2

RETRY_S: Final = 0.025  # between two attempts, give or take a tenth: what etcd's client waits
REPEATS_MAX: Final = 100  # of a read without a deadline
REFUSALS_MAX: Final = 3  # of a token within one call: users may change while it is fetched
# The start of gRPC's text for a call that never left this machine.
NOT_CONNECTED: Final = (  # grpcio says it in one of these ways
    "failed to connect to all addresses",
    "empty address list",
    "DNS resolution failed",
    "errors resolving",
)
API_VERSION: Final = ("client-api-version", "3.6")
TOKEN_REFUSED: Final = frozenset({errors.INVALID_TOKEN_TEXT, errors.OLD_REVISION_TEXT})
LOST_CODES: Final = frozenset({errors.UNAVAILABLE, errors.DEADLINE_EXCEEDED, errors.CANCELLED})


class Connection:
    """The way to a cluster, as one user or as nobody."""

    def __init__(
        self, channels: Channels, user: str | None = None, password: str | None = None, timeout_s: float | None = None
    ) -> None:
        self._channels = channels
        self._user = user
        self._password = password or ""
        self._timeout_s = timeout_s
        self._token: str | None = None
        self._signing_in = asyncio.Lock()

    @property
    def endpoints(self) -> list[str]:
        """The endpoints as they were given."""
        return [endpoint.text for endpoint in self._channels.endpoints]

    async def call(self, method: Method[Q, A], request: Q, timeout_s: float | None = None) -> A:
        """The answer to one call; EtcdError when there is none within the time."""
        limit = timeout_s if timeout_s is not None else self._timeout_s
        deadline = None if limit is None else time.monotonic() + limit
        attempts = refusals = 0
        why = ""
        while True:
            token = await self.sign_in(deadline)
            try:
                return await self._once(method, request, token, deadline)
            except grpc.aio.AioRpcError as lost:
                error = translated(lost)
                why = error.text if error.text.startswith(NOT_CONNECTED) else why
                attempts += 1
                if self._is_token_refused(error, token) and refusals < REFUSALS_MAX:
                    refusals += 1
                    self._forget(token)
                elif not _may_repeat(method, error) or (deadline is None and attempts >= REPEATS_MAX):
                    raise _explained(_final(method, error), why) from lost
                elif not await _pause(deadline):
                    late = EtcdError(errors.DEADLINE_EXCEEDED, "context deadline exceeded")
                    raise _explained(late, why) from lost

    async def sign_in(self, deadline: float | None = None) -> str | None:
        """The user's token, fetched when there is none; None without a user or while the cluster wants none."""
        if self._user is None or self._token is not None:
            return self._token or None
        async with self._signing_in:
            if self._token is None:
                self._token = await self._authenticate(deadline)
        return self._token or None

    async def stream(self, path: str, decode: object, hasleader: bool = False) -> Any:
        """A call that streams both ways through the endpoint whose turn it is (a grpc.aio.StreamStreamCall)."""
        metadata = [*_metadata(await self.sign_in()), *([("hasleader", "true")] if hasleader else [])]
        opened = self._channels.next().stream_stream(
            path, request_serializer=lambda message: message.SerializeToString(), response_deserializer=decode
        )
        return opened(metadata=metadata)

    async def download(self, path: str, request: bytes, decode: object, timeout_s: float | None = None) -> Any:
        """A call that streams its answers (a grpc.aio.UnaryStreamCall)."""
        opened = self._channels.next().unary_stream(path, request_serializer=None, response_deserializer=decode)
        return opened(request, metadata=_metadata(await self.sign_in()), timeout=timeout_s)

    def forget_token(self, error: EtcdError) -> bool:
        """After a stream failed: drop the token if that was the reason; whether to try again with a new one."""
        refused = self._is_token_refused(error, self._token)
        if refused:
            self._forget(self._token)
        return refused

    async def close(self) -> None:
        """Close the channels."""
        await self._channels.close()

    async def _once(self, method: Method[Q, A], request: Q, token: str | None, deadline: float | None) -> A:
        sent: Awaitable[A] = self._channels.next().unary_unary(
            method.path, request_serializer=method.request.SerializeToString, response_deserializer=method.decode
        )(request, timeout=_remaining_s(deadline), metadata=_metadata(token))
        return await sent

    async def _authenticate(self, deadline: float | None) -> str:
        request = rpc_pb2.AuthenticateRequest(name=self._user or "", password=self._password)
        while True:
            try:
                return (await self._once(methods.AUTHENTICATE, request, None, deadline)).token
            except grpc.aio.AioRpcError as lost:
                error = translated(lost)
                if error.text == errors.AUTH_NOT_ENABLED_TEXT:
                    return ""
                if error.text == errors.OLD_REVISION_TEXT:  # users changed meanwhile
                    continue
                if not _may_repeat(methods.AUTHENTICATE, error):
                    raise error from lost
                if not await _pause(deadline):
                    raise EtcdError(errors.DEADLINE_EXCEEDED, "context deadline exceeded") from lost

    def _is_token_refused(self, error: EtcdError, token: str | None) -> bool:
        if self._user is None:
            return False
        return error.text in TOKEN_REFUSED or (error.text == errors.USER_EMPTY_TEXT and not token)

    def _forget(self, token: str | None) -> None:
        if (self._token or None) == token:  # else another call has fetched a new one already
            self._token = None


def translated(lost: grpc.aio.AioRpcError) -> EtcdError:
    """The library's error for gRPC's."""
    code = int(lost.code().value[0])
    text = lost.details() or lost.code().name
    if text == errors.COMPACTED_TEXT:
        return errors.CompactedError()
    if code == errors.DEADLINE_EXCEEDED and not text.startswith("etcdserver"):
        text = "context deadline exceeded"
    return EtcdError(code, text)


def _explained(error: EtcdError, why: str) -> EtcdError:
    """A deadline with a note of why no connection could be made before it, when that is known."""
    if why and error.code == errors.DEADLINE_EXCEEDED:
        error.add_note(why)
    return error


def _may_repeat(method: Method[Q, A], error: EtcdError) -> bool:
    if error.code != errors.UNAVAILABLE:
        return False
    return method.is_read or error.text.startswith(NOT_CONNECTED)


def _final(method: Method[Q, A], error: EtcdError) -> EtcdError:
    if method.is_read or error.code not in LOST_CODES or error.text == errors.NO_LEADER_TEXT:
        return error
    return OutcomeUnknownError(error.code, error.text)


async def _pause(deadline: float | None) -> bool:
    """Wait a little before the next attempt; False when no time is left."""
    wait_s = RETRY_S * random.uniform(0.9, 1.1)  # noqa: S311 - spreads clients, guards nothing
    if deadline is not None and time.monotonic() + wait_s >= deadline:
        await asyncio.sleep(max(deadline - time.monotonic(), 0))
        return False
    await asyncio.sleep(wait_s)
    return True


def _remaining_s(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)


def _metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    return (API_VERSION, ("token", token)) if token else (API_VERSION,)
