"""The JSON gateway /v3: a POST of JSON becomes the gRPC call of that path and its answer JSON again.

The routes come from `routes`, the JSON from `json_codec`, both made from the protobuf descriptors. A request is one
ASGI call without a framework in between, as a put must not cost more here than in the rest of the node together.

Errors are {"error", "code", "message"}: clients of etcd 3.4 and 3.5 read the first, later ones the other two.
"""

import asyncio
import re
from collections.abc import Iterable
from typing import Final

from quorate.api.asgi import (
    BodyTooLarge,
    BodyTooSlow,
    Disconnected,
    Header,
    Receive,
    Scope,
    Send,
    read_body,
    until_gone,
)
from quorate.api.calling import NO_METADATA, Calls, Failed, Metadata, call
from quorate.api.gateway_answers import respond_error, respond_message
from quorate.api.gateway_streams import RequestReader, StreamAnswer
from quorate.api.json_codec import BadJson
from quorate.api.routes import ROUTES, Codec
from quorate.wire import errors
from quorate.wire.errors import Code

WAITING: Final = frozenset({"/v3lockpb.Lock/Lock", "/v3electionpb.Election/Campaign"})  # end when the client goes
EXPANSION: Final = 2  # of a message as JSON: base64 takes 4/3, names and numbers the rest

_TIMEOUT: Final = re.compile(r"(\d{1,8})([HMSmun])", re.ASCII)
_TIMEOUT_UNITS_S: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_METADATA_PREFIX: Final = b"grpc-metadata-"


class Gateway:
    """ASGI application for every path below /v3/; raises Disconnected where the client goes before its answer."""

    def __init__(self, calls: Calls, message_bytes_max: int) -> None:
        """`message_bytes_max` bounds a request in its protobuf form, as it does on gRPC."""
        self._calls = calls
        self._message_bytes_max = message_bytes_max
        self._body_bytes_max = message_bytes_max * EXPANSION
        codecs = {path: Codec.of(route) for path, route in ROUTES.items()}
        self._unary = {path: codec for path, codec in codecs.items() if codec.route.is_unary}
        self._streams = {path: codec for path, codec in codecs.items() if not codec.route.is_unary}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path not in ROUTES:
            await respond_error(send, errors.PATH_NOT_FOUND.code, errors.PATH_NOT_FOUND.text)
        elif scope["method"] != "POST":
            await respond_error(send, errors.METHOD_NOT_ALLOWED.code, errors.METHOD_NOT_ALLOWED.text)
        elif codec := self._unary.get(path):
            await self._answer(codec, scope, receive, send)
        else:
            await self._open(self._streams[path], scope, receive, send)

    async def _answer(self, codec: Codec, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            metadata, deadline_s = metadata_of(scope["headers"])
            request = codec.read.message(await read_body(receive, self._body_bytes_max)).SerializeToString()
            if len(request) > self._message_bytes_max:
                raise BodyTooLarge(len(request))
            method = codec.route.method
            if method in WAITING:
                response = await self._call_while_connected(method, request, metadata, deadline_s, receive)
            else:
                response = await call(self._calls, method, request, metadata, deadline_s)
        except BodyTooSlow as slow:
            await respond_error(send, slow.code, slow.message, [(b"connection", b"close")])
        except Failed as failed:
            await respond_error(send, failed.code, failed.message)
        except BadJson as bad:
            await respond_error(send, Code.INVALID_ARGUMENT, f"Failed to decode request: {bad}")
        except BodyTooLarge as large:
            text = errors.message_too_large_text(large.received_bytes, self._message_bytes_max)
            await respond_error(send, Code.RESOURCE_EXHAUSTED, text, [(b"connection", b"close")])
        else:
            await respond_message(send, codec, response)

    async def _open(self, codec: Codec, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            metadata, deadline_s = metadata_of(scope["headers"])
        except Failed as failed:
            await respond_error(send, failed.code, failed.message)
        else:
            requests = RequestReader(codec.read, receive, self._body_bytes_max)
            await StreamAnswer(codec, self._calls, requests, send).run(metadata, deadline_s)

    async def _call_while_connected(
        self, method: str, request: bytes, metadata: Metadata, deadline_s: float | None, receive: Receive
    ) -> bytes:
        """A call that may wait for others and must not outlive its client: cancelled with the connection."""
        answered = asyncio.ensure_future(call(self._calls, method, request, metadata, deadline_s))
        gone = asyncio.ensure_future(until_gone(receive))
        try:
            await asyncio.wait({answered, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answered.done():
                raise Disconnected
            return answered.result()
        finally:
            answered.cancel()
            gone.cancel()


def metadata_of(headers: Iterable[Header]) -> tuple[Metadata, float | None]:
    """What HTTP headers say to the call: its metadata and its time limit in seconds, if any.

    Of values of one name the first counts. Raises Failed where Grpc-Timeout is none.
    """
    metadata: dict[str, str] | None = None
    deadline_s = None
    for name, value in headers:
        if name == b"authorization":
            metadata = metadata or {}
            metadata.setdefault("authorization", value.decode("latin-1"))
        elif name.startswith(_METADATA_PREFIX):
            metadata = metadata or {}
            metadata.setdefault(name[len(_METADATA_PREFIX) :].decode("latin-1"), value.decode("latin-1"))
        elif name == b"grpc-timeout":
            deadline_s = _seconds(value.decode("latin-1"))
    return metadata or NO_METADATA, deadline_s


def _seconds(timeout: str) -> float:
    match = _TIMEOUT.fullmatch(timeout)
    if match is None:
        raise Failed(Code.INVALID_ARGUMENT, f"invalid grpc-timeout: {timeout}")
    return int(match[1]) * _TIMEOUT_UNITS_S[match[2]]
