"""A member that says anything in any order, to a Raft core: what Raft does not promise against it, and what holds.

Raft trusts its members: one that lies can be elected, have entries committed that are its own, and keep others from
leading. It cannot end another member, make it take back what is committed there, or have it hoard.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from quorate.consensus import frames, wal_format
from quorate.consensus.raft import confchange
from quorate.consensus.raft import messages as raft
from quorate.consensus.raft.core import RaftCore
from quorate.consensus.raft.messages import (
    ConfChange,
    ConfChangeKind,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    ImpossibleMessage,
    Message,
    RaftConfig,
    Refusal,
    Role,
)
from quorate.consensus.wal_format import Base
from tests.fuzzing.octets import Octets

OWN: Final = 1
PEERS: Final = (2, 3)
ACTIONS_MAX: Final = 300
READS_MAX: Final = 20
UNCOMMITTED_MAX: Final = 40
OFFSETS: Final = (0, 0, 0, 1, -1, 2, -5)
CONFS: Final = (
    ConfState((1, 2, 3)), ConfState((1, 2)), ConfState((2, 3)), ConfState((1,)), ConfState(),
    ConfState((2,), (1, 2, 3)), ConfState((1, 2, 3), (1,)), ConfState((1, 2), (), (3,)),
    ConfState((), (), (1, 2, 3)), ConfState((2, 3), (1, 2, 3), (1,)), ConfState((1, 1, 1)),
    ConfState(tuple(range(4, 40))),
)  # fmt: skip
CHANGES: Final = (
    [ConfChange(ConfChangeKind.REMOVE, 3)],
    [ConfChange(ConfChangeKind.ADD_LEARNER, 3)],
    [ConfChange(ConfChangeKind.ADD_VOTER, 4)],
    [ConfChange(ConfChangeKind.REMOVE, OWN)],
)


class Member:
    """A core, its disk, and what must not change there."""

    def __init__(self, is_alone: bool) -> None:
        conf = ConfState((OWN,)) if is_alone else ConfState((OWN, *PEERS))
        self.first_conf = conf
        self.hard_state = HardState()
        self.entries: list[Entry] = []
        self.base = (0, 0, conf)  # index, term and configuration the entries follow
        self.handed: dict[int, Entry] = {}
        self.handed_index = 0
        self.taken = self.dropped = 0
        self.core = self._start()

    def _start(self) -> RaftCore:
        index, term, conf = self.base
        return RaftCore(
            RaftConfig(
                id=OWN,
                reads_waiting_max=READS_MAX,
                uncommitted_bytes_max=4000,
                uncommitted_entries_max=UNCOMMITTED_MAX,
                apply_lag_entries_max=UNCOMMITTED_MAX,
            ),
            random.Random(1),
            hard_state=self.hard_state,
            conf_state=conf,
            base_index=index,
            base_term=term,
            entries=self.entries,
            applied_index=index,
        )

    def restart(self) -> None:
        """From the disk, as after a crash."""
        self.core = self._start()
        self.handed_index = self.base[0]

    def hear(self, message: Message) -> None:
        """A peer says this."""
        core = self.core
        before = core.term, core.commit_index, core.last_index
        try:
            core.step(message)
            self.taken += 1
        except ImpossibleMessage:
            self.dropped += 1
            assert (core.commit_index, core.last_index) == before[1:], "a refused message changed something"
        assert core.term >= before[0]
        assert core.commit_index >= before[1]

    def settle(self) -> None:
        """Do all duties; what is sent can be said on the wire, what is written can be written."""
        core = self.core
        while (ready := core.ready()) is not None:
            assert len(ready.messages) <= 1000
            for message in ready.messages:
                frames.encode(1, message)
            if ready.hard_state is not None:
                old, self.hard_state = self.hard_state, ready.hard_state
                assert ready.hard_state.term >= old.term
                assert ready.hard_state.term > old.term or old.vote in (0, ready.hard_state.vote), "voted twice"
            if ready.must_sync:
                self._write(ready)
                core.on_persisted(ready.number)
            for entry in ready.committed:
                assert entry.index == self.handed_index + 1, "a hole in what is applied"
                assert self.handed.setdefault(entry.index, entry) == entry, "a committed entry was replaced"
                self.handed_index = entry.index
            if ready.committed:
                core.on_applied(self.handed_index)
        self._check()

    def _write(self, ready: raft.Ready) -> None:
        if ready.snapshot is not None:
            index, term, conf = ready.snapshot
            assert index > self.handed_index, "a snapshot took applied entries back"
            self.base, self.entries, self.handed_index = (index, term, conf), [], index
        if ready.entries:
            del self.entries[ready.entries[0].index - self.base[0] - 1 :]
            assert ready.entries[0].index == self.base[0] + len(self.entries) + 1
            self.entries += ready.entries
        base = Base(max(ready.entries[0].index - 1, 0) if ready.entries else 0, 0, 0)
        wal_format.encode_batch(1, 1, base, ready.entries, self.hard_state)

    def _check(self) -> None:
        core = self.core
        state = core._state
        terms = [entry.term for entry in self.entries]
        assert terms == sorted(terms), "terms decrease along the log"
        assert core.applied_index <= core.commit_index <= core.last_index <= raft.INDEX_MAX + ACTIONS_MAX * 10
        assert core.term <= raft.TERM_MAX
        for index, entry in self.handed.items():
            if self.base[0] < index:
                assert self.entries[index - self.base[0] - 1] == entry, "a committed entry is gone from the disk"
        assert len(state.read_rounds) <= READS_MAX
        assert len(state.votes) <= 8
        assert not state.messages
        assert len(state.progress) <= 45
        if core.role is Role.LEADER:
            assert core.last_index - core.commit_index <= UNCOMMITTED_MAX + 5


def seeds() -> list[bytes]:
    """An election won and lost, entries from a leader, and rows of every message."""
    follow = b"".join(bytes((0, kind, peer, *range(14))) for kind in range(16) for peer in (0, 1))
    win = bytes((0, 3, 0, 0, 0, 6, 0, 0, 2, 0, 0, 8, 0, 0, 2, 0))
    return [
        bytes((start, *(octet for at in range(20) for octet in (at % 16, at % 7, 0, at % 3, 1, at)))) + follow
        for start in range(3)
    ] + [
        *(bytes((0,)) + win + follow, bytes((1,)) + follow * 2, bytes((2, *range(200)))),
        *(bytes((number % 3,)) + random.Random(number).randbytes(1500) for number in range(12)),
    ]


def run(data: bytes) -> bool:
    """What holds is checked after every action."""
    octets = Octets(data)
    start = octets.number() % 3
    member = Member(is_alone=start == 2)
    if start == 1:
        lead(member)
    count = 0
    while not octets.is_empty and count < ACTIONS_MAX:
        count += 1
        act(octets, member)
    member.settle()
    member.restart()
    member.settle()
    return not member.dropped


def lead(member: Member) -> None:
    """Have the core elected."""
    core = member.core
    core.campaign()
    member.settle()
    member.hear(raft.PreVoteResp(PEERS[0], OWN, core.term + 1, True))
    member.settle()
    member.hear(raft.VoteResp(PEERS[0], OWN, core.term, True))
    member.settle()
    assert core.role is Role.LEADER
    member.hear(raft.AppendAck(PEERS[0], OWN, core.term, core.last_index))
    member.settle()


def act(octets: Octets, member: Member) -> None:
    """Something happens: most of the time a peer says something."""
    core = member.core
    match octets.number() % 16:
        case 6 | 7:
            member.hear(honest(octets, core))
        case 8:
            member.settle()
        case 9:
            for _ in range(octets.number() % 25):
                core.tick()
                member.settle()
        case 10:
            core.propose(octets.some())
        case 11:
            core.read_index(octets.number())
        case 12:
            core.propose_conf_change(octets.choice(CHANGES))
        case 13:
            core.transfer_leader(octets.choice(PEERS))
        case 14:
            core.compact(core.applied_index)
            core.report_snapshot(octets.choice(PEERS), octets.number() % 2 == 0, core.applied_index)
        case 15:
            member.settle()
            member.restart()
        case _:
            member.hear(said(octets, core))


def near(octets: Octets, *values: int) -> int:
    """A number about one of these, or an extreme one, but never more than a frame can say."""
    which = octets.number()
    extremes = (0, 1, raft.TERM_MAX, raft.TERM_MAX + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
    value = extremes[which - 249] if which >= 249 else values[which % len(values)] + OFFSETS[(which >> 3) % 7]
    return min(max(value, 0), (1 << 64) - 1)


def honest(octets: Octets, core: RaftCore) -> Message:
    """What a member says that keeps to the rules, so that there is something to be damaged."""
    last, term = core.last_index, max(core.term, 1)
    if core.role is Role.LEADER:
        return raft.AppendAck(octets.choice(PEERS), OWN, term, last)
    entries = [Entry(last + 1, term, EntryKind.BATCH, octets.some()), Entry(last + 2, term, EntryKind.NOOP, b"")]
    leader_id = core.leader_id or PEERS[0]
    return raft.Append(leader_id, OWN, term, last, core.term_at(last) or 0, last + octets.number() % 3, entries)


Maker = Callable[[Octets, RaftCore, tuple[int, int, int]], Message]


def said(octets: Octets, core: RaftCore) -> Message:
    """A message of a peer, that a decoder could have made."""
    make: Maker = octets.choice(MAKERS)
    way = (octets.choice((*PEERS, *PEERS, 4)), OWN, near(octets, core.term, core.term, core.term + 1))
    return make(octets, core, way)


def _index(octets: Octets, core: RaftCore) -> int:
    return near(octets, core.last_index, core.commit_index, core.first_index)


def _append(octets: Octets, core: RaftCore, way: tuple[int, int, int]) -> Message:
    prev_index = _index(octets, core)
    prev_term = near(octets, core.term_at(prev_index) or 0) if octets.number() % 4 == 0 else core.term_at(prev_index)
    entries = []
    for index in range(prev_index + 1, prev_index + 1 + octets.number() % 5):
        kind = octets.choice((*EntryKind, EntryKind.BATCH, 0, 5, 255))
        payload = octets.some() if octets.number() % 3 else confchange.encode(octets.choice(CONFS), octets.some())
        term = way[2] if octets.number() % 3 else near(octets, core.term, core.term_at(index) or 0)
        entries.append(Entry(index, term, kind, payload))
    return raft.Append(*way, prev_index, prev_term or 0, _index(octets, core), entries)


def snapshot(octets: Octets, core: RaftCore, way: tuple[int, int, int]) -> raft.InstallSnapshot:
    """A snapshot that was whole when it arrived."""
    index, term = _index(octets, core), near(octets, core.term)
    return raft.InstallSnapshot(*way, raft.SnapshotMeta(index, term, octets.choice(CONFS)))


MAKERS: Final[tuple[Maker, ...]] = (
    _append,
    lambda octets, core, way: raft.AppendAck(*way, _index(octets, core)),
    lambda octets, core, way: raft.AppendReject(
        *way, _index(octets, core), _index(octets, core), near(octets, core.term)
    ),
    lambda octets, core, way: raft.Heartbeat(*way, _index(octets, core), near(octets, 0, 3)),
    lambda octets, core, way: raft.HeartbeatAck(*way, near(octets, 0, 3)),
    lambda octets, core, way: raft.Commit(*way, _index(octets, core)),
    lambda octets, core, way: raft.PreVote(*way, _index(octets, core), near(octets, core.term)),
    lambda octets, core, way: raft.PreVoteResp(*way, octets.number() % 2 == 0),
    lambda octets, core, way: raft.Vote(*way, _index(octets, core), near(octets, core.term), octets.number() % 2 == 0),
    lambda octets, core, way: raft.VoteResp(*way, octets.number() % 2 == 0),
    lambda octets, core, way: raft.TimeoutNow(*way),
    lambda octets, core, way: raft.ReadReq(*way, octets.number()),
    lambda octets, core, way: raft.ReadResp(*way, near(octets, 0, 3), _index(octets, core)),
    lambda octets, core, way: raft.Forward(
        way[0], OWN, 0, octets.number(), octets.choice((1, 1, 1, 4, 3, 2, 0, 9)), octets.some()
    ),
    lambda octets, core, way: raft.ForwardRefused(way[0], OWN, 0, octets.number(), octets.choice(list(Refusal))),
    snapshot,
)
