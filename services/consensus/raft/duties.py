"""What the host has to do next: all that has gathered in the state since the last Ready, and nothing twice."""

from __future__ import annotations

from quorate.consensus.raft.messages import NOBODY, HardState, Ready, Role, SoftState
from quorate.consensus.raft.state import State

_ALL_BYTES = 1 << 62


class Duties:
    """Remembers what the host was told last, so that only what differs is told."""

    __slots__ = ("_hard_state", "_soft_state", "_state")

    def __init__(self, state: State, hard_state: HardState):
        """`hard_state` is on the disk already."""
        self._state = state
        self._hard_state = HardState(hard_state.term, hard_state.vote, hard_state.commit)
        self._soft_state = SoftState(Role.FOLLOWER, NOBODY)

    def take(self) -> Ready | None:
        """Everything there is to do, or None.

        The question is cheap, because a host asks far more often than there is something: likely duties come first.
        """
        state = self._state
        durability = state.durability
        hard_state, soft_state = self._hard_state, self._soft_state
        handed = state.handed_index
        if not (
            state.messages
            or state.log.last_index > durability.written_index
            or state.commit_index != hard_state.commit
            or state.read_states
            or (handed < state.commit_index and handed < durability.stable_index and self._has_room())
            or state.term != hard_state.term
            or state.vote != hard_state.vote
            or state.role is not soft_state.role
            or state.leader_id != soft_state.leader_id
            or state.conf_changed
            or state.refused_reads
            or state.refused_proposals
            or state.snapshot_peers
            or state.restored is not None
            or durability.must_write()
        ):
            return None
        ready = Ready()
        self._take_writes(ready)
        self._take_committed(ready)
        self._take_news(ready)
        return ready

    def _has_room(self) -> bool:
        return self._state.handed_bytes < self._state.config.apply_bytes_max

    def _take_writes(self, ready: Ready) -> None:
        state = self._state
        durability = state.durability
        last = self._hard_state
        if durability.written_index < state.log.last_index:
            ready.entries = state.log.entries(durability.written_index + 1, state.log.last_index, _ALL_BYTES)
            ready.must_sync = True
        if (state.term, state.vote) != (last.term, last.vote) or durability.must_write() or state.restored is not None:
            ready.must_sync = True
        if state.restored is not None:
            ready.snapshot, state.restored = state.restored, None
        if ready.must_sync or state.commit_index != last.commit:
            self._hard_state = ready.hard_state = HardState(state.term, state.vote, state.commit_index)
            if ready.must_sync:
                ready.number = durability.write(state.log.last_index, state.term, state.vote)

    def _take_committed(self, ready: Ready) -> None:
        state = self._state
        limit = min(state.commit_index, state.durability.stable_index)
        if state.handed_index >= limit or not self._has_room():
            return
        room = state.config.apply_bytes_max - state.handed_bytes
        committed = state.log.entries(state.handed_index + 1, limit, room)
        ready.committed = committed
        size = sum([len(entry.payload) for entry in committed])
        state.handed_index = committed[-1].index
        state.handed.append((state.handed_index, size))
        state.handed_bytes += size

    def _take_news(self, ready: Ready) -> None:
        state = self._state
        if state.messages:
            ready.messages, state.messages = state.messages, []
        if state.read_states:
            ready.read_states, state.read_states = state.read_states, []
        if state.refused_reads:
            ready.refused_reads, state.refused_reads = state.refused_reads, []
        if state.refused_proposals:
            ready.refused_proposals, state.refused_proposals = state.refused_proposals, []
        if state.snapshot_peers:
            ready.snapshot_peers, state.snapshot_peers = state.snapshot_peers, []
        if state.conf_changed:
            ready.conf_state, state.conf_changed = state.conf, False
        last = self._soft_state
        if last.role is not state.role or last.leader_id != state.leader_id:
            self._soft_state = ready.soft_state = SoftState(state.role, state.leader_id)
