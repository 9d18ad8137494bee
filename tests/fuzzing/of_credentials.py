"""Who somebody is: JSON web tokens, the option that names their keys, certificates, keys and lists of revoked ones."""

from __future__ import annotations

import base64
import json
import ssl
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Final

import jwt
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.utils import CryptographyDeprecationWarning

from quorate.api.token_settings import JwtSettings, parse_auth_token
from quorate.api.tokens import JsonWebTokens
from quorate.ctl.certificates import cert
from quorate.node import certificates, expiry
from quorate.node.certificates import Purpose, Subject
from quorate.wire.errors import CallFailed
from tests.fuzzing import scratch
from tests.fuzzing.octets import Octets, odd
from tests.support.authority import Authority

TOKEN, CLAIMS, OPTION, CERTIFICATE, KEY, REVOKED = range(6)
SECRET: Final = b"s" * 32
NOW: Final = 1000.0
GOOD: Final = {"username": "root", "revision": 5, "exp": 2000}
OPTIONS: Final = (
    "jwt,pub-key=p,priv-key=k,sign-method=RS256,ttl=10m",
    "jwt,priv-key=k,sign-method=HS256,ttl=5s",
    "simple",
    "jwt,sign-method=none",
)


@cache
def _files() -> tuple[bytes, bytes, bytes]:
    """A certificate, its key, and a list that revokes it."""
    authority = Authority(scratch.directory(), "one")
    path, key, issued = authority.files("server", Subject("x", ("a", "127.0.0.1")), Purpose.SERVER, timedelta(days=1))
    revoked = authority.revoke(scratch.directory() / "list.pem", issued)
    found = Path(path).read_bytes(), Path(key).read_bytes(), Path(revoked).read_bytes()
    scratch.clear()
    return found


@contextmanager
def world() -> Iterator[None]:
    """A directory for files, without warnings of what is old in them."""
    with scratch.world(), warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        try:
            yield
        finally:
            _files.cache_clear()


def seeds() -> list[bytes]:
    """A good one of each, tokens of odd claims, headers nested without end."""
    token = jwt.encode(GOOD, SECRET, "HS256").encode()
    locked = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    nested = base64.urlsafe_b64encode(b"[" * 9000)
    certificate, key, revoked = _files()
    return [
        bytes((TOKEN,)) + token,
        bytes((TOKEN,)) + nested + token[token.index(b".") :],
        bytes((TOKEN,)) + b"...",
        *(bytes((CLAIMS, 0, *(0 for _ in range(place)), 1, value)) for place in range(3) for value in range(27)),
        *(bytes((OPTION,)) + text.encode() for text in OPTIONS),
        bytes((CERTIFICATE,)) + certificate,
        bytes((KEY,)) + key,
        bytes((KEY,)) + locked,
        bytes((REVOKED,)) + revoked,
        bytes((REVOKED,)) + ssl.PEM_cert_to_DER_cert(certificate.decode()),
        bytes((CERTIFICATE,)) + certificate + key + revoked,
    ]


def run(data: bytes) -> bool:
    """Read, or refused by name."""
    octets = Octets(data)
    match octets.choice((TOKEN, CLAIMS, OPTION, CERTIFICATE, KEY, REVOKED)):
        case 0:
            return _verify(octets.rest().decode("latin-1"))
        case 1:
            claims = json.dumps(odd(octets, GOOD)).encode()
            return _verify(jwt.api_jws.encode(claims, SECRET, "HS256"))
        case 2:
            return _read(lambda: parse_auth_token(octets.rest().decode(errors="replace")), ValueError)
        case 3:
            return _certificate(scratch.file(octets.rest()))
        case 4:
            certificate, _, _ = _files()
            path, key = scratch.file(certificate, "certificate"), scratch.file(octets.rest())
            is_read = _read(lambda: certificates.read(path, key), ValueError)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            _read(lambda: context.load_cert_chain(path, key, lambda: "x"), OSError, ValueError)
            return is_read
        case _:
            path = scratch.file(octets.rest())
            return _read(lambda: certificates.revoked_serials(path), ValueError)


@cache
def _tokens() -> JsonWebTokens:
    path = scratch.directory().parent / f"{scratch.directory().name}.secret"
    path.write_bytes(SECRET)
    try:
        return JsonWebTokens(JwtSettings("HS256", "", str(path), 60_000))
    finally:
        path.unlink()


def _verify(token: str) -> bool:
    try:
        caller = _tokens().verify(token, NOW)
    except CallFailed:
        return False
    assert len(caller.pack()) >= 8
    assert _tokens().verify(_tokens().sign(caller, NOW), NOW) == caller
    return True


def _read(reader: Callable[[], object], *refusals: type[Exception]) -> bool:
    try:
        reader()
    except refusals as refusal:
        if not str(refusal):
            raise AssertionError("a refusal without a sentence") from refusal
        return False
    return True


def _certificate(path: Path) -> bool:
    _read(lambda: certificates.expiry(path), ValueError)
    found = expiry._read(str(path))
    if found is not None:
        _read(lambda: certificates.hosts_of(found), ValueError)
    for command in ("show", "check"):
        result = CliRunner().invoke(cert, [command, str(path)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise AssertionError(f"cert {command} ends with a trace") from result.exception
    return found is not None
