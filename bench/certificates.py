"""Certificates of a benchmark: one CA, one for the servers and one for the clients; the flags and contexts for them."""

import ssl
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from quorate.node import certificates
from quorate.node.certificates import Purpose, Subject

ALPN = ["h2"]


@dataclass(frozen=True, slots=True)
class Files:
    """PEM files of a client: the CA it trusts, and what it shows (nothing when empty)."""

    ca: str
    cert: str = ""
    key: str = ""

    def context(self) -> ssl.SSLContext:
        """TLS as a gRPC client speaks it."""
        context = ssl.create_default_context(cafile=self.ca)
        context.set_alpn_protocols(ALPN)
        if self.cert:
            context.load_cert_chain(self.cert, self.key)
        return context

    def arguments(self) -> tuple[str, ...]:
        """The options of `bench.load` and `bench.handshakes` for them."""
        shown = ("--client-cert", self.cert, "--client-key", self.key) if self.cert else ()
        return ("--cacert", self.ca, *shown)


def make(directory: Path, hosts: tuple[str, ...]) -> tuple[tuple[str, ...], Files]:
    """Flags of servers that demand client certificates, and the files of a client. ECDSA P-256, for a day."""
    directory.mkdir(parents=True, exist_ok=True)
    day = timedelta(days=1)
    ca = certificates.issue(Subject("bench CA"), Purpose.CA, day)
    server = certificates.issue(Subject("server", hosts), Purpose.SERVER, day, ca)
    client = certificates.issue(Subject("client"), Purpose.CLIENT, day, ca)
    paths = {}
    for name, issued in (("ca", ca), ("server", server), ("client", client)):
        paths[name] = (directory / f"{name}.pem", directory / f"{name}-key.pem")
        certificates.write(issued, *paths[name])
    ca_file, (server_cert, server_key) = str(paths["ca"][0]), map(str, paths["server"])
    flags = (
        *("--cert-file", server_cert, "--key-file", server_key),
        *("--client-cert-auth", "--trusted-ca-file", ca_file),
    )
    return flags, Files(ca_file, *map(str, paths["client"]))
