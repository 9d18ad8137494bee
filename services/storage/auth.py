"""Users, roles, tokens and the judgement of callers: pure state, changed only by commands in log order.

Every change raises the auth revision (enabling does not), and a caller admitted under an older revision is refused for
keys, so a right that was taken away at one place of the log is gone for everything behind it. Passwords arrive hashed:
the member that receives a call does the slow part before the command is ordered.

Tokens are part of the state, so that every member knows them and a restart keeps them; only their time to live is a
member's own, counted from the last use there (contract of etcd's simple tokens).
"""

from __future__ import annotations

import base64
from bisect import insort
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from google.protobuf.message import Message

from quorate.proto import auth_pb2, rpc_pb2
from quorate.storage.permissions import OPEN_END, IntervalSet, is_valid_grant
from quorate.wire import errors
from quorate.wire.errors import CallFailed
from quorate.wire.identity import Caller, Credentials, TokenGrant
from quorate.wire.messages import Op

ROOT: Final = "root"
FIRST_REVISION: Final = 1
READ: Final = auth_pb2.Permission.READ
WRITE: Final = auth_pb2.Permission.WRITE
READWRITE: Final = auth_pb2.Permission.READWRITE


class Change(NamedTuple):
    """One row to be written with the command that made it; `value` None deletes the row."""

    table: str  # "user", "role", "token" or "state"
    name: str
    value: bytes | None


class Rights:
    """What a user may do, compiled from its roles; rebuilt after a change of user or role."""

    __slots__ = ("is_root", "readable", "writable")

    def __init__(self, is_root: bool, permissions: Iterable[auth_pb2.Permission]) -> None:
        self.is_root = is_root
        granted = list(permissions)
        self.readable = IntervalSet((p.key, p.range_end) for p in granted if p.permType in (READ, READWRITE))
        self.writable = IntervalSet((p.key, p.range_end) for p in granted if p.permType in (WRITE, READWRITE))


