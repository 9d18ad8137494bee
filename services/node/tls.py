"""TLS towards clients and members: contexts from the settings, new files without a restart, and the judgement of peers.

Certificates are re-read when their files change, at the next handshake: Python calls a server context's SNI callback
for every handshake, with or without a server name, and a connection may be given another context there. What OpenSSL
cannot be told - allowed names, the members' address rule, serial numbers of a CRL as Go compares them - is judged right
after the handshake, before a byte of the connection is used.

`certificates` is imported where it is needed: its library takes 4 MiB, and most nodes neither make a certificate nor
have a list of revoked ones.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from quorate.node import flags, logs
from quorate.node.cipher_suites import CIPHER_SUITES
from quorate.node.config import Config
from quorate.node.tls_failures import explain

log = logs.named("tls")

CLIENT_ALPN: Final = ["http/1.1", "h2"]  # gRPC clients offer h2 alone; browsers and curl get HTTP/1.1

VERSIONS: Final = {"TLS1.2": ssl.TLSVersion.TLSv1_2, "TLS1.3": ssl.TLSVersion.TLSv1_3}


class PeerRefused(Exception):  # noqa: N818 - it names an outcome
    """The handshake was fine but the other side may not come in; the text says why."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """One side's TLS settings: towards clients, or towards members."""

    cert_file: str
    key_file: str
    client_cert_file: str  # shown when dialling; empty: the server's own
    client_key_file: str
    trusted_ca_file: str
    crl_file: str
    client_cert_auth: bool
    allowed_cns: tuple[str, ...]
    allowed_hostnames: tuple[str, ...]
    self_made: bool  # auto-TLS: encrypts and identifies nobody, so a dialling side does not verify
    verify_address: bool  # the dialling side's address must stand in its certificate
    cipher_suites: tuple[str, ...]
    min_version: str
    max_version: str
    domain: str = ""  # what those dialled have to have a certificate for, in place of the host of their URL

    @property
    def enabled(self) -> bool:
        return bool(self.cert_file and self.key_file)

    @property
    def demands_certificate(self) -> bool:
        """Giving a trusted CA alone also turns verification on, as in etcd."""
        return self.client_cert_auth or bool(self.trusted_ca_file)

    @property
    def paths(self) -> list[str]:
        """The files whose change makes a new context."""
        named = (self.cert_file, self.key_file, self.trusted_ca_file)
        return [path for path in named if path]


def client_side(config: Config) -> TlsFiles:
    """TLS of the client port."""
    cert_file, key_file = config.cert_file, config.key_file
    if config.auto_tls and not cert_file:
        cert_file, key_file = auto_certificate(config, "client", config.listen_client_urls)
    return TlsFiles(
        cert_file=cert_file,
        key_file=key_file,
        client_cert_file=config.client_cert_file,
        client_key_file=config.client_key_file,
        trusted_ca_file=config.trusted_ca_file,
        crl_file=config.client_crl_file,
        client_cert_auth=config.client_cert_auth,
        allowed_cns=(),
        self_made=config.auto_tls and not config.cert_file,
        allowed_hostnames=tuple(config.client_cert_allowed_hostname),
        verify_address=False,
        cipher_suites=tuple(config.cipher_suites),
        min_version=config.tls_min_version,
        max_version=config.tls_max_version,
    )


def peer_side(config: Config) -> TlsFiles:
    """TLS of the peer port and of dialling members."""
    cert_file, key_file = config.peer_cert_file, config.peer_key_file
    if config.peer_auto_tls and not cert_file:
        cert_file, key_file = auto_certificate(config, "peer", config.listen_peer_urls)
    return TlsFiles(
        domain="" if config.peer_trusted_ca_file else config.discovery_srv,  # DNS alone proves nothing
        cert_file=cert_file,
        key_file=key_file,
        client_cert_file=config.peer_client_cert_file,
        client_key_file=config.peer_client_key_file,
        trusted_ca_file=config.peer_trusted_ca_file,
        crl_file=config.peer_crl_file,
        client_cert_auth=config.peer_client_cert_auth,
        allowed_cns=tuple(config.peer_cert_allowed_cn),
        allowed_hostnames=tuple(config.peer_cert_allowed_hostname),
        self_made=config.peer_auto_tls and not config.peer_cert_file,
        verify_address=not config.peer_skip_client_san_verification,
        cipher_suites=tuple(config.cipher_suites),
        min_version=config.tls_min_version,
        max_version=config.tls_max_version,
    )


