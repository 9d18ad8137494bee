"""The receiving half of a connection: header blocks and octets of DATA become calls, messages and their ends.

A request that came whole in two frames never gets here: `connection` reports it by itself.
"""

from typing import Final

from quorate.api.http2 import answers, frames
from quorate.api.http2.events import CALL, CANCELLED, HALF_CLOSED, MESSAGE, OPENED, Event
from quorate.api.http2.frames import ConnectionFailure, StreamFailure
from quorate.api.http2.heads import RequestHead
from quorate.api.http2.limits import Limits, Strain
from quorate.api.http2.messages import PREFIX_BYTES, MessageRefused, prefix, take
from quorate.api.http2.sending import SendingHalf
from quorate.api.http2.streams import STREAM_BYTES, Stream

_TOO_MANY_UNFINISHED: Final = "too many unfinished requests on this connection"


class ReceivingHalf(SendingHalf):
    """The requests under way, over the half that answers them."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._strain = Strain()
        self._events: list[Event] = []
        self._last_stream_id = 0
        self._stream_id_ceiling = frames.STREAM_ID_LARGEST  # lowered when draining

    def _on_head(self, flags: int, stream_id: int, head: RequestHead) -> None:
        """A whole header block: trailers of an open request, or a new one."""
        ends = bool(flags & frames.END_STREAM)
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._on_trailers(stream_id, stream, head, ends)
            return
        if not stream_id & 1:
            raise ConnectionFailure(frames.PROTOCOL_ERROR, "a client's streams have odd numbers")
        if stream_id <= self._last_stream_id:
            if stream_id in self._reset_here:
                return
            raise ConnectionFailure(frames.STREAM_CLOSED, "HEADERS on a closed stream")
        self._last_stream_id = stream_id
        if stream_id > self._stream_id_ceiling:
            self._remember_reset(stream_id)
        elif len(self._streams) >= self._limits.concurrent_streams_max:
            self._strain.charge(1, "HEADERS over the stream limit")
            raise StreamFailure(stream_id, frames.REFUSED_STREAM)
        elif head.malformed:
            self._strain.charge(1, "malformed HEADERS")
            raise StreamFailure(stream_id, frames.PROTOCOL_ERROR)
        elif head.refusal:
            self._finish_at_once(stream_id, head.refusal, is_remote_closed=ends)
        else:
            self._open(stream_id, head, ends)

    def _open(self, stream_id: int, head: RequestHead, ends: bool) -> None:
        stream = Stream(head, self._initial_window, self._limits.stream_window_bytes)
        self._streams[stream_id] = stream
        if head.is_unary:
            self.partial_bytes += STREAM_BYTES
            stream.partial_bytes = STREAM_BYTES
            if self.partial_bytes > self._limits.partial_bytes_max:
                self._refuse(stream_id, stream, MessageRefused(answers.RESOURCE_EXHAUSTED, _TOO_MANY_UNFINISHED))
                return
        else:
            stream.is_reported = True
            self._events.append((OPENED, stream_id, head, b""))
        if ends:
            self._end_request(stream_id, stream)

    def _on_trailers(self, stream_id: int, stream: RequestHead | Stream, head: RequestHead, ends: bool) -> None:
        if isinstance(stream, RequestHead) or stream.remote_closed:
            raise StreamFailure(stream_id, frames.STREAM_CLOSED)
        if not ends or head.has_pseudo_fields:
            raise StreamFailure(stream_id, frames.PROTOCOL_ERROR)
        self._end_request(stream_id, stream)

    def _end_request(self, stream_id: int, stream: Stream) -> None:
        try:
            self._close_remote(stream_id, stream)
        except MessageRefused as refused:
            self._refuse(stream_id, stream, refused)

    def _take_one(self, stream_id: int, data: bytes, start: int, stop: int) -> bool:
        """Report the message of an opened call that is the whole of a DATA frame, as clients send small ones. False:
        the frame is another, and nothing was done."""
        stream = self._streams.get(stream_id)
        size = stop - start
        if type(stream) is not Stream or not PREFIX_BYTES <= size <= stream.receive_window:
            return False
        if stream.received or stream.remote_closed or stream.ending is not None or stream.head.is_unary:
            return False
        compressed, length = prefix.unpack_from(data, start)
        if length != size - PREFIX_BYTES or compressed or length > self._limits.message_bytes_max:
            return False
        stream.receive_window -= size
        stream.received_bytes += size
        self._events.append((MESSAGE, stream_id, stream.head, data[start + PREFIX_BYTES : stop]))
        self._return_window(stream_id, stream, size)
        return True

    def _take_messages(self, stream_id: int, stream: Stream, payload: bytes) -> None:
        """Report the messages that `payload` completes, or keep the one of a unary call."""
        head, buffer = stream.head, stream.received
        stream.received_bytes += len(payload)
        buffer += payload
        while (message := take(buffer, head.encoding, self._limits.message_bytes_max)) is not None:
            if not head.is_unary:
                self._events.append((MESSAGE, stream_id, head, message))
            elif stream.message is None:
                stream.message = message
            else:
                raise MessageRefused(answers.UNIMPLEMENTED, "more than one message for a unary call")
        held = len(buffer) + (STREAM_BYTES if head.is_unary else 0)
        held += 0 if stream.message is None else len(stream.message)
        self.partial_bytes += held - stream.partial_bytes
        stream.partial_bytes = held
        if self.partial_bytes > self._limits.partial_bytes_max:
            raise MessageRefused(answers.RESOURCE_EXHAUSTED, _TOO_MANY_UNFINISHED)

    def _close_remote(self, stream_id: int, stream: Stream) -> None:
        """The client has sent all of its request."""
        stream.remote_closed = True
        head = stream.head
        if head.content_length not in (-1, stream.received_bytes):
            raise StreamFailure(stream_id, frames.PROTOCOL_ERROR)
        if stream.received:
            raise MessageRefused(answers.INTERNAL, "the request ended within a message")
        if not head.is_unary:
            self._events.append((HALF_CLOSED, stream_id, head, b""))
        elif stream.message is None:
            raise MessageRefused(answers.UNIMPLEMENTED, "no message for a unary call")
        else:
            stream.is_reported = True
            self._events.append((CALL, stream_id, head, stream.message))
            self.partial_bytes -= stream.partial_bytes
            stream.partial_bytes = 0
            stream.message = None
            if stream.send_window == self._initial_window:
                self._streams[stream_id] = head

    def _refuse(self, stream_id: int, stream: Stream, refused: MessageRefused) -> None:
        """Answer a request that cannot be served further; the host hears of it if it knew of the call."""
        self.finish(stream_id, refused.code, refused.message)
        if stream.is_reported:
            self._events.append((CANCELLED, stream_id, stream.head, b""))

    def _cancel(self, stream_id: int) -> None:
        """The stream is over without an answer; the host hears of it if it knew of the call."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        self._forget(stream_id)
        if isinstance(stream, RequestHead):
            self._events.append((CANCELLED, stream_id, stream, b""))
        elif stream.is_reported:
            self._events.append((CANCELLED, stream_id, stream.head, b""))

    def _return_window(self, stream_id: int, stream: Stream, size: int) -> None:
        """Give back `size` octets of the stream's window, in batches of half of it."""
        stream.unreturned_bytes += size
        if stream.unreturned_bytes > self._limits.stream_window_bytes // 2:
            self._parts.append(frames.window_update(stream_id, stream.unreturned_bytes))
            stream.receive_window += stream.unreturned_bytes
            stream.unreturned_bytes = 0