class AuthStore:
    """The auth state of one member.

    `changes` collects the rows of the commands applied since it was last emptied; whoever persists takes and clears it.
    """

    def __init__(self, token_ttl_ms: int) -> None:
        self.enabled = False
        self.revision = FIRST_REVISION
        self.epoch = 0  # counts what makes earlier judgements void, in this process
        self.changes: list[Change] = []
        self._token_ttl_ms = token_ttl_ms
        self._users: dict[str, auth_pb2.User] = {}
        self._roles: dict[str, auth_pb2.Role] = {}
        self._tokens: dict[str, str] = {}
        self._deadlines: dict[str, int] = {}
        self._rights: dict[str, Rights] = {}
        self._commands: dict[int, Callable[[bytes], Message]] = {
            Op.AUTH_ENABLE: self._enable,
            Op.AUTH_DISABLE: self._disable,
            Op.USER_ADD: self._add_user,
            Op.USER_DELETE: self._delete_user,
            Op.USER_CHANGE_PASSWORD: self._change_password,
            Op.USER_GRANT_ROLE: self._grant_role,
            Op.USER_REVOKE_ROLE: self._revoke_role,
            Op.ROLE_ADD: self._add_role,
            Op.ROLE_DELETE: self._delete_role,
            Op.ROLE_GRANT_PERMISSION: self._grant_permission,
            Op.ROLE_REVOKE_PERMISSION: self._revoke_permission,
        }

    # --- what a caller may do ----------------------------------------------------------------------------------------

    def check_admin(self, caller: Caller | None) -> None:
        """CallFailed unless auth is off or the caller holds the role root."""
        if not self.enabled:
            return
        if self._rights_of(self._known(caller)).is_root:
            return
        raise CallFailed(errors.PERMISSION_DENIED)

    def check_user(self, caller: Caller | None) -> None:
        """CallFailed unless auth is off or the caller is a user."""
        if self.enabled:
            self._known(caller)

    def check_keys(self, caller: Caller | None, write: bool, key: bytes, range_end: bytes = b"") -> None:
        """CallFailed unless auth is off or the caller may read (write) every key of the interval."""
        if not self.enabled:
            return
        if caller is None or not caller.name:
            raise CallFailed(errors.USER_EMPTY)
        if caller.auth_revision < self.revision:
            raise CallFailed(errors.AUTH_OLD_REVISION)
        rights = self._rights_of(caller.name)
        if rights.is_root or (rights.writable if write else rights.readable).covers(key, range_end):
            return
        raise CallFailed(errors.PERMISSION_DENIED)

    def is_root(self, caller: Caller | None) -> bool:
        """True where no key is closed to the caller: auth is off, or it holds the role root."""
        return not self.enabled or (caller is not None and self._rights_of(caller.name).is_root)

    # --- questions ---------------------------------------------------------------------------------------------------

    def status(self, caller: Caller | None) -> rpc_pb2.AuthStatusResponse:
        self.check_admin(caller)
        return rpc_pb2.AuthStatusResponse(enabled=self.enabled, authRevision=self.revision)

    def user(self, caller: Caller | None, body: bytes) -> rpc_pb2.AuthUserGetResponse:
        """The roles of a user: for root, and for the user itself."""
        name = rpc_pb2.AuthUserGetRequest.FromString(body).name
        if self.enabled and not (caller is not None and caller.name == name and name in self._users):
            self.check_admin(caller)
        return rpc_pb2.AuthUserGetResponse(roles=self._user(name).roles)

    def users(self, caller: Caller | None) -> rpc_pb2.AuthUserListResponse:
        self.check_admin(caller)
        return rpc_pb2.AuthUserListResponse(users=sorted(self._users, key=str.encode))

    def role(self, caller: Caller | None, body: bytes) -> rpc_pb2.AuthRoleGetResponse:
        """The permissions of a role: for root, and for whoever holds it."""
        name = rpc_pb2.AuthRoleGetRequest.FromString(body).role
        if self.enabled and not (
            caller is not None and caller.name in self._users and name in self._users[caller.name].roles
        ):
            self.check_admin(caller)
        role = self._role(name)
        if name == ROOT:
            everything = auth_pb2.Permission(permType=READWRITE, range_end=OPEN_END)
            return rpc_pb2.AuthRoleGetResponse(perm=[everything])
        return rpc_pb2.AuthRoleGetResponse(perm=role.keyPermission)

    def roles(self, caller: Caller | None) -> rpc_pb2.AuthRoleListResponse:
        self.check_admin(caller)
        return rpc_pb2.AuthRoleListResponse(roles=sorted(self._roles, key=str.encode))

    def credentials(self, name: str) -> Credentials:
        """What is needed to check a password; an unknown user fails as a wrong password does."""
        if not self.enabled:
            raise CallFailed(errors.AUTH_NOT_ENABLED)
        user = self._users.get(name)
        if user is None:
            raise CallFailed(errors.AUTH_FAILED)
        return Credentials(user.password, user.options.no_password, self.revision)

    def caller_of(self, token: str, now_ms: int) -> Caller | None:
        """Whom a token stands for, and its time to live starts anew; None while auth is off (tokens are ignored).

        CallFailed with "invalid auth token" where it is unknown or was not used in time on this member.
        """
        if not self.enabled:
            return None
        name = self._tokens.get(token)
        deadline = self._deadlines.get(token)
        if name is None or (deadline is not None and deadline <= now_ms):
            raise CallFailed(errors.INVALID_AUTH_TOKEN)
        self._deadlines[token] = now_ms + self._token_ttl_ms
        return Caller(name, self.revision)

    def rights_of(self, caller: Caller) -> Rights | None:
        """What the caller may do while `epoch` stays as it is; None for whoever is refused anyway."""
        if caller.name not in self._users or caller.auth_revision < self.revision:
            return None
        return self._rights_of(caller.name)

    # --- commands in log order ---------------------------------------------------------------------------------------

    def apply(self, op: int, caller: Caller | None, body: bytes) -> Message:
        """Apply one command of the auth service for `caller`: its response without header, or CallFailed and no change.

        Deterministic: it depends on earlier commands alone.
        """
        self.check_admin(caller)
        return self._commands[op](body)

    def authenticate(self, grant: TokenGrant, index: int, now_ms: int) -> rpc_pb2.AuthenticateResponse:
        """Give the user a token that carries the log index of its command; none where none was drawn."""
        if not self.enabled:
            raise CallFailed(errors.AUTH_NOT_ENABLED)
        if grant.name not in self._users:
            raise CallFailed(errors.AUTH_FAILED)
        if grant.auth_revision != self.revision:
            raise CallFailed(errors.AUTH_OLD_REVISION)
        if not grant.letters:
            return rpc_pb2.AuthenticateResponse()
        token = f"{grant.letters}.{index}"
        self._tokens[token] = grant.name
        self._deadlines[token] = now_ms + self._token_ttl_ms
        self.changes.append(Change("token", token, grant.name.encode()))
        return rpc_pb2.AuthenticateResponse(token=token)

    def forget_expired_tokens(self, now_ms: int) -> None:
        """Drop what was not used for a time to live on this member."""
        for token in [token for token, deadline in self._deadlines.items() if deadline <= now_ms]:
            self._forget_token(token)

    def load(self, rows: Iterable[Change], now_ms: int) -> None:
        """Restore what `changes` had handed out; every token's time to live starts anew."""
        for table, name, value in rows:
            assert value is not None
            if table == "user":
                self._users[name] = auth_pb2.User.FromString(value)
            elif table == "role":
                self._roles[name] = auth_pb2.Role.FromString(value)
            elif table == "token":
                self._tokens[name] = value.decode()
                self._deadlines[name] = now_ms + self._token_ttl_ms
            else:
                status = rpc_pb2.AuthStatusResponse.FromString(value)
                self.enabled, self.revision = status.enabled, status.authRevision

    def _enable(self, _body: bytes) -> Message:
        if not self.enabled:
            root = self._users.get(ROOT)
            if root is None:
                raise CallFailed(errors.ROOT_USER_NOT_EXIST)
            if ROOT not in root.roles:
                raise CallFailed(errors.ROOT_ROLE_NOT_EXIST)
            self.enabled = True
            self._save_state()
        return rpc_pb2.AuthEnableResponse()

    def _disable(self, _body: bytes) -> Message:
        if self.enabled:
            self.enabled = False
            for token in list(self._tokens):
                self._forget_token(token)
            self._raise_revision()
        return rpc_pb2.AuthDisableResponse()

    def _add_user(self, body: bytes) -> Message:
        request = rpc_pb2.AuthUserAddRequest.FromString(body)
        if not request.name:
            raise CallFailed(errors.USER_EMPTY)
        if request.name in self._users:
            raise CallFailed(errors.USER_ALREADY_EXIST)
        user = auth_pb2.User(name=request.name.encode(), options=request.options)
        if not request.options.no_password:
            user.password = _decoded(request.hashedPassword)
        self._save_user(user)
        return rpc_pb2.AuthUserAddResponse()

    def _delete_user(self, body: bytes) -> Message:
        name = rpc_pb2.AuthUserDeleteRequest.FromString(body).name
        if self.enabled and name == ROOT:
            raise CallFailed(errors.INVALID_AUTH_MGMT)
        self._user(name)
        del self._users[name]
        self.changes.append(Change("user", name, None))
        self._forget_tokens_of(name)
        self._raise_revision()
        return rpc_pb2.AuthUserDeleteResponse()

    def _change_password(self, body: bytes) -> Message:
        request = rpc_pb2.AuthUserChangePasswordRequest.FromString(body)
        user = self._user(request.name)
        user.password = b"" if user.options.no_password else _decoded(request.hashedPassword)
        self._save_user(user)
        self._forget_tokens_of(request.name)
        return rpc_pb2.AuthUserChangePasswordResponse()

    def _grant_role(self, body: bytes) -> Message:
        request = rpc_pb2.AuthUserGrantRoleRequest.FromString(body)
        user = self._user(request.user)
        if request.role != ROOT:
            self._role(request.role)
        if request.role not in user.roles:
            user.roles[:] = sorted([*user.roles, request.role], key=str.encode)
            self._save_user(user)
        return rpc_pb2.AuthUserGrantRoleResponse()

    def _revoke_role(self, body: bytes) -> Message:
        request = rpc_pb2.AuthUserRevokeRoleRequest.FromString(body)
        if self.enabled and request.name == ROOT and request.role == ROOT:
            raise CallFailed(errors.INVALID_AUTH_MGMT)
        user = self._user(request.name)
        if request.role not in user.roles:
            raise CallFailed(errors.ROLE_NOT_GRANTED)
        user.roles.remove(request.role)
        self._save_user(user)
        return rpc_pb2.AuthUserRevokeRoleResponse()

    def _add_role(self, body: bytes) -> Message:
        name = rpc_pb2.AuthRoleAddRequest.FromString(body).name
        if not name:
            raise CallFailed(errors.ROLE_EMPTY)
        if name in self._roles:
            raise CallFailed(errors.ROLE_ALREADY_EXIST)
        self._save_role(auth_pb2.Role(name=name.encode()))
        return rpc_pb2.AuthRoleAddResponse()

    def _delete_role(self, body: bytes) -> Message:
        name = rpc_pb2.AuthRoleDeleteRequest.FromString(body).role
        if self.enabled and name == ROOT:
            raise CallFailed(errors.INVALID_AUTH_MGMT)
        self._role(name)
        del self._roles[name]
        self.changes.append(Change("role", name, None))
        for user in self._users.values():
            if name in user.roles:
                user.roles.remove(name)
                self.changes.append(Change("user", user.name.decode(), user.SerializeToString()))
        self._raise_revision()
        return rpc_pb2.AuthRoleDeleteResponse()

    def _grant_permission(self, body: bytes) -> Message:
        request = rpc_pb2.AuthRoleGrantPermissionRequest.FromString(body)
        if not request.HasField("perm"):
            raise CallFailed(errors.PERMISSION_NOT_GIVEN)
        given = request.perm
        if not is_valid_grant(given.key, given.range_end):
            raise CallFailed(errors.INVALID_AUTH_MGMT)
        role = self._role(request.name)
        kept = [p for p in role.keyPermission if (p.key, p.range_end) != (given.key, given.range_end)]
        insort(kept, given, key=lambda p: (p.key, p.range_end))
        self._save_role(auth_pb2.Role(name=role.name, keyPermission=kept))
        return rpc_pb2.AuthRoleGrantPermissionResponse()

    def _revoke_permission(self, body: bytes) -> Message:
        request = rpc_pb2.AuthRoleRevokePermissionRequest.FromString(body)
        role = self._role(request.role)
        kept = [p for p in role.keyPermission if (p.key, p.range_end) != (request.key, request.range_end)]
        if len(kept) == len(role.keyPermission):
            raise CallFailed(errors.PERMISSION_NOT_GRANTED)
        self._save_role(auth_pb2.Role(name=role.name, keyPermission=kept))
        return rpc_pb2.AuthRoleRevokePermissionResponse()

    # --- parts -------------------------------------------------------------------------------------------------------

    def _known(self, caller: Caller | None) -> str:
        if caller is None or not caller.name:
            raise CallFailed(errors.USER_EMPTY)
        if caller.name not in self._users:
            raise CallFailed(errors.USER_NOT_FOUND)
        return caller.name

    def _user(self, name: str) -> auth_pb2.User:
        if name not in self._users:
            raise CallFailed(errors.USER_NOT_FOUND)
        return self._users[name]

    def _role(self, name: str) -> auth_pb2.Role:
        if name not in self._roles:
            raise CallFailed(errors.ROLE_NOT_FOUND)
        return self._roles[name]

    def _rights_of(self, name: str) -> Rights:
        rights = self._rights.get(name)
        if rights is None:
            roles = self._users[name].roles if name in self._users else ()
            held = [self._roles[role] for role in roles if role in self._roles]
            rights = Rights(ROOT in roles, (p for role in held for p in role.keyPermission))
            self._rights[name] = rights
        return rights

    def _save_user(self, user: auth_pb2.User) -> None:
        name = user.name.decode()
        self._users[name] = user
        self.changes.append(Change("user", name, user.SerializeToString()))
        self._raise_revision()

    def _save_role(self, role: auth_pb2.Role) -> None:
        name = role.name.decode()
        self._roles[name] = role
        self.changes.append(Change("role", name, role.SerializeToString()))
        self._raise_revision()

    def _raise_revision(self) -> None:
        self.revision += 1
        self._rights.clear()
        self._save_state()

    def _save_state(self) -> None:
        self.epoch += 1
        state = rpc_pb2.AuthStatusResponse(enabled=self.enabled, authRevision=self.revision)
        self.changes.append(Change("state", "", state.SerializeToString()))

    def _forget_tokens_of(self, name: str) -> None:
        for token in [token for token, owner in self._tokens.items() if owner == name]:
            self._forget_token(token)

    def _forget_token(self, token: str) -> None:
        del self._tokens[token]
        self._deadlines.pop(token, None)
        self.changes.append(Change("token", token, None))


def _decoded(hashed: str) -> bytes:
    """The hash of a password as a request has it; CallFailed with etcd's text for what is no base64."""
    try:
        return base64.b64decode(hashed, validate=True)
    except ValueError:
        raise CallFailed(errors.NO_PASSWORD_USER) from None
