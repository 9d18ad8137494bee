"""`quorate gateway start`: one address for clients that stays when members come and go."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from dataclasses import dataclass

from quorate.node import lifecycle, logs
from quorate.node.srv import Target
from quorate.proxy import endpoints
from quorate.proxy.endpoints import BadEndpoint
from quorate.proxy.tcp import Choice, TcpProxy

log = logs.named("gateway")


@dataclass(frozen=True, slots=True)
class Gateway:
    """What the flags say."""

    endpoints: tuple[str, ...]
    listen_addr: str
    retry_s: float
    discovery_srv: str = ""
    discovery_srv_name: str = ""
    insecure_discovery: bool = False
    trusted_ca_file: str = ""

    def targets(self) -> list[Target]:
        """Where connections go; the given endpoints when the domain has none that can be used. Blocks."""
        found: list[Target] = []
        if self.discovery_srv:
            found = endpoints.discovered(
                self.discovery_srv,
                self.discovery_srv_name,
                insecure=self.insecure_discovery,
                ca_file=self.trusted_ca_file,
            )
        return found or endpoints.given(self.endpoints)


async def serve(gateway: Gateway) -> None:
    """Pass connections on until asked to stop; BadEndpoint or OSError when that cannot begin."""
    stop = lifecycle.stop_event()
    (listen,) = endpoints.given([gateway.listen_addr])
    targets = await asyncio.to_thread(gateway.targets)
    await _refuse_itself(listen, targets)
    proxy = TcpProxy(Choice(targets, random.Random(os.urandom(8))), gateway.retry_s)  # noqa: S311 - spreads clients
    loop = asyncio.get_running_loop()
    server = await loop.create_server(proxy.accept, listen.host, listen.port)
    log.info("ready to proxy client requests", address=gateway.listen_addr, endpoints=[each.url for each in targets])
    if address := os.environ.get("NOTIFY_SOCKET"):
        lifecycle.notify(address, "READY=1")
    monitoring = loop.create_task(proxy.monitor())
    try:
        await stop.wait()
    finally:
        monitoring.cancel()
        server.close()


async def _refuse_itself(listen: Target, targets: list[Target]) -> None:
    """A gateway that is its own endpoint would connect to itself without end."""
    loop = asyncio.get_running_loop()

    async def addresses(target: Target) -> set[str]:
        found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        return {str(entry[4][0]) for entry in found}

    own = await addresses(listen)
    for target in targets:
        if target.port == listen.port and own & await addresses(target):
            raise BadEndpoint(f"endpoint and listen address are the same: {target.host}:{target.port}")
