"""One HTTP/2 connection of a gRPC server, without any input or output: octets in, octets and events out.

The rule of this file: what the peer sends is taken apart in one pass over each read, and every frame ends in an
event, an answer, or an error of the stream or the connection as RFC 9113 says; nothing raises out of it. The
events do not depend on how the octets were cut into reads.

The idea: nearly all traffic of a gRPC server is one shape, HEADERS with a block seen before and one DATA frame
with END_STREAM around one message. `receive` recognises that shape with two struct calls and one dictionary
lookup and reports it as one tuple; no object is made for the stream. Everything else goes the general way
through a method per frame kind. The `h2` library was measured and does about a twentieth of this.
"""

from collections.abc import Callable, Container
from struct import Struct
from typing import Final

from quorate.api.http2 import frames
from quorate.api.http2.events import CALL, CANCELLED, Event
from quorate.api.http2.frames import ConnectionFailure, StreamFailure, frame_header
from quorate.api.http2.heads import HeadDecoder, RequestHead
from quorate.api.http2.keepalive import DRAIN_PING, OUR_PING, Keepalive
from quorate.api.http2.limits import Limits
from quorate.api.http2.messages import PREFIX_BYTES, MessageRefused
from quorate.api.http2.receiving import ReceivingHalf
from quorate.api.http2.streams import Stream

# The frame header of DATA and the message prefix behind it, read at once.
_data_and_prefix: Final = Struct(">IBIBI")
_CONTINUATIONS_MAX: Final = 64  # frames of one header block


