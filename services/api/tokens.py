"""JSON web tokens: issuing and verifying them with the keys that `--auth-token jwt,...` names.

A token carries the user's name, the auth revision at login and an expiry (etcd's claims `username`, `revision`, `exp`),
so no member has to remember it; any change of users or roles makes it old. Verifying needs the public key alone.
"""

from __future__ import annotations

from pathlib import Path

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from quorate.api.token_settings import SYMMETRIC, JwtSettings
from quorate.wire import errors
from quorate.wire.errors import CallFailed
from quorate.wire.identity import Caller


class JsonWebTokens:
    """Signs and verifies tokens; OSError or ValueError at the start when a key file is not a key for the method."""

    def __init__(self, settings: JwtSettings) -> None:
        self._method = settings.sign_method
        self._ttl_s = settings.ttl_ms / 1000
        private = Path(settings.private_key_file).read_bytes() if settings.private_key_file else b""
        public = Path(settings.public_key_file).read_bytes() if settings.public_key_file else b""
        if self._method in SYMMETRIC:
            self._signing_key = self._verifying_key = private
        else:
            self._signing_key = private
            self._verifying_key = public or _public_part(private, settings.private_key_file)
        if self._signing_key:
            self.verify(self.sign(Caller("", 0), 0.0), 0.0)
        else:
            _check_public(self._verifying_key, settings.public_key_file)

    def sign(self, caller: Caller, now_s: float) -> str:
        """A token for `caller`, good for the time to live from `now_s` (Unix seconds)."""
        if not self._signing_key:
            raise CallFailed(errors.VERIFY_ONLY)
        claims = {"username": caller.name, "revision": caller.auth_revision, "exp": int(now_s + self._ttl_s)}
        return jwt.encode(claims, self._signing_key, self._method)

    def verify(self, token: str, now_s: float) -> Caller:
        """Whom a token stands for; CallFailed with "invalid auth token" when it is not ours, damaged or expired."""
        try:
            claims = jwt.decode(
                token, self._verifying_key, [self._method], options={"verify_exp": False, "require": ["exp"]}
            )
            name, revision, expiry = claims["username"], claims["revision"], claims["exp"]
            is_whole = isinstance(expiry, int | float) and type(revision) is int and 0 <= revision < 1 << 64
            name.encode()
        # PyJWT leaves to the caller what JSON can be besides: nested without end, half a character, another type.
        except (jwt.InvalidTokenError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
            raise CallFailed(errors.INVALID_AUTH_TOKEN) from None
        if not isinstance(name, str) or not is_whole or not expiry > now_s:
            raise CallFailed(errors.INVALID_AUTH_TOKEN)
        return Caller(name, revision)


def _check_public(public: bytes, path: str) -> None:
    try:
        serialization.load_pem_public_key(public)
    except ValueError:
        raise ValueError(f"{path} holds no public key in PEM") from None


def _public_part(private: bytes, path: str) -> bytes:
    try:
        key = serialization.load_pem_private_key(private, None)
    except ValueError:
        raise ValueError(f"{path} holds no private key in PEM") from None
    except (TypeError, UnsupportedAlgorithm) as error:  # locked with a password, or of a curve that nobody uses
        raise ValueError(f"the key in {path} cannot be used: {error}") from None
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
