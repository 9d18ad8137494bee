"""`role`: add, delete, get, list, grant-permission and revoke-permission."""

import os

import click

from quorate.client import methods
from quorate.client.ranges import FROM_KEY, prefix_range
from quorate.ctl.commands import Group, command
from quorate.ctl.failures import bad_arguments
from quorate.ctl.flags import Switch
from quorate.ctl.settings import Settings
from quorate.proto import rpc_pb2 as rpc
from quorate.proto.auth_pb2 import Permission

FROM_KEY_HELP = "keys that are greater than or equal to the given key using byte compare"


@click.group(cls=Group)
def role() -> None:
    """Role related commands."""


def _name(words: tuple[str, ...], command_name: str) -> str:
    if len(words) != 1:
        raise bad_arguments(f"role {command_name} command requires role name as its argument")
    return words[0]


def _interval(words: tuple[str, ...], prefix: bool, from_key: bool) -> tuple[bytes, bytes]:
    if prefix and from_key:
        raise bad_arguments("--from-key and --prefix flags are mutually exclusive")
    key = os.fsencode(words[0])
    if len(words) > 1:
        if prefix or from_key:
            flag = "--prefix" if prefix else "--from-key"
            raise bad_arguments(f"unexpected endkey argument with {flag} flag")
        return key, os.fsencode(words[1])
    if prefix:
        return prefix_range(key) if key else (b"", FROM_KEY)
    return key, FROM_KEY if from_key else b""


@command("<role>")
def add(settings: Settings, words: tuple[str, ...]) -> None:
    """Add a role."""
    name = _name(words, "add")
    printer = settings.printer()
    request = rpc.AuthRoleAddRequest(name=name)
    printer.done(f"Role {name} created", settings.run(lambda client: client.call(methods.ROLE_ADD, request)))


@command("<role>")
def delete(settings: Settings, words: tuple[str, ...]) -> None:
    """Delete a role."""
    name = _name(words, "delete")
    printer = settings.printer()
    request = rpc.AuthRoleDeleteRequest(role=name)
    printer.done(f"Role {name} deleted", settings.run(lambda client: client.call(methods.ROLE_DELETE, request)))


@command("<role>")
def get(settings: Settings, words: tuple[str, ...]) -> None:
    """Tell what a role permits."""
    name = _name(words, "get")
    printer = settings.printer()
    request = rpc.AuthRoleGetRequest(role=name)
    printer.role_get(name, settings.run(lambda client: client.call(methods.ROLE_GET, request)))


@command("", name="list")
def list_(settings: Settings, words: tuple[str, ...]) -> None:
    """List all roles."""
    if words:
        raise bad_arguments("role list command requires no arguments")
    printer = settings.printer()
    answer = settings.run(lambda client: client.call(methods.ROLE_LIST, rpc.AuthRoleListRequest()), unlimited=True)
    printer.names(answer.roles, answer)


@command(
    "<role> read|write|readwrite <key> [endkey]",
    Switch("--prefix", help="grant a prefix permission"),
    Switch("--from-key", help=f"grant a permission of {FROM_KEY_HELP}"),
)
def grant_permission(settings: Settings, words: tuple[str, ...], prefix: bool, from_key: bool) -> None:
    """Let a role read or write keys."""
    if len(words) < 3:
        raise bad_arguments("role grant command requires role name, permission type, and key [endkey] as its argument")
    name, kind = words[0], words[1].upper()
    if kind not in Permission.Type.keys():  # noqa: SIM118 - an enum's names, not a dictionary
        raise bad_arguments(f"invalid permission type: {words[1]}")
    key, range_end = _interval(words[2:], prefix, from_key)
    permission = Permission(permType=Permission.Type.Value(kind), key=key, range_end=range_end)
    printer = settings.printer()
    request = rpc.AuthRoleGrantPermissionRequest(name=name, perm=permission)
    answer = settings.run(lambda client: client.call(methods.ROLE_GRANT_PERMISSION, request))
    printer.done(f"Role {name} updated", answer)


@command(
    "<role> <key> [endkey]",
    Switch("--prefix", help="revoke a prefix permission"),
    Switch("--from-key", help=f"revoke a permission of {FROM_KEY_HELP}"),
)
def revoke_permission(settings: Settings, words: tuple[str, ...], prefix: bool, from_key: bool) -> None:
    """Take keys from a role."""
    if len(words) < 2:
        raise bad_arguments("role revoke-permission command requires role name and key [endkey] as its argument")
    name = words[0]
    key, range_end = _interval(words[1:], prefix, from_key)
    printer = settings.printer()
    request = rpc.AuthRoleRevokePermissionRequest(role=name, key=key, range_end=range_end)
    answer = settings.run(lambda client: client.call(methods.ROLE_REVOKE_PERMISSION, request))
    printer.done(f"Permission of {_shown(key, range_end)} is revoked from role {name}", answer)


def _shown(key: bytes, range_end: bytes) -> str:
    start, end = os.fsdecode(key), os.fsdecode(range_end)
    if not range_end:
        return f"key {start}"
    return f"range [{start}, <open ended>" if range_end == FROM_KEY else f"range [{start}, {end})"


for one in (add, delete, get, list_, grant_permission, revoke_permission):
    role.add_command(one)
