"""A member that lost its log gets its vote back: when it asks, and when it is over."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from quorate.consensus.healing import MARK, Rejoining
from quorate.consensus.membership import Member
from quorate.consensus.raft.messages import ConfState

LEARNER = ConfState(voters=(1, 2), learners=(3,))
JOINT = ConfState(voters=(1, 2, 3), outgoing=(1, 2))
VOTER = ConfState(voters=(1, 2, 3))


class Situation:
    """What the member with id 3 knows; of its log the configuration of each index."""

    def __init__(self, directory: Path, *confs: ConfState) -> None:
        (directory / MARK).write_text('{"votes": true}')
        self.asked: list[bytes] = []
        self.core = SimpleNamespace(leader_id=1, commit_index=0, conf_state_at=lambda index: confs[index])
        own = Member(3, ("http://10.0.0.3:2380",), is_learner=3 not in confs[-1].voters)
        driver: Any = SimpleNamespace(
            member_id=3,
            core=self.core,
            membership=SimpleNamespace(members={3: own}),
            wal=SimpleNamespace(directory=directory),
            is_current=lambda: True,
        )
        calls: Any = SimpleNamespace(perform=lambda _op, request, _done: self.asked.append(request))
        self.rejoining = Rejoining(driver, calls)


def test_a_learner_asks_for_its_vote_once_a_second(tmp_path: Path) -> None:
    made = Situation(tmp_path, LEARNER)
    for now in (10.0, 10.5, 11.0, 11.9):
        made.rejoining.look(now)
    assert len(made.asked) == 2
    assert made.rejoining.is_recovering


@pytest.mark.parametrize("committed", [LEARNER, JOINT])
def test_a_vote_that_is_not_committed_does_not_end_it(tmp_path: Path, committed: ConfState) -> None:
    """Its leader may be gone with it, and the next one may never hear of it."""
    made = Situation(tmp_path, committed, VOTER)
    made.rejoining.look(10.0)
    assert made.rejoining.is_recovering
    assert (tmp_path / MARK).exists()
    made.core.commit_index = 1
    made.rejoining.look(10.1)
    assert not made.rejoining.is_recovering
    assert not (tmp_path / MARK).exists()
