"""`auth`: enable, disable and status."""

import click

from quorate.client import errors, methods
from quorate.client.aio import AsyncClient
from quorate.client.errors import EtcdError
from quorate.ctl.commands import Group, command
from quorate.ctl.failures import bad_arguments
from quorate.ctl.settings import Settings
from quorate.proto import rpc_pb2 as rpc

ROOT_ROLE_MISSING = "etcdserver: root user does not have root role"


@click.group(cls=Group)
def auth() -> None:
    """Enable or disable authentication."""


def _no_words(words: tuple[str, ...], name: str) -> None:
    if words:
        raise bad_arguments(f"auth {name} command does not accept any arguments")


@command("")
def enable(settings: Settings, words: tuple[str, ...]) -> None:
    """Check users from now on; root gets the role root when it does not have it."""
    _no_words(words, "enable")
    printer = settings.printer()
    printer.done("Authentication Enabled", settings.run(_enable))


async def _enable(client: AsyncClient) -> rpc.AuthEnableResponse:
    try:
        return await client.call(methods.AUTH_ENABLE, rpc.AuthEnableRequest())
    except EtcdError as error:
        if error.text != ROOT_ROLE_MISSING:
            raise
    try:
        await client.call(methods.ROLE_ADD, rpc.AuthRoleAddRequest(name="root"))
    except EtcdError as error:
        if error.text != errors.ROLE_EXISTS_TEXT:
            raise
    await client.call(methods.USER_GRANT_ROLE, rpc.AuthUserGrantRoleRequest(user="root", role="root"))
    return await client.call(methods.AUTH_ENABLE, rpc.AuthEnableRequest())


@command("")
def disable(settings: Settings, words: tuple[str, ...]) -> None:
    """Let everybody in."""
    _no_words(words, "disable")
    printer = settings.printer()
    answer = settings.run(lambda client: client.call(methods.AUTH_DISABLE, rpc.AuthDisableRequest()))
    printer.done("Authentication Disabled", answer)


@command("")
def status(settings: Settings, words: tuple[str, ...]) -> None:
    """Tell whether users are checked."""
    _no_words(words, "status")
    printer = settings.printer()
    printer.auth_status(settings.run(lambda client: client.call(methods.AUTH_STATUS, rpc.AuthStatusRequest())))


for one in (enable, disable, status):
    auth.add_command(one)
