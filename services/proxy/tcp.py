"""Which address the next connection goes to, and the connections themselves: `quorate gateway`.

As in etcd: of the addresses that answered the last time, those of the best priority; among them by weight, or in turn
where there are no weights. One that cannot be connected to is left out until it answers a probe.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from quorate.node import logs
from quorate.node.srv import Target
from quorate.proxy.pipe import End

log = logs.named("tcpproxy")

DIAL_S: Final = 5.0
WEIGHTLESS_ONE_IN: Final = 100  # records with weight 0 beside others with more get so few connections


@dataclass(slots=True)
class Remote:
    """One address and whether it answered the last time."""

    target: Target
    is_active: bool = True

    @property
    def address(self) -> str:
        return f"{self.target.host}:{self.target.port}"


class Choice:
    """The addresses and whose turn it is."""

    def __init__(self, targets: Iterable[Target], rng: random.Random) -> None:
        self.remotes = [Remote(target) for target in targets]
        self._rng = rng
        self._turn = 0

    def next(self) -> Remote | None:
        """The address for a new connection; None when none of them answers."""
        active = [remote for remote in self.remotes if remote.is_active]
        if not active:
            return None
        best = min(remote.target.priority for remote in active)
        equals = [remote for remote in active if remote.target.priority == best]
        weighted = [remote for remote in equals if remote.target.weight]
        weightless = [remote for remote in equals if not remote.target.weight]
        if weighted and not (weightless and self._rng.randrange(WEIGHTLESS_ONE_IN) == 0):
            return self._rng.choices(weighted, [remote.target.weight for remote in weighted])[0]
        self._turn += 1
        return weightless[self._turn % len(weightless)]


class TcpProxy:
    """Accepts connections and joins each with one to an address of the choice."""

    def __init__(self, choice: Choice, retry_s: float) -> None:
        self._choice = choice
        self._retry_s = retry_s
        self._joining: set[asyncio.Task[None]] = set()

    def accept(self) -> End:
        """The protocol of a connection that comes in."""
        return Incoming(self)

    def take(self, incoming: End) -> None:
        """Find the other end for a connection."""
        task = asyncio.get_running_loop().create_task(self._join(incoming))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)

    async def monitor(self) -> None:
        """Probe what did not answer, for ever."""
        while True:
            await asyncio.sleep(self._retry_s)
            for remote in self._choice.remotes:
                if not remote.is_active and (outgoing := await _dial(remote)) is not None:
                    outgoing.close()
                    remote.is_active = True
                    log.info("activated", address=remote.address, interval=f"{self._retry_s:g}s")

    async def _join(self, incoming: End) -> None:
        while (remote := self._choice.next()) is not None:
            if (outgoing := await _dial(remote)) is not None:
                incoming.join(outgoing)
                return
            remote.is_active = False
            log.warn("deactivated endpoint", address=remote.address, interval=f"{self._retry_s:g}s")
        incoming.close()


class Incoming(End):
    """The end towards the client."""

    def __init__(self, proxy: TcpProxy) -> None:
        super().__init__()
        self._proxy = proxy

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._proxy.take(self)


async def _dial(remote: Remote) -> End | None:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(DIAL_S):
            _, end = await loop.create_connection(End, remote.target.host, remote.target.port)
    except OSError:  # a timeout is one too
        return None
    return end
