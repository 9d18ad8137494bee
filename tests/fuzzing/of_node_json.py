"""The JSON gateway, REST and WebSocket of a live node: requests whose HTTP is right and whose JSON is nearly so."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from typing import Final

from google.protobuf import json_format

from bench import servers
from quorate.api.routes import ROUTES
from quorate.wire import errors
from tests.fuzzing.node import ANSWER_S_MAX, live, rest_of
from tests.fuzzing.node import world as world
from tests.fuzzing.octets import Octets, odd
from tests.fuzzing.of_json import filled

PATHS: Final = list(ROUTES)
TEXT, ODD_DOCUMENT = range(2)
STREAMS_WAIT: Final = ("/v3/lock/lock", "/v3/election/campaign")
UPGRADE: Final = (
    b"GET %s HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)


def seeds() -> list[bytes]:
    """Each route with its filled request as text, and as a document to be made odd."""
    texts = [json_format.MessageToJson(filled(ROUTES[path].request, 2), indent=None).encode() for path in PATHS]
    return [
        *(bytes((TEXT, number)) + text for number, text in enumerate(texts)),
        *(bytes((ODD_DOCUMENT, number)) + bytes(range(40)) for number in range(len(PATHS))),
    ]


def run(data: bytes) -> None:
    """A unary call is answered with JSON and a status of etcd's; a stream ends when its client does."""
    octets = Octets(data)
    kind, path = octets.choice((TEXT, ODD_DOCUMENT)), octets.choice(PATHS)
    body = octets.rest()
    if kind == ODD_DOCUMENT:
        document = json.loads(json_format.MessageToJson(filled(ROUTES[path].request, 2)))
        body = json.dumps(odd(Octets(body), document)).encode()
    if ROUTES[path].is_unary and path not in STREAMS_WAIT:
        _ask(path, body)
    else:
        _stream(path, body)
        _converse(path, body)
    live().count()


def _ask(path: str, body: bytes) -> None:
    connection = http.client.HTTPConnection(servers.HOST, live().node.client_port, timeout=ANSWER_S_MAX)
    with contextlib.closing(connection):
        connection.request("POST", path, body)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.headers["content-type"] == "application/json"
        document = json.loads(text)
        if answer.status == http.HTTPStatus.OK:
            return
        assert document["error"] == document["message"]
        assert errors.http_status(document["code"]) == answer.status
        assert document["message"] != errors.INTERNAL_FAULT.text


def _stream(path: str, body: bytes) -> None:
    with live().client() as connection, contextlib.suppress(ConnectionError):
        head = f"POST {path} HTTP/1.1\r\nHost: node\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        assert errors.INTERNAL_FAULT.text.encode() not in rest_of(connection)


def _converse(path: str, body: bytes) -> None:
    """Over WebSocket: the text in one frame, and the end of the connection."""
    with live().client() as connection, contextlib.suppress(ConnectionError):
        length = bytes((0x80 | len(body),)) if len(body) < 126 else b"\xfe" + len(body[:65535]).to_bytes(2, "big")
        connection.sendall(UPGRADE % path.encode() + b"\x81" + length + b"\0\0\0\0" + body[:65535])
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        assert errors.INTERNAL_FAULT.text.encode() not in rest_of(connection)
