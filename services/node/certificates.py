"""Making, reading and judging X.509 certificates, as files in PEM: the one home of what a certificate of ours contains.

Used by auto-TLS at a node's start and by the certificate commands. Serial numbers are random (RFC 5280 4.1.2.2), keys
are ECDSA or RSA, and a private key is written readable by its owner alone.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_CURVES: dict[int, type[ec.EllipticCurve]] = {256: ec.SECP256R1, 384: ec.SECP384R1, 521: ec.SECP521R1}
_CLOCK_SKEW = timedelta(minutes=5)  # a certificate made now is valid on a machine whose clock is a little behind


class Purpose(StrEnum):
    """What a certificate may be used for; etcd's members dial each other, so a peer is both server and client."""

    CA = "ca"
    SERVER = "server"
    CLIENT = "client"
    PEER = "peer"


_USAGES = {
    Purpose.SERVER: [ExtendedKeyUsageOID.SERVER_AUTH],
    Purpose.CLIENT: [ExtendedKeyUsageOID.CLIENT_AUTH],
    Purpose.PEER: [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
}


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a certificate names, with which key; `names` are further X.500 attributes (O, OU, L, ST, C)."""

    common_name: str
    hosts: tuple[str, ...] = ()  # host names and addresses for the subject alternative name
    names: dict[str, str] = field(default_factory=dict)
    algorithm: str = "ecdsa"  # or rsa
    key_bits: int = 256


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: PrivateKey


_NAME_OIDS = {
    "C": NameOID.COUNTRY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "L": NameOID.LOCALITY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
}


def make_key(algorithm: str, bits: int) -> PrivateKey:
    """A fresh private key; ValueError names what is supported."""
    if algorithm == "ecdsa" and bits in _CURVES:
        return ec.generate_private_key(_CURVES[bits]())
    if algorithm == "rsa" and 2048 <= bits <= 8192:
        return rsa.generate_private_key(65537, bits)
    raise ValueError(f"key {algorithm} {bits} is not supported: use ecdsa 256, 384, 521 or rsa 2048 to 8192")


def issue(
    subject: Subject, purpose: Purpose, valid: timedelta, issuer: Issued | None = None, now: datetime | None = None
) -> Issued:
    """A new key and a certificate for it, signed by `issuer` or by itself."""
    start = now or datetime.now(UTC)
    key = make_key(subject.algorithm, subject.key_bits)
    name = x509.Name(
        [
            *(x509.NameAttribute(_NAME_OIDS[short], value) for short, value in subject.names.items()),
            *([x509.NameAttribute(NameOID.COMMON_NAME, subject.common_name)] if subject.common_name else []),
        ]
    )
    signer = issuer.key if issuer else key
    issuer_key = issuer.certificate.public_key() if issuer else key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - _CLOCK_SKEW)
        .not_valid_after(start + valid)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)  # type: ignore[arg-type]
        .add_extension(x509.BasicConstraints(ca=purpose is Purpose.CA, path_length=None), critical=True)
        .add_extension(_key_usage(purpose), critical=True)
    )
    if purpose is not Purpose.CA:
        builder = builder.add_extension(x509.ExtendedKeyUsage(_USAGES[purpose]), critical=False)
    if subject.hosts:
        names = [_general_name(host) for host in subject.hosts]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not subject.common_name)
    return Issued(builder.sign(signer, hashes.SHA256()), key)


def write(issued: Issued, certificate_path: Path, key_path: Path) -> None:
    """Write both as PEM, the key readable by its owner alone; the directory is made when it is missing."""
    certificate_path.parent.mkdir(parents=True, exist_ok=True)
    pem = issued.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    handle = os.open(key_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(pem)
    key_path.chmod(0o600)
    certificate_path.write_bytes(issued.certificate.public_bytes(serialization.Encoding.PEM))


def load(content: bytes) -> x509.Certificate:
    """The first certificate of a PEM text; ValueError when there is none."""
    try:
        return x509.load_pem_x509_certificate(content)
    except x509.InvalidVersion as error:
        raise ValueError(str(error)) from None


def read(certificate_path: Path, key_path: Path) -> Issued:
    """A certificate with its key; ValueError or OSError when a file is not one, or the two do not belong together."""
    certificate = load(certificate_path.read_bytes())
    try:
        key = serialization.load_pem_private_key(key_path.read_bytes(), None)
        public = certificate.public_key()
    except (TypeError, UnsupportedAlgorithm) as error:  # locked with a password, or of a curve that nobody uses
        raise ValueError(f"the key in {key_path} cannot be used: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ValueError(f"{key_path} holds a key of another kind than ECDSA or RSA")
    if key.public_key() != public:
        raise ValueError(f"the key in {key_path} does not belong to the certificate in {certificate_path}")
    return Issued(certificate, key)


def self_signed(hosts: Iterable[str], years: int) -> Issued:
    """What auto-TLS serves with, as etcd makes it: ECDSA P-521, organisation etcd, for server and client use."""
    subject = Subject("", tuple(hosts), {"O": "etcd"}, "ecdsa", 521)
    return issue(subject, Purpose.PEER, timedelta(days=365 * years))


def is_usable(certificate_path: Path, key_path: Path) -> bool:
    """Both files are there and whole, belong together, and the certificate has not expired."""
    try:
        return read(certificate_path, key_path).certificate.not_valid_after_utc > datetime.now(UTC)
    except (OSError, ValueError):
        return False


def revoked_serials(crl_path: Path) -> frozenset[int]:
    """Serial numbers listed in a CRL file, PEM or DER."""
    content = crl_path.read_bytes()
    load = x509.load_pem_x509_crl if content.lstrip().startswith(b"-----") else x509.load_der_x509_crl
    return frozenset(entry.serial_number for entry in load(content))


def expiry(certificate_path: Path) -> datetime:
    """When the first certificate of a PEM file stops being valid."""
    return load(certificate_path.read_bytes()).not_valid_after_utc


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """Host names and addresses of the subject alternative name; none where the extensions are no extensions."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return []
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return [*names.get_values_for_type(x509.DNSName), *addresses]


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(purpose: Purpose) -> x509.KeyUsage:
    is_ca = purpose is Purpose.CA
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
