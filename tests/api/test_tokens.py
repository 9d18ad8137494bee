"""JSON web tokens with every sign method, and what is refused."""

import base64
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from quorate.api import token_settings
from quorate.api.token_settings import JwtSettings, parse_auth_token
from quorate.api.tokens import JsonWebTokens
from quorate.wire import errors
from quorate.wire.errors import CallFailed
from quorate.wire.identity import Caller

CURVES: dict[str, ec.EllipticCurve] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
NOW = 1_700_000_000.0


def keys(directory: Path, method: str) -> tuple[str, str]:
    """(private key file, public key file) for a method; one shared secret for the HMAC methods."""
    private, public = directory / "private", directory / "public"
    if method.startswith("HS"):
        private.write_bytes(b"0123456789abcdef" * 4)
        return str(private), ""
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
    if method.startswith("ES"):
        key = ec.generate_private_key(CURVES[method])
    elif method == "EdDSA":
        key = ed25519.Ed25519PrivateKey.generate()
    else:
        key = rsa.generate_private_key(65537, 2048)
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
    public.write_bytes(key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo))
    return str(private), str(public)


@pytest.mark.parametrize("method", sorted(token_settings.ASYMMETRIC | token_settings.SYMMETRIC))
def test_a_token_names_its_user_and_revision_until_it_expires(tmp_path: Path, method: str) -> None:
    private, public = keys(tmp_path, method)
    issuer = JsonWebTokens(JwtSettings(method, public, private, 60_000))
    token = issuer.sign(Caller("alice", 7), NOW)
    assert Caller("alice", 7) == issuer.verify(token, NOW + 59)
    assert {"username": "alice", "revision": 7, "exp": int(NOW) + 60} == jwt.decode(
        token, options={"verify_signature": False}
    )
    for damaged, when in ((token, NOW + 60), (token[:-6] + "AAAAAA", NOW), ("nonsense", NOW), ("", NOW)):
        with pytest.raises(CallFailed) as failure:
            issuer.verify(damaged, when)
        assert errors.INVALID_AUTH_TOKEN == failure.value.error


def test_a_public_key_alone_verifies_and_does_not_sign(tmp_path: Path) -> None:
    private, public = keys(tmp_path, "ES256")
    token = JsonWebTokens(JwtSettings("ES256", "", private)).sign(Caller("alice", 7), NOW)
    verifier = JsonWebTokens(JwtSettings("ES256", public))
    assert Caller("alice", 7) == verifier.verify(token, NOW)
    with pytest.raises(CallFailed) as failure:
        verifier.sign(Caller("alice", 7), NOW)
    assert errors.VERIFY_ONLY == failure.value.error


def test_a_token_of_another_method_is_refused_even_when_its_key_is_known(tmp_path: Path) -> None:
    private, public = keys(tmp_path, "RS256")
    issuer = JsonWebTokens(JwtSettings("RS256", public, private))
    unsigned = jwt.encode({"username": "root", "revision": 1, "exp": int(NOW) + 60}, "", "none")
    with pytest.raises(CallFailed):
        issuer.verify(unsigned, NOW)


@pytest.mark.parametrize(
    "claims",
    [
        b"[" * 5000,
        b"[]",
        b"{}",
        b'{"username": "a", "revision": 1, "exp": null}',
        b'{"username": "a", "revision": 1, "exp": "9999999999"}',
        b'{"username": "a", "revision": 1, "exp": NaN}',
        b'{"username": "a", "revision": true, "exp": 9999999999}',
        b'{"username": "a", "revision": -1, "exp": 9999999999}',
        b'{"username": "a", "revision": 18446744073709551616, "exp": 9999999999}',
        b'{"username": "\\ud800", "revision": 1, "exp": 9999999999}',
        b'{"username": 5, "revision": 1, "exp": 9999999999}',
        b'{"username": "a", "revision": 1, "exp": 9999999999, "nbf": []}',
    ],
)
def test_signed_claims_that_are_none_are_refused(tmp_path: Path, claims: bytes) -> None:
    (tmp_path / "secret").write_bytes(b"s" * 32)
    issuer = JsonWebTokens(JwtSettings("HS256", "", str(tmp_path / "secret")))
    with pytest.raises(CallFailed) as failure:
        issuer.verify(jwt.api_jws.encode(claims, b"s" * 32, "HS256"), NOW)
    assert errors.INVALID_AUTH_TOKEN == failure.value.error


@pytest.mark.parametrize("header", [b"[" * 5000, b"5", b"[]", b"\xff", b'{"alg": []}', b'{"alg": "HS256", "kid": 5}'])
def test_a_header_that_is_none_is_refused(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "secret").write_bytes(b"s" * 32)
    issuer = JsonWebTokens(JwtSettings("HS256", "", str(tmp_path / "secret")))
    with pytest.raises(CallFailed) as failure:
        issuer.verify(base64.urlsafe_b64encode(header).decode().rstrip("=") + ".e30.AAAA", NOW)
    assert errors.INVALID_AUTH_TOKEN == failure.value.error


@pytest.mark.parametrize("text", ["simple", ""])
def test_simple_tokens_need_no_settings(text: str) -> None:
    assert parse_auth_token(text) is None


def test_the_options_are_read() -> None:
    text = "jwt,pub-key=/a,priv-key=/b,sign-method=RS512,ttl=10m"
    assert JwtSettings("RS512", "/a", "/b", 600_000) == parse_auth_token(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("paseto", "unknown token type"),
        ("jwt", "sign-method"),
        ("jwt,sign-method=none,priv-key=/b", "sign-method"),
        ("jwt,sign-method=RS256", "key file"),
        ("jwt,sign-method=HS256,pub-key=/a", "key file"),
        ("jwt,sign-method=RS256,priv-key=/b,colour=red", "unknown option"),
        ("jwt,sign-method=RS256,priv-key=/b,ttl=0s", "ttl above 0"),
    ],
)
def test_wrong_options_are_named(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_auth_token(text)


def test_a_key_file_of_another_kind_fails_at_the_start(tmp_path: Path) -> None:
    private, _ = keys(tmp_path, "RS256")
    with pytest.raises((ValueError, TypeError, jwt.InvalidKeyError)):
        JsonWebTokens(JwtSettings("ES256", "", private))


def test_a_key_file_that_holds_none_is_named(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("nothing")
    for option, kind in (("priv-key", "private"), ("pub-key", "public")):
        settings = parse_auth_token(f"jwt,{option}={nothing},sign-method=ES256")
        assert settings is not None
        with pytest.raises(ValueError, match=f"^{nothing} holds no {kind} key in PEM$"):
            JsonWebTokens(settings)
