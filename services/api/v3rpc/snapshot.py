"""Maintenance.Snapshot: storage writes one file, this worker opens it, takes its name away and sends it in blobs.

Only a few blobs leave in one turn of the loop, and none while the caller takes no more, so that a gigabyte on its way
delays nobody else. The last message carries the SHA-256 of everything before it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

from quorate.api.callers import Callers
from quorate.api.calls import Context, Responses, StreamDone
from quorate.api.ring import Ring
from quorate.proto.rpc_pb2 import SnapshotRequest, SnapshotResponse
from quorate.wire import errors
from quorate.wire.errors import CallFailed
from quorate.wire.messages import Op

BLOB_BYTES: Final = 32 * 1024
BLOBS_AT_ONCE: Final = 4  # a fifth of a millisecond of reading and hashing
STORAGE_VERSION: Final = "3.6.0"
NO_COPY: Final = "quorate: the member has no room for a copy of its database"
_NO_FILE: Final = -1


class Download:
    """One Snapshot call."""

    def __init__(self, ring: Ring, callers: Callers, context: Context, responses: Responses, done: StreamDone) -> None:
        self._ring = ring
        self._callers = callers
        self._context = context
        self._responses = responses
        self._done = done
        self._descriptor = _NO_FILE
        self._remaining_bytes = 0
        self._digest = sha256()
        self._is_asked = False
        self._is_paused = False
        self._is_scheduled = False
        self._is_over = False

    def send(self, body: bytes) -> None:
        SnapshotRequest.FromString(body)
        if self._is_asked:
            return
        self._is_asked = True
        self._callers.identify(self._context, self._ask)

    def half_close(self) -> None:
        """The request is all the caller has to say."""

    def cancel(self) -> None:
        self._is_over = True
        self._close()

    def pause(self) -> None:
        self._is_paused = True

    def resume(self) -> None:
        self._is_paused = False
        self._schedule()

    def _ask(self, code: int, message: str) -> None:
        if code:
            self._ring.soon(self._end, code, message)
            return
        try:
            self._ring.add(self._ring.patient, Op.SNAPSHOT, b"", self._answered, identity=self._context.identity)
        except CallFailed as failed:
            self._ring.soon(self._end, failed.error.code, failed.error.text)

    def _answered(self, code: int, message: str, path: bytes) -> None:
        if code:
            self._end(code, message)
            return
        if not path:
            self._end(errors.Code.INTERNAL, NO_COPY)
            return
        try:
            if not self._is_over:
                self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                self._remaining_bytes = os.fstat(self._descriptor).st_size
        except OSError:  # storage began anew in this moment and tidied up
            self._end(errors.STOPPED.code, errors.STOPPED.text)
        with suppress(FileNotFoundError):
            Path(os.fsdecode(path)).unlink()
        self._schedule()

    def _schedule(self) -> None:
        if self._descriptor != _NO_FILE and not self._is_scheduled:
            self._is_scheduled = True
            self._ring.soon(self._advance)

    def _advance(self) -> None:
        self._is_scheduled = False
        for _ in range(BLOBS_AT_ONCE):
            if self._is_over or self._is_paused:
                return
            blob = os.read(self._descriptor, BLOB_BYTES)
            if not blob:
                self._say(self._digest.digest())
                self._end(0, "")
                return
            self._digest.update(blob)
            self._remaining_bytes -= len(blob)
            self._say(blob)
        self._schedule()

    def _say(self, blob: bytes) -> None:
        response = SnapshotResponse(remaining_bytes=self._remaining_bytes, blob=blob, version=STORAGE_VERSION)
        self._responses.send(response.SerializeToString())

    def _end(self, code: int, message: str) -> None:
        self._close()
        if not self._is_over:
            self._is_over = True
            self._done(code, message)

    def _close(self) -> None:
        if self._descriptor != _NO_FILE:
            os.close(self._descriptor)
            self._descriptor = _NO_FILE
