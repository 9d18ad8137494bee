"""`quorate grpc-proxy start`: a gRPC server of which every answer comes from a cluster, and its listeners."""

from __future__ import annotations

import asyncio
import os
import ssl
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc
from uvicorn.config import Config as PagesConfig
from uvicorn.server import ServerState

from quorate.client.endpoints import ChannelOptions
from quorate.client.methods import MEMBER_LIST
from quorate.client.tls import TlsFiles as DialFiles
from quorate.node import certificates, flags, lifecycle, logs, tls
from quorate.node.tls import TlsFiles
from quorate.proxy import endpoints
from quorate.proxy.forwarding import Forwarding
from quorate.proxy.front import Front
from quorate.proxy.namespace import rewritings
from quorate.proxy.pages import application
from quorate.proxy.registration import Registration, listed, stay_registered
from quorate.proxy.tallies import Tallies
from quorate.proxy.upstream import Upstream

log = logs.named("grpc-proxy")

STOP_GRACE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class GrpcProxy:
    """What the flags say; times in seconds."""

    endpoints: tuple[str, ...]
    listen_addr: str
    metrics_addr: str
    namespace: bytes
    registration: Registration
    dial: ChannelOptions
    dial_tls: DialFiles | None
    listen_tls: TlsFiles | None
    sync_s: float
    server_options: tuple[tuple[str, int], ...]
    data_dir: Path
    discovery_srv: str = ""
    discovery_srv_name: str = ""
    insecure_discovery: bool = False

    def found(self) -> tuple[str, ...]:
        """The endpoints, looked up in DNS when that is wanted. Blocks."""
        if not self.discovery_srv:
            return self.endpoints
        ca_file = (self.dial_tls.ca if self.dial_tls else None) or ""
        targets = endpoints.discovered(
            self.discovery_srv, self.discovery_srv_name, insecure=self.insecure_discovery, ca_file=ca_file
        )
        return tuple(target.url for target in targets) or self.endpoints


async def serve(proxy: GrpcProxy) -> None:
    """Pass calls on until asked to stop; BadEndpoint, ValueError or OSError when that cannot begin."""
    stop = lifecycle.stop_event()
    tallies = Tallies()
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        found = await asyncio.to_thread(proxy.found)
        upstream = Upstream(found, proxy.dial_tls, proxy.dial)
        stack.push_async_callback(upstream.close)
        grpc_path = stack.enter_context(tempfile.TemporaryDirectory(prefix="quorate-proxy-")) + "/grpc.sock"
        server = await _grpc_server(proxy, upstream, tallies, grpc_path)
        stack.push_async_callback(server.stop, STOP_GRACE_S)
        pages = PagesConfig(
            application(upstream, tallies, _dial_context(proxy.dial_tls)), lifespan="off", log_config=None
        )
        pages.load()
        files, context = _listener_tls(proxy)
        make = partial(Front, pages, ServerState(), grpc_path, partial(_judge, files))
        (listen,) = endpoints.given([proxy.listen_addr])
        listener = await loop.create_server(make, listen.host, listen.port, ssl=context)
        stack.callback(listener.close)
        if proxy.metrics_addr:
            (metrics,) = endpoints.given([proxy.metrics_addr])
            make = partial(Front, pages, ServerState(), None, partial(_judge, files))
            listener = await loop.create_server(
                make, metrics.host, metrics.port, ssl=context if metrics.secure else None
            )
            stack.callback(listener.close)
        log.info("started gRPC proxy", address=proxy.listen_addr, endpoints=list(found))
        if address := os.environ.get("NOTIFY_SOCKET"):
            lifecycle.notify(address, "READY=1")
        for work in _chores(proxy, upstream):
            task = loop.create_task(work)
            stack.callback(task.cancel)
        await stop.wait()


def _chores(proxy: GrpcProxy, upstream: Upstream) -> list[Any]:
    chores = []
    if proxy.sync_s:
        chores.append(upstream.follow_members(proxy.sync_s))
    if proxy.registration.prefix:
        chores.append(stay_registered(upstream, proxy.registration))
    return chores


async def _grpc_server(proxy: GrpcProxy, upstream: Upstream, tallies: Tallies, path: str) -> grpc.aio.Server:
    local: dict[str, Callable[[bytes], Awaitable[bytes]]] = {}
    if proxy.registration.address:
        local[MEMBER_LIST.path] = lambda _request: listed(upstream, proxy.registration)
    rewriting = rewritings(proxy.namespace) if proxy.namespace else {}
    server = grpc.aio.server(options=list(proxy.server_options))
    server.add_generic_rpc_handlers((Forwarding(upstream, rewriting, local, tallies),))
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    return server


def _listener_tls(proxy: GrpcProxy) -> tuple[TlsFiles | None, ssl.SSLContext | None]:
    """TLS of the listener; with --auto-tls the certificate is made in the data directory when there is none."""
    files = proxy.listen_tls
    if files is None:
        return None, None
    if files.self_made:
        paths = proxy.data_dir / "fixtures" / "proxy" / "cert.pem", proxy.data_dir / "fixtures" / "proxy" / "key.pem"
        if not certificates.is_usable(*paths):
            host = flags.host_of(f"tcp://{proxy.listen_addr}")
            certificates.write(certificates.self_signed([host], 1), *paths)
        files = replace(files, cert_file=str(paths[0]), key_file=str(paths[1]))
    for path in filter(None, (*files.paths, files.crl_file)):
        Path(path).read_bytes()  # an error names the file here, and does not in OpenSSL
    return files, tls.server_context(files, tls.CLIENT_ALPN)


def _judge(files: TlsFiles | None, connection: Any) -> None:
    assert files is not None, "a TLS connection comes from a listener with TLS"
    tls.check_peer(files, connection, None)


def _dial_context(files: DialFiles | None) -> ssl.SSLContext:
    """For what is fetched from endpoints with plain HTTP clients."""
    if files is not None:
        files.credentials()  # an error names the file here, and does not in OpenSSL
    context = ssl.create_default_context(cafile=files.ca if files else None)
    if files is not None and files.cert and files.key:
        context.load_cert_chain(files.cert, files.key)
    if files is not None and files.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
