"""One HTTP/1.1 keep-alive connection of the load generator, for the JSON gateway."""

import re
from typing import Final

from bench.http2 import ProtocolError

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
END_OF_CHUNKS: Final = b"\r\n0\r\n\r\n"


class Connection:
    """Shaped like the HTTP/2 connection; one call at a time, its stream id is the number of the call."""

    __slots__ = ("_head", "_rest", "errors", "failed", "first_error", "next_stream_id", "out", "streams_max")

    def __init__(self, path: str, authority: str) -> None:
        head = f"POST {path} HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/json\r\ncontent-length: "
        self._head = head.encode()
        self._rest = b""
        self.next_stream_id = 1
        self.errors = 0
        self.failed: list[int] = []
        self.first_error = ""
        self.out = b""
        self.streams_max = 1

    def can_send(self, size: int) -> bool:
        """HTTP/1.1 has no window of its own."""
        return True

    def request(self, body: bytes) -> bytes:
        """One POST."""
        self.next_stream_id += 1
        return b"%b%d\r\n\r\n%b" % (self._head, len(body), body)

    def take_out(self) -> bytes:
        """Nothing but requests is ever sent."""
        return b""

    def receive(self, data: bytes) -> list[int]:
        """The calls answered with 200 by what the socket gave."""
        if self._rest:
            data = self._rest + data
        self._rest = b""
        head_end = data.find(b"\r\n\r\n")
        if head_end < 0 or not self._complete(data, head_end):
            self._rest = data
            return []
        stream_id = self.next_stream_id - 1
        if data.startswith(b"HTTP/1.1 200"):
            return [stream_id]
        self.errors += 1
        self.failed.append(stream_id)
        self.first_error = self.first_error or data[:200].decode(errors="replace")
        return []

    def _complete(self, data: bytes, head_end: int) -> bool:
        if length := _LENGTH.search(data, 0, head_end):
            return len(data) >= head_end + 4 + int(length[1])
        if _CHUNKED.search(data, 0, head_end):
            return data.endswith(END_OF_CHUNKS)
        raise ProtocolError(f"neither content-length nor chunks: {data[:head_end]!r}")
