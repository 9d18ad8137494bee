"""`--force-new-cluster`: a member that lost the others for good goes on alone, with its ids and all its data.

One more entry makes it the only voter. All of its log counts as committed then: how far the lost members had come is
not known, and what may have been acknowledged must not be dropped.
"""

from __future__ import annotations

from quorate.consensus.bootstrap import Start
from quorate.consensus.node import known_membership
from quorate.consensus.raft.confchange import encode
from quorate.consensus.raft.messages import ConfState, Entry, EntryKind, HardState
from quorate.node import logs
from quorate.node.lifecycle import OperatorError

log = logs.named("bootstrap")


def go_alone(start: Start) -> None:
    """Appends that entry, durable when this returns; nothing when the member is alone already."""
    wal, own = start.wal, start.meta.member_id
    index = wal.last_index
    membership = known_membership(start.meta.membership, wal.recovered, index)
    if own not in membership.members:
        raise OperatorError(f"member {own:x} was removed from its cluster; restore a backup instead")
    alone = ConfState(voters=(own,))
    if membership.conf == alone and wal.hard_state.commit == index:
        return
    term = max(wal.hard_state.term, wal.term(index), 1)
    entry = Entry(index + 1, term, EntryKind.CONF, encode(alone))
    wal.append([entry], HardState(term, own, index + 1))
    wal.recovered.append(entry)
    for member in membership.ordered():
        if member.id != own:
            log.warn("forcing removal of member", member_id=f"{member.id:x}", name=member.name)
