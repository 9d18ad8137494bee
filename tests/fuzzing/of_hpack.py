"""Header blocks: read or refused as the hpack library does it, and judged without surprise."""

from __future__ import annotations

import contextlib

from hpack import Decoder, Encoder
from hpack.exceptions import HPACKError

from quorate.api.http2.frames import ConnectionFailure
from quorate.api.http2.heads import HeadDecoder
from quorate.api.http2.limits import Limits
from tests.api.http2.peer import PUT, UNARY, request_headers
from tests.fuzzing.octets import Octets


def seeds() -> list[bytes]:
    """Blocks of one encoder, one after another, with their lengths in front."""
    encoder = Encoder()
    lists = [
        request_headers(PUT, ("grpc-timeout", "5S"), ("token", "a")),
        request_headers(PUT, ("grpc-timeout", "4999m"), ("token", "a")),
        [(":status", "200"), ("x-bin", "AAAA,BBBB"), ("x" * 70, "y" * 130)],
    ]
    blocks = [encoder.encode(fields, huffman=huffman) for fields in lists for huffman in (True, False)]
    return [b"".join(bytes((len(block),)) + block for block in blocks if len(block) < 256), b"\x01\x82\x02\x3f\xe1"]


def run(data: bytes) -> bool:
    """Read block after block with both."""
    octets = Octets(data)
    plain, decoder, judging = Decoder(), HeadDecoder(Limits(), UNARY), HeadDecoder(Limits(), UNARY)
    plain.max_header_list_size = decoder._decoder.max_header_list_size
    while not octets.is_empty:
        block = octets.some()
        expected: list[tuple[bytes, bytes]] | None = None
        with contextlib.suppress(HPACKError, IndexError):
            expected = [(bytes(name), bytes(value)) for name, value in plain.decode(block, raw=True)]
        found: list[tuple[bytes, bytes]] | None = None
        with contextlib.suppress(HPACKError, IndexError):
            found = decoder._fields(block)
        assert found == expected
        try:
            judging.decode(block)
        except ConnectionFailure:
            assert expected is None
        if expected is None:
            return False
    return True