def auto_certificate(config: Config, side: str, urls: list[str]) -> tuple[str, str]:
    """Paths of the certificate and key that auto-TLS serves with; made when there is none that can be used."""
    directory = Path(config.data_dir) / "fixtures" / side
    certificate_path, key_path = directory / "cert.pem", directory / "key.pem"
    from quorate.node import certificates

    if not certificates.is_usable(certificate_path, key_path):
        hosts = sorted({url.split("://", 1)[1].rpartition(":")[0].strip("[]") for url in urls if "://" in url})
        made = certificates.self_signed(hosts, config.self_signed_cert_validity)
        certificates.write(made, certificate_path, key_path)
    return str(certificate_path), str(key_path)


def server_context(files: TlsFiles, alpn: list[str] | None = None) -> ssl.SSLContext:
    """A context for a listener that follows changes of its files; OSError, ssl.SSLError or ValueError on bad files."""
    current = _Current(lambda: _bare_server_context(files, alpn), files.paths)
    outer = _bare_server_context(files, alpn)

    def renew(connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = current.context()

    outer.sni_callback = renew
    return outer


class DialContexts:
    """The context to dial members with: made when it is first asked for, re-made when its files change.

    Without any files it trusts the system's authorities and shows no certificate, as etcd does.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._certificate = files.client_cert_file or files.cert_file
        self._key = files.client_key_file or files.key_file
        self._current: _Current | None = None

    def context(self) -> ssl.SSLContext:
        """OSError, ssl.SSLError or ValueError when the files were never good."""
        if self._current is None:
            paths = [path for path in (self._certificate, self._key, self._files.trusted_ca_file) if path]
            self._current = _Current(lambda: _dial_context(self._files, self._certificate, self._key), paths)
        return self._current.context()


class _Current:
    """A context and the state of the files it was made from."""

    def __init__(self, make: Callable[[], ssl.SSLContext], paths: list[str]) -> None:
        self._make = make
        self._paths = [Path(path) for path in paths]
        self._stamp = self._stamps()
        self._context = make()

    def context(self) -> ssl.SSLContext:
        """For the files as they are; the last good one while they are of no use, which the log says once."""
        stamp = self._stamps()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._context = self._make()
            except (OSError, ValueError) as error:
                log.warn("keeping the last good certificates", files=[*map(str, self._paths)], error=explain(error))
            else:
                log.info("loaded new certificates", files=[*map(str, self._paths)])
        return self._context

    def _stamps(self) -> list[tuple[int, int, int]]:
        return [_stamp(path) for path in self._paths]


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes when a file is written or replaced; zeros while there is none."""
    try:
        state = path.stat()
    except OSError:
        return (0, 0, 0)
    return (state.st_mtime_ns, state.st_ino, state.st_size)


def check_peer(files: TlsFiles, connection: Any, address: str | None) -> str:
    """Judge the other side right after the handshake: the verified common name ("" without a certificate).

    `connection` is the ssl object of the transport, `address` the remote address; None if it was dialled, as its name
    has been compared with the URL then. Raises PeerRefused with the reason.
    """
    shown = connection.getpeercert()
    if not shown:
        return ""
    serial = int(shown["serialNumber"], 16)
    if files.crl_file and serial in _revoked(files.crl_file):
        raise PeerRefused(f"transport: certificate serial {serial:x} revoked")
    common_name = common_name_of(shown)
    if files.allowed_cns and common_name not in files.allowed_cns:
        raise PeerRefused("client certificate authentication failed")
    names = [value for kind, value in shown.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
    if files.allowed_hostnames and not any(_names_host(names, host) for host in files.allowed_hostnames):
        raise PeerRefused("client certificate authentication failed")
    by_address = files.verify_address and not files.allowed_cns and not files.allowed_hostnames
    if address is not None and by_address and names:
        _check_address(names, address)
    return common_name


def _revoked(path: str) -> frozenset[int]:
    """The list as it is now. Who cannot be looked up is not let in."""
    from quorate.node import certificates

    try:
        return certificates.revoked_serials(Path(path))
    except (OSError, ValueError) as error:
        raise PeerRefused(f"cannot read the list of revoked certificates {path}: {error}") from error


def common_name_of(shown: dict[str, Any]) -> str:
    """The common name of a certificate as `getpeercert` shows it."""
    for attributes in shown.get("subject", ()):
        for kind, value in attributes:
            if kind == "commonName":
                return str(value)
    return ""


def check_settings(config: Config) -> None:
    """ValueError with one sentence, etcd's where it has one, for settings that cannot work, before anything is opened.

    Makes the certificates of auto-TLS when there are none.
    """
    unknown = [suite for suite in config.cipher_suites if suite not in CIPHER_SUITES]
    if unknown:
        raise ValueError(f'unexpected TLS cipher suite "{unknown[0]}"')
    if config.peer_cert_allowed_cn and config.peer_cert_allowed_hostname:
        raise ValueError("AllowedCNs and AllowedHostnames are mutually exclusive")
    peer, client = peer_side(config), client_side(config)
    for urls, files, side in ((config.listen_peer_urls, peer, "peer"), (config.listen_client_urls, client, "client")):
        _check_files(files, side)
        encrypted = [url for url in urls if flags.is_encrypted(url)]
        if encrypted and not files.enabled:
            address = encrypted[0].partition("://")[2]
            raise ValueError(f"cannot listen on TLS for {address}: KeyFile and CertFile are not presented")


def _check_files(files: TlsFiles, side: str) -> None:
    """Every named file can be read and is what it should be."""
    prefix = "peer-" if side == "peer" else ""
    for cert_file, key_file in ((files.cert_file, files.key_file), (files.client_cert_file, files.client_key_file)):
        if bool(cert_file) != bool(key_file):
            raise ValueError(f"KeyFile and CertFile must both be present[key: {key_file}, cert: {cert_file}]")
    for path in (*files.paths, files.client_cert_file, files.client_key_file, files.crl_file):
        if path:
            try:
                Path(path).read_bytes()
            except OSError as error:
                raise ValueError(f"open {path}: {(error.strerror or str(error)).lower()}") from error
    if files.crl_file:
        from quorate.node import certificates

        try:
            certificates.revoked_serials(Path(files.crl_file))
        except ValueError:
            sentence = "is not a list of revoked certificates in PEM or DER"
            raise ValueError(f"{files.crl_file} (--{side}-crl-file) {sentence}") from None
    if files.trusted_ca_file:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(files.trusted_ca_file)
        except OSError:  # an ssl.SSLError is one
            sentence = "holds no certificate of an authority in PEM"
            raise ValueError(f"{files.trusted_ca_file} (--{prefix}trusted-ca-file) {sentence}") from None
    if files.enabled:
        _check_pair(files.cert_file, files.key_file, prefix)
    if files.enabled and files.client_cert_file:
        _check_pair(files.client_cert_file, files.client_key_file, f"{prefix}client-")


def _check_pair(cert_file: str, key_file: str, prefix: str) -> None:
    """A certificate and its key can be shown; else a sentence that names the one of them to look at."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert_file, key_file, _no_passphrase)
    except Locked:
        raise ValueError(f"{key_file} (--{prefix}key-file) is locked with a passphrase; take that off it") from None
    except OSError as error:
        shown = f"{cert_file} (--{prefix}cert-file)"
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise ValueError(f"{key_file} (--{prefix}key-file) is not the key of {shown}") from None
        if getattr(error, "reason", None):
            raise ValueError(f"{shown} cannot be used: {explain(error)}") from None
        from quorate.node import certificates

        try:
            certificates.load(Path(cert_file).read_bytes())
        except ValueError:
            raise ValueError(f"{shown} holds no certificate in PEM") from None
        raise ValueError(f"{key_file} (--{prefix}key-file) holds no private key in PEM") from None


class Locked(ValueError):  # noqa: N818 - it names the finding
    """A private key asks for a passphrase, which nobody can be asked for."""


def _no_passphrase() -> str:
    raise Locked("the private key is locked with a passphrase")


def _check_address(names: list[str], address: str) -> None:
    """etcd's rule for members: the remote address stands in the certificate, or a name in it resolves to the address,
    or the address resolves back to a name in it."""
    if any(_same_address(name, address) for name in names):
        return
    hosts = [name for name in names if not _is_address(name)]
    for host in hosts:
        if host.startswith("*."):
            continue
        try:
            found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
        except OSError:
            continue
        if any(_same_address(str(candidate), address) for candidate in found):
            return
    try:
        reverse = socket.gethostbyaddr(address)
    except OSError:
        reverse = ("", [], [])
    if any(name and _names_host(hosts, name) for name in (reverse[0], *reverse[1])):
        return
    raise PeerRefused(f'tls: "{address}" does not match any of DNSNames {hosts}')


def _names_host(names: list[str], host: str) -> bool:
    """Whether a name of the certificate stands for `host`, with one leading wildcard label at most (RFC 6125 6.4.3)."""
    wanted = host.rstrip(".").lower()
    for name in names:
        pattern = name.rstrip(".").lower()
        if pattern == wanted or (pattern.startswith("*.") and wanted.partition(".")[2] == pattern[2:]):
            return True
    return False


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _same_address(left: str, right: str) -> bool:
    return _is_address(left) and _is_address(right) and ipaddress.ip_address(left) == ipaddress.ip_address(right)


def _bare_server_context(files: TlsFiles, alpn: list[str] | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _limit(context, files)
    context.load_cert_chain(files.cert_file, files.key_file, _no_passphrase)
    if files.demands_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
        if files.trusted_ca_file:
            context.load_verify_locations(files.trusted_ca_file)
        else:
            context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
    if alpn:
        context.set_alpn_protocols(alpn)
    # No resumption: each connection is judged by the certificates as they are now.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    return context


class _DomainContext(ssl.SSLContext):
    """A dialling side that asks for, and compares, one name whatever host it dials."""

    domain = ""

    def wrap_socket(self, *arguments: Any, **named: Any) -> ssl.SSLSocket:
        return super().wrap_socket(*arguments, **named | {"server_hostname": self.domain})

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        return super().wrap_bio(*arguments, **named | {"server_hostname": self.domain})


def _domain_context(domain: str) -> ssl.SSLContext:
    context = _DomainContext(ssl.PROTOCOL_TLS_CLIENT)
    context.domain = domain
    return context


def _dial_context(files: TlsFiles, certificate: str, key: str) -> ssl.SSLContext:
    if files.domain and not files.self_made:
        context: ssl.SSLContext = _domain_context(files.domain)
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _limit(context, files)
    if files.self_made:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif files.trusted_ca_file:
        context.load_verify_locations(files.trusted_ca_file)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if certificate and key:
        context.load_cert_chain(certificate, key, _no_passphrase)
    return context


def _limit(context: ssl.SSLContext, files: TlsFiles) -> None:
    if files.min_version:
        context.minimum_version = VERSIONS[files.min_version]
    if files.max_version:
        context.maximum_version = VERSIONS[files.max_version]
    names = [CIPHER_SUITES[suite] for suite in files.cipher_suites]
    wanted = ":".join(name for name in names if name)
    if wanted:
        context.set_ciphers(wanted)
