"""What must hold after every event in a simulated cluster (paper figure 3, promises about the disk)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from quorate.consensus.raft.messages import AppendAck, Entry, HeartbeatAck, Message, Role, Vote, VoteResp

if TYPE_CHECKING:
    from tests.simulation.raft_cluster import SimCluster, SimMember


def check_promise(member: SimMember, message: Message) -> None:
    """No vote and no acknowledgement leaves a member before its disk backs it."""
    disk = member.disk
    match message:
        case VoteResp(term=term, granted=True, to_id=candidate):
            assert (disk.hard_state.term, disk.hard_state.vote) == (term, candidate), "vote before fsync"
        case Vote(term=term):
            assert (disk.hard_state.term, disk.hard_state.vote) == (term, member.id), "candidacy before fsync"
        case AppendAck(term=term, match_index=index):
            assert disk.hard_state.term == term, "acknowledged in a term that is not durable"
            assert index <= disk.last_index(), "acknowledged before fsync"
            if index >= disk.base.index:
                assert disk.term(index) == member.core.term_at(index), "acknowledged what the disk has not"
        case HeartbeatAck(term=term):
            assert term == member.core.term


class Ledger:
    """What the cluster as a whole has decided, kept outside of it."""

    def __init__(self) -> None:
        self.committed: dict[int, Entry] = {}
        self.committed_index = 0  # highest index any member knows to be committed
        self.leaders: dict[int, int] = {}  # term -> leader
        self._commit_seen: dict[tuple[int, int], int] = {}  # (member, life) -> commit index
        self._handed_seen: dict[tuple[int, int], int] = {}
        self.reads_checked = 0

    def note_committed(self, member: SimMember, entries: Sequence[Entry]) -> None:
        """State machine safety: nobody is ever handed a different entry at an index, nor out of order."""
        assert [entry.index for entry in entries] == list(range(entries[0].index, entries[-1].index + 1))
        key = (member.id, member.life)
        assert entries[0].index == self._handed_seen.get(key, entries[0].index), "a hole in what is applied"
        self._handed_seen[key] = entries[-1].index + 1
        for entry in entries:
            assert self.committed.setdefault(entry.index, entry) == entry, "state machine safety"

    def note_snapshot(self, member: SimMember, index: int) -> None:
        """What is handed out continues behind a snapshot."""
        assert index >= self._handed_seen.get((member.id, member.life), 0), "a snapshot took applied entries back"
        self._handed_seen[(member.id, member.life)] = index + 1

    def check_read(self, member: SimMember, committed_when_asked: int, read_index: int) -> None:
        """A linearizable read sees everything that was committed when it was asked."""
        assert read_index >= committed_when_asked, f"stale read on {member.id}"
        self.reads_checked += 1

    def check(self, cluster: SimCluster, member: SimMember) -> None:
        """After an event on `member`."""
        core = member.core
        key = (member.id, member.life)
        seen = self._commit_seen.get(key, 0)
        assert core.commit_index >= seen, "commit index went back"
        if core.commit_index > seen:
            self._commit_seen[key] = core.commit_index
            if core.role is Role.LEADER:
                assert core.term_at(core.commit_index) == core.term, "an older term was committed by counting"
            if core.role is Role.LEADER and core.commit_index > self.committed_index:
                _check_quorum_has(cluster, member, core.commit_index)
            self.committed_index = max(self.committed_index, core.commit_index)
        if core.role is Role.LEADER:
            known = self.leaders.get(core.term)
            if known is None:
                self.leaders[core.term] = member.id
                self._check_leader_completeness(member)
            else:
                assert known == member.id, f"two leaders in term {core.term}"

    def _check_leader_completeness(self, member: SimMember) -> None:
        """A new leader has every committed entry (paper 5.4), but for those of newer leaders if it hears late that it
        was elected."""
        if member.core.term < max(self.leaders):
            return
        for index, entry in self.committed.items():
            term = member.core.term_at(index)
            if index >= member.core.first_index:
                assert term == entry.term, f"leader {member.id} lacks committed entry {index}"

    def check_logs_match(self, cluster: SimCluster) -> None:
        """Two entries with the same index and term have equal logs before them (paper 5.3)."""
        logs = [{entry.index: entry for entry in member.disk.log} for member in cluster.members.values()]
        for position, one in enumerate(logs):
            for other in logs[:position]:
                shared = sorted(one.keys() & other.keys(), reverse=True)
                agreed = False
                for index in shared:
                    if agreed or one[index].term == other[index].term:
                        assert one[index] == other[index], f"logs differ at {index}"
                        agreed = True


def _check_quorum_has(cluster: SimCluster, leader: SimMember, index: int) -> None:
    """No commit before a quorum has the entry on disk."""
    term = leader.core.term_at(index)
    conf = leader.core.conf_state
    for voters in filter(None, (conf.voters, conf.outgoing)):
        disks = [cluster.members[voter].disk for voter in voters]
        holding = sum(
            index <= disk.base.index or (index <= disk.last_index() and disk.term(index) == term) for disk in disks
        )
        assert holding * 2 > len(voters), f"committed {index} without a quorum on disk"
