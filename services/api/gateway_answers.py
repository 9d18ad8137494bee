"""The form of the gateway's answers: its headers, and errors for clients of every etcd from 3.4 on."""

from collections.abc import Iterable
from http.client import responses
from json.encoder import encode_basestring
from typing import Final

from quorate.api.asgi import Header, Send, respond
from quorate.wire.errors import Code, http_status

JSON: Final[Header] = (b"content-type", b"application/json")
JSON_HEADERS: Final[tuple[Header, ...]] = (JSON, (b"grpc-metadata-content-type", b"application/grpc"))


def error_body(code: int, message: str) -> bytes:
    """The body of a failed unary call: 3.4 and 3.5 read "error", later clients "message"."""
    text = encode_basestring(message)
    return f'{{"error":{text},"code":{int(code)},"message":{text}}}'.encode()


def error_line(code: int, message: str) -> bytes:
    """The last line of a stream that failed: 3.5 read the long names, later clients "code"."""
    status = http_status(code)
    phrase = responses.get(status, "Client Closed Request")
    return (
        f'{{"error":{{"code":{int(code)},"message":{encode_basestring(message)},"grpc_code":{int(code)},'
        f'"http_code":{status},"http_status":"{phrase}"}}}}\n'
    ).encode()


async def respond_error(send: Send, code: int, message: str, headers: Iterable[Header] = ()) -> None:
    """Answer an error with the HTTP status of its gRPC code."""
    if code == Code.UNAUTHENTICATED:
        headers = [*headers, (b"www-authenticate", message.encode())]
    await respond(send, http_status(code), [JSON, *headers], error_body(code, message))
