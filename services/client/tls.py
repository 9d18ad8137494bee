"""Certificates and trust of a connection."""

import errno
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
from cryptography import x509

from quorate.client.errors import UNAVAILABLE, EtcdError

FIRST_CONTACT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files; without `ca` the system's authorities are trusted, without `cert` and `key` the client is anonymous.

    `server_name` is what certificates have to be for, in place of the host of the endpoint. `skip_verify` trusts
    whatever certificate the server shows at the first contact. For tests only.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    skip_verify: bool = False
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """What a channel needs; OSError for a file that cannot be read or is not what it is named for."""
        self._check()
        return _credentials(_bytes(self.ca) or _system_authorities(), self)

    def _check(self) -> None:
        """gRPC itself would say on stderr what is wrong, in its own words, and never connect."""
        for path in filter(None, (self.ca, self.cert, self.key)):
            Path(path).open("rb").close()  # an error names the file here, and does not in OpenSSL
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if self.ca:
                context.load_verify_locations(self.ca)
        except ssl.SSLError:
            raise OSError(errno.EINVAL, "no certificate of an authority in PEM", self.ca) from None
        if not (self.cert and self.key):
            return
        try:
            context.load_cert_chain(self.cert, self.key, _no_passphrase)
        except _LockedError:
            raise OSError(errno.EINVAL, "locked with a passphrase; take that off the key", self.key) from None
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise OSError(errno.EINVAL, f"not the key of {self.cert}", self.key) from None
            try:
                x509.load_pem_x509_certificate(Path(self.cert).read_bytes())
            except (ValueError, x509.InvalidVersion):
                raise OSError(errno.EINVAL, "no certificate in PEM", self.cert) from None
            raise OSError(errno.EINVAL, "no private key in PEM", self.key) from None

    def options(self) -> Sequence[tuple[str, str]]:
        """Options of a channel with these credentials."""
        return [("grpc.ssl_target_name_override", self.server_name)] if self.server_name else []

    def trusting(self, target: str) -> tuple[grpc.ChannelCredentials, Sequence[tuple[str, str]]]:
        """Credentials that trust what `target` (host:port) shows now, and channel options with the name it goes by.

        EtcdError when nobody answers there.
        """
        host, _, port = target.rpartition(":")
        if not port.isascii() or not port.isdigit():
            raise EtcdError(UNAVAILABLE, f"address {target}: missing port in address")
        shown = self._shown_certificate(host.strip("[]"), int(port))
        options = [("grpc.ssl_target_name_override", name) for name in _names(shown)[:1]]
        return _credentials(shown, self), options

    def _shown_certificate(self, host: str, port: int) -> bytes:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if self.cert:
            context.load_cert_chain(self.cert, self.key)
        try:
            with (
                socket.create_connection((host, port), timeout=FIRST_CONTACT_S) as plain,
                context.wrap_socket(plain, server_hostname=host) as secured,
            ):
                shown = secured.getpeercert(binary_form=True)
        except OSError as error:
            raise EtcdError(UNAVAILABLE, f"{host}:{port}: {error}") from error
        assert shown is not None, "a TLS server always shows a certificate"
        return ssl.DER_cert_to_PEM_cert(shown).encode()


class _LockedError(Exception):
    """A private key asks for a passphrase."""


def _no_passphrase() -> str:
    raise _LockedError


def _credentials(roots: bytes | None, files: TlsFiles) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(roots, _bytes(files.key), _bytes(files.cert))


def _bytes(path: str | None) -> bytes | None:
    return Path(path).read_bytes() if path else None


def _system_authorities() -> bytes | None:
    path = ssl.get_default_verify_paths().cafile
    return Path(path).read_bytes() if path and Path(path).exists() else None


def _names(certificate: bytes) -> list[str]:
    try:
        names = x509.load_pem_x509_certificate(certificate).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType):
        return []
    dns = names.value.get_values_for_type(x509.DNSName)
    return dns or [str(address) for address in names.value.get_values_for_type(x509.IPAddress)]
