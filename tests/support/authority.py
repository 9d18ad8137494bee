"""A certificate authority for tests: certificates good and bad, as files, and clients that show them."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from quorate.node import certificates
from quorate.node.certificates import Issued, Purpose, Subject

DAY = timedelta(days=1)


class Authority:
    """A CA and the files it hands out."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.name = name
        self.ca = certificates.issue(Subject(f"{name} CA"), Purpose.CA, 365 * DAY)
        self.ca_file = directory / f"{name}-ca.pem"
        certificates.write(self.ca, self.ca_file, directory / f"{name}-ca-key.pem")

    def files(
        self,
        file_name: str,
        subject: Subject,
        purpose: Purpose,
        valid: timedelta = DAY,
        now: datetime | None = None,
    ) -> tuple[str, str, Issued]:
        """Paths of a new certificate and its key, and both of them."""
        issued = certificates.issue(subject, purpose, valid, self.ca, now)
        paths = self.directory / f"{file_name}.pem", self.directory / f"{file_name}-key.pem"
        certificates.write(issued, *paths)
        return str(paths[0]), str(paths[1]), issued

    def revoke(self, path: Path, *revoked: Issued) -> str:
        """Write a list of revoked certificates."""
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.ca.certificate.subject)
        builder = builder.last_update(now).next_update(now + DAY)
        for issued in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(issued.certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(now).build())
        signed = builder.sign(self.ca.key, hashes.SHA256())
        path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        return str(path)

    def dialler(self, cert: str = "", key: str = "") -> ssl.SSLContext:
        """A client that trusts this CA and shows a certificate, if any."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        if cert:
            context.load_cert_chain(cert, key)
        return context

    def credentials(self, cert: str = "", key: str = "") -> grpc.ChannelCredentials:
        """The same for grpcio."""
        shown = (Path(key).read_bytes(), Path(cert).read_bytes()) if cert else (None, None)
        return grpc.ssl_channel_credentials(self.ca_file.read_bytes(), *shown)
