"""What the proxies between members do to bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from tests.chaos.links import HOST, Network, Rule

HEAD = b"GET /raft/stream/urgent HTTP/1.1\r\nX-Server-From: a\r\nX-Raft-To: b\r\n\r\n"
BRIEFLY_S = 0.15
SOON_S = 5.0


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
    writer.close()


@asynccontextmanager
async def wire() -> AsyncIterator[tuple[Network, asyncio.StreamReader, asyncio.StreamWriter]]:
    """Member a (node 0) has dialled member b (node 1), which says everything back."""
    server = await asyncio.start_server(_echo, HOST, 0)
    network = Network(1)
    port = server.sockets[0].getsockname()[1]
    await network.open([port, port])
    network.names = {0xA: 0, 0xB: 1}
    reader, writer = await asyncio.open_connection(HOST, network.ports[1])
    writer.write(HEAD)
    assert await reader.readexactly(len(HEAD)) == HEAD
    try:
        yield network, reader, writer
    finally:
        writer.close()
        await network.close()
        server.close()


async def comes(reader: asyncio.StreamReader, count: int, within_s: float) -> bytes:
    """So many bytes, or none when they do not come in time."""
    try:
        return await asyncio.wait_for(reader.readexactly(count), within_s)
    except TimeoutError:
        return b""


Scenario = Callable[[Network, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def on_a_wire(scenario: Scenario) -> None:
    async def whole() -> None:
        async with wire() as (network, reader, writer):
            await scenario(network, reader, writer)

    asyncio.run(whole())


def test_a_good_link_passes_everything_on() -> None:
    async def scenario(network: Network, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = bytes(range(256)) * 10_000
        writer.write(data)
        assert await comes(reader, len(data), SOON_S) == data

    on_a_wire(scenario)


def test_what_is_sent_over_a_cut_link_arrives_when_it_is_mended() -> None:
    for pair in ((0, 1), (1, 0)):

        async def scenario(
            network: Network,
            reader: asyncio.StreamReader,
            writer: asyncio.StreamWriter,
            pair: tuple[int, int] = pair,
        ) -> None:
            rule = Rule(cut=True)
            network.link(*pair).add(rule)
            writer.write(b"hello")
            assert await comes(reader, 5, BRIEFLY_S) == b""
            network.link(*pair).remove(rule)
            assert await comes(reader, 5, SOON_S) == b"hello"

        on_a_wire(scenario)


def test_a_cut_of_other_links_is_not_felt() -> None:
    async def scenario(network: Network, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        network.link(0, 2).add(Rule(cut=True))
        writer.write(b"hello")
        assert await comes(reader, 5, SOON_S) == b"hello"

    on_a_wire(scenario)


def test_slow_lossy_links_keep_the_order() -> None:
    async def scenario(network: Network, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for rule in (Rule(loss=0.3), Rule(delay_s=0.001, jitter_s=0.01), Rule(bytes_per_s=1e6)):
            network.link(0, 1).add(rule)
        loop = asyncio.get_running_loop()
        began = loop.time()
        expected = b"".join(b"%d," % number for number in range(20))
        for number in range(20):
            writer.write(b"%d," % number)
            await writer.drain()
        assert await comes(reader, len(expected), 4 * SOON_S) == expected
        assert loop.time() - began >= 0.001

    on_a_wire(scenario)


def test_a_reset_ends_the_connection() -> None:
    async def scenario(network: Network, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        network.reset([(0, 1)])
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(1), SOON_S) == b""

    on_a_wire(scenario)
