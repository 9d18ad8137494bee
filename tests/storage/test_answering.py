"""Answers that come later, on their way to workers of which one takes nothing."""

from __future__ import annotations

from typing import Any, cast

from quorate.proto import rpc_pb2
from quorate.storage.answering import LATE_BACKLOG_BYTES, Answers
from quorate.storage.reads import Deferred, Readers, Task
from quorate.storage.vacuum import Vacuum
from quorate.wire.messages import Kind, Origin, Part, unpack_results
from quorate.wire.sockets import Address, Endpoint

INCARNATION = 7


class FakeChannel:
    """Keeps what is sent until `taken`."""

    opened = True
    full = False
    peer_incarnation = INCARNATION

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.backlog_bytes = 0

    def send(self, kind: int, body: bytes) -> None:
        assert Kind.RESULTS == kind
        self.sent.append(body)
        self.backlog_bytes += len(body)

    def taken(self) -> None:
        self.backlog_bytes = 0

    @property
    def numbers(self) -> list[int]:
        return [unpack_results(body)[0] for body in self.sent]


class FakeEndpoint:
    def __init__(self, workers: int) -> None:
        self.channels = {Address(Part.API, number): FakeChannel() for number in range(workers)}


class FakeReaders:
    """Delivers at once what is asked."""

    def submit(self, deliver: Any, work: Task, _refuse: Any) -> None:
        deliver(work.read())


def test_a_worker_that_takes_nothing_holds_up_the_large_answers_of_no_other() -> None:
    endpoint = FakeEndpoint(2)
    answers = Answers(cast(Endpoint, endpoint), cast(Readers, FakeReaders()), cast(Vacuum, None))
    large = rpc_pb2.RangeResponse(count=1).SerializeToString() * LATE_BACKLOG_BYTES
    for number in range(4):
        origin = Origin(1, INCARNATION, number % 2)
        answers.reply(origin, number, [Deferred(Task(0, lambda: large))])
    stuck, other = endpoint.channels.values()
    answers.send_late()
    assert ([0], [1]) == (stuck.numbers, other.numbers)
    other.taken()
    answers.send_late()
    assert ([0], [1, 3]) == (stuck.numbers, other.numbers)
    assert answers.is_late
    stuck.taken()
    answers.send_late()
    assert ([0, 2], [1, 3]) == (stuck.numbers, other.numbers)
    assert not answers.is_late
