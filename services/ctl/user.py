"""`user`: add, delete, get, list, passwd, grant-role and revoke-role."""

import getpass
import sys

import click

from quorate.client import methods
from quorate.client.aio import AsyncClient
from quorate.ctl.commands import Group, command
from quorate.ctl.failures import Failure, bad_arguments
from quorate.ctl.flags import Switch, text
from quorate.ctl.print_simple import Simple
from quorate.ctl.printers import line
from quorate.ctl.settings import Settings, ask_password
from quorate.proto import rpc_pb2 as rpc
from quorate.proto.auth_pb2 import UserAddOptions


@click.group(cls=Group)
def user() -> None:
    """User related commands."""


def _name(words: tuple[str, ...], command_name: str) -> str:
    if len(words) != 1:
        raise bad_arguments(f"user {command_name} command requires user name as its argument")
    return words[0]


def new_password(name: str, interactive: bool) -> str:
    """A password for a user, asked for twice, or a line of standard input."""
    if not interactive:
        return sys.stdin.readline().rstrip("\n")
    asked = getpass.getpass if sys.stdin.isatty() else ask_password
    first = asked(f"Password of {name}: ")
    if not first:
        raise bad_arguments("empty password")
    if first != asked(f"Type password of {name} again for confirmation: "):
        raise Failure("given passwords are different")
    return first


@command(
    "<name>[:<password>]",
    Switch("--interactive", default=True, help="ask for the password; else read it from stdin [true]"),
    text("--new-user-password", help="Supply password from the command line flag"),
    Switch("--no-password", help="Create a user without password (CN based auth only)"),
)
def add(
    settings: Settings, words: tuple[str, ...], interactive: bool, new_user_password: str, no_password: bool
) -> None:
    """Add a user."""
    name = _name(words, "add")
    password = ""
    if not no_password:
        if new_user_password:
            password = new_user_password
        else:
            name, colon, password = name.partition(":")
            if not name:
                raise bad_arguments("empty user name is not allowed")
            if not colon:
                password = new_password(name, interactive)
    printer = settings.printer()
    request = rpc.AuthUserAddRequest(name=name, password=password, options=UserAddOptions(no_password=no_password))
    printer.done(f"User {name} created", settings.run(lambda client: client.call(methods.USER_ADD, request)))


@command("<name>")
def delete(settings: Settings, words: tuple[str, ...]) -> None:
    """Delete a user."""
    name = _name(words, "delete")
    printer = settings.printer()
    request = rpc.AuthUserDeleteRequest(name=name)
    printer.done(f"User {name} deleted", settings.run(lambda client: client.call(methods.USER_DELETE, request)))


@command("<name>", Switch("--detail", help="Show permissions of roles granted to the user"))
def get(settings: Settings, words: tuple[str, ...], detail: bool) -> None:
    """Tell a user's roles, with `--detail` what they permit."""
    name = _name(words, "get")
    printer = settings.printer()
    if not detail:
        request = rpc.AuthUserGetRequest(name=name)
        printer.user_get(name, settings.run(lambda client: client.call(methods.USER_GET, request)))
        return
    roles = settings.run(lambda client: _roles(client, name))
    if not isinstance(printer, Simple):
        raise printer.unsupported()
    line(f"User: {name}")
    for role, answer in roles:
        line("")
        printer.role_get(role, answer)


async def _roles(client: AsyncClient, name: str) -> list[tuple[str, rpc.AuthRoleGetResponse]]:
    found = await client.call(methods.USER_GET, rpc.AuthUserGetRequest(name=name))
    return [(role, await client.call(methods.ROLE_GET, rpc.AuthRoleGetRequest(role=role))) for role in found.roles]


@command("", name="list")
def list_(settings: Settings, words: tuple[str, ...]) -> None:
    """List all users."""
    if words:
        raise bad_arguments("user list command requires no arguments")
    printer = settings.printer()
    answer = settings.run(lambda client: client.call(methods.USER_LIST, rpc.AuthUserListRequest()), unlimited=True)
    printer.names(answer.users, answer)


@command("<name>", Switch("--interactive", default=True, help="ask for the password; else read it from stdin [true]"))
def passwd(settings: Settings, words: tuple[str, ...], interactive: bool) -> None:
    """Change a user's password."""
    name = _name(words, "passwd")
    password = new_password(name, interactive)
    printer = settings.printer()
    request = rpc.AuthUserChangePasswordRequest(name=name, password=password)
    printer.done("Password updated", settings.run(lambda client: client.call(methods.USER_CHANGE_PASSWORD, request)))


@command("<name> <role>")
def grant_role(settings: Settings, words: tuple[str, ...]) -> None:
    """Give a user a role."""
    if len(words) != 2:
        raise bad_arguments("user grant command requires user name and role name as its argument")
    name, role = words
    printer = settings.printer()
    request = rpc.AuthUserGrantRoleRequest(user=name, role=role)
    answer = settings.run(lambda client: client.call(methods.USER_GRANT_ROLE, request))
    printer.done(f"Role {role} is granted to user {name}", answer)


@command("<name> <role>")
def revoke_role(settings: Settings, words: tuple[str, ...]) -> None:
    """Take a role from a user."""
    if len(words) != 2:
        raise bad_arguments("user revoke-role requires user name and role name as its argument")
    name, role = words
    printer = settings.printer()
    request = rpc.AuthUserRevokeRoleRequest(name=name, role=role)
    answer = settings.run(lambda client: client.call(methods.USER_REVOKE_ROLE, request))
    printer.done(f"Role {role} is revoked from user {name}", answer)


for one in (add, delete, get, list_, passwd, grant_role, revoke_role):
    user.add_command(one)
