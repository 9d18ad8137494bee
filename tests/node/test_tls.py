"""TLS by real handshakes in memory: who gets in, who does not, and new files without a restart."""

import logging
import re
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from quorate.node import certificates, tls
from quorate.node.certificates import Purpose, Subject
from quorate.node.config import Config
from tests.support.authority import DAY, Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "good")


def server_files(authority: Authority, **settings: Any) -> tls.TlsFiles:
    cert, key, _ = authority.files("server", Subject("server", ("localhost", "127.0.0.1")), Purpose.SERVER)
    given: dict[str, Any] = {
        "name": "m",
        "data_dir": str(authority.directory / "m"),
        "cert_file": cert,
        "key_file": key,
        "trusted_ca_file": str(authority.ca_file),
        "client_cert_auth": True,
        **settings,
    }
    return tls.client_side(Config(**given))


def shake(
    server: ssl.SSLContext, client: ssl.SSLContext, host: str = "localhost"
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """A whole handshake in memory, with one byte each way so that TLS 1.3 judges the client too."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    served = server.wrap_bio(to_server, to_client, server_side=True)
    dialled = client.wrap_bio(to_client, to_server, server_hostname=host)
    waiting = [dialled.do_handshake, served.do_handshake]
    for _ in range(10):
        for step in list(waiting):
            try:
                step()
                waiting.remove(step)
            except ssl.SSLWantReadError:
                pass
    assert not waiting, "the handshake did not end"
    served.write(b"s")
    assert dialled.read(1) == b"s"
    return served, dialled


def test_a_verified_client_comes_in_under_its_common_name(authority: Authority) -> None:
    files = server_files(authority)
    cert, key, _ = authority.files("alice", Subject("alice"), Purpose.CLIENT)
    served, _ = shake(tls.server_context(files), authority.dialler(cert, key))
    assert tls.check_peer(files, served, "127.0.0.1") == "alice"


def test_a_client_without_certificate_is_refused_where_one_is_demanded(authority: Authority) -> None:
    with pytest.raises(ssl.SSLError, match=r"PEER_DID_NOT_RETURN_A_CERTIFICATE|peer did not return"):
        shake(tls.server_context(server_files(authority)), authority.dialler())


def test_a_trusted_ca_alone_demands_a_certificate(authority: Authority) -> None:
    assert server_files(authority, client_cert_auth=False).demands_certificate


def test_certificates_of_another_ca_or_another_time_are_refused(authority: Authority, tmp_path: Path) -> None:
    context = tls.server_context(server_files(authority))
    stranger = Authority(tmp_path, "other")
    long_ago = datetime.now(UTC) - 30 * DAY
    cases = {
        "unknown": stranger.files("mallory", Subject("alice"), Purpose.CLIENT),
        "expired": authority.files("late", Subject("alice"), Purpose.CLIENT, DAY, long_ago),
        "not yet valid": authority.files("early", Subject("alice"), Purpose.CLIENT, DAY, datetime.now(UTC) + DAY),
    }
    for cert, key, _ in cases.values():
        with pytest.raises(ssl.SSLError):
            shake(context, authority.dialler(cert, key))


def test_a_client_does_not_accept_a_server_for_another_host(authority: Authority) -> None:
    context = tls.server_context(server_files(authority, client_cert_auth=False, trusted_ca_file=""))
    with pytest.raises(ssl.SSLCertVerificationError, match=r"mismatch|not valid for"):
        shake(context, authority.dialler(), "elsewhere.example")


def test_new_certificate_files_serve_the_next_handshake(authority: Authority) -> None:
    files = server_files(authority, client_cert_auth=False, trusted_ca_file="")
    context = tls.server_context(files)
    _, dialled = shake(context, authority.dialler())
    before = dialled.getpeercert(True)
    authority.files("server", Subject("server", ("localhost",)), Purpose.SERVER)
    _, dialled = shake(context, authority.dialler())
    assert before != dialled.getpeercert(True)


def test_a_half_written_rotation_keeps_the_last_good_certificate(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "quorate")
    files = server_files(authority, client_cert_auth=False, trusted_ca_file="")
    context = tls.server_context(files)
    _, dialled = shake(context, authority.dialler())
    before = dialled.getpeercert(True)
    whole = Path(files.cert_file).read_text()
    Path(files.cert_file).write_text("-----BEGIN")
    for _ in range(3):
        _, dialled = shake(context, authority.dialler())
        assert before == dialled.getpeercert(True)
    assert [record.msg for record in caplog.records] == ["keeping the last good certificates"]
    Path(files.cert_file).unlink()
    shake(context, authority.dialler())
    Path(files.cert_file).write_text(whole)
    shake(context, authority.dialler())
    assert caplog.records[-1].msg == "loaded new certificates"


def test_a_revoked_serial_is_refused(authority: Authority, tmp_path: Path) -> None:
    cert, key, issued = authority.files("gone", Subject("gone"), Purpose.CLIENT)
    files = server_files(authority, client_crl_file=authority.revoke(tmp_path / "crl.pem", issued))
    served, _ = shake(tls.server_context(files), authority.dialler(cert, key))
    with pytest.raises(tls.PeerRefused, match="revoked"):
        tls.check_peer(files, served, "127.0.0.1")


def test_grpc_and_http_share_a_port_by_alpn(authority: Authority) -> None:
    context = tls.server_context(server_files(authority, client_cert_auth=False, trusted_ca_file=""), tls.CLIENT_ALPN)
    for offered, chosen in ((["h2"], "h2"), (["h2", "http/1.1"], "http/1.1"), (["http/1.1"], "http/1.1")):
        client = authority.dialler()
        client.set_alpn_protocols(offered)
        served, _ = shake(context, client)
        assert chosen == served.selected_alpn_protocol()


def test_a_list_of_revoked_certificates_that_cannot_be_read_lets_nobody_in(authority: Authority) -> None:
    cert, key, _ = authority.files("alice", Subject("alice"), Purpose.CLIENT)
    files = server_files(authority, client_crl_file=str(authority.directory / "missing.pem"))
    served, _ = shake(tls.server_context(files), authority.dialler(cert, key))
    with pytest.raises(tls.PeerRefused, match="cannot read"):
        tls.check_peer(files, served, "127.0.0.1")


def peer_files(authority: Authority, **settings: Any) -> tls.TlsFiles:
    cert, key, _ = authority.files("peer", Subject("peer", ("localhost",)), Purpose.PEER)
    given: dict[str, Any] = {
        "name": "m",
        "data_dir": str(authority.directory / "m"),
        "peer_cert_file": cert,
        "peer_key_file": key,
        "peer_trusted_ca_file": str(authority.ca_file),
        "peer_client_cert_auth": True,
        **settings,
    }
    return tls.peer_side(Config(**given))


@pytest.mark.parametrize(
    ("settings", "hosts", "common_name", "let_in"),
    [
        ({"peer_cert_allowed_cn": ["m2"]}, (), "m2", True),
        ({"peer_cert_allowed_cn": ["m2"]}, (), "m3", False),
        ({"peer_cert_allowed_hostname": ["m2.example"]}, ("m2.example",), "x", True),
        ({"peer_cert_allowed_hostname": ["m2.example"]}, ("*.example",), "x", True),
        ({"peer_cert_allowed_hostname": ["m2.example"]}, ("m3.example",), "x", False),
        ({}, ("127.0.0.1",), "x", True),
        ({}, ("10.9.8.7",), "x", False),
        ({"peer_skip_client_san_verification": True}, ("10.9.8.7",), "x", True),
    ],
)
def test_members_come_in_by_name_or_address(
    authority: Authority, settings: dict[str, object], hosts: tuple[str, ...], common_name: str, let_in: bool
) -> None:
    files = peer_files(authority, **settings)
    cert, key, _ = authority.files("dialling", Subject(common_name, hosts), Purpose.PEER)
    served, _ = shake(tls.server_context(files), authority.dialler(cert, key))
    if let_in:
        assert common_name == tls.check_peer(files, served, "127.0.0.1")
    else:
        with pytest.raises(tls.PeerRefused):
            tls.check_peer(files, served, "127.0.0.1")


def test_auto_tls_makes_its_certificate_once_and_members_talk_with_it(tmp_path: Path) -> None:
    config = Config(name="m", data_dir=str(tmp_path), peer_auto_tls=True)
    files = tls.peer_side(config)
    assert files.enabled
    assert files == tls.peer_side(config)
    assert Path(files.key_file).stat().st_mode & 0o077 == 0
    shake(tls.server_context(files), tls.DialContexts(files).context())


@pytest.mark.parametrize("rest", [b"", b"-----BEGIN CERTIFICATE-----\nMIIB"])
def test_what_a_full_disk_left_of_auto_tls_is_made_anew(tmp_path: Path, rest: bytes) -> None:
    config = Config(name="m", data_dir=str(tmp_path), peer_auto_tls=True)
    Path(tls.peer_side(config).cert_file).write_bytes(rest)
    files = tls.peer_side(config)
    shake(tls.server_context(files), tls.DialContexts(files).context())


def test_an_expired_certificate_of_auto_tls_is_made_anew(tmp_path: Path) -> None:
    config = Config(name="m", data_dir=str(tmp_path), peer_auto_tls=True)
    files = tls.peer_side(config)
    paths = Path(files.cert_file), Path(files.key_file)
    certificates.write(certificates.self_signed(["localhost"], 0), *paths)
    assert not certificates.is_usable(*paths)
    tls.peer_side(config)
    assert certificates.is_usable(*paths)


def test_a_member_dials_with_its_client_certificate_and_verifies_the_other(
    authority: Authority, tmp_path: Path
) -> None:
    files = peer_files(authority)
    served, _ = shake(tls.server_context(files), tls.DialContexts(files).context())
    assert served.getpeercert()
    stranger = Authority(tmp_path, "other")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(tls.server_context(peer_files(stranger)), tls.DialContexts(files).context())


def test_versions_and_suites_limit_the_handshake(authority: Authority) -> None:
    files = server_files(authority, tls_min_version="TLS1.3", client_cert_auth=False, trusted_ca_file="")
    client = authority.dialler()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        shake(tls.server_context(files), client)
    files = server_files(
        authority,
        cipher_suites=["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"],
        tls_max_version="TLS1.2",
        client_cert_auth=False,
        trusted_ca_file="",
    )
    served, _ = shake(tls.server_context(files), authority.dialler())
    cipher = served.cipher()
    assert cipher is not None
    assert cipher[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"


def test_settings_that_cannot_work_are_named_before_anything_opens(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='unexpected TLS cipher suite "NOPE"'):
        tls.check_settings(Config(cipher_suites=["NOPE"], data_dir=str(tmp_path)))
    both = Config(peer_cert_allowed_cn=["a"], peer_cert_allowed_hostname=["b"], data_dir=str(tmp_path))
    with pytest.raises(ValueError, match="mutually exclusive"):
        tls.check_settings(both)


def test_files_that_cannot_be_used_are_named(authority: Authority, tmp_path: Path) -> None:
    cert, key, _ = authority.files("server", Subject("server", ("localhost",)), Purpose.SERVER)
    _, other_key, _ = authority.files("other", Subject("other"), Purpose.SERVER)
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate")
    missing = str(tmp_path / "missing.pem")
    unlocked = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    locked = str(tmp_path / "locked.pem")
    Path(locked).write_bytes(
        unlocked.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    cases: list[tuple[dict[str, Any], str]] = [
        ({"cert_file": cert}, f"KeyFile and CertFile must both be present[key: , cert: {cert}]"),
        ({"cert_file": missing, "key_file": key}, f"open {missing}: no such file or directory"),
        ({"cert_file": cert, "key_file": key, "client_crl_file": missing}, f"open {missing}: no such file"),
        (
            {"cert_file": cert, "key_file": key, "client_crl_file": cert},
            f"{cert} (--client-crl-file) is not a list of revoked certificates in PEM or DER",
        ),
        (
            {"cert_file": cert, "key_file": other_key},
            f"{other_key} (--key-file) is not the key of {cert} (--cert-file)",
        ),
        (
            {"cert_file": cert, "key_file": key, "trusted_ca_file": str(nonsense)},
            f"{nonsense} (--trusted-ca-file) holds no certificate of an authority in PEM",
        ),
        ({"cert_file": key, "key_file": key}, f"{key} (--cert-file) holds no certificate in PEM"),
        (
            {"peer_cert_file": cert, "peer_key_file": str(nonsense)},
            f"{nonsense} (--peer-key-file) holds no private key in PEM",
        ),
        (
            {"peer_cert_file": cert, "peer_key_file": locked},
            f"{locked} (--peer-key-file) is locked with a passphrase; take that off it",
        ),
        (
            {"cert_file": cert, "key_file": key, "client_cert_file": cert, "client_key_file": other_key},
            f"{other_key} (--client-key-file) is not the key of {cert} (--client-cert-file)",
        ),
        (
            {"listen_peer_urls": ["https://127.0.0.1:1"]},
            "cannot listen on TLS for 127.0.0.1:1: KeyFile and CertFile are not presented",
        ),
    ]
    for settings, sentence in cases:
        with pytest.raises(ValueError, match=re.escape(sentence)):
            tls.check_settings(Config(**{"data_dir": str(tmp_path / "m"), **settings}))


def test_a_key_of_another_certificate_is_named(authority: Authority) -> None:
    cert, _, _ = authority.files("one", Subject("one"), Purpose.CLIENT)
    _, key, _ = authority.files("two", Subject("two"), Purpose.CLIENT)
    with pytest.raises(ValueError, match="does not belong"):
        certificates.read(Path(cert), Path(key))


@pytest.mark.parametrize(("algorithm", "bits"), [("ecdsa", 384), ("rsa", 2048)])
def test_both_kinds_of_key_serve(tmp_path: Path, algorithm: str, bits: int) -> None:
    issued = certificates.issue(Subject("x", ("a.example", "::1"), {}, algorithm, bits), Purpose.SERVER, DAY)
    certificates.write(issued, tmp_path / "c.pem", tmp_path / "k.pem")
    again = certificates.read(tmp_path / "c.pem", tmp_path / "k.pem")
    assert ["a.example", "::1"] == certificates.hosts_of(again.certificate)


DOMAIN = "a.test"


def dialling(authority: Authority, trusted_ca_file: str = "") -> ssl.SSLContext:
    """Of a member that finds the others in the records of the domain."""
    place = str(authority.directory / "m")
    config = Config(name="m", data_dir=place, discovery_srv=DOMAIN, peer_trusted_ca_file=trusted_ca_file)
    return tls.DialContexts(tls.peer_side(config)).context()


def serving(authority: Authority, name: str) -> ssl.SSLContext:
    cert, key, _ = authority.files("one", Subject("one", (name,)), Purpose.SERVER)
    files = server_files(authority, cert_file=cert, key_file=key, client_cert_auth=False, trusted_ca_file="")
    return tls.server_context(files)


def test_members_found_in_dns_need_a_certificate_for_the_domain_where_the_systems_authorities_are_trusted(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    shake(serving(authority, DOMAIN), dialling(authority), "localhost")
    with pytest.raises(ssl.SSLCertVerificationError, match=f"not valid for '{DOMAIN}'"):
        shake(serving(authority, "localhost"), dialling(authority), "localhost")


def test_with_a_ca_of_their_own_members_found_in_dns_are_known_by_their_hosts(authority: Authority) -> None:
    shake(serving(authority, "localhost"), dialling(authority, str(authority.ca_file)), "localhost")
    with pytest.raises(ssl.SSLCertVerificationError, match="not valid for 'localhost'"):
        shake(serving(authority, DOMAIN), dialling(authority, str(authority.ca_file)), "localhost")
