"""The form of the gateway's answers: its headers, and errors for clients of every etcd from 3.4 on."""

import asyncio
from collections.abc import Iterable
from http import HTTPStatus
from json.encoder import encode_basestring
from typing import Final

from quorate.api.asgi import Header, Send, respond
from quorate.api.json_codec import pieces
from quorate.api.routes import Codec
from quorate.wire.errors import Code, http_status

PIECES_FROM_BYTES: Final = 256 * 1024  # of a response in its binary form; below it writing takes a few milliseconds
JSON: Final[Header] = (b"content-type", b"application/json")
JSON_HEADERS: Final[tuple[Header, ...]] = (JSON, (b"grpc-metadata-content-type", b"application/grpc"))
FAILURE: Final = (  # for the OpenAPI document
    "Failure. The status follows the gRPC code in `code`: 400 for a wrong request, a condition that is not met or a "
    "revision that is not there, 401 without a good token, 403 without a right, 404 and 409 for what is missing or "
    "exists, 429 when there is no room, 503 without a leader or while the member stops, 504 when time was up."
)
PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}


def error_body(code: int, message: str) -> bytes:
    """The body of a failed unary call: 3.4 and 3.5 read "error", later clients "message".

    The text may repeat what the client wrote, which JSON's escapes allow to be half a character.
    """
    text = encode_basestring(message)
    return f'{{"error":{text},"code":{int(code)},"message":{text}}}'.encode(errors="replace")


def error_line(code: int, message: str) -> bytes:
    """The last line of a stream that failed: 3.5 read the long names, later clients "code"."""
    status = http_status(code)
    phrase = PHRASES.get(status, "Client Closed Request")
    return (
        f'{{"error":{{"code":{int(code)},"message":{encode_basestring(message)},"grpc_code":{int(code)},'
        f'"http_code":{status},"http_status":"{phrase}"}}}}\n'
    ).encode(errors="replace")


async def respond_message(send: Send, codec: Codec, response: bytes) -> None:
    """Answer a unary call. A large response leaves in pieces, between which other clients have their turn."""
    if len(response) < PIECES_FROM_BYTES:
        await respond(send, 200, JSON_HEADERS, codec.json(response).encode())
        return
    await send({"type": "http.response.start", "status": 200, "headers": JSON_HEADERS})
    for piece in pieces(codec.route.response, codec.response.FromString(response)):
        await send({"type": "http.response.body", "body": piece.encode(), "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b""})


async def respond_error(send: Send, code: int, message: str, headers: Iterable[Header] = ()) -> None:
    """Answer an error with the HTTP status of its gRPC code."""
    if code == Code.UNAUTHENTICATED:
        headers = [*headers, (b"www-authenticate", message.encode())]
    await respond(send, http_status(code), [JSON, *headers], error_body(code, message))
