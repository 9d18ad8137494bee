"""Request header blocks: decoded with hpack, judged by the rules of HTTP/2 and gRPC, remembered by their bytes.

A gRPC client repeats itself: once its dynamic table has settled, the header block of a call to one method is
the same few bytes every time. So a decoded block is kept under its bytes until the table changes, and the
common call costs one dictionary lookup. What is kept is the judgement, too: a block that is refused is
refused again without looking.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Container, Iterable
from typing import Final

from hpack import Decoder
from hpack.exceptions import HPACKDecodingError, HPACKError, OversizedHeaderListError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from quorate.api.http2 import answers
from quorate.api.http2.frames import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, ConnectionFailure
from quorate.api.http2.limits import Limits

Field = tuple[bytes, bytes]

_STATIC: Final = ((b"", b""), *HeaderTable.STATIC_TABLE)  # RFC 7541's numbers begin at 1
_STATIC_LAST: Final = HeaderTable.STATIC_TABLE_LENGTH
_QUICK_BLOCK_BYTES_MAX: Final = 512

_CACHED_BLOCKS_MAX: Final = 256
_CACHED_BASES_MAX: Final = 64
_CACHED_BYTES_MAX: Final = 8_192  # larger blocks are rare and would let a client fill the caches
_DECODED_OVER_LIMIT: Final = 4  # how far over the announced limit a list may be and still be answered with 431
_FIELD_OVERHEAD: Final = 32  # RFC 9113, 6.5.2: what a field counts beyond its octets

_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_TIMEOUT_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE: Final = re.compile(rb"[\x00\r\n]|\A[ \t]|[ \t]\Z")
_CONNECTION_FIELDS: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
_PSEUDO_FIELDS: Final = frozenset((b":method", b":scheme", b":path", b":authority"))
_NOT_METADATA: Final = frozenset(
    (b"content-type", b"content-length", b"te", b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding")
)
_ENCODINGS: Final = frozenset((b"", b"identity", b"gzip", b"deflate"))


class Kept:
    """A place for what the host makes of one kind of head; of its own, so that a head that goes leaves no circle."""

    __slots__ = ("context",)

    def __init__(self) -> None:
        self.context: object = None


class RequestHead:
    """What the headers of one request say; shared by all requests with the same headers, never changed."""

    __slots__ = (
        "content_length",
        "encoding",
        "has_pseudo_fields",
        "is_quick",
        "is_unary",
        "kept",
        "malformed",
        "metadata",
        "path",
        "refusal",
        "timeout_s",
    )

    def __init__(self) -> None:
        self.kept = Kept()  # shared by all heads that differ in the timeout alone
        self.path = b""
        self.metadata: tuple[tuple[bytes, bytes], ...] = ()  # in order; values of -bin keys are decoded
        self.timeout_s: float | None = None  # grpc-timeout
        self.encoding = b""  # grpc-encoding; empty when not given
        self.content_length = -1  # -1 when not given
        self.has_pseudo_fields = False  # false for trailers
        self.is_quick = False  # unary, and nothing to verify beyond its framing
        self.is_unary = False  # one whole message in, so it is reported as one event
        self.malformed = False  # RFC 9113, 8.1.1: the stream is reset
        self.refusal = b""  # header block of the answer, when the headers alone decide it

    def with_timeout(self, timeout_s: float | None) -> RequestHead:
        """The same request with another deadline."""
        head = RequestHead.__new__(RequestHead)
        head.kept = self.kept
        head.path = self.path
        head.metadata = self.metadata
        head.timeout_s = timeout_s
        head.encoding = self.encoding
        head.content_length = self.content_length
        head.has_pseudo_fields = self.has_pseudo_fields
        head.is_quick = self.is_quick
        head.is_unary = self.is_unary
        head.malformed = self.malformed
        head.refusal = self.refusal
        return head


NO_HEAD: Final = RequestHead()


def timeout_seconds(value: bytes) -> float:
    """Seconds of a grpc-timeout. Raises ValueError when it is none."""
    match = _TIMEOUT.fullmatch(value)
    if match is None:
        raise ValueError(value)
    return int(match[1]) * _TIMEOUT_UNITS[match[2]]


def binary_value(value: bytes) -> bytes:
    """The bytes of a -bin header: base64 with or without padding. Raises ValueError."""
    try:
        return b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(value) from error


class HeadDecoder:
    """The HPACK state of the requests of one connection."""

    __slots__ = ("_bases", "_decoder", "_list_bytes_max", "_unary", "known")

    def __init__(self, limits: Limits, unary: Container[bytes]) -> None:
        self._list_bytes_max = limits.header_list_bytes_max
        self._decoder = Decoder(max_header_list_size=self._list_bytes_max * _DECODED_OVER_LIMIT)
        self._unary = unary
        self.known: dict[bytes, RequestHead] = {}  # blocks that mean the same as long as the table stays
        self._bases: dict[tuple[Field, ...], RequestHead] = {}  # judged field lists

    def decode(self, block: bytes) -> RequestHead:
        """The request a block describes. Raises ConnectionFailure when the compression state is lost."""
        table = self._decoder.header_table
        entries = table.dynamic_entries
        before = entries[0] if entries else None
        count, size = len(entries), table.maxsize
        try:
            fields = self._fields(block)
        except OversizedHeaderListError as error:
            raise ConnectionFailure(ENHANCE_YOUR_CALM, "header list too large") from error
        except (HPACKError, IndexError) as error:
            raise ConnectionFailure(COMPRESSION_ERROR, "header block cannot be decoded") from error
        entries = table.dynamic_entries
        unchanged = len(entries) == count and table.maxsize == size
        unchanged = unchanged and (entries[0] if entries else None) is before
        head = self._judged(fields)
        if not unchanged:
            self.known.clear()
        elif len(self.known) < _CACHED_BLOCKS_MAX and len(block) <= _CACHED_BYTES_MAX:
            self.known[block] = head
        return head

    def _fields(self, block: bytes) -> list[Field]:
        """The fields of a block in order. Raises HPACKError and IndexError.

        Clients that set deadlines add one new entry to the table with every call, so their blocks are never the
        same. They are made of indexes and of literals that enter the table, all short; these are read here, four
        times faster than by hpack's general decoder, which takes over at anything else.
        """
        fields: list[Field] = []
        table = self._decoder.header_table
        entries = table.dynamic_entries
        at, end = 0, len(block)
        while at < end <= _QUICK_BLOCK_BYTES_MAX:
            first = block[at]
            if first & 0x80:
                index = first & 0x7F
                if not 0 < index < 0x7F:
                    break
                fields.append(_STATIC[index] if index <= _STATIC_LAST else entries[index - _STATIC_LAST - 1])
                at += 1
                continue
            index = first & 0x3F
            if not first & 0x40 or not 0 < index < 0x3F or at + 1 == end:
                break
            length = block[at + 1] & 0x7F
            stop = at + 2 + length
            if length == 0x7F or stop > end:
                break
            value = block[at + 2 : stop]
            if block[at + 1] & 0x80:
                value = decode_huffman(value)
            name = (_STATIC[index] if index <= _STATIC_LAST else entries[index - _STATIC_LAST - 1])[0]
            table.add(name, value)
            fields.append((name, value))
            at = stop
        if at < end:
            if fields and block[at] & 0xE0 == 0x20:
                raise HPACKDecodingError("table size update behind a field")
            fields += [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block[at:], raw=True)]
        return fields

    def _judged(self, fields: list[Field]) -> RequestHead:
        """The head of a field list; lists that differ only in their timeout are judged once."""
        timeouts = [field for field in fields if field[0] == b"grpc-timeout"]
        if timeouts:
            fields = [field for field in fields if field not in timeouts]
        key = tuple(fields)
        head = self._bases.get(key)
        if head is None:
            head = judge(key, self._list_bytes_max, self._unary)
            if len(self._bases) >= _CACHED_BASES_MAX:
                self._bases.clear()
            if sum(len(name) + len(value) for name, value in key) <= _CACHED_BYTES_MAX:
                self._bases[key] = head
        if not timeouts:
            return head
        try:
            return head.with_timeout(timeout_seconds(timeouts[-1][1]))
        except ValueError:
            refused = head.with_timeout(None)
            refused.is_unary = refused.is_quick = False
            refused.refusal = refused.refusal or answers.trailers_only(answers.INTERNAL, "malformed grpc-timeout")
            return refused


def judge(fields: Iterable[Field], list_bytes_max: int, unary: Container[bytes]) -> RequestHead:
    """What the server makes of these fields: a call, a refusal, or a malformed request."""
    head = RequestHead()
    pseudo: dict[bytes, bytes] = {}
    regular: dict[bytes, bytes] = {}
    metadata: list[tuple[bytes, bytes]] = []
    size = 0
    binary_is_broken = False
    for name, value in fields:
        size += len(name) + len(value) + _FIELD_OVERHEAD
        if name[:1] == b":":
            if regular or name in pseudo or name not in _PSEUDO_FIELDS or _BAD_VALUE.search(value):
                head.malformed = True
            pseudo[name] = value
            continue
        if name in _CONNECTION_FIELDS or not _NAME.fullmatch(name) or _BAD_VALUE.search(value):
            head.malformed = True
        regular[name] = value
        if name in _NOT_METADATA:
            continue
        if name.endswith(b"-bin"):
            try:
                metadata.extend((name, binary_value(part)) for part in value.split(b","))
            except ValueError:
                binary_is_broken = True
        else:
            metadata.append((name, value))
    head.path = pseudo.get(b":path", b"")
    head.metadata = tuple(metadata)
    head.encoding = regular.get(b"grpc-encoding", b"")
    if not (pseudo.get(b":method") and pseudo.get(b":scheme") and head.path):
        head.malformed = True
    length = regular.get(b"content-length")
    if length is not None:
        if length.isdigit():
            head.content_length = int(length)
        else:
            head.malformed = True
    head.refusal = _refusal(pseudo, regular, size > list_bytes_max, binary_is_broken)
    head.has_pseudo_fields = bool(pseudo)
    head.is_unary = not head.refusal and not head.malformed and head.path in unary
    head.is_quick = head.is_unary and head.content_length < 0
    return head


def _refusal(
    pseudo: dict[bytes, bytes], regular: dict[bytes, bytes], is_too_large: bool, binary_is_broken: bool
) -> bytes:
    """The answer to a request that cannot be a call we serve, or nothing."""
    if is_too_large:
        return answers.http_refusal(431, "header list too large")
    content_type = regular.get(b"content-type", b"")
    kind = content_type.lower()
    if pseudo.get(b":method") != b"POST":
        return answers.http_refusal(405, "a gRPC call is a POST", allow=b"POST")
    if kind != b"application/grpc" and not kind.startswith((b"application/grpc+", b"application/grpc;")):
        text = content_type.decode("latin-1")
        return answers.http_refusal(415, f'invalid gRPC request content-type "{text}"')
    encoding = regular.get(b"grpc-encoding", b"")
    if encoding not in _ENCODINGS:
        text = encoding.decode("latin-1")
        return answers.undecodable(f'grpc: Decompressor is not installed for grpc-encoding "{text}"')
    if binary_is_broken:
        return answers.trailers_only(answers.INTERNAL, "malformed binary metadata")
    return b""
