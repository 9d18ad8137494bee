"""What happens to every HTTP request before its path is looked at, as etcd does it and in etcd's order.

/v3beta/ becomes /v3/; on plain HTTP the Host has to be on the whitelist (DNS rebinding, CVE-2018-5702); CORS headers
are added; OPTIONS is answered. Then the JSON gateway takes /v3/ and the pages take everything else.
"""

from collections.abc import Iterable
from typing import Final

from quorate.api.asgi import App, Header, Message, Receive, Scope, Send, respond, respond_text

LEGACY: Final = "/v3beta/"
GATEWAY: Final = "/v3/"
CORS_HEADERS: Final[tuple[Header, ...]] = (
    (b"access-control-allow-methods", b"POST, GET, OPTIONS, PUT, DELETE"),
    (b"access-control-allow-headers", b"accept, content-type, authorization"),
)
ANY: Final = "*"


class Front:
    """The ASGI application of the client port."""

    def __init__(
        self, gateway: App | None, pages: App, cors: Iterable[str] = (ANY,), host_whitelist: Iterable[str] = (ANY,)
    ) -> None:
        """No `gateway` leaves /v3/ to the pages, which do not have it. An empty list allows all, as "*" does."""
        self._gateway = gateway
        self._pages = pages
        self._origins = _allowed(cors)
        self._hosts = _allowed(host_whitelist)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._pages(scope, receive, send)
            return
        path = scope["path"]
        if path.startswith(LEGACY):
            path = scope["path"] = GATEWAY + path.removeprefix(LEGACY)
            scope["raw_path"] = path.encode()
        if self._hosts is not None and scope["scheme"] == "http":
            host = _host_name(_header(scope, b"host"))
            if host not in self._hosts:
                await _refuse_host(send, host)
                return
        send = self._with_cors(scope, send)
        if scope["method"] == "OPTIONS":
            await respond(send, 200, (), b"")
        elif self._gateway is not None and path.startswith(GATEWAY):
            await self._gateway(scope, receive, send)
        else:
            await self._pages(scope, receive, send)

    def _with_cors(self, scope: Scope, send: Send) -> Send:
        if self._origins is None:
            origin = b"*"
        else:
            origin = _header(scope, b"origin")
            if origin.decode("latin-1") not in self._origins:
                return send
        cors = [*CORS_HEADERS, (b"access-control-allow-origin", origin)]

        async def send_with_cors(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *cors]
            await send(message)

        return send_with_cors


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
