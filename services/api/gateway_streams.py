"""The gateway's streams: requests as JSON values one after another, responses as one {"result":...} a line.

The requests are read while responses are written. The end of the body half-closes the call; a client that goes away
cancels it. A client that does not read pauses the call and is not listened to, so that no more than RESPONSES_BYTES_MAX
wait for it here.
"""

import asyncio
import codecs
import re
from typing import Final

from quorate.api import faults
from quorate.api.asgi import Disconnected, Receive, Send, until_gone
from quorate.api.calling import CallStream, Metadata, StreamCalls
from quorate.api.gateway_answers import JSON, JSON_HEADERS, error_line
from quorate.api.json_codec import BadJson, Decoder, IncompleteJson, skip_whitespace
from quorate.api.routes import Codec
from quorate.wire.errors import Code, http_status

_MARKS: Final = re.compile(r'["{}\[\]]')
_STRING_MARKS: Final = re.compile(r'["\\]')
RESPONSES_BYTES_MAX: Final = 1024 * 1024  # a few of the largest watch responses


class Nesting:
    """How deep JSON text is nested where it ends; each piece of it is looked at once."""

    def __init__(self) -> None:
        self._depth = 0
        self._is_string = False
        self._skipped = 0  # characters of the next piece that belong to an escape

    def follow(self, piece: str) -> bool:
        """Take the next piece; whether a value may have ended in it."""
        at, ends = self._skipped, self._depth <= 0 and not self._is_string
        while mark := (_STRING_MARKS if self._is_string else _MARKS).search(piece, at):
            at = mark.end()
            match mark[0]:
                case '"':
                    self._is_string = not self._is_string
                case "\\":
                    at += 1
                case "{" | "[":
                    self._depth += 1
                case _:
                    self._depth -= 1
                    ends = ends or self._depth <= 0
        self._skipped = max(0, at - len(piece))
        return ends


class RequestReader:
    """The requests in the body of one HTTP request."""

    def __init__(self, decoder: Decoder, receive: Receive, request_bytes_max: int) -> None:
        self._decoder = decoder
        self._receive = receive
        self._request_bytes_max = request_bytes_max
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._text = ""  # what is not a complete JSON value yet
        self._nesting = Nesting()
        self._bad: BadJson | None = None

    async def read(self) -> tuple[list[bytes], bool]:
        """The requests that are complete now, in protobuf's form, and whether more may come.

        Raises BadJson for text that is none or too long for one request, after the good requests before it;
        Disconnected when the client is gone.
        """
        if self._bad is not None:
            raise self._bad
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        more = message.get("more_body", False)
        try:
            piece = self._utf8.decode(message.get("body", b""), final=not more)
        except UnicodeDecodeError as error:
            raise BadJson(str(error)) from None
        self._text += piece
        # A request that comes octet by octet is not read anew with each of them.
        if not (self._nesting.follow(piece) or not more or len(self._text) > self._request_bytes_max):
            return [], True
        requests = self._take_complete(more)
        return requests, more or self._bad is not None

    def _take_complete(self, more: bool) -> list[bytes]:
        requests = []
        start = skip_whitespace(self._text, 0)
        try:
            while start < len(self._text):
                message, end = self._decoder.next_message(self._text, start)
                requests.append(message.SerializeToString())
                start = skip_whitespace(self._text, end)
        except BadJson as bad:
            unfinished = isinstance(bad, IncompleteJson) and len(self._text) - start <= self._request_bytes_max
            if not (more and unfinished):
                self._bad = bad
        self._text = self._text[start:]
        return requests

    async def until_gone(self) -> None:
        """Returns when the client is gone."""
        await until_gone(self._receive)


class StreamAnswer:
    """One stream from its first request to its last line."""

    def __init__(self, codec: Codec, calls: StreamCalls, requests: RequestReader, send: Send) -> None:
        self._codec = codec
        self._calls = calls
        self._requests = requests
        self._send = send
        self._responses: list[bytes] = []
        self._waiting_bytes = 0
        self._stream: CallStream | None = None
        self._paused = False
        self._has_room = asyncio.Event()  # as long as it is not paused
        self._has_room.set()
        self._end: tuple[int, str] | None = None
        self._news = asyncio.Event()
        self._started = False

    async def run(self, metadata: Metadata, deadline_s: float | None) -> None:
        """Answer until the call ends; raises Disconnected when the client goes before."""
        route = self._codec.route
        stream = self._stream = self._calls.stream(route.method, metadata, self._respond, self._done, deadline_s)
        try:
            async with asyncio.TaskGroup() as tasks:
                feeding = tasks.create_task(self._feed(stream, route.descriptor.client_streaming))
                await self._write(stream)
                feeding.cancel()
        except BaseExceptionGroup as failed:
            gone, others = failed.split(Disconnected)
            if gone is None or others is not None:
                raise
            raise Disconnected from failed
        finally:
            if self._end is None:
                stream.cancel()

    def _respond(self, response: bytes) -> None:
        self._responses.append(response)
        self._waiting_bytes += len(response)
        self._news.set()
        if self._waiting_bytes > RESPONSES_BYTES_MAX and not self._paused and self._stream is not None:
            self._paused = True
            self._has_room.clear()
            self._stream.pause()

    def _done(self, code: int, message: str) -> None:
        if self._end is None:
            self._end = (code, message)
            self._news.set()

    async def _feed(self, stream: CallStream, many: bool) -> None:
        """Pass the requests on; a call with one request takes the first, and no text is the empty one."""
        sent, more = 0, True
        try:
            while more and (many or sent == 0):
                await self._has_room.wait()
                requests, more = await self._requests.read()
                for request in requests if many else requests[:1]:
                    stream.send(request)
                    sent += 1
        except BadJson as bad:
            self._done(Code.INVALID_ARGUMENT, f"Failed to decode request: {bad}")
            stream.cancel()
            return
        except Disconnected:
            raise
        except Exception as reason:  # whatever it is, it is this stream's alone
            self._done(*faults.outcome(reason))
            stream.cancel()
            return
        if not many and sent == 0:
            stream.send(b"")
        stream.half_close()
        await self._requests.until_gone()
        raise Disconnected

    async def _write(self, stream: CallStream) -> None:
        while self._end is None or self._responses:
            await self._news.wait()
            self._news.clear()
            responses, self._responses, self._waiting_bytes = self._responses, [], 0
            for response in responses:
                await self._line(f'{{"result":{self._codec.json(response)}}}\n'.encode())
            if self._paused and not self._responses:
                self._paused = False
                self._has_room.set()
                stream.resume()
        await self._finish(*self._end)

    async def _line(self, line: bytes) -> None:
        if not self._started:
            self._started = True
            await self._send({"type": "http.response.start", "status": 200, "headers": JSON_HEADERS})
        await self._send({"type": "http.response.body", "body": line, "more_body": True})

    async def _finish(self, code: int, message: str) -> None:
        if not self._started:
            status = http_status(code)
            await self._send({"type": "http.response.start", "status": status, "headers": [JSON]})
        last = b"" if code == Code.OK else error_line(code, message)
        await self._send({"type": "http.response.body", "body": last})