class Connection(ReceivingHalf):
    """The server's side. `unary` holds the paths whose calls are reported whole.

    Feed it with `receive`, answer with the methods of SendingHalf, write what `output` returns, call `tick`
    about once a second. When `closed` turns true, write the last output and close the transport.
    """

    def __init__(self, limits: Limits, unary: Container[bytes], now: float) -> None:
        super().__init__(limits)
        self._heads = HeadDecoder(limits, unary)
        self._keepalive = Keepalive(limits, now)
        self._now = now
        self._ticked_at = now
        self._rest = b""  # octets of a frame that is not whole yet
        self._awaits_preface = True
        self._awaits_settings = True
        self._block: tuple[int, int, bytearray] | None = None  # stream, flags and octets of an unfinished block
        self._block_frames = 0
        self._last_stream_id_at_tick = 0
        self._sent_at_ping = 0  # octets sent when the client's last ping came
        self._receive_window = limits.connection_window_bytes
        self.closed = False
        self.is_draining = False
        self._parts.append(
            frames.settings(
                {
                    frames.MAX_CONCURRENT_STREAMS: limits.concurrent_streams_max,
                    frames.INITIAL_WINDOW_SIZE: limits.stream_window_bytes,
                    frames.MAX_HEADER_LIST_SIZE: limits.header_list_bytes_max,
                }
            )
            + frames.window_update(0, limits.connection_window_bytes - frames.WINDOW_DEFAULT)
        )

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take what was read; `now` is the host's monotonic clock in seconds. Never raises."""
        if self.closed:
            return []
        self._now = self._keepalive.heard_at = now
        events = self._events = []
        if self._rest:
            data = self._rest + data
            self._rest = b""
        try:
            self._scan(data, events)
        except ConnectionFailure as failure:
            self._fail(failure)
        return events

    def _scan(self, data: bytes, events: list[Event]) -> None:
        position, end = 0, len(data)
        if self._awaits_preface:
            position = self._preface(data)
            if self._awaits_preface:
                self._rest = data
                return
        known, streams = self._heads.known, self._streams
        streams_max = self._limits.concurrent_streams_max
        quick_max = min(frames.FRAME_BYTES_DEFAULT - PREFIX_BYTES, self._limits.message_bytes_max)
        received = 0
        is_between_blocks = not self._awaits_settings and self._block is None
        while end - position >= frames.FRAME_HEADER_BYTES:
            word, flags, stream_id = frame_header.unpack_from(data, position)
            start = position + 9
            stop = start + (word >> 8)
            if word >> 8 > frames.FRAME_BYTES_DEFAULT:
                raise ConnectionFailure(frames.FRAME_SIZE_ERROR, "frame larger than the maximum")
            if stop > end:
                break
            if word & 0xFF == frames.HEADERS and flags == frames.END_HEADERS and is_between_blocks:
                block = data[start:stop]
                head = known.get(block)
                if head is None:
                    head = self._heads.decode(block)
                if head.is_quick and end - stop >= 14:
                    data_word, data_flags, data_stream_id, compressed, length = _data_and_prefix.unpack_from(data, stop)
                    data_stop = stop + 14 + length
                    if (
                        data_word == (length + 5) << 8
                        and data_flags == frames.END_STREAM
                        and data_stream_id == stream_id
                        and not compressed
                        and data_stop <= end
                        and self._last_stream_id < stream_id <= self._stream_id_ceiling
                        and stream_id & 1
                        and length <= quick_max
                        and len(streams) < streams_max
                    ):
                        self._last_stream_id = stream_id
                        streams[stream_id] = head
                        received += length + 5
                        events.append((CALL, stream_id, head, data[stop + 14 : data_stop]))
                        position = data_stop
                        continue
                try:
                    self._on_head(flags, stream_id & frames.STREAM_ID_LARGEST, head)
                except StreamFailure as failure:
                    self._fail_stream(failure)
            elif (
                word & 0xFF == frames.DATA
                and not flags
                and is_between_blocks
                and self._take_one(stream_id, data, start, stop)
            ):
                received += word >> 8
            else:
                self._on_frame(word & 0xFF, flags, stream_id, data[start:stop])
                is_between_blocks = not self._awaits_settings and self._block is None
            position = stop
        self._rest = data[position:]
        if received:
            self._count_received(received)

    def drain(self) -> None:
        """Tell the client to open no more streams; those open are served. `closed` follows the last of them."""
        if self.is_draining or self.closed:
            return
        self.is_draining = True
        self._parts.append(frames.goaway(frames.STREAM_ID_LARGEST, frames.NO_ERROR, b""))
        self._parts.append(frames.frame(frames.PING, 0, 0, DRAIN_PING))

    def tick(self, now: float) -> None:
        """Let time pass: about once a second."""
        if self.closed:
            return
        self._strain.relax(now - self._ticked_at)
        self._ticked_at = self._now = now
        self._last_stream_id_at_tick = self._last_stream_id
        self._frames_sent = 0
        try:
            if self._keepalive.probe(now):
                self._parts.append(frames.frame(frames.PING, 0, 0, OUR_PING))
        except ConnectionFailure as failure:
            self._fail(failure)

    def lost(self) -> list[Event]:
        """The transport is gone: CANCELLED for every call still open."""
        self.closed = True
        events = [
            (CANCELLED, stream_id, stream.head if isinstance(stream, Stream) else stream, b"")
            for stream_id, stream in self._streams.items()
            if isinstance(stream, RequestHead) or stream.is_reported
        ]
        self._streams.clear()
        self._ready.clear()
        self.queued_bytes = self.partial_bytes = 0
        return events

    @property
    def has_streams(self) -> bool:
        """Calls are open."""
        return bool(self._streams)

    @property
    def is_settled(self) -> bool:
        """After `output`: nothing is left to be sent, told or ended."""
        return not (self._ready or self._unblocked or self.closed or self.is_draining)

    @property
    def is_drained(self) -> bool:
        """The client was told to go, knows the last stream served, and has none open."""
        return self._stream_id_ceiling < frames.STREAM_ID_LARGEST and not self._streams

    # --- frames ------------------------------------------------------------------------------------------

    def _preface(self, data: bytes) -> int:
        """Octets of `data` that are preface; none while it is not whole."""
        if not frames.PREFACE.startswith(data[: len(frames.PREFACE)]):
            raise ConnectionFailure(frames.PROTOCOL_ERROR, "no HTTP/2 preface")
        if len(data) < len(frames.PREFACE):
            return 0
        self._awaits_preface = False
        return len(frames.PREFACE)

    def _on_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Any frame that is not the start of a call in the common shape."""
        stream_id &= frames.STREAM_ID_LARGEST
        if self._awaits_settings:
            if kind != frames.SETTINGS or flags & frames.ACK:
                raise ConnectionFailure(frames.PROTOCOL_ERROR, "first frame is not SETTINGS")
            self._awaits_settings = False
        if self._block is not None and (kind != frames.CONTINUATION or stream_id != self._block[0]):
            raise ConnectionFailure(frames.PROTOCOL_ERROR, "header block was interrupted")
        handler = _HANDLERS.get(kind)
        if handler is None:
            self._strain.charge(1, "unknown")
            return
        try:
            handler(self, flags, stream_id, payload)
        except StreamFailure as failure:
            self._fail_stream(failure)

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        self._require_known(stream_id)
        self._count_received(size)
        if flags & frames.PADDED:
            payload = _unpadded(payload)
        stream = self._streams.get(stream_id)
        if stream is None:
            if stream_id in self._reset_here:
                self._strain.charge(size == 0, "empty DATA")
                return
            raise StreamFailure(stream_id, frames.STREAM_CLOSED)
        if isinstance(stream, RequestHead) or stream.remote_closed:
            raise StreamFailure(stream_id, frames.STREAM_CLOSED)
        stream.receive_window -= size
        if stream.receive_window < 0:
            raise StreamFailure(stream_id, frames.FLOW_CONTROL_ERROR)
        if stream.ending is not None:  # answered already; what was under way is dropped
            stream.remote_closed = bool(flags & frames.END_STREAM)
            return
        if not payload and not flags & frames.END_STREAM:
            self._strain.charge(1, "empty DATA")
        try:
            self._take_messages(stream_id, stream, payload)
            if flags & frames.END_STREAM:
                self._close_remote(stream_id, stream)
            else:
                self._return_window(stream_id, stream, size)
        except MessageRefused as refused:
            stream.remote_closed = bool(flags & frames.END_STREAM)
            self._refuse(stream_id, stream, refused)

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if flags & frames.PADDED:
            payload = _unpadded(payload)
        if flags & frames.PRIORITY_FLAG:
            if len(payload) < 5:
                raise ConnectionFailure(frames.FRAME_SIZE_ERROR, "HEADERS too short for its priority")
            payload = payload[5:]
        if flags & frames.END_HEADERS:
            self._on_head(flags, stream_id, self._heads.known.get(payload) or self._heads.decode(payload))
        else:
            self._block = (stream_id, flags, bytearray(payload))
            self._block_frames = 1

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is None:
            raise ConnectionFailure(frames.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        _, first_flags, block = self._block
        block += payload
        self._block_frames += 1
        if self._block_frames > _CONTINUATIONS_MAX or len(block) > 2 * self._limits.header_list_bytes_max:
            raise ConnectionFailure(frames.ENHANCE_YOUR_CALM, "header block too large")
        if not payload:
            self._strain.charge(10, "empty CONTINUATION")
        if flags & frames.END_HEADERS:
            self._block = None
            self._on_head(first_flags, stream_id, self._heads.decode(bytes(block)))

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise ConnectionFailure(frames.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != 5:
            raise StreamFailure(stream_id, frames.FRAME_SIZE_ERROR)
        self._strain.charge(1, "PRIORITY")

    def _on_rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._require_known(stream_id)
        if len(payload) != 4:
            raise ConnectionFailure(frames.FRAME_SIZE_ERROR, "RST_STREAM of a wrong size")
        self._strain.charge(1, "RST_STREAM")
        self._cancel(stream_id)

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFailure(frames.PROTOCOL_ERROR, "SETTINGS on a stream")
        if len(payload) % 6 or (flags & frames.ACK and payload):
            raise ConnectionFailure(frames.FRAME_SIZE_ERROR, "SETTINGS of a wrong size")
        self._strain.charge(10, "SETTINGS")
        if flags & frames.ACK:
            return
        for name, value in frames.setting_pairs(payload):
            if name == frames.INITIAL_WINDOW_SIZE:
                self._set_initial_window(value)
            elif name == frames.MAX_FRAME_SIZE:
                self._set_frame_max(value)
            elif name == frames.HEADER_TABLE_SIZE:
                self._set_table_size(value)
            elif name == frames.ENABLE_PUSH and value > 1:
                raise ConnectionFailure(frames.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1")
        self._parts.append(frames.frame(frames.SETTINGS, frames.ACK, 0, b""))

    def _on_push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise ConnectionFailure(frames.PROTOCOL_ERROR, "PUSH_PROMISE from a client")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFailure(frames.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFailure(frames.FRAME_SIZE_ERROR, "PING of a wrong size")
        self._strain.charge(1, "PING")
        if flags & frames.ACK:
            if payload == DRAIN_PING and self.is_draining:
                self._stream_id_ceiling = min(self._stream_id_ceiling, self._last_stream_id)
                self._parts.append(frames.goaway(self._stream_id_ceiling, frames.NO_ERROR, b""))
            return
        self._parts.append(frames.frame(frames.PING, frames.ACK, 0, payload))
        sent = self._window_granted - self._window
        answered = self._answered or sent != self._sent_at_ping
        self._answered, self._sent_at_ping = False, sent
        self._keepalive.admit_ping(self._now, has_streams=bool(self._streams), answered=answered)

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        """The client will take no pushed streams; there are none."""
        if stream_id:
            raise ConnectionFailure(frames.PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise ConnectionFailure(frames.FRAME_SIZE_ERROR, "GOAWAY too short")
        self._strain.charge(10, "GOAWAY")

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFailure(frames.FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong size")
        if stream_id:
            self._require_known(stream_id)
        calls = (self._last_stream_id - self._last_stream_id_at_tick) // 2
        self._strain.charge_window_update(calls + self._frames_sent)
        self._widen(stream_id, frames.uint31(payload))

    # --- accounts ----------------------------------------------------------------------------------------

    def _require_known(self, stream_id: int) -> None:
        """The frame belongs to a stream that is or was open."""
        if not stream_id & 1 or stream_id > self._last_stream_id:
            raise ConnectionFailure(frames.PROTOCOL_ERROR, "frame on an idle stream")

    def _count_received(self, size: int) -> None:
        """Take `size` octets off the connection's receive window and widen it again in time."""
        self._receive_window -= size
        if self._receive_window < 0:
            raise ConnectionFailure(frames.FLOW_CONTROL_ERROR, "connection window exceeded")
        whole = self._limits.connection_window_bytes
        if self._receive_window < whole // 2:
            self._parts.append(frames.window_update(0, whole - self._receive_window))
            self._receive_window = whole

    def _fail_stream(self, failure: StreamFailure) -> None:
        self._strain.charge(1, "broken")
        self._cancel(failure.stream_id)
        self._remember_reset(failure.stream_id)
        self._parts.append(frames.rst_stream(failure.stream_id, failure.error_code))

    def _fail(self, failure: ConnectionFailure) -> None:
        """Say goodbye and why. The host writes it, closes, and hears of open calls from `lost`."""
        self.closed = True
        self._ready.clear()
        last = min(self._last_stream_id, self._stream_id_ceiling)
        self._parts.append(frames.goaway(last, failure.error_code, failure.reason.encode("ascii", "replace")))


def _unpadded(payload: bytes) -> bytes:
    """The payload of a frame with the PADDED flag."""
    if not payload:
        raise ConnectionFailure(frames.FRAME_SIZE_ERROR, "padded frame without its length")
    if payload[0] >= len(payload):
        raise ConnectionFailure(frames.PROTOCOL_ERROR, "padding longer than its frame")
    return payload[1 : len(payload) - payload[0]]


_HANDLERS: Final[dict[int, Callable[[Connection, int, int, bytes], None]]] = {
    frames.DATA: Connection._on_data,
    frames.HEADERS: Connection._on_headers,
    frames.PRIORITY: Connection._on_priority,
    frames.RST_STREAM: Connection._on_rst_stream,
    frames.SETTINGS: Connection._on_settings,
    frames.PUSH_PROMISE: Connection._on_push_promise,
    frames.PING: Connection._on_ping,
    frames.GOAWAY: Connection._on_goaway,
    frames.WINDOW_UPDATE: Connection._on_window_update,
    frames.CONTINUATION: Connection._on_continuation,
}
