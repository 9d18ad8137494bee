"""gRPC's message framing inside DATA: a flag byte, four bytes of length, the message; and its compression."""

import zlib
from struct import Struct
from typing import Final

from quorate.api.http2 import answers

PREFIX_BYTES: Final = 5
prefix: Final = Struct(">BI")  # compressed flag, length

_WINDOW_BITS: Final = {b"gzip": 31, b"deflate": 15}  # zlib's numbers for the two containers


class MessageRefused(Exception):  # noqa: N818 - it is an answer, not a fault of ours
    """A message the server does not take, and the status to answer with."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


def take(buffer: bytearray, encoding: bytes, bytes_max: int) -> bytes | None:
    """Cut the first whole message off `buffer`; None when there is none yet.

    Raises MessageRefused as soon as the length announces more than `bytes_max`, or the message is compressed
    in a way that was not declared, is damaged, or unfolds to more than `bytes_max`.
    """
    if len(buffer) < PREFIX_BYTES:
        return None
    compressed, length = prefix.unpack_from(buffer)
    if length > bytes_max:
        raise MessageRefused(
            answers.RESOURCE_EXHAUSTED, f"grpc: received message larger than max ({length} vs. {bytes_max})"
        )
    if compressed > 1:
        raise MessageRefused(answers.INTERNAL, f"grpc: received unexpected payload format {compressed}")
    end = PREFIX_BYTES + length
    if len(buffer) < end:
        return None
    with memoryview(buffer) as view:
        message = bytes(view[PREFIX_BYTES:end])
    del buffer[:end]
    return decompressed(message, encoding, bytes_max) if compressed else message


def decompressed(message: bytes, encoding: bytes, bytes_max: int) -> bytes:
    """The message behind `encoding`, never more than `bytes_max` of it. Raises MessageRefused."""
    bits = _WINDOW_BITS.get(encoding)
    if bits is None:
        raise MessageRefused(answers.INTERNAL, "grpc: compressed flag set with identity or empty encoding")
    inflater = zlib.decompressobj(bits)
    try:
        out = inflater.decompress(message, bytes_max + 1)
    except zlib.error as error:
        raise MessageRefused(answers.INTERNAL, f"grpc: failed to decompress the received message: {error}") from error
    if len(out) > bytes_max:
        raise MessageRefused(
            answers.RESOURCE_EXHAUSTED, f"grpc: received message after decompression larger than max {bytes_max}"
        )
    if not inflater.eof:
        raise MessageRefused(answers.INTERNAL, "grpc: failed to decompress the received message: it is cut short")
    return out
