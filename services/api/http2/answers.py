"""Response header blocks, ready-made: the two of a successful call, trailers with a status, refusals.

Responses need no HPACK encoder: a server of gRPC says the same few things again and again. The two blocks of
every successful answer are put into the peer's dynamic table once and are then one or two bytes long; all
others are literals that leave the table alone, so they can be cached for all connections.
"""

from typing import Final

OK: Final = 0
UNKNOWN: Final = 2
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13

_STATUS_200: Final = b"\x88"  # RFC 7541, static table entry 8
_STATUS_NAME: Final = 8
_CONTENT_TYPE_NAME: Final = 31
_GRPC: Final = b"application/grpc"
_TRAILER_CACHE_MAX: Final = 1_024

_UNRESERVED: Final = frozenset(range(0x20, 0x7F)) - {ord("%")}


def integer(value: int, prefix_bits: int, first: int) -> bytes:
    """RFC 7541, 5.1: `value` in the low `prefix_bits` of a byte whose other bits are `first`."""
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes((first | value,))
    out = bytearray((first | limit,))
    value -= limit
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def literal(name: bytes | int, value: bytes, *, first: int = 0x00, name_bits: int = 4) -> bytes:
    """A literal header field; `name` is its text or its index in the static table; not indexed by default."""
    if isinstance(name, int):
        head = integer(name, name_bits, first)
    else:
        head = bytes((first,)) + integer(len(name), 7, 0) + name
    return head + integer(len(value), 7, 0) + value


def indexed_literal(name: bytes | int, value: bytes) -> bytes:
    """A literal header field that enters the peer's dynamic table."""
    return literal(name, value, first=0x40, name_bits=6)


HEAD_PLAIN: Final = _STATUS_200 + literal(_CONTENT_TYPE_NAME, _GRPC)
TAIL_PLAIN: Final = literal(b"grpc-status", b"0")
TABLE_SIZE_ZERO: Final = b"\x20"  # "my dynamic table is empty from here on"

# The first answer of a connection teaches the peer the two fields; content-type is entry 62 until grpc-status
# takes that place and moves it to 63. After that a block is one or two index bytes.
HEAD_TEACHING: Final = _STATUS_200 + indexed_literal(_CONTENT_TYPE_NAME, _GRPC)
HEAD_TAUGHT_ALONE: Final = b"\x88\xbe"
TAIL_TEACHING: Final = indexed_literal(b"grpc-status", b"0")
HEAD_TAUGHT: Final = b"\x88\xbf"
TAIL_TAUGHT: Final = b"\xbe"


def percent_encoded(message: str) -> bytes:
    """`message` as the grpc-message header carries it: UTF-8, all but printable ASCII as %XX."""
    data = message.encode("utf-8", "surrogatepass")
    return b"".join(bytes((byte,)) if byte in _UNRESERVED else b"%%%02X" % byte for byte in data)


_trailers: dict[tuple[int, str], bytes] = {}


def trailers(code: int, message: str) -> bytes:
    """The block that ends a call whose response headers were sent before."""
    block = _trailers.get((code, message))
    if block is None:
        block = literal(b"grpc-status", b"%d" % code)
        if message:
            block += literal(b"grpc-message", percent_encoded(message))
        if len(_trailers) >= _TRAILER_CACHE_MAX:
            _trailers.clear()
        _trailers[code, message] = block
    return block


def trailers_only(code: int, message: str) -> bytes:
    """The single block of a call that fails before any response message."""
    return HEAD_PLAIN + trailers(code, message)


def undecodable(message: str) -> bytes:
    """UNIMPLEMENTED for a compression we do not have, naming those we do."""
    return trailers_only(UNIMPLEMENTED, message) + literal(b"grpc-accept-encoding", b"identity,deflate,gzip")


def http_refusal(status: int, message: str, *, allow: bytes = b"") -> bytes:
    """The block of a request that is not gRPC at all: an HTTP status and, for gRPC clients, the reason."""
    block = literal(_STATUS_NAME, b"%d" % status)
    if allow:
        block += literal(b"allow", allow)
    return block + literal(_CONTENT_TYPE_NAME, _GRPC) + trailers(UNKNOWN, message)
