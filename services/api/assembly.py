"""How the parts of an api worker are made from the settings."""

from __future__ import annotations

import socket
import time
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Final

from quorate.api.asgi import App
from quorate.api.callers import Callers
from quorate.api.calls import CallLimits, Calls
from quorate.api.encrypted import TlsPort
from quorate.api.fellows import Fellows
from quorate.api.front import Front, MetricsFront
from quorate.api.gateway import Gateway
from quorate.api.grpc_connection import GrpcServer
from quorate.api.http2.limits import Limits
from quorate.api.listener import HttpServer, Kind, Listener, ListenSocket, open_socket
from quorate.api.on_demand import OnDemand
from quorate.api.passwords import Passwords
from quorate.api.quota import Quota
from quorate.api.response_headers import ResponseHeaders
from quorate.api.ring import Ring
from quorate.api.tallies import Publisher
from quorate.api.this_node import ThisNode
from quorate.api.token_settings import parse_auth_token
from quorate.api.v3rpc.auth import Auth
from quorate.api.v3rpc.cluster import Cluster
from quorate.api.v3rpc.election import Election
from quorate.api.v3rpc.health import Health
from quorate.api.v3rpc.kv import KV
from quorate.api.v3rpc.lease import Lease, LeaseIds
from quorate.api.v3rpc.lock import Lock
from quorate.api.v3rpc.maintenance import Maintenance
from quorate.api.v3rpc.recipes import Recipes
from quorate.api.v3rpc.watch import Watch
from quorate.api.watches import Watches
from quorate.node import lifecycle, logs, tls
from quorate.node.config import Config
from quorate.node.flags import ETCD_VERSION, is_encrypted
from quorate.node.lifecycle import OperatorError
from quorate.wire.messages import Kind as MessageKind
from quorate.wire.messages import Part

if TYPE_CHECKING:
    from quorate.api.metrics import Metrics
    from quorate.api.tokens import JsonWebTokens
    from quorate.node.expiry import Expiry

log = logs.named()

GRPC_OVERHEAD_BYTES: Final = 512 * 1024  # etcd: what a message may have beyond max-request-bytes


