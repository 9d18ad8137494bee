"""The users and roles of an import. Passwords cannot be read from a running cluster; whoever has them may give them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from quorate.client import methods
from quorate.ctl.failures import Failure
from quorate.ctl.import_mark import Side
from quorate.proto import rpc_pb2 as rpc
from quorate.proto.auth_pb2 import UserAddOptions

ROOT: Final = "root"
ROLE_EXISTS: Final = "etcdserver: role name already exists"
USER_EXISTS: Final = "etcdserver: user name already exists"
RANDOM_BYTES: Final = 24


@dataclass(slots=True)
class Accounts:
    """What became of users and roles."""

    roles: int = 0
    users: int = 0
    without_password: list[str] = field(default_factory=list)  # nobody knows their password


def read_passwords(path: Path) -> dict[str, str | None]:
    """Lines `name:password`; None for a line that is a name alone. Failure for a line that is neither."""
    found: dict[str, str | None] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        name, colon, password = line.partition(":")
        if not line:
            continue
        if not name or (colon and not password):
            raise Failure(f"line {number} of {path} is neither `name:password` nor `name`")
        found[name] = password if colon else None
    return found


async def names(side: Side) -> list[str]:
    """All users; Failure when they may not be read."""
    return list((await side.ask(methods.USER_LIST, rpc.AuthUserListRequest())).users)


async def copy_accounts(source: Side, destination: Side, passwords: Mapping[str, str | None]) -> Accounts:
    """Make roles and users that are not there yet; nothing is taken away. May be done again.

    A user of `passwords` gets that password, or none (for certificates). Any other gets one that nobody knows, so
    that it can be changed: a user made without a password can never be given one.
    """
    told = Accounts()
    for role in (await source.ask(methods.ROLE_LIST, rpc.AuthRoleListRequest())).roles:
        await destination.call(methods.ROLE_ADD, rpc.AuthRoleAddRequest(name=role), unless=(ROLE_EXISTS,))
        told.roles += 1
        if role == ROOT:  # may everything by its name
            continue
        for permission in (await source.ask(methods.ROLE_GET, rpc.AuthRoleGetRequest(role=role))).perm:
            request = rpc.AuthRoleGrantPermissionRequest(name=role, perm=permission)
            await destination.ask(methods.ROLE_GRANT_PERMISSION, request)
    for user in await names(source):
        told.users += 1
        if not await _add(destination, user, passwords):
            told.without_password.append(user)
        for role in (await source.ask(methods.USER_GET, rpc.AuthUserGetRequest(name=user))).roles:
            await destination.ask(methods.USER_GRANT_ROLE, rpc.AuthUserGrantRoleRequest(user=user, role=role))
    return told


async def _add(destination: Side, user: str, passwords: Mapping[str, str | None]) -> bool:
    """Whether somebody knows the password, or needs none."""
    password = passwords.get(user)
    options = UserAddOptions(no_password=user in passwords and password is None)
    chosen = password or ("" if options.no_password else secrets.token_urlsafe(RANDOM_BYTES))
    request = rpc.AuthUserAddRequest(name=user, password=chosen, options=options)
    made = await destination.call(methods.USER_ADD, request, unless=(USER_EXISTS,))
    return made is None or user in passwords
