"""What a Ready holds, and when there is none."""

from __future__ import annotations

from quorate.consensus.raft.messages import (
    Append,
    HardState,
    Heartbeat,
)
from tests.consensus.raft.cores import make_core


def test_storage_is_not_handed_more_than_it_can_take() -> None:
    core = make_core([1] * 6, apply_bytes_max=2)
    core.step(Append(2, 1, 1, 6, 1, 6, ()))
    ready = core.ready()
    assert ready is not None
    assert [entry.index for entry in ready.committed] == [1, 2]
    ready = core.ready()
    assert ready is None or not ready.committed
    core.on_applied(2)
    ready = core.ready()
    assert ready is not None
    assert [entry.index for entry in ready.committed] == [3, 4]


def test_commit_only_ready_needs_no_sync() -> None:
    core = make_core([1, 1])
    core.step(Heartbeat(2, 1, 1, 2, 0))
    ready = core.ready()
    assert ready is not None
    assert not ready.must_sync
    assert ready.hard_state == HardState(1, 0, 2)


def test_nothing_to_do_gives_no_ready() -> None:
    assert make_core().ready() is None
