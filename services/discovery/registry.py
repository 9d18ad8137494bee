"""Joining by a discovery service: put oneself on the list, wait until it is as long as the cluster is to be large.

The service is an etcd of any make; who put the size there and who else comes is its user's affair. The first `size`
names on the list found the cluster, in the order in which they came; who comes later is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from quorate.discovery.failures import FULL, INVALID_URL, SIZE_BAD, DiscoveryFailed, ServiceLost
from quorate.node import flags, logs
from quorate.node.config import parse_members

log = logs.named("discovery")
T = TypeVar("T")

BACKOFF_EXPONENT_MAX: Final = 8  # etcd: the pause doubles up to 256 s


@dataclass(frozen=True, slots=True)
class Registered:
    """One name on the list."""

    member_id: str  # in hex
    contents: str  # name=url, several of them with commas
    position: int  # greater than that of those who came before


@dataclass(frozen=True, slots=True)
class Listing:
    """The list at one moment of the service."""

    members: tuple[Registered, ...]
    moment: int


class Registry(Protocol):
    """One cluster's place in a discovery service. ServiceLost from any of them means: try again."""

    async def size(self) -> str:
        """The value of the size key; DiscoveryFailed when there is none."""

    async def listing(self) -> Listing:
        """Who is on the list."""

    async def register(self, member_id: str, contents: str) -> None:
        """Put a member on the list."""

    async def newcomers(self, moment: int) -> Listing:
        """Who came after a moment, waited for."""


async def join(registry: Registry, member_id: str, contents: str) -> str:
    """The founders, as --initial-cluster wants them, this member among them; DiscoveryFailed when it cannot be."""
    await persistently(lambda: check(registry, member_id))
    await persistently(lambda: registry.register(member_id, contents))
    size, listing = await persistently(lambda: check(registry, member_id))
    members = listing
    log.info("found members on the discovery service", size=size, found=len(members.members))
    while len(members.members) < size:
        log.info("waiting for members on the discovery service", needed=size - len(members.members))
        moment = members.moment
        news = await persistently(lambda moment=moment: registry.newcomers(moment))  # type: ignore[misc]
        members = Listing(merged((*members.members, *news.members)), news.moment)
    return initial_cluster(members.members[:size])


async def check(registry: Registry, own_id: str) -> tuple[int, Listing]:
    """Size of the cluster and the list; DiscoveryFailed when this member is not and cannot be on it."""
    size = parse_size(await registry.size())
    listing = await registry.listing()
    listing = Listing(merged(listing.members), listing.moment)
    founders = listing.members[:size]
    if len(founders) == size and own_id not in [member.member_id for member in founders]:
        raise DiscoveryFailed(FULL)
    return size, listing


def parse_size(text: str) -> int:
    """The size of the cluster; DiscoveryFailed when the value is no such number."""
    try:
        size = int(text)
    except ValueError:
        size = 0
    if size <= 0:
        raise DiscoveryFailed(SIZE_BAD)
    return size


def merged(members: Iterable[Registered]) -> tuple[Registered, ...]:
    """In the order in which they came, each once."""
    first = {member.member_id: member for member in sorted(members, key=lambda one: one.position, reverse=True)}
    return tuple(sorted(first.values(), key=lambda one: one.position))


def initial_cluster(members: Iterable[Registered]) -> str:
    """Their contents together; DiscoveryFailed when one of them is no list of URLs."""
    text = ",".join(member.contents for member in members)
    try:
        for urls in parse_members(text).values():
            flags.read_urls(",".join(urls), may_be_empty=False)
    except ValueError:
        raise DiscoveryFailed(INVALID_URL) from None
    return text


async def persistently(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer, asked for again and again while the service is lost."""
    retries = 0
    while True:
        try:
            return await ask()
        except ServiceLost as reason:
            pause_s = 2 ** min(retries, BACKOFF_EXPONENT_MAX)
            retries += 1
            log.info("retry connecting to discovery service", reason=str(reason), backoff=f"{pause_s}s")
            await asyncio.sleep(pause_s)