def make_calls(config: Config, ring: Ring, watches: Watches) -> Calls:
    """Every method this worker answers."""
    limits = CallLimits(config.max_request_bytes, config.max_txn_ops)
    tokens = make_tokens(config)
    callers = Callers(ring, tokens, config.auth_token_ttl)
    health = Health(ring)
    quota = Quota(ring)
    lease = Lease(ring, LeaseIds(time.time_ns() // 1_000_000, lifecycle.worker_number()), quota, callers)
    progress_s = config.watch_progress_notify_interval / 1000
    watch = Watch(ring, watches, limits, progress_s, Random(), callers)  # noqa: S311 - no secret
    recipes = Recipes(ring, watches, lease, callers)
    election = Election(recipes)
    maintenance = Maintenance(ring, ETCD_VERSION, callers)
    services = (
        KV(ring, limits, quota, callers),
        lease,
        Lock(recipes),
        election,
        Auth(ring, Passwords(config.hash_cost), tokens),
        Cluster(ring),
        maintenance,
        health,
    )
    routes = {method: route for service in services for method, route in service.routes().items()}
    streaming = (watch, lease, election, maintenance, health)
    streams = {method: route for service in streaming for method, route in service.streams().items()}
    return Calls(ring, routes, streams, callers)


def make_tokens(config: Config) -> JsonWebTokens | None:
    """What signs and verifies JWT, or None for simple tokens; OperatorError where --auth-token is of no use."""
    try:
        settings = parse_auth_token(config.auth_token)
        if settings is None:
            return None
        from quorate.api.tokens import JsonWebTokens

        return JsonWebTokens(settings)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OperatorError(f"cannot read {error.filename} (--auth-token): {reason}") from error
    except ValueError as error:
        raise OperatorError(f"cannot use --auth-token: {error}") from error


def make_watches(ring: Ring) -> Watches:
    """What this worker waits for, connected with the watch process now and after each of its restarts."""
    watches = Watches(ResponseHeaders(ring).at)

    def send(*parts: bytes) -> None:
        ring.watch.send(MessageKind.WATCH, *parts)
        ring.flush_soon()

    ring.on_message(Part.WATCH, MessageKind.DELIVER, watches.deliver)
    ring.on_open(Part.WATCH, lambda _hello: watches.opened(send))
    return watches


def make_listener(config: Config, ring: Ring, calls: Calls, watches: Watches, expiry: Expiry | None = None) -> Listener:
    """gRPC and HTTP/1.1 over the same calls."""

    @cache
    def metrics() -> Metrics:
        return make_metrics(calls, server, watches, expiry)

    server = GrpcServer(calls, limits_of(config))
    if config.metrics == "extensive":
        from quorate.api import timing

        timing.add_histograms(calls, metrics().registry)
    if config.logs_slow_requests:
        from quorate.api import timing

        timing.warn_of_slow(calls, config.warning_unary_request_duration / 1000)
    message_bytes_max = config.max_request_bytes + GRPC_OVERHEAD_BYTES
    gateway = Gateway(calls, message_bytes_max) if config.enable_grpc_gateway else None
    fellows = Fellows(ring, lifecycle.worker_number(), config.api_workers, lambda: metrics().text())
    this_node = ThisNode(ring, calls, fellows)

    def make_pages() -> App:
        from quorate.api.pages import make_pages

        return make_pages(
            calls,
            this_node,
            metrics(),
            message_bytes_max,
            config.enable_grpc_gateway,
            with_profiles=config.enable_pprof,
        )

    pages = OnDemand("quorate.api.pages", make_pages)
    front = Front(gateway, pages, config.cors, config.host_whitelist, lambda: calls.callers.state.enabled)
    return Listener(server, HttpServer(front), HttpServer(MetricsFront(pages)))


def make_metrics(calls: Calls, server: GrpcServer, watches: Watches, expiry: Expiry | None) -> Metrics:
    """The figures of this worker; what happened before somebody first looked is in them."""
    from quorate.api.metrics import Metrics
    from quorate.api.watch_figures import WatchFigures

    metrics = Metrics()
    metrics.before_text = Publisher(metrics, calls.tallies, server).publish
    metrics.registry.register(WatchFigures(watches))
    if expiry is not None:
        metrics.registry.register(expiry)
    return metrics


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
    wanted += [(url, "metrics") for url in config.listen_metrics_urls]
    if lifecycle.worker_number():  # a path belongs to one process
        wanted = [(url, kind) for url, kind in wanted if not url.startswith("unix")]
    port = tls_port(config) if any(is_encrypted(url) for url, _ in wanted) else None
    share_port = config.socket_reuse_port or config.api_workers > 1
    return [ListenSocket(bind(url, share_port), port if is_encrypted(url) else None, kind) for url, kind in wanted]


def client_expiry(config: Config) -> Expiry | None:
    """The certificates clients see, if they see any."""
    files = tls.client_side(config)
    if not files.enabled:
        return None
    from quorate.node.expiry import Expiry

    return Expiry("client", files)


def announce(one: ListenSocket, address: str) -> None:
    """Tell the log where clients come in."""
    if one.kind == "metrics":
        log.info("serving metrics", address=address)
        return
    traffic = {"both": "grpc+http"}.get(one.kind, one.kind)
    if one.tls is not None:
        log.info("serving client traffic securely", traffic=traffic, address=address)
    else:
        log.info("serving client traffic insecurely; this is strongly discouraged!", traffic=traffic, address=address)


def bind(url: str, share_port: bool) -> socket.socket:
    """A bound socket for `url`; OperatorError in the words Go has for it."""
    try:
        return open_socket(url, share_port=share_port)
    except OSError as error:
        address = url.partition("://")[2]
        reason = (error.strerror or str(error)).lower()
        raise OperatorError(f"listen tcp {address}: bind: {reason}") from error


def tls_port(config: Config) -> TlsPort:
    """TLS of the client port; OperatorError when there is no usable certificate."""
    files = tls.client_side(config)
    if not files.enabled:
        raise OperatorError("TLS key/cert (--cert-file, --key-file) must be provided for client url with HTTPS scheme")
    try:
        return TlsPort(files)
    except (OSError, ValueError) as error:
        raise OperatorError(f"cannot use the client certificates: {error}") from error
