"""`quorate gateway start` and `quorate grpc-proxy start`: etcd's commands and flags."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import click

from quorate.client.endpoints import KEEPALIVE_MIN_S, RECEIVE_BYTES_MAX, ChannelOptions
from quorate.client.errors import EtcdError
from quorate.client.tls import TlsFiles as DialFiles
from quorate.node import logs
from quorate.node.cipher_suites import CIPHER_SUITES
from quorate.node.config import Config
from quorate.node.tls import VERSIONS, TlsFiles
from quorate.proxy import gateway, grpc_proxy
from quorate.proxy.endpoints import BadEndpoint
from quorate.proxy.gateway import Gateway
from quorate.proxy.grpc_proxy import GrpcProxy
from quorate.proxy.options import DISCOVERY, duration, every, number, switch, text, words
from quorate.proxy.registration import Registration

NAMES: Final = {"help_option_names": ["-h", "--help"]}


@click.group(context_settings=NAMES)
def cli() -> None:
    """Stand between clients and a cluster."""


@cli.group("gateway")
def gateway_group() -> None:
    """Pass TCP connections on."""


@gateway_group.command("start")
@words("--endpoints", "127.0.0.1:2379", "Addresses to pass connections on to.")
@DISCOVERY
@text("--listen-addr", "127.0.0.1:23790", "Address to listen on.")
@duration("--retry-delay", "1m0s", "Time between two probes of an address that does not answer.")
@text("--trusted-ca-file", "", "CA that discovered endpoints have to prove themselves with.")
def start_gateway(endpoints: list[str], retry_delay: int, **rest: Any) -> None:
    """Pass connections on to addresses that answer."""
    settings = Gateway(endpoints=tuple(endpoints), retry_s=max(retry_delay, 1) / 1000, **rest)
    _run("gateway", gateway.serve(settings))


@cli.group("grpc-proxy")
def grpc_proxy_group() -> None:
    """Pass gRPC calls on."""


LISTENING: Final = every(
    text("--listen-addr", "127.0.0.1:23790", "Address to listen on."),
    text("--metrics-addr", "", "Further address, http:// or https://, for /metrics and /health."),
    text("--cert-file", "", "Certificate shown to clients."),
    text("--key-file", "", "Key of that certificate."),
    text("--trusted-ca-file", "", "CA that client certificates are verified with."),
    text("--client-crl-file", "", "Revoked client certificates."),
    switch("--auto-tls", "Serve clients with a certificate made at the start."),
    words("--listen-cipher-suites", "", "TLS cipher suites by their IANA names."),
    text("--tls-min-version", "TLS1.2", "Lowest TLS version, TLS1.2 or TLS1.3."),
    text("--tls-max-version", "", "Highest TLS version, TLS1.2 or TLS1.3."),
    text("--data-dir", "default.proxy", "Directory of the certificate of --auto-tls."),
    number("--max-concurrent-streams", 2**32 - 1, "Streams a client may have open on one connection."),
    duration("--grpc-keepalive-min-time", "5s", "Shortest time between two pings of a client."),
    duration("--grpc-keepalive-interval", "2h0m0s", "Silence after which a client connection is probed."),
    duration("--grpc-keepalive-timeout", "20s", "Time for the answer to a probe."),
)
DIALLING: Final = every(
    words("--endpoints", "127.0.0.1:2379", "Client addresses of the members."),
    duration("--endpoints-auto-sync-interval", "0s", "Time between two looks at the members' addresses; 0: never."),
    DISCOVERY,
    text("--cert", "", "Certificate shown to the members."),
    text("--key", "", "Key of that certificate."),
    text("--cacert", "", "CA of the members' certificates."),
    switch("--insecure-skip-tls-verify", "Do not verify the members' certificates."),
    number("--max-send-bytes", 1_572_864, "Largest message sent to a member."),
    number("--max-recv-bytes", RECEIVE_BYTES_MAX, "Largest message taken from a member."),
    duration("--dial-keepalive-time", "0s", "Silence after which a member's connection is probed; 0: never."),
    duration("--dial-keepalive-timeout", "20s", "Time for the answer to such a probe."),
    switch("--permit-without-stream", "Probe also while there is no call."),
)
BEING: Final = every(
    text("--namespace", "", "Prefix that is put before every key of every client."),
    text("--advertise-client-url", "127.0.0.1:23790", "Address told to clients and registered."),
    text("--resolver-prefix", "", "Prefix of the keys by which proxies find each other."),
    number("--resolver-ttl", 0, "Seconds for which a proxy that is gone stays registered."),
    switch("--debug", "Log more."),
    switch("--experimental-enable-grpc-logging", "The same."),
)


@grpc_proxy_group.command("start")
@LISTENING
@DIALLING
@BEING
def start_grpc_proxy(**given: Any) -> None:
    """Pass calls on to members that answer."""
    try:
        proxy = _proxy(given)
    except ValueError as error:
        _fail(str(error))
    level = "debug" if given["debug"] or given["experimental_enable_grpc_logging"] else "info"
    _run("grpc-proxy", grpc_proxy.serve(proxy), level)


def _proxy(given: dict[str, Any]) -> GrpcProxy:
    """What the flags say; ValueError with etcd's words when they do not fit together."""
    prefix, ttl, address = given["resolver_prefix"], given["resolver_ttl"], given["advertise_client_url"]
    if prefix and ttl < 1:
        raise ValueError(f"invalid resolver-ttl {ttl}")
    if not prefix and ttl > 0:
        raise ValueError(f'invalid resolver-prefix "{prefix}"')
    if prefix and not address:
        raise ValueError(f'invalid advertise-client-url "{address}"')
    namespace = given["namespace"].encode()
    return GrpcProxy(
        endpoints=tuple(given["endpoints"]),
        listen_addr=given["listen_addr"],
        metrics_addr=given["metrics_addr"],
        namespace=namespace,
        registration=Registration(address, prefix, ttl, namespace),
        dial=_dial_options(given),
        dial_tls=_dial_tls(given),
        listen_tls=_listen_tls(given),
        sync_s=given["endpoints_auto_sync_interval"] / 1000,
        server_options=_server_options(given),
        data_dir=Path(given["data_dir"]),
        discovery_srv=given["discovery_srv"],
        discovery_srv_name=given["discovery_srv_name"],
        insecure_discovery=given["insecure_discovery"],
    )


