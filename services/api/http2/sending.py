"""The sending half of a connection: answers composed as bytes, windows respected, turns shared fairly.

A small answer that fits the windows is three frames composed with two struct calls and one concatenation. All
else is queued on its stream; `output` lets the streams that may send take turns of one frame, so a client that
reads a huge answer slowly holds up nobody, and no more than the asked budget leaves at once.
"""

from collections import deque
from struct import Struct
from typing import Final

from quorate.api.http2 import answers, frames
from quorate.api.http2.frames import ConnectionFailure, StreamFailure, frame_header
from quorate.api.http2.heads import RequestHead
from quorate.api.http2.limits import Limits
from quorate.api.http2.messages import PREFIX_BYTES, prefix
from quorate.api.http2.streams import Stream

# HEADERS with a block of two bytes, then the headers of DATA and of the message; and trailers of one byte.
_quick_head: Final = Struct(">IBI2sIBIBI")
_quick_tail: Final = Struct(">IBIs")
_HEAD_WORD: Final = len(answers.HEAD_TAUGHT) << 8 | frames.HEADERS
_TAIL_WORD: Final = len(answers.TAIL_TAUGHT) << 8 | frames.HEADERS
_BOTH_ENDS: Final = frames.END_STREAM | frames.END_HEADERS

_RESET_REMEMBERED_MAX: Final = 1_024
_AHEAD_BYTES_MAX: Final = 65_536  # of small messages of streams composed before `output` is asked; beyond it they queue


