"""When followers hear that entries are committed."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from quorate.consensus.commit_news import CommitNews
from quorate.consensus.neighbours import Network
from quorate.consensus.raft.messages import Append, Commit, Message, ReadResp


class Wire:
    """A network and a timer that are turned by hand."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.flushes = 0
        self.timers: list[Callable[[], None]] = []
        self.news = CommitNews(cast(Network, self), self.later)

    def send(self, message: Message) -> None:
        self.sent.append(message)

    def flush(self) -> None:
        self.flushes += 1

    def later(self, _seconds: float, callback: Callable[[], None]) -> None:
        self.timers.append(callback)


@pytest.fixture
def wire() -> Wire:
    return Wire()


def commit(to_id: int, index: int) -> Commit:
    return Commit(1, to_id, 3, index)


def test_the_news_waits_for_the_timer_and_only_the_latest_is_sent(wire: Wire) -> None:
    for index in (5, 6, 7):
        wire.news.send(commit(2, index))
        wire.news.send(commit(3, index))
    assert [] == wire.sent
    assert 1 == len(wire.timers)
    wire.timers.pop()()
    assert [commit(2, 7), commit(3, 7)] == wire.sent
    assert 1 == wire.flushes


def test_an_append_that_carries_the_commit_index_makes_the_news_needless(wire: Wire) -> None:
    wire.news.send(commit(2, 5))
    append = Append(1, 2, 3, 5, 3, 5, ())
    wire.news.send(append)
    wire.timers.pop()()
    assert [append] == wire.sent
    assert 0 == wire.flushes


def test_an_append_with_an_older_commit_index_does_not(wire: Wire) -> None:
    wire.news.send(commit(2, 5))
    append = Append(1, 2, 3, 5, 3, 4, ())
    wire.news.send(append)
    wire.timers.pop()()
    assert [append, commit(2, 5)] == wire.sent


def test_a_member_that_forwarded_a_write_hears_at_once(wire: Wire) -> None:
    wire.news.expect(2, 8)
    wire.news.send(commit(2, 7))
    wire.news.send(commit(2, 8))
    wire.news.send(commit(3, 8))
    assert [commit(2, 7), commit(2, 8)] == wire.sent
    wire.news.send(commit(2, 9))
    assert [commit(2, 7), commit(2, 8)] == wire.sent


def test_a_read_answer_is_preceded_by_what_it_needs(wire: Wire) -> None:
    wire.news.send(commit(2, 5))
    answer = ReadResp(1, 2, 3, 77, 5)
    wire.news.send(answer)
    assert [commit(2, 5), answer] == wire.sent
