"""`quorateutl cert`, used as an operator uses it."""

import json
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from quorate.ctl.quorateutl import main
from quorate.node import certificates


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["cert", *map(str, arguments)])


def test_one_command_makes_all_certificates_of_a_cluster(tmp_path: Path) -> None:
    made = run(
        "cluster", tmp_path, "--member", "m1=10.0.0.1,m1.example", "--member", "m2=10.0.0.2", "--client", "alice"
    )
    assert made.exit_code == 0, made.output
    names = ["ca", "m1-server", "m1-peer", "m2-server", "m2-peer", "alice"]
    assert sorted(f"{n}{end}" for n in names for end in (".pem", "-key.pem")) == sorted(
        p.name for p in tmp_path.iterdir()
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for name in names[1:]:
        context.load_cert_chain(tmp_path / f"{name}.pem", tmp_path / f"{name}-key.pem")
    server = certificates.read(tmp_path / "m1-server.pem", tmp_path / "m1-server-key.pem")
    assert {"10.0.0.1", "m1.example", "localhost", "127.0.0.1"} <= set(certificates.hosts_of(server.certificate))
    checked = run("check", "--ca", tmp_path / "ca.pem", *(tmp_path / f"{name}.pem" for name in names[1:]))
    assert checked.exit_code == 0, checked.output
    again = run("cluster", tmp_path, "--member", "m3=10.0.0.3")
    assert again.exit_code == 0
    assert run("check", "--ca", tmp_path / "ca.pem", tmp_path / "m3-peer.pem").exit_code == 0


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    made = run("cluster", tmp_path / "file" / "certs", "--member", "m1=10.0.0.1")
    assert (made.exit_code, made.output) == (1, f"Error: {tmp_path}/file/certs: not a directory\n")


def test_the_files_of_a_guide_written_for_cfssl_serve_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "ca-csr.json").write_text(
        json.dumps({"CN": "My own CA", "key": {"algo": "rsa", "size": 2048}, "names": [{"C": "US", "O": "My Company"}]})
    )
    (tmp_path / "ca-config.json").write_text(
        json.dumps(
            {
                "signing": {
                    "default": {"expiry": "43800h"},
                    "profiles": {
                        "server": {"expiry": "100h", "usages": ["signing", "key encipherment", "server auth"]},
                        "peer": {"usages": ["signing", "key encipherment", "server auth", "client auth"]},
                    },
                }
            }
        )
    )
    (tmp_path / "server.json").write_text(
        json.dumps({"CN": "coreos1", "hosts": ["10.0.0.68", "ext.example.com"], "key": {"algo": "ecdsa", "size": 256}})
    )
    assert run("ca", tmp_path, "--csr", tmp_path / "ca-csr.json").exit_code == 0
    issued = run(
        "issue", tmp_path, "coreos1", "--csr", tmp_path / "server.json", "--config", tmp_path / "ca-config.json",
        "--config-profile", "server",
    )  # fmt: skip
    assert issued.exit_code == 0, issued.output
    shown = run("show", tmp_path / "coreos1.pem").output
    assert "subject: CN=coreos1" in shown
    assert "hosts: ext.example.com, 10.0.0.68" in shown
    assert "issuer: CN=My own CA,O=My Company,C=US" in shown
    certificate = x509.load_pem_x509_certificate((tmp_path / "coreos1.pem").read_bytes())
    assert (
        100 * 3600 <= (certificate.not_valid_after_utc - certificate.not_valid_before_utc).total_seconds() < 101 * 3600
    )
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert ["serverAuth"] == [usage._name for usage in usages]


def test_what_expires_soon_or_comes_from_another_ca_fails_the_check(tmp_path: Path) -> None:
    assert run("cluster", tmp_path / "a", "--member", "m=h", "--days", "5").exit_code == 0
    assert run("cluster", tmp_path / "b", "--member", "m=h").exit_code == 0
    soon = run("check", tmp_path / "a" / "m-peer.pem")
    assert soon.exit_code == 1
    assert "expires on" in soon.output
    assert run("check", "--days", "1", tmp_path / "a" / "m-peer.pem").exit_code == 0
    stranger = run("check", "--ca", tmp_path / "b" / "ca.pem", "--days", "1", tmp_path / "a" / "m-peer.pem")
    assert stranger.exit_code == 1
    assert "not signed by" in stranger.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["cluster", "d", "--member", "m1"], "is not NAME=HOST"),
        (["cluster", "d", "--member", "m1=h", "--key", "dsa:1024"], "is not supported: use ecdsa"),
        (["issue", "d", "x"], "--profile"),
        (["issue", "d", "x", "--profile", "server"], "ca.pem"),
    ],
)
def test_a_wrong_call_is_answered_with_one_sentence(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    result = run(arguments[0], tmp_path / arguments[1], *arguments[2:])
    assert result.exit_code != 0
    assert sentence in result.output
    assert "Traceback" not in result.output


def test_a_ca_is_never_replaced(tmp_path: Path) -> None:
    assert run("ca", tmp_path).exit_code == 0
    second = run("ca", tmp_path)
    assert second.exit_code == 1
    assert "exists" in second.output


def test_a_certificate_without_constraints_is_shown_and_one_with_a_broken_key_is_refused(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "plain")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 5, now, now + timedelta(days=90))
    plain = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    (tmp_path / "plain.pem").write_text(ssl.DER_cert_to_PEM_cert(plain))
    shown = run("show", tmp_path / "plain.pem")
    assert shown.exit_code == 0, shown.output
    assert "ca: no" in shown.output
    point = key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    (tmp_path / "bad.pem").write_text(ssl.DER_cert_to_PEM_cert(plain.replace(point, b"\4" + bytes(64))))
    refused = run("show", tmp_path / "bad.pem")
    assert refused.exit_code == 1
    assert refused.output.splitlines()[-1].startswith("Error: ")
