"""What all clients of a run share: when to stop, how fast to go, what was refused."""

from __future__ import annotations

import asyncio
import random
from typing import Final

from quorate.wire import errors
from tests.chaos.people import TOKEN_TROUBLE

# Refused before it was given a place in the log.
WITHOUT_EFFECT: Final = (
    "etcdserver: too many requests",
    "etcdserver: mvcc: database space exceeded",
    "etcdserver: mvcc: required revision has been compacted",
    "etcdserver: requested lease not found",
)
# Refused for who called, before anything else was looked at.
UNAUTHORIZED: Final = (*TOKEN_TROUBLE, errors.PERMISSION_DENIED.text)
# What a client has to expect while things break.
EXPECTED: Final = (
    *WITHOUT_EFFECT,
    *TOKEN_TROUBLE,
    "Deadline Exceeded",
    "etcdserver: request timed out",
    "etcdserver: leader changed",
    "etcdserver: no leader",
    "etcdserver: not leader",
    "etcdserver: server stopped",
    "etcdserver: not capable",
    "etcdserver: rpc not supported for learner",
    "etcdserver: mvcc: required revision is a future revision",
    "etcdserver: request cancelled",
    "mutex: session is expired",
    "Internal error from Core",  # what grpc.aio makes of a stream that the server ends while a request is on its way
)
EXPECTED_CODES: Final = ("DEADLINE_EXCEEDED", "UNAVAILABLE", "CANCELLED")
# grpc's word for a call that found no connection: no byte of it left the client.
NOT_CONNECTED: Final = "failed to connect to all addresses"
LOGIN_PAUSE_S: Final = 0.02
PAUSE_AFTER_FAILURE_S: Final = 0.3  # asking a member at once that cannot answer only keeps it busy


class Crowd:
    """The clients of one run. `rate` is what they aim at together, in operations per second."""

    def __init__(self, seed: int, rate: float) -> None:
        self.seed = seed
        self.stopping = asyncio.Event()
        self.done = 0
        self.last_seen = 1  # the newest revision a collector was told
        self.failures: dict[str, int] = {}
        self.unexpected: dict[str, int] = {}
        self.clients = 1
        self._rate = rate

    async def pace(self, dice: random.Random) -> None:
        """Wait until this client may go on."""
        await asyncio.sleep(dice.random() * 2 * self.clients / self._rate * 0.8)

    async def failed(self, refused: tuple[str, str]) -> None:
        """Count a refusal, and give the cluster a moment."""
        code, text = refused
        text = _shortened(text)
        self.failures[f"{code} {text}"] = self.failures.get(f"{code} {text}", 0) + 1
        if code not in EXPECTED_CODES and text not in EXPECTED:
            self.unexpected[f"{code} {text}"] = self.unexpected.get(f"{code} {text}", 0) + 1
        await asyncio.sleep(PAUSE_AFTER_FAILURE_S if text not in TOKEN_TROUBLE else LOGIN_PAUSE_S)


def surely_without_effect(refused: tuple[str, str]) -> bool:
    return refused[1] in WITHOUT_EFFECT or refused[1] in UNAUTHORIZED


def never_sent(refused: tuple[str, str]) -> bool:
    """No operation at all: were it found in the log, nobody would have sent it."""
    return NOT_CONNECTED in refused[1]


def _shortened(text: str) -> str:
    """grpc's own texts name addresses and file descriptors."""
    for beginning in (NOT_CONNECTED, "Socket closed", "recvmsg:", "ipv4:", "GOAWAY"):
        if beginning in text:
            return beginning
    return text
