"""What a leader takes into its log and what it refuses: entries of its own host, forwarded ones, changes of members."""

from __future__ import annotations

from collections.abc import Sequence

from quorate.consensus.raft import confchange
from quorate.consensus.raft.messages import (
    NOBODY,
    ConfChange,
    EntryKind,
    Forward,
    ForwardRefused,
    ImpossibleMessage,
    Refusal,
    Role,
)
from quorate.consensus.raft.state import State


def offer(state: State, kind: int, payload: bytes) -> Refusal | None:
    """The leader's decision about a proposal."""
    if state.transferee != NOBODY:
        return Refusal.TRANSFERRING
    config = state.config
    waiting = state.uncommitted_bytes
    if waiting and waiting + len(payload) > config.uncommitted_bytes_max:
        return Refusal.OVERLOADED
    if state.log.last_index - state.commit_index > config.uncommitted_entries_max:
        return Refusal.OVERLOADED
    if state.commit_index - state.applied_index > config.apply_lag_entries_max:
        return Refusal.OVERLOADED
    state.append_own(kind, payload)
    return None


def on_forward(state: State, message: Forward) -> None:
    """A proposal of another member; the answer to one that is taken is its place in the log."""
    if message.kind != EntryKind.BATCH and message.kind != EntryKind.ATTR:
        raise ImpossibleMessage(f"an entry of kind {message.kind} is the leader's own")
    refusal: Refusal | None = Refusal.NOT_LEADER
    if state.role is Role.LEADER:
        refusal = offer(state, message.kind, message.payload)
    if refusal is not None:
        state.messages.append(ForwardRefused(state.id, message.from_id, 0, message.ref, refusal))


def on_forward_refused(state: State, message: ForwardRefused) -> None:
    """What the leader said of a proposal of this member."""
    state.refused_proposals.append((message.ref, message.refusal))


def offer_conf_change(state: State, changes: Sequence[ConfChange], context: bytes) -> Refusal | None:
    """The leader's decision about a change of members: one at a time, and none before it knows what is committed."""
    if state.role is not Role.LEADER:
        return Refusal.NOT_LEADER
    if state.transferee != NOBODY:
        return Refusal.TRANSFERRING
    if state.commit_index < state.term_start_index:
        return Refusal.NOT_READY
    if state.conf_open:
        return Refusal.CONF_CHANGE_PENDING
    entered = confchange.enter(state.conf, changes)
    if isinstance(entered, Refusal):
        return entered
    state.append_own(EntryKind.CONF, confchange.encode(entered, context))
    return None
