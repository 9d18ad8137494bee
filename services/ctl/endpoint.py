"""`endpoint`: health, status and hashkv of single endpoints."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import click

from quorate.client import methods
from quorate.client.aio import AsyncClient
from quorate.client.errors import EtcdError
from quorate.ctl import go_text
from quorate.ctl.commands import Group, command
from quorate.ctl.failures import ERROR, Failure
from quorate.ctl.flags import Switch, number
from quorate.ctl.printers import EndpointHash, EndpointHealth, EndpointStatus, name_of
from quorate.ctl.settings import Settings, complete, signed_in
from quorate.proto import rpc_pb2 as rpc

T = TypeVar("T")
DENIED: Final = "etcdserver: permission denied"
CLUSTER: Final = "use all endpoints from the cluster member list"


@click.group(cls=Group)
def endpoint() -> None:
    """Endpoint related commands."""


def endpoints_of(settings: Settings, cluster: bool) -> Sequence[str]:
    """The given endpoints, or the client URLs of all members."""
    if not cluster:
        return settings.all_endpoints()
    try:
        answer = settings.run(lambda client: client.call(methods.MEMBER_LIST, rpc.MemberListRequest(linearizable=True)))
    except Failure as failure:
        raise Failure(f"failed to fetch endpoints from etcd cluster member list: {failure.text}") from failure
    return [url for member in answer.members for url in member.clientURLs]


def each(settings: Settings, endpoints: Sequence[str], ask: Callable[[str, AsyncClient], Awaitable[T]]) -> list[T]:
    """What `ask` finds at each endpoint, all asked at once; an EtcdError has to be caught in `ask`."""

    async def one(endpoint: str) -> T:
        async with settings.client([endpoint]) as client:
            return await ask(endpoint, client)

    async def together() -> list[T]:
        return list(await asyncio.gather(*(one(endpoint) for endpoint in endpoints)))

    return complete(together())


@command("", Switch("--cluster", help=CLUSTER))
def health(settings: Settings, words: tuple[str, ...], cluster: bool) -> None:
    """Tell whether endpoints answer a linearizable read and have no alarms."""
    endpoints = endpoints_of(settings, cluster)
    printer = settings.printer()
    found = each(settings, endpoints, _health)
    printer.health(found)
    if any(one.error for one in found):
        raise Failure("unhealthy cluster")


async def _health(endpoint: str, client: AsyncClient) -> EndpointHealth:
    started = time.monotonic()
    error = ""
    try:
        await client.get("health")
    except EtcdError as failed:
        error = "" if failed.text == DENIED else failed.text
    took = go_text.duration(time.monotonic() - started)
    if not error:
        try:
            alarms = (await client.call(methods.ALARM, rpc.AlarmRequest())).alarms
            if alarms:
                error = "Active Alarm(s): " + "".join(f"{name_of(rpc.AlarmType, one.alarm)} " for one in alarms)
        except EtcdError as failed:
            error = "" if failed.text == DENIED else f"Unable to fetch the alarm list: {failed.text}"
    return EndpointHealth(endpoint, not error, took, error)


def _answered(found: list[tuple[str, T | EtcdError]], what: str) -> tuple[list[tuple[str, T]], EtcdError | None]:
    answered: list[tuple[str, T]] = []
    last = None
    for where, answer in found:
        if isinstance(answer, EtcdError):
            print(f"Failed to get the {what} of endpoint {where} ({answer.text})", file=sys.stderr)
            last = answer
        else:
            answered.append((where, answer))
    return answered, last


@command("", Switch("--cluster", help=CLUSTER))
def status(settings: Settings, words: tuple[str, ...], cluster: bool) -> None:
    """Print what endpoints say of themselves.

    The simple format lists: endpoint, ID, version, storage version, db size, in use, percentage not in use, quota, is
    leader, is learner, raft term, raft index, raft applied index, errors, downgrade target version, downgrade enabled.
    """

    async def ask(endpoint: str, client: AsyncClient) -> tuple[str, rpc.StatusResponse | EtcdError]:
        try:
            await signed_in(client)
            return endpoint, await client.call(methods.STATUS, rpc.StatusRequest())
        except EtcdError as error:
            return endpoint, error

    printer = settings.printer()
    answered, failed = _answered(each(settings, endpoints_of(settings, cluster), ask), "status")
    printer.status([EndpointStatus(where, answer) for where, answer in answered])
    if failed is not None:
        raise Failure("", ERROR)


@command("", Switch("--cluster", help=CLUSTER), number("--rev", help="maximum revision to hash (default: latest)"))
def hashkv(settings: Settings, words: tuple[str, ...], cluster: bool, rev: int) -> None:
    """Print the checksum of each endpoint's keys and their history."""

    async def ask(endpoint: str, client: AsyncClient) -> tuple[str, rpc.HashKVResponse | EtcdError]:
        try:
            await signed_in(client)
            return endpoint, await client.call(methods.HASH_KV, rpc.HashKVRequest(revision=rev))
        except EtcdError as error:
            return endpoint, error

    printer = settings.printer()
    answered, failed = _answered(each(settings, endpoints_of(settings, cluster), ask), "hash")
    if answered or failed is None:
        printer.hashes([EndpointHash(where, answer) for where, answer in answered])
    if failed is not None:
        raise Failure(failed.text)


for one in (health, status, hashkv):
    endpoint.add_command(one)
