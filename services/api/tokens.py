"""JSON web tokens: issuing and verifying them with the keys that `--auth-token jwt,...` names.

A token carries the user's name, the auth revision at login and an expiry (etcd's claims `username`, `revision`, `exp`),
so no member has to remember it; any change of users or roles makes it old. Verifying needs the public key alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jwt
from cryptography.hazmat.primitives import serialization

from quorate.node.flags import duration_ms
from quorate.wire import errors
from quorate.wire.errors import CallFailed
from quorate.wire.identity import Caller

TTL_MS_DEFAULT: Final = 300_000
ASYMMETRIC: Final = frozenset(
    ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
)
SYMMETRIC: Final = frozenset(("HS256", "HS384", "HS512"))


@dataclass(frozen=True, slots=True)
class JwtSettings:
    """The options behind `jwt,` of --auth-token."""

    sign_method: str
    public_key_file: str = ""
    private_key_file: str = ""
    ttl_ms: int = TTL_MS_DEFAULT


def parse_auth_token(text: str) -> JwtSettings | None:
    """The JWT settings, or None for simple tokens (and for "", no tokens at all); ValueError says what is wrong."""
    kind, *options = text.split(",")
    if kind in ("simple", ""):
        return None
    if kind != "jwt":
        raise ValueError(f'unknown token type "{kind}" in --auth-token: use simple or jwt')
    given: dict[str, str] = {}
    for option in options:
        name, separator, value = option.partition("=")
        if not separator or name not in ("pub-key", "priv-key", "sign-method", "ttl"):
            raise ValueError(f'unknown option "{option}" of --auth-token jwt: use pub-key, priv-key, sign-method, ttl')
        given[name] = value
    method = given.get("sign-method", "")
    if method not in ASYMMETRIC | SYMMETRIC:
        raise ValueError(f'--auth-token jwt needs a sign-method such as RS256, not "{method}"')
    if not given.get("priv-key") and (method in SYMMETRIC or not given.get("pub-key")):
        raise ValueError(f"--auth-token jwt with sign-method {method} needs a key file: priv-key, or pub-key to verify")
    ttl_ms = duration_ms(given["ttl"]) if "ttl" in given else TTL_MS_DEFAULT
    if ttl_ms <= 0:
        raise ValueError("--auth-token jwt needs a ttl above 0")
    return JwtSettings(method, given.get("pub-key", ""), given.get("priv-key", ""), ttl_ms)


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
            self._verifying_key = public or _public_part(private)
        if self._signing_key:
            self.verify(self.sign(Caller("", 0), 0.0), 0.0)
        else:
            serialization.load_pem_public_key(self._verifying_key)

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
        except (jwt.InvalidTokenError, KeyError):
            raise CallFailed(errors.INVALID_AUTH_TOKEN) from None
        if not isinstance(name, str) or not isinstance(revision, int) or expiry <= now_s:
            raise CallFailed(errors.INVALID_AUTH_TOKEN)
        return Caller(name, revision)


def _public_part(private: bytes) -> bytes:
    key = serialization.load_pem_private_key(private, None)
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
