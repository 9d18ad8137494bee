"""The gateway over WebSocket: a text frame is one JSON request, a line of the answer is one text frame.

The conversation is presented to the gateway as an HTTP POST, so that both ways to a call are one. A browser cannot set
headers on a WebSocket; it names its token as the second subprotocol, `Bearer, <token>`.
"""

from typing import Final
from urllib.parse import parse_qs

from quorate.api.asgi import App, Disconnected, Header, Message, Receive, Scope, Send
from quorate.api.routes import ROUTES

SUBPROTOCOL: Final = "Bearer"


class Conversation:
    """One WebSocket as a pair of HTTP request body and response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        route = ROUTES.get(scope["path"])
        self._many = route is not None and route.descriptor.client_streaming
        self._line = b""

    def request(self) -> Scope:
        """The scope of the POST that stands for the conversation; ?method= names another method."""
        method = parse_qs(self._scope.get("query_string", b"").decode("latin-1")).get("method", ["POST"])[0]
        token = self._token()
        headers: list[Header] = list(self._scope["headers"])
        if token:
            headers.insert(0, (b"authorization", f"{SUBPROTOCOL} {token}".encode()))  # before a header's own
        scheme = "https" if self._scope.get("scheme") == "wss" else "http"
        return {**self._scope, "type": "http", "method": method, "headers": headers, "scheme": scheme}

    async def accept(self) -> None:
        """Open the WebSocket."""
        await self._receive()
        subprotocol = SUBPROTOCOL if self._token() else None
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol})

    def _token(self) -> str:
        offered = self._scope.get("subprotocols", [])
        return str(offered[1]) if len(offered) == 2 and offered[0] == SUBPROTOCOL else ""

    async def receive(self) -> Message:
        """The next frame as a piece of the request body; a call with one request ends with the first."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            return {"type": "http.disconnect"}
        text = message.get("text")
        body = text.encode() if text is not None else message.get("bytes") or b""
        return {"type": "http.request", "body": body + b"\n", "more_body": self._many}

    async def send(self, message: Message) -> None:
        """Each whole line of the response as a frame; its end closes the WebSocket."""
        if message["type"] != "http.response.body":
            return
        *lines, self._line = (self._line + message.get("body", b"")).split(b"\n")
        more = message.get("more_body", False)
        if not more and self._line:
            lines.append(self._line)
        for line in lines:
            await self._send({"type": "websocket.send", "text": line.decode()})
        if not more:
            await self._send({"type": "websocket.close", "code": 1000})


async def converse(gateway: App, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one WebSocket with the gateway."""
    conversation = Conversation(scope, receive, send)
    await conversation.accept()
    try:
        await gateway(conversation.request(), conversation.receive, conversation.send)
    except Disconnected:
        return
