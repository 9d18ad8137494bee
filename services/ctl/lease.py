"""`lease`: grant, revoke, timetolive, list and keep-alive."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click

from quorate.client import methods
from quorate.client.aio import AsyncClient
from quorate.client.errors import EtcdError, LeaseExpiredError
from quorate.client.lease import KeepAlive
from quorate.ctl import go_text
from quorate.ctl.commands import Group, command
from quorate.ctl.failures import BAD_CONNECTION, Failure, bad_arguments
from quorate.ctl.flags import Switch
from quorate.ctl.printers import Printer, line
from quorate.ctl.settings import Settings
from quorate.proto import rpc_pb2 as rpc

RETRY_S: Final = 0.5


@click.group(cls=Group)
def lease() -> None:
    """Lease related commands."""


def lease_id(text: str) -> int:
    """A lease id as it is written on command lines."""
    try:
        return go_text.parse_int(text, 16)
    except ValueError as error:
        raise bad_arguments(f"bad lease ID arg ({error}), expecting ID in Hex") from None


@command("<ttl>")
def grant(settings: Settings, words: tuple[str, ...]) -> None:
    """Create a lease of so many seconds."""
    if len(words) != 1:
        raise bad_arguments("lease grant command needs TTL argument")
    try:
        ttl_s = go_text.parse_int(words[0])
    except ValueError as error:
        raise bad_arguments(f"bad TTL ({error})") from None
    printer = settings.printer()
    request = rpc.LeaseGrantRequest(TTL=ttl_s)
    with _trying("failed to grant lease"):
        answer = settings.run(lambda client: client.call(methods.LEASE_GRANT, request))
    printer.grant(answer)


@contextmanager
def _trying(what: str) -> Iterator[None]:
    try:
        yield
    except Failure as failure:
        if isinstance(failure.__cause__, EtcdError):
            raise Failure(f"{what} ({failure.text})", failure.status) from failure
        raise


@command("<lease id>")
def revoke(settings: Settings, words: tuple[str, ...]) -> None:
    """Delete a lease and its keys."""
    if len(words) != 1:
        raise bad_arguments("lease revoke command needs 1 argument")
    identity = lease_id(words[0])
    printer = settings.printer()
    with _trying("failed to revoke lease"):
        answer = settings.run(lambda client: client.revoke(identity))
    printer.revoke(identity, answer)


@command("<lease id>", Switch("--keys", help="Get keys attached to this lease"))
def timetolive(settings: Settings, words: tuple[str, ...], keys: bool) -> None:
    """Tell how long a lease has left."""
    if len(words) != 1:
        raise bad_arguments("lease timetolive command needs lease ID as argument")
    identity = lease_id(words[0])
    printer = settings.printer()
    answer = settings.run(lambda client: client.time_to_live(identity, keys), unlimited=True)
    printer.time_to_live(answer, keys)


@command("", name="list")
def list_(settings: Settings, words: tuple[str, ...]) -> None:
    """List all leases."""
    printer = settings.printer()
    printer.leases(
        settings.run(lambda client: client.call(methods.LEASE_LEASES, rpc.LeaseLeasesRequest()), unlimited=True)
    )


@command("<lease id>", Switch("--once", help="Resets the keep-alive time to its original value and exits immediately"))
def keep_alive(settings: Settings, words: tuple[str, ...], once: bool) -> None:
    """Renew a lease until it is gone, or once."""
    if len(words) != 1:
        raise bad_arguments("lease keep-alive command needs lease ID as argument")
    identity = lease_id(words[0])
    printer = settings.printer()
    if once:
        try:
            printer.keep_alive(settings.run(lambda client: client.renew(identity)))
        except Failure as failure:
            raise Failure(failure.text, BAD_CONNECTION) from failure
    else:
        settings.run(lambda client: _renew(client, identity, printer), unlimited=True)


async def _renew(client: AsyncClient, identity: int, printer: Printer) -> None:
    stream = KeepAlive(client.connection, identity)
    while True:
        try:
            answer = await stream.renew()
        except LeaseExpiredError:
            if printer.is_simple:
                line(f"lease {identity:016x} expired or revoked.")
            return
        except EtcdError:
            await asyncio.sleep(RETRY_S)
            continue
        printer.keep_alive(answer)
        await asyncio.sleep(answer.TTL / 3)


for one in (grant, revoke, timetolive, list_, keep_alive):
    lease.add_command(one)
