"""The directory of a node's local sockets: whose it is, and that nothing of it stays behind.

Whoever holds the lock file's lock owns the directory. Its owner may remove the lock file while holding the lock, so a
lock counts only when the file still has its name after it was taken; else the whole is begun again. A node that was
killed leaves everything, and the next one with the same data directory owns and removes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from quorate.node.places import LOCK_FILE

BYTES_MAX: Final = 107 - len("/supervisor.sock.4194304")  # of its name: a socket's may have 107; 4194304 is a pid
_DERIVED: Final = re.compile(r"quorate-\d+-[0-9a-f]{12}")
_PARTS: Final = "watch|storage|consensus|api"
_OURS: Final = re.compile(
    r"fatal|config\.(json|draft)|supervisor\.sock(\.\d+)?|supervisord\.(pid|log(\.\d+)?)"
    rf"|({_PARTS})\.\d+\.sock|({_PARTS})(-\d+)?\.log(\.\d+)?"
)


class Taken(Exception):  # noqa: N818 - it names the finding
    """Another process owns the directory."""


def take(path: Path, check: Callable[[os.stat_result], None], waits: Callable[[], None] | None = None) -> int:
    """Make the directory if need be and own it; the descriptor whose closing gives it up.

    `check` sees the directory's status before anything in it is touched, and may raise. Taken when it is another's,
    unless `waits` is given, which is called once before the wait. OSError when the directory cannot be used: a link of
    another user is not followed, as in a directory that all may write to it could lead to anything of ours.
    """
    while True:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        if path.is_symlink() and not path.exists():
            raise FileNotFoundError(errno.ENOENT, "leads nowhere")
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile by one that ended
            check(path.stat())
            if path.is_symlink() and path.lstat().st_uid not in (0, os.getuid()):
                raise PermissionError(errno.EACCES, "is a link that belongs to another user")
            lock = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                _lock(lock, waits)
                if _is_named(path, lock):
                    return lock
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)


def leave(path: Path, lock: int) -> None:
    """Remove what nodes have in the directory, and the directory itself when its name is a derived one; then give it
    up. The descriptor is from `take` and closed afterwards. What cannot be removed stays."""
    with contextlib.suppress(OSError):
        if _is_named(path, lock):
            _clear(path)
            (path / LOCK_FILE).unlink()
            if is_derived(path):
                path.rmdir()  # fails when a next node is there already
    os.close(lock)


def leave_abandoned(path: Path) -> None:
    """Remove what a killed node left in another derived directory; nothing when somebody owns it."""

    def check(found: os.stat_result) -> None:
        if found.st_uid != os.getuid():
            raise PermissionError(path)

    if is_derived(path) and path.is_dir():
        with contextlib.suppress(OSError, Taken):
            leave(path, take(path, check))


def is_derived(path: Path) -> bool:
    """Whether the directory has the kind of name that is made from a data directory, so that all in it is a node's."""
    return _DERIVED.fullmatch(path.name) is not None


def _clear(path: Path) -> None:
    everything = is_derived(path) and not path.is_symlink()
    for entry in list(os.scandir(path)):
        if entry.name == LOCK_FILE or not (everything or _OURS.fullmatch(entry.name)):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry, ignore_errors=True)
        else:
            Path(entry).unlink(missing_ok=True)


def _lock(lock: int, waits: Callable[[], None] | None) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if waits is None:
            raise Taken from None
        waits()
        fcntl.flock(lock, fcntl.LOCK_EX)


def _is_named(path: Path, lock: int) -> bool:
    try:
        return os.path.samestat((path / LOCK_FILE).stat(), os.fstat(lock))
    except FileNotFoundError:
        return False
