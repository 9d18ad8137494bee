"""Numbers and layouts of RFC 9113: frame kinds, flags, error codes, settings, and how a frame is packed."""

from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY_FLAG: Final = 0x20

NO_ERROR: Final = 0x0
PROTOCOL_ERROR: Final = 0x1
INTERNAL_ERROR: Final = 0x2
FLOW_CONTROL_ERROR: Final = 0x3
SETTINGS_TIMEOUT: Final = 0x4
STREAM_CLOSED: Final = 0x5
FRAME_SIZE_ERROR: Final = 0x6
REFUSED_STREAM: Final = 0x7
CANCEL: Final = 0x8
COMPRESSION_ERROR: Final = 0x9
CONNECT_ERROR: Final = 0xA
ENHANCE_YOUR_CALM: Final = 0xB

HEADER_TABLE_SIZE: Final = 0x1
ENABLE_PUSH: Final = 0x2
MAX_CONCURRENT_STREAMS: Final = 0x3
INITIAL_WINDOW_SIZE: Final = 0x4
MAX_FRAME_SIZE: Final = 0x5
MAX_HEADER_LIST_SIZE: Final = 0x6

FRAME_HEADER_BYTES: Final = 9
FRAME_BYTES_DEFAULT: Final = 16_384  # the smallest maximum a peer may ask for, and what it gets unasked
FRAME_BYTES_LARGEST: Final = (1 << 24) - 1
WINDOW_DEFAULT: Final = 65_535
WINDOW_LARGEST: Final = (1 << 31) - 1
STREAM_ID_LARGEST: Final = (1 << 31) - 1
HEADER_TABLE_DEFAULT: Final = 4_096

frame_header: Final = Struct(">IBI")  # length << 8 | kind, flags, stream id
_uint32: Final = Struct(">I")
_setting: Final = Struct(">HI")


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """One whole frame."""
    return frame_header.pack(len(payload) << 8 | kind, flags, stream_id) + payload


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame with these identifiers and values, in their order."""
    return frame(SETTINGS, 0, 0, b"".join(_setting.pack(name, value) for name, value in values.items()))


def window_update(stream_id: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream_id, _uint32.pack(increment))


def rst_stream(stream_id: int, error_code: int) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream_id, _uint32.pack(error_code))


def goaway(last_stream_id: int, error_code: int, reason: bytes) -> bytes:
    """A GOAWAY frame: streams above `last_stream_id` were not and will not be looked at."""
    return frame(GOAWAY, 0, 0, _uint32.pack(last_stream_id) + _uint32.pack(error_code) + reason)


def setting_pairs(payload: bytes) -> list[tuple[int, int]]:
    """The (identifier, value) pairs of a SETTINGS payload whose length is a multiple of six."""
    return list(_setting.iter_unpack(payload))


def uint31(payload: bytes) -> int:
    """The first four bytes as a number without the reserved bit."""
    return int(_uint32.unpack_from(payload)[0]) & 0x7FFF_FFFF


def uint32(payload: bytes) -> int:
    """The first four bytes as a number."""
    return int(_uint32.unpack_from(payload)[0])


class ConnectionFailure(Exception):  # noqa: N818 - RFC 9113's word is "connection error"
    """The peer broke the connection's rules; it is answered with GOAWAY and closed (RFC 9113, 5.4.1)."""

    def __init__(self, error_code: int, reason: str) -> None:
        super().__init__(reason)
        self.error_code = error_code
        self.reason = reason


class StreamFailure(Exception):  # noqa: N818 - beside ConnectionFailure
    """One stream broke the rules; it is answered with RST_STREAM, the connection goes on (5.4.2)."""

    def __init__(self, stream_id: int, error_code: int) -> None:
        super().__init__(stream_id, error_code)
        self.stream_id = stream_id
        self.error_code = error_code
