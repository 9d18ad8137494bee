"""Single cores in a known state, with a disk that finishes at once, for tests of one rule at a time."""

from __future__ import annotations

import random
from collections.abc import Sequence

from quorate.consensus.raft.core import RaftCore
from quorate.consensus.raft.messages import (
    ConfState,
    Entry,
    EntryKind,
    HardState,
    Message,
    RaftConfig,
    Ready,
    Role,
    VoteResp,
)

THREE = ConfState((1, 2, 3))


def entries_of(terms: Sequence[int], first: int = 1) -> list[Entry]:
    """One entry per term given, from index `first` on."""
    return [Entry(first + i, term, EntryKind.BATCH, b"%d" % term) for i, term in enumerate(terms)]


def make_core(
    terms: Sequence[int] = (),
    term: int | None = None,
    vote: int = 0,
    commit: int = 0,
    conf: ConfState = THREE,
    **options: int,
) -> RaftCore:
    """Member 1 as a follower whose durable log has entries of these terms."""
    config = RaftConfig(id=1, pre_vote=bool(options.pop("pre_vote", 0)), **options)
    current = (terms[-1] if terms else 0) if term is None else term
    core = RaftCore(
        config,
        random.Random(1),
        hard_state=HardState(current, vote, commit),
        conf_state=conf,
        entries=entries_of(terms),
    )
    settle(core)
    return core


def settle(core: RaftCore) -> list[Ready]:
    """Fulfils all duties at once; returns them."""
    done = []
    while (ready := core.ready()) is not None:
        done.append(ready)
        if ready.must_sync:
            core.on_persisted(ready.number)
        if ready.committed:
            core.on_applied(ready.committed[-1].index)
    return done


def messages_of(readys: Sequence[Ready]) -> list[Message]:
    """Everything sent, in order."""
    return [message for ready in readys for message in ready.messages]


def reply(core: RaftCore, message: Message) -> list[Message]:
    """What the core answers once its disk is done."""
    core.step(message)
    return messages_of(settle(core))


def make_leader(terms: Sequence[int] = (), **options: int) -> RaftCore:
    """Member 1 as the leader of the next term; its no-op is on no other disk."""
    core = make_core(terms, conf=THREE, **options)
    core.campaign()
    settle(core)
    core.step(VoteResp(2, 1, core.term, True))
    settle(core)
    assert core.role is Role.LEADER
    return core
