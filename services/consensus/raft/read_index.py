"""Linearizable reads without log entries: the leader's rounds, a follower's questions (thesis 6.4).

A read may be served at the commit index of a moment after it was asked, once a quorum has confirmed that
there was no newer leader at a still later moment. Rounds are numbered by a counter of the leader's term;
every heartbeat carries the newest number and its answer echoes it. An answer therefore says when it was
caused. Tying confirmations to identifiers that clients choose lets late answers confirm a retried read (etcd
#20418); a counter cannot.

A follower's question is such an answer itself: it says that the asker knew no newer leader after the reads in it
began. Where the leader and the asker are a quorum, as two of three members are, no round is needed
(`replication.on_read_req`).
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from quorate.consensus.raft.messages import NOBODY


class Read(NamedTuple):
    """One waiting read."""

    ctx: int
    from_id: int  # the member that asked; NOBODY if it was asked here


class Round(NamedTuple):
    """Reads that wait for the same confirmation."""

    seq: int
    read_index: int
    reads: list[Read]


class ReadRounds:
    """The leader's side. All reads that wait when a round starts share it."""

    __slots__ = ("_rounds", "_rounds_max", "_waiting", "seq")

    def __init__(self, rounds_max: int):
        self._rounds_max = rounds_max
        self._rounds: deque[Round] = deque()
        self._waiting: list[Read] = []
        self.seq = 0  # of the newest round; the first of a term is 1

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, ctx: int, from_id: int) -> None:
        """Queues a read for the next round."""
        self._waiting.append(Read(ctx, from_id))

    def maybe_start(self, commit_index: int) -> bool:
        """Begins a round at `commit_index` if reads wait and fewer than the maximum are under way."""
        if not self._waiting or len(self._rounds) >= self._rounds_max:
            return False
        self.seq += 1
        self._rounds.append(Round(self.seq, commit_index, self._waiting))
        self._waiting = []
        return True

    def awaits(self, seq: int) -> bool:
        """True if some round up to `seq` is under way."""
        return bool(self._rounds) and self._rounds[0].seq <= seq

    def confirm(self, seq: int) -> list[Round]:
        """Ends all rounds up to `seq`."""
        confirmed: list[Round] = []
        while self._rounds and self._rounds[0].seq <= seq:
            confirmed.append(self._rounds.popleft())
        return confirmed

    def reset(self) -> list[int]:
        """Leadership begins or ends: forgets everything; returns the reads that were asked here."""
        reads = [read for r in self._rounds for read in r.reads] + self._waiting
        self._rounds.clear()
        self._waiting = []
        self.seq = 0
        return [read.ctx for read in reads if read.from_id == NOBODY]


class ReadRequests:
    """A follower's side: reads asked here that need the leader's index. One question covers all that wait.

    Questions are numbered from a random start, so that an answer to a former life of this member matches
    nothing. A question that stays unanswered is asked again under a new number.
    """

    __slots__ = ("_asked", "_next_ctx", "_ticks", "_waiting")

    def __init__(self, first_ctx: int):
        self._next_ctx = first_ctx
        self._asked: dict[int, tuple[int, list[int]]] = {}  # when, by `_ticks`, and for which reads
        self._waiting: list[int] = []
        self._ticks = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, ctx: int) -> None:
        """Queues a read for the next question."""
        self._waiting.append(ctx)

    def maybe_ask(self, asked_max: int) -> int | None:
        """The number of a new question, if reads wait and fewer than `asked_max` are unanswered."""
        if not self._waiting or len(self._asked) >= asked_max:
            return None
        self._next_ctx += 1
        self._asked[self._next_ctx] = (self._ticks, self._waiting)
        self._waiting = []
        return self._next_ctx

    def answer(self, ctx: int) -> list[int]:
        """The reads question `ctx` was asked for; none if it is not (any longer) ours."""
        _, reads = self._asked.pop(ctx, (0, []))
        return reads

    def tick(self, patience_ticks: int) -> None:
        """Puts the reads of questions that stayed unanswered for `patience_ticks` back into the queue."""
        self._ticks += 1
        if not self._asked:
            return
        overdue = [ctx for ctx, (asked_at, _) in self._asked.items() if self._ticks - asked_at >= patience_ticks]
        self._waiting[:0] = [read for ctx in overdue for read in self.answer(ctx)]

    def reset(self) -> list[int]:
        """The leader changed: forgets and returns all reads."""
        reads = [read for _, reads in self._asked.values() for read in reads] + self._waiting
        self._asked.clear()
        self._waiting = []
        return reads
