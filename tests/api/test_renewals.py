"""Renewals: one command for what arrives in a turn, and to each stream its own answers in its own order."""

from __future__ import annotations

import sys
from collections.abc import Callable
from struct import pack, unpack
from typing import Any, cast

import pytest
from google.protobuf.message import DecodeError

from quorate.api.calling import Done
from quorate.api.ring import Ring
from quorate.api.v3rpc.renewals import TOGETHER_MAX, WAITING_MAX, Renewals
from quorate.proto.rpc_pb2 import LeaseKeepAliveRequest, LeaseKeepAliveResponse, ResponseHeader
from quorate.wire import errors
from quorate.wire.errors import CallFailed
from quorate.wire.messages import Op

HEADER = LeaseKeepAliveResponse(header=ResponseHeader(member_id=3, revision=9)).SerializeToString()
TTLS = {1: 10, 2: 10, -5: 600, (1 << 63) - 1: 9_000_000_000, 0: 0}


class FakeRing:
    """Takes commands; the turn of the loop ends with `turn`."""

    writes = None

    def __init__(self) -> None:
        self.commands: list[tuple[list[int], Done]] = []
        self.is_full = False
        self._soon: list[Callable[[], None]] = []

    def soon(self, callback: Callable[[], None]) -> None:
        self._soon.append(callback)

    def add(self, _lane: Any, op: int, body: bytes, done: Done) -> None:
        assert op == Op.LEASE_RENEW
        if self.is_full:
            raise CallFailed(errors.TOO_MANY_REQUESTS)
        self.commands.append((list(unpack(f"<{len(body) // 8}q", body)), done))

    def turn(self) -> None:
        callbacks, self._soon = self._soon, []
        for callback in callbacks:
            callback()

    def answer(self) -> None:
        for ids, done in self.commands:
            done(0, "", HEADER + pack(f"<{len(ids)}q", *(TTLS.get(lease_id, 0) for lease_id in ids)))
        self.commands.clear()


class FakeStream:
    def __init__(self) -> None:
        self.answers: list[tuple[int, int]] = []
        self.refusals: list[tuple[tuple[int, ...], str]] = []

    def renewed(self, count: int, messages: bytes) -> None:
        position = 0
        for _ in range(count):
            end = position + 5 + int.from_bytes(messages[position + 1 : position + 5])
            answer = LeaseKeepAliveResponse.FromString(messages[position + 5 : end])
            assert (answer.header.member_id, answer.header.revision) == (3, 9)
            self.answers.append((answer.ID, answer.TTL))
            position = end
        assert position == len(messages)

    def refused(self, lease_ids: tuple[int, ...], _code: int, message: str) -> None:
        self.refusals.append((lease_ids, message))


@pytest.fixture
def ring() -> FakeRing:
    return FakeRing()


@pytest.fixture
def renewals(ring: FakeRing) -> Renewals:
    return Renewals(cast(Ring, ring))


def request(lease_id: int) -> bytes:
    return LeaseKeepAliveRequest(ID=lease_id).SerializeToString()


def test_what_arrives_in_one_turn_is_one_command_and_each_stream_gets_its_own_answers(
    ring: FakeRing, renewals: Renewals
) -> None:
    first, second = FakeStream(), FakeStream()
    for stream, ids in ((first, (1, 77, -5)), (second, (2, 1)), (first, ((1 << 63) - 1, 0))):
        for lease_id in ids:
            renewals.add(stream, request(lease_id))
    ring.turn()
    assert [[1, 77, -5, 2, 1, (1 << 63) - 1, 0]] == [ids for ids, _ in ring.commands]
    ring.answer()
    assert [(1, 10), (77, 0), (-5, 600), ((1 << 63) - 1, 9_000_000_000), (0, 0)] == first.answers
    assert [(2, 10), (1, 10)] == second.answers


def test_a_request_need_not_be_written_as_we_would(ring: FakeRing, renewals: Renewals) -> None:
    stream = FakeStream()
    renewals.add(stream, b"\x08\x81\x00")  # 1 in two bytes
    renewals.add(stream, b"\x08\x07\x08\x02")  # the last of two counts
    ring.turn()
    ring.answer()
    assert [(1, 10), (2, 10)] == stream.answers
    with pytest.raises(DecodeError):
        renewals.add(stream, b"\x08")


def test_a_request_with_more_than_an_id_is_not_kept(ring: FakeRing, renewals: Renewals) -> None:
    """Whoever sends long ones, no two alike, would have all of them remembered."""
    stream = FakeStream()
    body = request(1) + b"\x7a\xff\x7f" + b"x" * 0x3FFF
    held = sys.getrefcount(body)
    renewals.add(stream, body)
    ring.turn()
    ring.answer()
    assert ([(1, 10)], held) == (stream.answers, sys.getrefcount(body))


def test_a_command_has_a_bound_and_so_have_the_renewals_that_wait(ring: FakeRing, renewals: Renewals) -> None:
    stream = FakeStream()
    for _ in range(WAITING_MAX):
        renewals.add(stream, request(1))
    with pytest.raises(CallFailed) as refused:
        renewals.add(stream, request(1))
    assert errors.TOO_MANY_REQUESTS == refused.value.error
    ring.turn()
    assert TOGETHER_MAX == max(len(ids) for ids, _ in ring.commands)
    ring.answer()
    renewals.add(stream, request(2))
    ring.turn()
    ring.answer()
    assert (WAITING_MAX + 1, (2, 10)) == (len(stream.answers), stream.answers[-1])


def test_a_refused_command_is_refused_to_all_who_were_in_it(ring: FakeRing, renewals: Renewals) -> None:
    first, second = FakeStream(), FakeStream()
    ring.is_full = True
    renewals.add(first, request(1))
    renewals.add(first, request(2))
    renewals.add(second, request(-5))
    ring.turn()
    text = errors.TOO_MANY_REQUESTS.text
    assert ([((1, 2), text)], [((-5,), text)]) == (first.refusals, second.refusals)
