"""Who sent a command: the identity api puts before it and storage judges it by, and the internal auth commands.

Empty bytes are nobody: a call without credentials. Otherwise the identity names a user and the auth revision that was
in force when api admitted the call, so that storage can tell a call admitted before a right was taken away. The node
itself asks as NODE, which is shorter than any user's identity and so cannot be anybody's name.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

_REVISION: Final = Struct("<Q")
_GRANT: Final = Struct("<QH")
_CREDENTIALS: Final = Struct("<QB")
_AUTH_STATE: Final = Struct("<BQ")

NODE: Final = b"node"  # questions of the node about itself, which may see what root may


class Need(IntEnum):
    """What a call has to be allowed that storage does not carry out itself."""

    ADMIN = 1  # the role root
    USER = 2  # to be any user


class AuthState(NamedTuple):
    """Whether callers are judged, and the revision of users and roles."""

    enabled: bool
    revision: int

    def pack(self) -> bytes:
        return _AUTH_STATE.pack(self.enabled, self.revision)

    @classmethod
    def unpack(cls, body: bytes) -> AuthState:
        enabled, revision = _AUTH_STATE.unpack(body)
        return cls(bool(enabled), revision)


class Caller(NamedTuple):
    """A user as admitted at an auth revision."""

    name: str
    auth_revision: int

    def pack(self) -> bytes:
        return _REVISION.pack(self.auth_revision) + self.name.encode()

    @classmethod
    def unpack(cls, identity: bytes) -> Caller:
        (auth_revision,) = _REVISION.unpack_from(identity)
        return cls(identity[_REVISION.size :].decode(), auth_revision)


UNJUDGED: Final = Caller("", 0).pack()  # somebody with a token that was not looked at, as auth was off


class TokenGrant(NamedTuple):
    """The body of AUTHENTICATE as it is ordered: the password was already checked by api against `auth_revision`.

    Without letters no token is given: the member that took the call signs one itself.
    """

    name: str
    letters: str  # the random part of the token, or nothing; storage appends the log index
    auth_revision: int

    def pack(self) -> bytes:
        letters = self.letters.encode()
        return _GRANT.pack(self.auth_revision, len(letters)) + letters + self.name.encode()

    @classmethod
    def unpack(cls, body: bytes) -> TokenGrant:
        auth_revision, length = _GRANT.unpack_from(body)
        start = _GRANT.size
        return cls(body[start + length :].decode(), body[start : start + length].decode(), auth_revision)


class Credentials(NamedTuple):
    """The answer to CREDENTIALS: what api needs to check a password."""

    password_hash: bytes  # bcrypt; empty for a user without a password
    no_password: bool
    auth_revision: int

    def pack(self) -> bytes:
        return _CREDENTIALS.pack(self.auth_revision, self.no_password) + self.password_hash

    @classmethod
    def unpack(cls, body: bytes) -> Credentials:
        auth_revision, no_password = _CREDENTIALS.unpack_from(body)
        return cls(body[_CREDENTIALS.size :], bool(no_password), auth_revision)
