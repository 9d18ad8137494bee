"""One stream that is more than a call waiting for its answer: a request in pieces, or a response in pieces."""

from collections import deque
from typing import Final

from quorate.api.http2.heads import RequestHead

STREAM_BYTES: Final = 2_048  # what an unfinished unary request takes before its first octet: about this object


class Stream:
    """State of one stream. A call that came whole and is answered whole never has one."""

    __slots__ = (
        "ending",
        "head",
        "is_blocked",
        "is_reported",
        "is_scheduled",
        "message",
        "partial_bytes",
        "queue",
        "queued_bytes",
        "receive_window",
        "received",
        "received_bytes",
        "remote_closed",
        "response_started",
        "send_window",
        "unreturned_bytes",
    )

    def __init__(self, head: RequestHead, send_window: int, receive_window: int) -> None:
        self.head = head
        self.is_reported = False  # the host knows of the call
        self.remote_closed = False  # the client has sent END_STREAM

        self.received = bytearray()  # of messages not yet whole
        self.partial_bytes = 0  # held of unfinished messages, as counted on the connection, with STREAM_BYTES
        self.received_bytes = 0  # DATA octets in all, for content-length
        self.message: bytes | None = None  # of a unary call, until the client has closed its side
        self.receive_window = receive_window  # what the client may still send
        self.unreturned_bytes = 0  # received, and not yet given back with WINDOW_UPDATE

        self.send_window = send_window  # negative after the client lowered its initial window
        self.response_started = False  # response headers are out
        self.queue: deque[memoryview] = deque()  # response octets waiting for a window
        self.queued_bytes = 0
        self.ending: tuple[int, str] | None = None  # status to send behind the queue
        self.is_scheduled = False  # has its turn coming in the outbox
        self.is_blocked = False  # its producer was told to wait
