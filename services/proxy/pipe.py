"""Two connections joined end to end: what comes in on one goes out on the other, no faster than it is taken."""

from __future__ import annotations

import asyncio
from typing import Self, cast


class End(asyncio.Protocol):
    """One of two joined connections. What arrives before the other one exists is kept, and no more is read."""

    def __init__(self) -> None:
        self._early = b""
        self._transport: asyncio.Transport | None = None
        self._other: End | None = None
        self._ended = False

    @classmethod
    def of(cls, transport: asyncio.Transport, early: bytes) -> Self:
        """The end of a connection that is open already, and what was read from it."""
        end = cls()
        end._transport = transport
        end._early = early
        return end

    def join(self, other: End) -> None:
        """Begin to pass on."""
        assert self._transport is not None
        assert other._transport is not None
        self._other, other._other = other, self
        if self._transport.is_closing():
            other._transport.close()
            return
        for one, another in ((self, other), (other, self)):
            assert one._transport is not None
            if one._early:
                another.write(one._early)
                one._early = b""
            one._transport.resume_reading()

    def close(self) -> None:
        """End this connection; the other one follows."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._other is not None:
            self._other.write(data)
            return
        self._early += data
        assert self._transport is not None
        self._transport.pause_reading()  # not before: uvloop does not heed it while a connection is being made

    def write(self, data: bytes) -> None:
        """Send on this connection what came in on the other one."""
        assert self._transport is not None
        self._transport.write(data)

    def eof_received(self) -> bool:
        """Tell the other side that no more comes, and go on the other way where the transport can."""
        self._ended = True
        other = self._other
        if other is None or other._transport is None or other._ended or not other._transport.can_write_eof():
            return False
        other._transport.write_eof()
        assert self._transport is not None
        return self._transport.can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._other is not None:
            self._other.close()

    def pause_writing(self) -> None:
        if self._other is not None and self._other._transport is not None:
            self._other._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._other is not None and self._other._transport is not None:
            self._other._transport.resume_reading()
