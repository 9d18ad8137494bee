"""Random requests about users and roles, and requests for keys in the name of one of them."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any, Final

from quorate.proto import auth_pb2
from quorate.proto import rpc_pb2 as rpc
from tests.conformance.requests import ENDS, KEYS, Request

USERS: Final = ("root", "ann", "bob", "nobody")
OTHERS: Final = ("ann", "bob")  # root keeps the password that ends auth
ROLES: Final = ("root", "r1", "r2", "none")
PASSWORDS: Final = ("pw", "pw", "other", "")


@dataclass
class AuthRequests:
    """`next` gives a method and its request."""

    rng: Random

    def next(self) -> Request:
        kinds: tuple[tuple[int, str, Any], ...] = (
            (2, "UserAdd", self.user_add),
            (1, "UserGet", lambda: rpc.AuthUserGetRequest(name=self._user())),
            (1, "UserList", rpc.AuthUserListRequest),
            (1, "UserDelete", lambda: rpc.AuthUserDeleteRequest(name=self._user())),
            (1, "UserChangePassword", self.change_password),
            (5, "UserGrantRole", lambda: rpc.AuthUserGrantRoleRequest(user=self._user(), role=self._role())),
            (2, "UserRevokeRole", lambda: rpc.AuthUserRevokeRoleRequest(name=self._user(), role=self._role())),
            (2, "RoleAdd", lambda: rpc.AuthRoleAddRequest(name=self._role())),
            (2, "RoleGet", lambda: rpc.AuthRoleGetRequest(role=self.rng.choice(ROLES[1:]))),
            (1, "RoleList", rpc.AuthRoleListRequest),
            (1, "RoleDelete", lambda: rpc.AuthRoleDeleteRequest(role=self._role())),
            (5, "RoleGrantPermission", self.grant),
            (2, "RoleRevokePermission", self.revoke),
            (2, "AuthEnable", rpc.AuthEnableRequest),
            (1, "AuthDisable", rpc.AuthDisableRequest),
            (1, "AuthStatus", rpc.AuthStatusRequest),
        )
        (chosen,) = self.rng.choices(kinds, [weight for weight, _, _ in kinds])
        return f"Auth/{chosen[1]}", chosen[2]()

    def user_add(self) -> rpc.AuthUserAddRequest:
        request = rpc.AuthUserAddRequest(name=self.rng.choice((*OTHERS, "")), password=self._password())
        if self.rng.random() < 0.2:
            request.options.no_password = True
        return request

    def change_password(self) -> rpc.AuthUserChangePasswordRequest:
        return rpc.AuthUserChangePasswordRequest(name=self.rng.choice(OTHERS), password=self._password())

    def grant(self) -> rpc.AuthRoleGrantPermissionRequest:
        key = self.rng.choice(KEYS[:-1])
        ends = [end for end in ENDS if end in (b"", b"\0") or end > key]  # 3.5.1 takes intervals the wrong way round
        types = auth_pb2.Permission.Type.values()
        permission = auth_pb2.Permission(permType=self.rng.choice(types), key=key, range_end=self.rng.choice(ends))
        return rpc.AuthRoleGrantPermissionRequest(name=self._role(), perm=permission)

    def revoke(self) -> rpc.AuthRoleRevokePermissionRequest:
        return rpc.AuthRoleRevokePermissionRequest(
            role=self._role(), key=self.rng.choice(KEYS), range_end=self.rng.choice(ENDS)
        )

    def _user(self) -> str:
        return self.rng.choice(USERS)

    def _role(self) -> str:
        return self.rng.choice(ROLES)

    def _password(self) -> str:
        return self.rng.choice(PASSWORDS)
