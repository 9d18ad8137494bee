"""HTTP/1.1 against a live node: pages, gateway, WebSocket, as octets that are nearly right."""

from __future__ import annotations

import base64
import contextlib
from typing import Final

from quorate.api.json_codec import encoder
from quorate.api.routes import ROUTES
from tests.fuzzing.node import live, rest_of
from tests.fuzzing.node import world as world
from tests.fuzzing.of_json import filled

PAGES: Final = ("/", "/health", "/health?exclude=NOSPACE&serializable=true", "/metrics", "/version", "/livez?verbose",
                "/readyz/data_corruption", "/openapi.json", "/docs", "/debug/vars", "/v1/keys/a", "/v1/keys?prefix=a",
                "/v3/nothing", "/config/local/log", "/v2/keys")  # fmt: skip
METHODS: Final = ("PUT", "POST", "DELETE", "PATCH", "HEAD")
OF_ETCD: Final = b'"code":2,'  # UNKNOWN, as etcd has it for "election: no leader"


def _request(method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: node", *headers]
    if body and not any("chunked" in header for header in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join((*lines, "", "")).encode() + body


def seeds() -> list[bytes]:
    """Pages by every method, each gateway route, chunked and pipelined requests, and a WebSocket."""
    put = b'{"key":"YQ==","value":"Yg=="}'
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(put), put)
    key = base64.b64encode(b"0123456789abcdef").decode()
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}")
    frame = bytes((0x81, 0x80 | len(put))) + b"\0\0\0\0" + put
    routes = [
        _request("POST", path, encoder(route.request)(filled(route.request, 2)).encode())
        for path, route in ROUTES.items()
    ]
    return [
        *(_request("GET", page) for page in PAGES),
        *(_request(method, "/v1/keys/a", b'{"value":"x"}', "Content-Type: application/json") for method in METHODS),
        _request("POST", "/v3/kv/put", chunked, "Transfer-Encoding: chunked"),
        _request("POST", "/v3/kv/put", put, "Grpc-Timeout: 5S", "Grpc-Metadata-x: y", "Authorization: Bearer x"),
        _request("POST", "/v3/kv/put", put) * 5,
        _request("GET", "/v3/watch", b"", *upgrade) + frame + bytes((0x88, 0x80, 0, 0, 0, 0)),
        _request("OPTIONS", "*") + _request("GET", "http://node/health", b"", "Expect: 100-continue", "Range: bytes=0"),
        *routes,
    ]  # fmt: skip


def run(data: bytes) -> None:
    """Say it and hang up: what is answered is HTTP, no fault of the node, and others are served."""
    with live().client() as connection, contextlib.suppress(ConnectionError):
        connection.sendall(data)
        heard = rest_of(connection)
        if heard and not data.startswith(b"PRI"):
            assert heard.startswith(b"HTTP/1."), heard[:200]
            assert heard[9:12] != b"500" or OF_ETCD in heard, heard[:500]
    live().count()
