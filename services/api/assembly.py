"""How the parts of an api worker are made from the settings."""

from __future__ import annotations

import socket
import ssl
from typing import Final

from quorate.api.calls import CallLimits, Calls
from quorate.api.front import Front
from quorate.api.gateway import Gateway
from quorate.api.grpc_connection import GrpcServer
from quorate.api.http2.limits import Limits
from quorate.api.listener import ALPN, HttpServer, Kind, Listener, ListenSocket, open_socket
from quorate.api.metrics import Metrics
from quorate.api.pages import make_pages
from quorate.api.ring import Ring
from quorate.api.tallies import Publisher
from quorate.api.this_node import ThisNode
from quorate.api.v3rpc.cluster import Cluster
from quorate.api.v3rpc.health import Health
from quorate.api.v3rpc.kv import KV
from quorate.api.v3rpc.maintenance import Maintenance
from quorate.api.versions import ETCD_VERSION
from quorate.node import tls
from quorate.node.config import Config
from quorate.node.lifecycle import OperatorError

GRPC_OVERHEAD_BYTES: Final = 512 * 1024  # etcd: what a message may have beyond max-request-bytes


def make_calls(config: Config, ring: Ring) -> Calls:
    """Every method this worker answers."""
    limits = CallLimits(config.max_request_bytes, config.max_txn_ops)
    health = Health(ring)
    services = (KV(ring, limits), Cluster(ring), Maintenance(ring, ETCD_VERSION), health)
    routes = {method: route for service in services for method, route in service.routes().items()}
    return Calls(ring, routes, health.streams())


def make_listener(config: Config, ring: Ring, calls: Calls) -> Listener:
    """gRPC and HTTP/1.1 over the same calls."""
    server = GrpcServer(calls, limits_of(config))
    metrics = Metrics()
    metrics.before_text = Publisher(metrics, calls.tallies, server).publish
    message_bytes_max = config.max_request_bytes + GRPC_OVERHEAD_BYTES
    gateway = Gateway(calls, message_bytes_max) if config.enable_grpc_gateway else None
    pages = make_pages(calls, ThisNode(ring, calls), metrics, message_bytes_max, config.enable_grpc_gateway)
    return Listener(server, HttpServer(Front(gateway, pages, config.cors, config.host_whitelist)))


def limits_of(config: Config) -> Limits:
    """The settings that concern a connection."""
    return Limits(
        message_bytes_max=config.max_request_bytes + GRPC_OVERHEAD_BYTES,
        concurrent_streams_max=config.max_concurrent_streams,
        ping_min_time_s=config.grpc_keepalive_min_time / 1000,
        keepalive_interval_s=config.grpc_keepalive_interval / 1000 or float("inf"),
        keepalive_timeout_s=config.grpc_keepalive_timeout / 1000,
    )


def open_sockets(config: Config) -> list[ListenSocket]:
    """One for each listen URL; OperatorError for one that cannot be had."""
    main_kind: Kind = "grpc" if config.listen_client_http_urls else "both"
    wanted: list[tuple[str, Kind]] = [(url, main_kind) for url in config.listen_client_urls]
    wanted += [(url, "http") for url in config.listen_client_http_urls]
    context = client_context(config) if any(is_encrypted(url) for url, _ in wanted) else None
    share_port = config.socket_reuse_port or config.api_workers > 1
    return [ListenSocket(bind(url, share_port), context if is_encrypted(url) else None, kind) for url, kind in wanted]


def bind(url: str, share_port: bool) -> socket.socket:
    """A bound socket for `url`; OperatorError in the words Go has for it."""
    try:
        return open_socket(url, share_port=share_port)
    except OSError as error:
        address = url.partition("://")[2]
        reason = (error.strerror or str(error)).lower()
        raise OperatorError(f"listen tcp {address}: bind: {reason}") from error


def is_encrypted(url: str) -> bool:
    """The URL asks for TLS."""
    return url.startswith(("https://", "unixs://"))


def client_context(config: Config) -> ssl.SSLContext:
    """TLS of the client port; OperatorError when there is no usable certificate."""
    files = tls.client_side(config)
    if not files.enabled:
        raise OperatorError("TLS key/cert (--cert-file, --key-file) must be provided for client url with HTTPS scheme")
    try:
        return tls.server_context(files, ALPN)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise OperatorError(f"cannot use the client certificates: {error}") from error
