"""Renewals of all KeepAlive streams of this worker: what arrives in one turn of the loop is one command.

A renewal is a number that comes in and the same number that goes out with a time to live, so nothing is made for each
but an entry in two lists, and the answers of a stream are composed together. This is for callers without a name; who
has one is asked for one by one (see `lease`).
"""

from __future__ import annotations

from struct import pack, unpack_from
from typing import Final, Protocol

from quorate.api.ring import Ring
from quorate.api.watches import MESSAGE_PREFIX
from quorate.proto.rpc_pb2 import LeaseKeepAliveRequest, LeaseKeepAliveResponse
from quorate.wire import errors
from quorate.wire.errors import CallFailed
from quorate.wire.messages import Op

TOGETHER_MAX: Final = 4096  # renewals in one command: a millisecond of storage
WAITING_MAX: Final = 20_000  # renewals of one worker without an answer, as of commands
KNOWN_MAX: Final = 65_536  # requests remembered with what they say; beyond it all are read anew
KNOWN_BYTES_MAX: Final = 11  # of one of them: an id and nothing else


class Stream(Protocol):
    """Who waits for renewals."""

    def renewed(self, count: int, messages: bytes) -> None:
        """The answers to so many of its renewals, in their order, as gRPC frames them."""

    def refused(self, lease_ids: tuple[int, ...], code: int, message: str) -> None:
        """So many of its renewals were not made."""


class Batch:
    """The renewals of one command."""

    __slots__ = ("counts", "fields", "ids", "streams")

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.fields: list[bytes] = []  # ID fields of the responses
        self.streams: list[Stream] = []  # in the order of their renewals, one after the other
        self.counts: list[int] = []


class Renewals:
    """Takes renewals from the streams and gives back the answers."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._known: dict[bytes, tuple[int, bytes]] = {}
        self._batch = Batch()
        self._waiting = 0

    def add(self, stream: Stream, body: bytes) -> None:
        """Renew the lease that a LeaseKeepAliveRequest names; raises CallFailed and DecodeError."""
        known = self._known.get(body)
        if known is None:
            known = self._learn(body)
        if self._waiting >= WAITING_MAX:
            raise CallFailed(errors.TOO_MANY_REQUESTS)
        self._waiting += 1
        batch = self._batch
        streams = batch.streams
        if not streams:
            self._ring.soon(self.send)
        if streams and streams[-1] is stream:
            batch.counts[-1] += 1
        else:
            streams.append(stream)
            batch.counts.append(1)
        batch.ids.append(known[0])
        batch.fields.append(known[1])
        if len(batch.ids) == TOGETHER_MAX:
            self.send()

    def send(self) -> None:
        """Have ordered what was added."""
        batch = self._batch
        if not batch.ids:
            return
        self._batch = Batch()

        def done(code: int, message: str, response: bytes) -> None:
            self._waiting -= len(batch.ids)
            if code:
                _refuse(batch, code, message)
            else:
                _answer(batch, response)

        try:
            self._ring.add(self._ring.writes, Op.LEASE_RENEW, pack(f"<{len(batch.ids)}q", *batch.ids), done)
        except CallFailed as failed:
            done(failed.error.code, failed.error.text, b"")

    def _learn(self, body: bytes) -> tuple[int, bytes]:
        lease_id = LeaseKeepAliveRequest.FromString(body).ID
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        known = lease_id, LeaseKeepAliveResponse(ID=lease_id).SerializeToString()
        if len(body) <= KNOWN_BYTES_MAX:
            self._known[body] = known
        return known


def _answer(batch: Batch, response: bytes) -> None:
    """Compose the messages: they differ in the id and, where leases do, in the TTL."""
    count = len(batch.ids)
    split = len(response) - 8 * count
    header, ttls = response[:split], response[split:]
    if ttls == ttls[:8] * count and len(set(map(len, batch.fields))) == 1:
        _answer_alike(batch, header, *unpack_from("<q", ttls))
    else:
        _answer_each(batch, header, unpack_from(f"<{count}q", ttls))


def _answer_alike(batch: Batch, header: bytes, ttl: int) -> None:
    """One TTL, ids of one length: what is between two ids is always the same."""
    fields = batch.fields
    end = LeaseKeepAliveResponse(TTL=ttl).SerializeToString()
    start = MESSAGE_PREFIX.pack(0, len(header) + len(fields[0]) + len(end)) + header
    between = end + start
    at = 0
    for stream, of_stream in zip(batch.streams, batch.counts, strict=True):
        stream.renewed(of_stream, start + between.join(fields[at : at + of_stream]) + end)
        at += of_stream


def _answer_each(batch: Batch, header: bytes, ttls: tuple[int, ...]) -> None:
    starts: dict[int, bytes] = {}  # prefix and header by the length of the rest
    ends: dict[int, bytes] = {}  # TTL fields
    messages = []
    for field, ttl in zip(batch.fields, ttls, strict=True):
        end = ends.get(ttl)
        if end is None:
            end = ends[ttl] = LeaseKeepAliveResponse(TTL=ttl).SerializeToString()
        rest = field + end
        start = starts.get(len(rest))
        if start is None:
            start = starts[len(rest)] = MESSAGE_PREFIX.pack(0, len(header) + len(rest)) + header
        messages.append(start + rest)
    at = 0
    for stream, of_stream in zip(batch.streams, batch.counts, strict=True):
        stream.renewed(of_stream, b"".join(messages[at : at + of_stream]))
        at += of_stream


def _refuse(batch: Batch, code: int, message: str) -> None:
    at = 0
    for stream, count in zip(batch.streams, batch.counts, strict=True):
        stream.refused(tuple(batch.ids[at : at + count]), code, message)
        at += count
