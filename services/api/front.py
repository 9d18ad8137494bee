"""What happens to every HTTP request before its path is looked at, as etcd does it and in etcd's order.

/v3beta/ becomes /v3/; on plain HTTP the Host has to be on the whitelist (DNS rebinding, CVE-2018-5702); with TLS a
client whose certificate names a user is told that the gateway does not act in that name; CORS headers are added;
OPTIONS is answered. Then the JSON gateway takes /v3/ and the pages take everything else.
"""

import contextlib
from collections.abc import Callable, Iterable
from typing import Final

from quorate.api.asgi import App, Disconnected, Header, Message, Receive, Scope, Send, respond, respond_text
from quorate.api.gateway_websocket import converse

LEGACY: Final = "/v3beta/"
GATEWAY: Final = "/v3/"
CORS_HEADERS: Final[tuple[Header, ...]] = (
    (b"access-control-allow-methods", b"POST, GET, OPTIONS, PUT, DELETE"),
    (b"access-control-allow-headers", b"accept, content-type, authorization"),
)
ANY: Final = "*"
NAME_IGNORED: Final = "CommonName of client sending a request against gateway will be ignored and not used as expected"
METRICS_PAGES: Final = ("/metrics", "/health", "/livez", "/readyz")


class Front:
    """The ASGI application of the client port."""

    def __init__(
        self,
        gateway: App | None,
        pages: App,
        cors: Iterable[str] = (ANY,),
        host_whitelist: Iterable[str] = (ANY,),
        auth_enabled: Callable[[], bool] = lambda: False,
    ) -> None:
        """No `gateway` leaves /v3/ to the pages, which do not have it. An empty list allows all, as "*" does."""
        self._auth_enabled = auth_enabled
        self._gateway = gateway
        self._pages = pages
        self._origins = _allowed(cors)
        self._hosts = _allowed(host_whitelist)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._pages(scope, receive, send)
            return
        path = scope["path"]
        if path.startswith(LEGACY):
            path = scope["path"] = GATEWAY + path.removeprefix(LEGACY)
            scope["raw_path"] = path.encode()
        if scope["type"] == "websocket":
            await self._converse(scope, receive, send)
            return
        host = self._unwanted_host(scope)
        if host is not None:
            await _refuse_host(send, host)
            return
        if self._names_ignored_user(scope):
            await respond_text(send, 400, f"{NAME_IGNORED}\n")
            return
        send = _client(send, self._cors_headers(scope))
        with contextlib.suppress(Disconnected):
            if scope["method"] == "OPTIONS":
                await respond(send, 200, (), b"")
            elif self._gateway is not None and path.startswith(GATEWAY):
                await self._gateway(scope, receive, send)
            else:
                await self._pages(scope, receive, send)

    async def _converse(self, scope: Scope, receive: Receive, send: Send) -> None:
        welcome = self._unwanted_host(scope) is None and not self._names_ignored_user(scope)
        served = scope["path"].startswith(GATEWAY) and welcome
        if self._gateway is None or not served:
            await send({"type": "websocket.close"})  # before the accept: 403
            return
        await converse(self._gateway, scope, receive, send)

    def _names_ignored_user(self, scope: Scope) -> bool:
        """The client expects to act in the name of its certificate where only a token gives a name."""
        named = scope.get("state", {}).get("common_name", "")
        return bool(named) and scope["path"].startswith(GATEWAY) and self._auth_enabled()

    def _unwanted_host(self, scope: Scope) -> str | None:
        """The name in the Host header if it is not on the list that plain HTTP is held to."""
        if self._hosts is None or scope["scheme"] in ("https", "wss"):
            return None
        host = _host_name(_header(scope, b"host"))
        return None if host in self._hosts else host

    def _cors_headers(self, scope: Scope) -> list[Header]:
        if self._origins is None:
            return [*CORS_HEADERS, (b"access-control-allow-origin", b"*")]
        origin = _header(scope, b"origin")
        if origin.decode("latin-1") in self._origins:
            return [*CORS_HEADERS, (b"access-control-allow-origin", origin)]
        return []


class MetricsFront:
    """The ASGI application of --listen-metrics-urls: figures and health, nothing else."""

    def __init__(self, pages: App) -> None:
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and not path.startswith(METRICS_PAGES):
            await respond_text(send, 404, "404 page not found\n")
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            await self._pages(scope, receive, _client(send, []))


def _client(send: Send, headers: list[Header]) -> Send:
    """`send` that adds headers to the response and raises Disconnected where the client is gone.

    uvicorn ignores what is sent to a client that has gone, unless the client had sent the next request already; then
    uvloop refuses the write, which is no fault to be logged.
    """

    async def send_to_client(message: Message) -> None:
        if headers and message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *headers]
        try:
            await send(message)
        except RuntimeError as error:
            if "handler is closed" not in str(error):
                raise
            raise Disconnected from None

    return send_to_client


def _allowed(names: Iterable[str]) -> frozenset[str] | None:
    """The names, or None where everything is allowed."""
    listed = frozenset(names)
    return None if not listed or ANY in listed else listed


def _header(scope: Scope, name: bytes) -> bytes:
    for present, value in scope["headers"]:
        if present == name:
            return bytes(value)
    return b""


def _host_name(host: bytes) -> str:
    """The name without its port; brackets of an IPv6 address are dropped."""
    text = host.decode("latin-1")
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0]


async def _refuse_host(send: Send, host: str) -> None:
    await respond_text(
        send,
        421,
        f"The Host header names {host!r}, which this member does not serve over plain HTTP.\n"
        "Use HTTPS, or add the name to --host-whitelist. The check prevents DNS rebinding (CVE-2018-5702).\n",
    )