def _dial_options(given: dict[str, Any]) -> ChannelOptions:
    probing_ms = given["dial_keepalive_time"]
    return ChannelOptions(
        keepalive_time_s=max(probing_ms / 1000, KEEPALIVE_MIN_S) if probing_ms else RECEIVE_BYTES_MAX // 1000,
        keepalive_timeout_s=given["dial_keepalive_timeout"] / 1000,
        send_bytes_max=given["max_send_bytes"],
        receive_bytes_max=given["max_recv_bytes"],
    )


def _dial_tls(given: dict[str, Any]) -> DialFiles | None:
    ca, cert, key, blind = (given[name] for name in ("cacert", "cert", "key", "insecure_skip_tls_verify"))
    if bool(cert) != bool(key):
        raise ValueError("the flags --cert and --key must be given together")
    return DialFiles(ca or None, cert or None, key or None, skip_verify=blind) if ca or cert or blind else None


def _listen_tls(given: dict[str, Any]) -> TlsFiles | None:
    cert_file, key_file, auto = given["cert_file"], given["key_file"], given["auto_tls"]
    if bool(cert_file) != bool(key_file):
        raise ValueError(f"KeyFile and CertFile must both be present[key: {key_file}, cert: {cert_file}]")
    if not cert_file and not auto:
        return None
    for suite in given["listen_cipher_suites"]:
        if suite not in CIPHER_SUITES:
            raise ValueError(f'unexpected TLS cipher suite "{suite}"')
    for version in (given["tls_min_version"], given["tls_max_version"]):
        if version and version not in VERSIONS:
            raise ValueError(f'unexpected TLS version "{version}", must be one of: TLS1.2, TLS1.3')
    return TlsFiles(
        cert_file=cert_file,
        key_file=key_file,
        client_cert_file="",
        client_key_file="",
        trusted_ca_file=given["trusted_ca_file"],
        crl_file=given["client_crl_file"],
        client_cert_auth=False,
        allowed_cns=(),
        allowed_hostnames=(),
        self_made=auto and not cert_file,
        verify_address=False,
        cipher_suites=tuple(given["listen_cipher_suites"]),
        min_version=given["tls_min_version"],
        max_version=given["tls_max_version"],
    )


def _server_options(given: dict[str, Any]) -> tuple[tuple[str, int], ...]:
    """How the gRPC server behaves towards clients, in gRPC's words."""
    return (
        ("grpc.max_concurrent_streams", min(given["max_concurrent_streams"], 2**31 - 1)),
        ("grpc.max_receive_message_length", -1),  # the members say what is too large
        ("grpc.max_send_message_length", -1),
        ("grpc.http2.min_ping_interval_without_data_ms", given["grpc_keepalive_min_time"]),
        ("grpc.http2.max_ping_strikes", 0 if not given["grpc_keepalive_min_time"] else 2),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", given["grpc_keepalive_interval"] or 2**31 - 1),
        ("grpc.keepalive_timeout_ms", given["grpc_keepalive_timeout"]),
    )


def _run(name: str, serving: Coroutine[Any, Any, None], level: str = "info") -> None:
    logs.start(Config(log_level=level), name)
    import uvloop

    try:
        uvloop.run(serving)
    except (BadEndpoint, EtcdError, ValueError, ssl.SSLError) as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"open {error.filename}: {(error.strerror or '').lower()}" if error.filename else str(error))


def _fail(sentence: str) -> Any:
    sys.stderr.write(f"{sentence}\n")
    sys.exit(1)


if __name__ == "__main__":
    cli(prog_name="quorate")
