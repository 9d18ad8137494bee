"""`quorateutl cert`: making, showing and checking the certificates of a cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import click
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from quorate.ctl import cfssl
from quorate.node import certificates
from quorate.node.certificates import Issued, Purpose, Subject

CA_DAYS = 3650
DAYS = 365
LEAVES = [Purpose.SERVER.value, Purpose.PEER.value, Purpose.CLIENT.value]

Result = TypeVar("Result")

directory_argument = click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
key_option = click.option("--key", "key", default="ecdsa:256", show_default=True, help="ecdsa:BITS or rsa:BITS.")


@click.group("cert")
def cert() -> None:
    """Make, show and check certificates."""


@cert.command("cluster", short_help="Everything a cluster needs, in one go.")
@directory_argument
@click.option("--member", "members", multiple=True, required=True, help="NAME=HOST[,HOST...], once per member.")
@click.option("--client", "clients", multiple=True, default=("client",), show_default=True, help="Common name.")
@click.option("--days", default=DAYS, show_default=True, help="Validity of all but the CA.")
@key_option
def cluster(directory: Path, members: tuple[str, ...], clients: tuple[str, ...], days: int, key: str) -> None:
    """Everything a cluster needs, in one go: a CA (or the one already in DIRECTORY), a server and a peer certificate
    for each member, and client certificates."""
    authority = _authority(directory, key)
    for member in members:
        name, separator, hosts = member.partition("=")
        if not separator or not hosts:
            raise click.BadParameter(f'"{member}" is not NAME=HOST[,HOST...]', param_hint="--member")
        named = tuple(dict.fromkeys([*hosts.split(","), name, "localhost", "127.0.0.1", "::1"]))
        for purpose in (Purpose.SERVER, Purpose.PEER):
            _issue(directory, f"{name}-{purpose}", _subject(name, named, key), purpose, days, authority)
    for name in clients:
        _issue(directory, name, _subject(name, (), key), Purpose.CLIENT, days, authority)


@cert.command("ca")
@directory_argument
@click.option("--cn", default="quorate CA", show_default=True, help="Common name.")
@click.option("--days", default=CA_DAYS, show_default=True)
@click.option("--csr", type=click.Path(path_type=Path, exists=True), help="cfssl request (JSON) instead of --cn/--key.")
@key_option
def ca(directory: Path, cn: str, days: int, csr: Path | None, key: str) -> None:
    """A certificate authority: DIRECTORY/ca.pem and ca-key.pem."""
    if (directory / "ca.pem").exists():
        raise click.ClickException(f"{directory / 'ca.pem'} exists: a new CA would void every certificate of it")
    subject, valid = _subject(cn, (), key), timedelta(days=days)
    if csr:
        request = _read(lambda: cfssl.read_request(csr))
        subject, valid = request.subject, request.expiry or valid
    _save(directory, "ca", _make(subject, Purpose.CA, valid, None))


@cert.command("issue", short_help="A certificate signed by the CA in DIRECTORY.")
@directory_argument
@click.argument("name")
@click.option("--profile", type=click.Choice(LEAVES), help="What the certificate is for.")
@click.option("--hosts", default="", help="Host names and addresses, separated by commas.")
@click.option("--cn", default="", help="Common name; default NAME.")
@click.option("--days", default=DAYS, show_default=True)
@click.option("--csr", type=click.Path(path_type=Path, exists=True), help="cfssl request (JSON).")
@click.option("--config", type=click.Path(path_type=Path, exists=True), help="cfssl signing configuration (JSON).")
@click.option("--config-profile", default="default", show_default=True, help="Profile of --config.")
@key_option
def issue(
    directory: Path,
    name: str,
    profile: str | None,
    hosts: str,
    cn: str,
    days: int,
    csr: Path | None,
    config: Path | None,
    config_profile: str,
    key: str,
) -> None:
    """A certificate signed by the CA in DIRECTORY: NAME.pem and NAME-key.pem."""
    if profile is None and config is None:
        raise click.UsageError("say what the certificate is for: --profile server, peer or client")
    subject, valid = _subject(cn or name, tuple(host for host in hosts.split(",") if host), key), timedelta(days=days)
    if csr:
        subject = _read(lambda: cfssl.read_request(csr)).subject
    purpose = Purpose(profile) if profile else Purpose.PEER
    if config:
        signing = _read(lambda: cfssl.read_profile(config, config_profile))
        purpose, valid = (Purpose(profile) if profile else signing.purpose), signing.expiry
    authority = _existing_authority(directory)
    _save(directory, name, _make(subject, purpose, valid, authority))


@cert.command("show")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
def show(files: tuple[Path, ...]) -> None:
    """What is in certificate files."""
    for path in files:
        for certificate in _certificates(path):
            click.echo(f"{path}:")
            for label, value in _read(partial(_description, certificate)):
                click.echo(f"  {label}: {value}")


@cert.command("check", short_help="Complain about certificates that are of no use.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--ca", "ca_file", type=click.Path(path_type=Path, exists=True), help="CA that must have signed them.")
@click.option("--days", default=30, show_default=True, help="Complain when less than this is left.")
def check(files: tuple[Path, ...], ca_file: Path | None, days: int) -> None:
    """Complain about certificates that are expired, expire soon, or were not signed by the CA; exit status 1 then."""
    now = datetime.now(UTC)
    sound = True
    for path in files:
        for certificate in _certificates(path):
            problem = _read(partial(_problem, certificate, now, timedelta(days=days), ca_file))
            left = certificate.not_valid_after_utc - now
            click.echo(f"{path}: {problem or f'good for {left.days} days'}", err=bool(problem))
            sound = sound and not problem
    sys.exit(0 if sound else 1)


def _problem(certificate: x509.Certificate, now: datetime, least: timedelta, ca_file: Path | None) -> str:
    if certificate.not_valid_after_utc <= now:
        return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
    if certificate.not_valid_before_utc > now:
        return f"not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M}"
    if ca_file:
        try:
            certificate.verify_directly_issued_by(_certificates(ca_file)[0])
        except (InvalidSignature, ValueError, TypeError) as error:
            return f"not signed by {ca_file} ({type(error).__name__})"
    if certificate.not_valid_after_utc - now < least:
        return f"expires on {certificate.not_valid_after_utc:%Y-%m-%d}"
    return ""


def _description(certificate: x509.Certificate) -> list[tuple[str, str]]:
    key = certificate.public_key()
    kind = type(key).__name__
    if isinstance(key, ec.EllipticCurvePublicKey):
        kind = f"ECDSA {key.key_size}"
    elif isinstance(key, rsa.RSAPublicKey):
        kind = f"RSA {key.key_size}"
    is_authority = any(
        extension.value.ca for extension in certificate.extensions if isinstance(extension.value, x509.BasicConstraints)
    )
    return [
        ("subject", certificate.subject.rfc4514_string()),
        ("issuer", certificate.issuer.rfc4514_string()),
        ("serial", f"{certificate.serial_number:x}"),
        (
            "valid",
            f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} to {certificate.not_valid_after_utc:%Y-%m-%d %H:%M}",
        ),
        ("hosts", ", ".join(certificates.hosts_of(certificate)) or "none"),
        ("key", kind),
        ("ca", "yes" if is_authority else "no"),
    ]


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (ValueError, x509.InvalidVersion):
        raise click.ClickException(f"{path} holds no certificate in PEM") from None


def _authority(directory: Path, key: str) -> Issued:
    if (directory / "ca.pem").exists():
        return _existing_authority(directory)
    made = _make(_subject("quorate CA", (), key), Purpose.CA, timedelta(days=CA_DAYS), None)
    _save(directory, "ca", made)
    return made


def _existing_authority(directory: Path) -> Issued:
    return _read(lambda: certificates.read(directory / "ca.pem", directory / "ca-key.pem"))


def _issue(directory: Path, name: str, subject: Subject, purpose: Purpose, days: int, authority: Issued) -> None:
    _save(directory, name, _make(subject, purpose, timedelta(days=days), authority))


def _subject(common_name: str, hosts: tuple[str, ...], key: str) -> Subject:
    algorithm, _, bits = key.partition(":")
    if not bits.isdigit():
        raise click.BadParameter(f'"{key}" is not ecdsa:BITS or rsa:BITS', param_hint="--key")
    return Subject(common_name, hosts, {}, algorithm, int(bits))


def _make(subject: Subject, purpose: Purpose, valid: timedelta, authority: Issued | None) -> Issued:
    return _read(lambda: certificates.issue(subject, purpose, valid, authority))


NO_CERTIFICATE: Final = (
    *(x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType, UnsupportedAlgorithm),
)


def _read(step: Callable[[], Result]) -> Result:
    """What `step` returns; what is wrong with its files or arguments as one sentence."""
    try:
        return step()
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {(error.strerror or str(error)).lower()}") from None
    except (ValueError, *NO_CERTIFICATE) as error:
        raise click.ClickException(str(error)) from None


def _save(directory: Path, name: str, issued: Issued) -> None:
    paths = directory / f"{name}.pem", directory / f"{name}-key.pem"
    _read(lambda: certificates.write(issued, *paths))
    click.echo(f"{paths[0]}  {paths[1]}")
