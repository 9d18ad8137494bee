"""What `--auth-token` says: simple tokens, or JSON web tokens with a method, key files and a time to live."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from quorate.node.flags import duration_ms

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
