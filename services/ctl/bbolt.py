"""Reading bbolt files: the B+ tree in which etcd keeps its data (its `member/snap/db` and its snapshots).

Facts of the format (bbolt's page.go, bucket.go, db.go): pages of one size, each with a 16-byte head (id, flags, count,
overflow); two meta pages take turns and carry an FNV-1a checksum; branch and leaf elements stand behind the head and
say where their key lies relative to themselves; a bucket is a leaf value that names its root page, or holds its only
page inline. Read-only, through a memory map, one pass in key order.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from types import TracebackType
from typing import Final, NamedTuple

_HEAD: Final = Struct("<QHHI")  # page id, flags, count, overflow pages
_META: Final = Struct("<IIIIQQQQQ")  # magic, version, page size, flags, root, sequence, freelist, high water, txid
_CHECKSUM: Final = Struct("<Q")
_LEAF: Final = Struct("<IIII")  # flags, position, key bytes, value bytes
_BRANCH: Final = Struct("<IIQ")  # position, key bytes, page id
_BUCKET: Final = Struct("<QQ")  # root page id, sequence
_MAGIC: Final = 0xED0CDAED
_VERSION: Final = 2
_BRANCH_PAGE, _LEAF_PAGE, _META_PAGE = 0x01, 0x02, 0x04
_IS_BUCKET: Final = 0x01
_DEPTH_MAX: Final = 64  # far above any real tree
PAGE_BYTES_MAX: Final = 65536


class BboltError(ValueError):
    """The file is not a bbolt database, or it is damaged; the text says where."""


class _Meta(NamedTuple):
    page_bytes: int
    root: int
    pages: int
    txid: int


class BboltFile:
    """An open database; use it as a context manager.

    `buckets()` and `items(bucket)` yield in key order. BboltError on a file that is not sound.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        try:
            self._data = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            self._file.close()
            raise BboltError(f"{path} is empty") from None
        try:
            self._meta = self._newest_meta(path)
        except BboltError:
            self.close()
            raise

    def __enter__(self) -> BboltFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._data.close()
        self._file.close()

    @property
    def size_bytes(self) -> int:
        """Of all pages that were ever used; the file may be longer."""
        return self._meta.pages * self._meta.page_bytes

    def buckets(self) -> list[bytes]:
        """Names of the top-level buckets."""
        return [key for flags, key, _ in self._tree(self._meta.root, 0, set()) if flags & _IS_BUCKET]

    def items(self, bucket: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of a top-level bucket, without buckets inside it; nothing where it does not exist."""
        for flags, key, value in self._tree(self._meta.root, 0, set()):
            if flags & _IS_BUCKET and key == bucket:
                if len(value) < _BUCKET.size:
                    raise BboltError(f"the head of bucket {bucket!r} is cut short")
                root, _ = _BUCKET.unpack_from(value)
                elements = self._tree(root, 0, set()) if root else self._page_elements(value, _BUCKET.size, 0)
                yield from ((name, content) for inner, name, content in elements if not inner & _IS_BUCKET)
                return

    def _newest_meta(self, path: Path) -> _Meta:
        """The valid meta page with the higher transaction id; the second stands one page behind the first, whose size
        is not known before one of them is read."""
        found = []
        for offset in (0, *(1 << bits for bits in range(9, 17))):
            meta = self._meta_at(offset)
            if meta and (offset == 0 or offset == meta.page_bytes):
                found.append(meta)
        if not found:
            raise BboltError(f"{path} is not a bbolt database: no valid meta page")
        return max(found, key=lambda meta: meta.txid)

    def _meta_at(self, offset: int) -> _Meta | None:
        start = offset + _HEAD.size
        if len(self._data) < start + _META.size + _CHECKSUM.size:
            return None
        flags = _HEAD.unpack_from(self._data, offset)[1]
        magic, version, page_bytes, _, root, _, _, pages, txid = _META.unpack_from(self._data, start)
        (checksum,) = _CHECKSUM.unpack_from(self._data, start + _META.size)
        if flags != _META_PAGE or magic != _MAGIC or version != _VERSION or page_bytes > PAGE_BYTES_MAX:
            return None
        if checksum != _fnv1a(self._data[start : start + _META.size]):
            return None
        return _Meta(page_bytes, root, pages, txid)

    def _tree(self, page_id: int, depth: int, seen: set[int]) -> Iterator[tuple[int, bytes, bytes]]:
        """The elements below a page. A page that is met twice would make a small file endless."""
        if page_id in seen:
            raise BboltError(f"page {page_id} is in the tree twice")
        seen.add(page_id)
        offset = page_id * self._meta.page_bytes
        if depth > _DEPTH_MAX or offset + _HEAD.size > len(self._data):
            raise BboltError(f"page {page_id} cannot be: the file ends before it, or the tree is too deep")
        found_id, flags, count, _ = _HEAD.unpack_from(self._data, offset)
        if found_id != page_id:
            raise BboltError(f"page {page_id} carries the number {found_id}")
        if flags & _BRANCH_PAGE:
            if offset + _HEAD.size + count * _BRANCH.size > len(self._data):
                raise BboltError(f"page {page_id} reaches beyond the file")
            for number in range(count):
                _, _, child = _BRANCH.unpack_from(self._data, offset + _HEAD.size + number * _BRANCH.size)
                yield from self._tree(child, depth + 1, seen)
        elif flags & _LEAF_PAGE:
            yield from self._page_elements(self._data, offset, page_id)
        else:
            raise BboltError(f"page {page_id} is neither branch nor leaf")

    @staticmethod
    def _page_elements(data: bytes | mmap.mmap, offset: int, page_id: int) -> Iterator[tuple[int, bytes, bytes]]:
        end = len(data)
        count = _HEAD.unpack_from(data, offset)[2] if offset + _HEAD.size <= end else 0
        for number in range(count):
            element = offset + _HEAD.size + number * _LEAF.size
            if element + _LEAF.size > end:
                raise BboltError(f"page {page_id} reaches beyond the file")
            flags, position, key_bytes, value_bytes = _LEAF.unpack_from(data, element)
            key = element + position
            value = key + key_bytes
            if value + value_bytes > end:
                raise BboltError(f"an element of page {page_id} reaches beyond the file")
            yield flags, data[key:value], data[value : value + value_bytes]


def _fnv1a(content: bytes) -> int:
    """64-bit FNV-1a, which bbolt protects its meta pages with."""
    state = 0xCBF29CE484222325
    for byte in content:
        state = (state ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return state
