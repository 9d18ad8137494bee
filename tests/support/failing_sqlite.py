"""A disk under SQLite whose writes and syncs may fail: a shim of its VFS, in the library that Python itself has loaded.

What opens a database while it is installed goes through it, production code and all. The errors are those that SQLite
makes of EIO and ENOSPC; a write that fails may have been done in part.
"""

from __future__ import annotations

import _sqlite3
import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from typing import Final, NamedTuple

IO_ERRORS: Final = {"write": 778, "truncate": 1546, "sync": 1034}  # SQLITE_IOERR_WRITE, _TRUNCATE, _FSYNC
FULL: Final = 13  # SQLITE_FULL


class Failure(NamedTuple):
    """What becomes of one call: an error code of SQLite, and how much of what it was to write is written."""

    code: int
    share: float = 0.0


Decide = Callable[[str, str], Failure | None]  # path, and "write", "truncate" or "sync"; None: it works

_Write = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_Truncate = CFUNCTYPE(c_int, c_void_p, c_int64)
_Sync = CFUNCTYPE(c_int, c_void_p, c_int)
_Open = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)


class _Vfs(Structure):
    _fields_ = [
        ("version", c_int),
        ("file_bytes", c_int),
        ("path_bytes_max", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("data", c_void_p),
        ("open", c_void_p),
        ("others", c_void_p * 15),
    ]


class _Methods(Structure):
    _fields_ = [
        ("version", c_int),
        ("close", c_void_p),
        ("read", c_void_p),
        ("write", c_void_p),
        ("truncate", c_void_p),
        ("sync", c_void_p),
        ("others", c_void_p * 13),
    ]


class _Shim:
    """One for the life of this Python: what was opened through it stays open after `failing`."""

    def __init__(self) -> None:
        self.decide: Decide = lambda _path, _call: None
        self._library = ctypes.CDLL(_sqlite3.__file__)  # and what it was linked with
        self._library.sqlite3_vfs_find.restype = POINTER(_Vfs)
        self._library.sqlite3_vfs_register.argtypes = (c_void_p, c_int)
        self._default = self._library.sqlite3_vfs_find(None)
        self._vfs = _Vfs.from_buffer_copy(self._default.contents)
        self._real_open = _Open(self._vfs.open)
        self._open = _Open(self._opened)  # kept, or it would be freed
        self._vfs.open = ctypes.cast(self._open, c_void_p)
        self._vfs.name = b"failing"
        self._vfs.next = None
        self._methods: dict[int, tuple[_Methods, tuple[object, ...]]] = {}  # by the address of the real ones
        self._paths: dict[int, str] = {}  # by the address of the open file

    def use(self, is_on: bool) -> None:
        chosen = ctypes.addressof(self._vfs) if is_on else ctypes.cast(self._default, c_void_p)
        assert self._library.sqlite3_vfs_register(chosen, 1) == 0

    def _opened(self, vfs: int, name: int | None, file: int, flags: int, out_flags: int | None) -> int:
        code = self._real_open(vfs, name, file, flags, out_flags)
        at = c_void_p.from_address(file)
        if code == 0 and at.value:
            self._paths[file] = ctypes.string_at(name).decode() if name else ""
            if at.value not in self._methods:
                self._methods[at.value] = self._shimmed(_Methods.from_address(at.value))
            at.value = ctypes.addressof(self._methods[at.value][0])
        return int(code)

    def _shimmed(self, real: _Methods) -> tuple[_Methods, tuple[object, ...]]:
        write, truncate, sync = _Write(real.write), _Truncate(real.truncate), _Sync(real.sync)

        def written(file: int, data: int, size: int, offset: int) -> int:
            failure = self.decide(self._paths[file], "write")
            if failure is None:
                return int(write(file, data, size, offset))
            if part := int(size * failure.share):
                write(file, data, part, offset)
            return failure.code

        def truncated(file: int, size: int) -> int:
            failure = self.decide(self._paths[file], "truncate")
            return int(truncate(file, size)) if failure is None else failure.code

        def synced(file: int, flags: int) -> int:
            failure = self.decide(self._paths[file], "sync")
            return int(sync(file, flags)) if failure is None else failure.code

        kept = (_Write(written), _Truncate(truncated), _Sync(synced))
        methods = _Methods.from_buffer_copy(real)
        methods.write, methods.truncate, methods.sync = (ctypes.cast(one, c_void_p) for one in kept)
        return methods, kept


_shims: list[_Shim] = []


@contextmanager
def failing(decide: Decide) -> Iterator[None]:
    """Databases that are opened meanwhile ask `decide` before each write, truncation and sync."""
    if not _shims:
        _shims.append(_Shim())
    (shim,) = _shims
    before, shim.decide = shim.decide, decide
    shim.use(True)
    try:
        yield
    finally:
        shim.use(False)
        shim.decide = before