class SendingHalf:
    """What goes out. The peer's SETTINGS and WINDOW_UPDATE frames arrive here from the receiving half."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._streams: dict[int, RequestHead | Stream] = {}  # a head alone: whole call, waiting for its answer
        self._parts: list[bytes | memoryview] = []
        self._ready: deque[int] = deque()  # streams with something to send, in the order of their turns
        self._unblocked: list[int] = []
        self._window = frames.WINDOW_DEFAULT  # what may still be sent on the connection
        self._window_granted = frames.WINDOW_DEFAULT  # all that was ever allowed; minus _window: all that was sent
        self._initial_window = frames.WINDOW_DEFAULT
        self._frame_max = frames.FRAME_BYTES_DEFAULT
        self._quick_max = frames.FRAME_BYTES_DEFAULT  # a larger answer is queued
        self._peer_frame_max = frames.FRAME_BYTES_DEFAULT
        self._is_taught = False  # the peer's table holds both fields of a good answer
        self._head_block = answers.HEAD_TEACHING
        self._tail_block = answers.TAIL_TEACHING
        self._has_static_blocks = False
        self._table_update = b""  # to precede the next header block
        self._reset_here: dict[int, None] = {}  # streams we ended first; frames under way for them are ignored
        self._ahead_bytes = 0  # of stream messages composed since `output` was asked
        self._frames_sent = 0  # DATA frames of queued answers since the last tick
        self._answered = False  # headers were sent other than with DATA, since the client's last ping
        self.queued_bytes = 0  # response octets waiting for a window or a turn
        self.partial_bytes = 0  # request octets waiting for the rest of their message

    # --- what a host calls -------------------------------------------------------------------------------

    def respond(self, stream_id: int, message: bytes) -> None:
        """Answer a call with one message and status OK. Nothing happens if the stream is gone."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        length = len(message) + PREFIX_BYTES
        if length <= self._quick_max and length <= self._window and type(stream) is RequestHead and self._is_taught:
            del self._streams[stream_id]
            self._window -= length
            head = _quick_head.pack(
                _HEAD_WORD, 4, stream_id, b"\x88\xbf", length << 8, 0, stream_id, 0, length - PREFIX_BYTES
            )
            self._parts.append(head + message + _quick_tail.pack(_TAIL_WORD, _BOTH_ENDS, stream_id, b"\xbe"))
            return
        self.send(stream_id, message)
        self.finish(stream_id)

    def send(self, stream_id: int, message: bytes) -> bool:
        """Queue one response message. False: the stream is blocked, wait until `take_unblocked` names it."""
        pieces = [memoryview(prefix.pack(0, len(message)) + message[:64])]
        if len(message) > 64:
            pieces.append(memoryview(message)[64:])
        return self._queue(stream_id, pieces, len(message) + PREFIX_BYTES)

    def send_framed(self, stream_id: int, messages: bytes) -> bool:
        """As `send`, for whole messages that have their prefixes already."""
        stream = self._streams.get(stream_id)
        size = len(messages)
        if (
            type(stream) is Stream
            and stream.response_started
            and not stream.queued_bytes
            and not self._ready
            and 0 < size <= self._frame_max
            and size <= stream.send_window
            and size <= self._window
            and self._ahead_bytes + size <= _AHEAD_BYTES_MAX
            and stream.ending is None
        ):
            self._ahead_bytes += size
            self._frames_sent += 1
            self._window -= size
            stream.send_window -= size
            self._parts.append(frame_header.pack(size << 8 | frames.DATA, 0, stream_id) + messages)
            return True
        return self._queue(stream_id, [memoryview(messages)], len(messages))

    def start_response(self, stream_id: int) -> None:
        """Send the response headers ahead of the first message."""
        stream = self._stream(stream_id)
        if stream is not None:
            self._start_response(stream_id, stream)

    def finish(self, stream_id: int, code: int = answers.OK, message: str = "") -> None:
        """End a call with a gRPC status, behind everything queued for it."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if isinstance(stream, Stream):
            if stream.response_started:
                stream.ending = (code, message)
                if not stream.queued_bytes:
                    self._send_ending(stream_id, stream)
                return
            self._finish_at_once(stream_id, answers.trailers_only(code, message), stream.remote_closed)
        else:
            self._finish_at_once(stream_id, answers.trailers_only(code, message), is_remote_closed=True)

    def reset(self, stream_id: int, error_code: int) -> None:
        """Abandon a stream with RST_STREAM."""
        self._forget(stream_id)
        self._remember_reset(stream_id)
        self._parts.append(frames.rst_stream(stream_id, error_code))

    def output(self, budget_bytes: int = 262_144) -> bytes:
        """The octets to write now: all composed answers, and about `budget_bytes` of the queued ones."""
        if self._ready:
            self._pump(budget_bytes)
        parts = self._parts
        out = b"".join(parts)
        parts.clear()
        self._ahead_bytes = 0
        return out

    @property
    def has_output(self) -> bool:
        """There is something that `output` would return."""
        return bool(self._parts) or (bool(self._ready) and self._window > 0)

    def take_unblocked(self) -> list[int]:
        """Streams that were blocked and may send again, each named once."""
        unblocked, self._unblocked = self._unblocked, []
        return unblocked

    # --- what the peer tells -----------------------------------------------------------------------------

    def _widen(self, stream_id: int, increment: int) -> None:
        """WINDOW_UPDATE: the peer takes `increment` octets more."""
        if stream_id == 0:
            if increment == 0:
                raise ConnectionFailure(frames.PROTOCOL_ERROR, "WINDOW_UPDATE of zero")
            self._window += increment
            self._window_granted += increment
            if self._window > frames.WINDOW_LARGEST:
                raise ConnectionFailure(frames.FLOW_CONTROL_ERROR, "connection window too large")
            return
        if increment == 0:
            raise StreamFailure(stream_id, frames.PROTOCOL_ERROR)
        stream = self._stream(stream_id)
        if stream is None:
            return
        stream.send_window += increment
        if stream.send_window > frames.WINDOW_LARGEST:
            raise StreamFailure(stream_id, frames.FLOW_CONTROL_ERROR)
        self._schedule(stream_id, stream)

    def _set_initial_window(self, size: int) -> None:
        if size > frames.WINDOW_LARGEST:
            raise ConnectionFailure(frames.FLOW_CONTROL_ERROR, "initial window too large")
        change, self._initial_window = size - self._initial_window, size
        self._quick_max = min(self._frame_max, size)
        for stream_id, stream in self._streams.items():
            if isinstance(stream, Stream):
                stream.send_window += change
                if stream.send_window > frames.WINDOW_LARGEST:
                    raise ConnectionFailure(frames.FLOW_CONTROL_ERROR, "stream window too large")
                self._schedule(stream_id, stream)

    def _set_frame_max(self, size: int) -> None:
        if not frames.FRAME_BYTES_DEFAULT <= size <= frames.FRAME_BYTES_LARGEST:
            raise ConnectionFailure(frames.PROTOCOL_ERROR, "maximum frame size out of range")
        self._peer_frame_max = size
        self._frame_max = min(size, self._limits.frame_bytes_max)
        self._quick_max = min(self._frame_max, self._initial_window)

    def _set_table_size(self, size: int) -> None:
        """A peer that wants a smaller table than usual gets answers that use none (RFC 7541, 4.2)."""
        if size < frames.HEADER_TABLE_DEFAULT and not self._has_static_blocks:
            self._has_static_blocks = True
            self._is_taught = False
            self._head_block = answers.HEAD_PLAIN
            self._tail_block = answers.TAIL_PLAIN
            self._table_update = answers.TABLE_SIZE_ZERO

    # --- composing ---------------------------------------------------------------------------------------

    def _stream(self, stream_id: int) -> Stream | None:
        """The stream as an object; a waiting call gets one now."""
        stream = self._streams.get(stream_id)
        if isinstance(stream, RequestHead):
            stream = Stream(stream, self._initial_window, self._limits.stream_window_bytes)
            stream.remote_closed = stream.is_reported = True
            self._streams[stream_id] = stream
        return stream

    def _queue(self, stream_id: int, pieces: list[memoryview], size: int) -> bool:
        stream = self._stream(stream_id)
        if stream is None or stream.ending is not None or not size:
            return True
        self._start_response(stream_id, stream)
        stream.queue.extend(pieces)
        stream.queued_bytes += size
        self.queued_bytes += size
        self._schedule(stream_id, stream)
        if stream.queued_bytes > self._limits.send_high_bytes:
            stream.is_blocked = True
        return not stream.is_blocked

    def _schedule(self, stream_id: int, stream: Stream) -> None:
        if stream.queued_bytes and stream.send_window > 0 and not stream.is_scheduled:
            stream.is_scheduled = True
            self._ready.append(stream_id)

    def _start_response(self, stream_id: int, stream: Stream) -> None:
        if stream.response_started:
            return
        stream.response_started = True
        self._headers(stream_id, frames.END_HEADERS, self._head_block)
        if self._head_block is answers.HEAD_TEACHING:
            self._head_block = answers.HEAD_TAUGHT_ALONE

    def _send_ending(self, stream_id: int, stream: Stream) -> None:
        assert stream.ending is not None
        code, message = stream.ending
        if code or message:
            block = answers.trailers(code, message)
        else:
            block = self._tail_block
            if block is answers.TAIL_TEACHING:
                self._tail_block = answers.TAIL_TAUGHT
                self._head_block = answers.HEAD_TAUGHT
                self._is_taught = True
        self._finish_at_once(stream_id, block, stream.remote_closed)

    def _finish_at_once(self, stream_id: int, block: bytes, is_remote_closed: bool) -> None:
        """Close our side with `block`; a client that was still sending is told to stop (RFC 9113, 8.1)."""
        self._forget(stream_id)
        self._answered = True
        self._headers(stream_id, _BOTH_ENDS, block)
        if not is_remote_closed:
            self._remember_reset(stream_id)
            self._parts.append(frames.rst_stream(stream_id, frames.NO_ERROR))

    def _headers(self, stream_id: int, flags: int, block: bytes) -> None:
        """HEADERS, and CONTINUATION where the peer's frame size asks for it."""
        if self._table_update:
            block, self._table_update = self._table_update + block, b""
        size = self._peer_frame_max
        if len(block) <= size:
            self._parts.append(frames.frame(frames.HEADERS, flags, stream_id, block))
            return
        self._parts.append(frames.frame(frames.HEADERS, flags & ~frames.END_HEADERS, stream_id, block[:size]))
        for at in range(size, len(block), size):
            last = frames.END_HEADERS if at + size >= len(block) else 0
            self._parts.append(frames.frame(frames.CONTINUATION, last, stream_id, block[at : at + size]))

    def _forget(self, stream_id: int) -> None:
        stream = self._streams.pop(stream_id, None)
        if isinstance(stream, Stream):
            self.queued_bytes -= stream.queued_bytes
            self.partial_bytes -= stream.partial_bytes

    def _remember_reset(self, stream_id: int) -> None:
        self._reset_here[stream_id] = None
        if len(self._reset_here) > _RESET_REMEMBERED_MAX:
            del self._reset_here[next(iter(self._reset_here))]

    def _pump(self, budget: int) -> None:
        """Give the ready streams turns of one frame until the budget or the connection's window is used up."""
        ready = self._ready
        while ready and budget > 0 and self._window > 0:
            stream_id = ready.popleft()
            stream = self._streams.get(stream_id)
            if not isinstance(stream, Stream):
                continue
            size = min(stream.queued_bytes, stream.send_window, self._window, self._frame_max)
            if size <= 0:
                stream.is_scheduled = False
                continue
            budget -= size
            self._send_data(stream_id, stream, size)
            if stream.is_blocked and stream.queued_bytes < self._limits.send_low_bytes:
                stream.is_blocked = False
                self._unblocked.append(stream_id)
            if stream.queued_bytes:
                ready.append(stream_id)
                continue
            stream.is_scheduled = False
            if stream.ending is not None:
                self._send_ending(stream_id, stream)

    def _send_data(self, stream_id: int, stream: Stream, size: int) -> None:
        """One DATA frame of `size` octets off the stream's queue."""
        parts, queue = self._parts, stream.queue
        parts.append(frame_header.pack(size << 8 | frames.DATA, 0, stream_id))
        self._frames_sent += 1
        self._window -= size
        self.queued_bytes -= size
        stream.send_window -= size
        stream.queued_bytes -= size
        while size:
            piece = queue.popleft()
            if len(piece) > size:
                queue.appendleft(piece[size:])
                piece = piece[:size]
            parts.append(piece)
            size -= len(piece)
