"""etcd's database file: any octets, pages of a grammar with checksums that fit, and what the tools make of them."""

from __future__ import annotations

import functools
import gzip
from contextlib import suppress
from pathlib import Path
from typing import Final

from quorate.ctl import bbolt, etcd_file
from quorate.ctl.bbolt import BboltError, BboltFile
from tests.fuzzing.octets import Octets
from tests.fuzzing.scratch import directory
from tests.fuzzing.scratch import world as world

SNAPSHOT: Final = Path(__file__).resolve().parent.parent / "ctl" / "data" / "etcd-3.4-snapshot.db.gz"
RAW, PATCHED, MADE = range(3)
PAGE_BYTES: Final = 512
BUCKETS: Final = (b"key", b"lease", b"meta", b"auth", b"authUsers", b"authRoles")


@functools.cache
def _snapshot() -> bytes:
    return gzip.decompress(SNAPSHOT.read_bytes())


def seeds() -> list[bytes]:
    """A file without content, etcd's with a place changed, and small trees."""
    leaf = bytes((2, 0, 1, 0, 3)) + b"key" + bytes((16,)) + (3).to_bytes(8, "little") + bytes(8)
    lease = bytes((2, 0, 1, 0, 5)) + b"lease" + bytes((16,)) + (3).to_bytes(8, "little") + bytes(8)
    record = bytes((2, 0, 1, 0, 17)) + bytes(7) + b"\x02_" + bytes(8) + bytes((5,)) + b"\x0a\x01a\x10\x02"
    return [
        bytes((RAW,)) + _snapshot()[:200],
        bytes((PATCHED,)) + (40_000).to_bytes(3, "big") + b"\x00",
        bytes((MADE,)) + leaf + record,
        bytes((MADE,)) + lease + record,
        bytes((MADE,)) + bytes((1, 0, 2, 3, 3)) * 3,
    ]


def run(data: bytes) -> bool:
    """Read as the tools do: an answer or BboltError, and soon."""
    octets = Octets(data)
    path = directory() / "db"
    match octets.choice((RAW, PATCHED, MADE)):
        case 0:
            path.write_bytes(octets.rest())
        case 1:
            path.write_bytes(_patched(octets))
        case _:
            path.write_bytes(_made(octets))
    target = directory() / "converted"
    count = 0
    for read in (_walk, _contents, _convert):
        target.unlink(missing_ok=True)
        with suppress(BboltError):
            read(path, target)
            count += 1
    return count > 0


def _walk(path: Path, _: Path) -> None:
    with BboltFile(path) as file:
        for bucket in file.buckets():
            for _pair in file.items(bucket):
                pass


def _contents(path: Path, _: Path) -> None:
    found = etcd_file.contents(path)
    etcd_file.hash_kv(path, found.revision, 1)


def _convert(path: Path, target: Path) -> None:
    etcd_file.convert(path, target)


def _patched(octets: Octets) -> bytes:
    """etcd's file with some octets changed."""
    content = bytearray(_snapshot())
    while not octets.is_empty:
        at = octets.number(3) % len(content)
        patch = octets.some()
        content[at : at + len(patch)] = patch
    return bytes(content)


def _made(octets: Octets) -> bytes:
    """Two good meta pages, then pages with elements of any kind that lie where they should."""
    pages: list[bytes] = []
    while not octets.is_empty and len(pages) < 64:
        pages.append(_page(octets, len(pages) + 2))
    return _meta(0, len(pages)) + _meta(1, len(pages)) + b"".join(pages)


def _meta(number: int, pages: int) -> bytes:
    head = bbolt._HEAD.pack(number, 4, 0, 0)
    meta = bbolt._META.pack(0xED0CDAED, 2, PAGE_BYTES, 0, 2, 0, 0, pages + 2, number)
    return (head + meta + bbolt._CHECKSUM.pack(bbolt._fnv1a(meta))).ljust(PAGE_BYTES, b"\0")


def _page(octets: Octets, number: int) -> bytes:
    kind, wrong = octets.number() % 4, octets.number()
    count = octets.number() % 20
    page_id = wrong if wrong > 250 else number
    if kind == 1:
        children = [octets.number() % 66 for _ in range(count)]
        elements = b"".join(bbolt._BRANCH.pack(16, 0, child) for child in children)
        return (bbolt._HEAD.pack(page_id, 1, count, 0) + elements).ljust(PAGE_BYTES, b"\0")[:PAGE_BYTES]
    heads, content = b"", b""
    for position in range(count):
        is_bucket = number == 2
        octets.number()
        key, value = octets.some(), octets.some()
        if is_bucket and not key:
            key = octets.choice(BUCKETS)
        at = (count - position) * 16 + len(content)
        heads += bbolt._LEAF.pack(int(is_bucket), at, len(key), len(value))
        content += key + value
    return (bbolt._HEAD.pack(page_id, 2, count, 0) + heads + content).ljust(PAGE_BYTES, b"\0")[:PAGE_BYTES]
