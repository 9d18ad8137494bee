"""Hashing and checking passwords without holding up a worker: threads, a bounded queue, and a memory of good logins.

bcrypt takes tens of milliseconds by design and releases the interpreter lock meanwhile. A login that was verified once
is remembered under a keyed digest until the auth revision moves, so a client that logs in again and again costs one
check (etcd #9713). The key is drawn at the start of the process; the digest of a password never leaves it.
"""

from __future__ import annotations

import asyncio
import hmac
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import bcrypt

from quorate.wire import errors
from quorate.wire.errors import CallFailed

PASSWORD_BYTES_MAX: Final = 72  # what bcrypt looks at
WAITING_MAX: Final = 1024  # checks waiting for a thread; beyond it a login is refused
REMEMBERED_MAX: Final = 10_000  # verified logins of the current auth revision
THREADS: Final = 2

Result = TypeVar("Result")


class Passwords:
    """The slow part of logins and password changes."""

    def __init__(self, cost: int) -> None:
        self._cost = cost
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="bcrypt")
        self._waiting = 0
        self._key = os.urandom(32)
        self._verified: set[bytes] = set()
        self._verified_revision = 0

    async def hash(self, password: str) -> bytes:
        """A fresh bcrypt hash; CallFailed for a password longer than bcrypt reads, or when too many wait."""
        secret = password.encode()
        if len(secret) > PASSWORD_BYTES_MAX:
            raise CallFailed(errors.PASSWORD_TOO_LONG)
        return await self._in_thread(bcrypt.hashpw, secret, bcrypt.gensalt(self._cost))

    async def check(self, name: str, password: str, hashed: bytes, auth_revision: int) -> bool:
        """Whether `password` is the one behind `hashed`, as it stood at `auth_revision`."""
        secret = password.encode()
        if len(secret) > PASSWORD_BYTES_MAX:
            return False
        if auth_revision != self._verified_revision:
            self._verified.clear()
            self._verified_revision = auth_revision
        digest = hmac.digest(self._key, b"%d\0%s\0%s" % (auth_revision, name.encode(), secret) + hashed, "sha256")
        if digest in self._verified:
            return True
        matches = await self._in_thread(_matches, secret, hashed)
        if matches and auth_revision == self._verified_revision and len(self._verified) < REMEMBERED_MAX:
            self._verified.add(digest)
        return matches

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, work: Callable[[bytes, bytes], Result], secret: bytes, other: bytes) -> Result:
        if self._waiting >= WAITING_MAX:
            raise CallFailed(errors.TOO_MANY_REQUESTS)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, secret, other)
        finally:
            self._waiting -= 1


def _matches(secret: bytes, hashed: bytes) -> bool:
    try:
        return bcrypt.checkpw(secret, hashed)
    except ValueError:  # what is stored is no bcrypt hash: nobody's password
        return False
