"""A member that lost its log: whom it asks for a new id, and when it has its vote back."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from quorate.consensus.healing import MARK, Help, Rejoining, heal
from quorate.consensus.membership import Member
from quorate.consensus.meta import MetaFiles
from quorate.consensus.raft.messages import ConfState
from quorate.consensus.replacing import Claim, Grant, refusal
from quorate.consensus.wal_format import DamagedLog
from quorate.node.config import Config

LEARNER = ConfState(voters=(1, 2), learners=(3,))
JOINT = ConfState(voters=(1, 2, 3), outgoing=(1, 2))
VOTER = ConfState(voters=(1, 2, 3))


class Situation:
    """What the member with id 3 knows; of its log the configuration of each index."""

    def __init__(self, directory: Path, *confs: ConfState) -> None:
        (directory / MARK).write_text('{"votes": true}')
        self.asked: list[bytes] = []
        self.core = SimpleNamespace(leader_id=1, commit_index=1, conf_state_at=lambda index: confs[index - 1])
        self.applied_index = self.core.commit_index
        own = Member(3, ("http://10.0.0.3:2380",), is_learner=3 not in confs[-1].voters)
        driver: Any = SimpleNamespace(
            member_id=3,
            core=self.core,
            membership=SimpleNamespace(members={3: own}),
            wal=SimpleNamespace(directory=directory),
            stream=SimpleNamespace(has=lambda index: self.applied_index >= index),
        )
        calls: Any = SimpleNamespace(perform=lambda _op, request, _done: self.asked.append(request))
        self.rejoining = Rejoining(driver, calls)


def test_a_learner_asks_for_its_vote_once_a_second(tmp_path: Path) -> None:
    made = Situation(tmp_path, LEARNER)
    for now in (9.9, 10.0, 10.5, 11.0, 11.9):
        made.rejoining.look(now)
    assert len(made.asked) == 2
    assert made.rejoining.is_recovering


def test_under_writes_that_never_end_a_member_has_caught_up_when_it_has_what_was_committed_a_tick_ago(
    tmp_path: Path,
) -> None:
    made = Situation(tmp_path, *[LEARNER] * 30)
    for commit_index in range(10, 30, 5):
        made.core.commit_index = commit_index
        made.applied_index = commit_index - 3  # storage tells from time to time
        made.rejoining.look(float(commit_index))
    assert len(made.asked) == 3


def test_a_member_whose_storage_lags_does_not_ask_for_its_vote(tmp_path: Path) -> None:
    made = Situation(tmp_path, *[LEARNER] * 30)
    made.core.commit_index, made.applied_index = 20, 0
    for now in (10.0, 20.0, 30.0):
        made.rejoining.look(now)
        made.applied_index += 9
    assert not made.asked
    made.applied_index = 20
    made.rejoining.look(40.0)
    assert made.asked


@pytest.mark.parametrize("committed", [LEARNER, JOINT])
def test_a_vote_that_is_not_committed_does_not_end_it(tmp_path: Path, committed: ConfState) -> None:
    """Its leader may be gone with it, and the next one may never hear of it."""
    made = Situation(tmp_path, committed, VOTER)
    for now in (10.0, 10.1):
        made.rejoining.look(now)
    assert made.rejoining.is_recovering
    assert (tmp_path / MARK).exists()
    made.core.commit_index = made.applied_index = 2
    made.rejoining.look(10.2)
    assert not made.rejoining.is_recovering
    assert not (tmp_path / MARK).exists()


FOLLOWER, LEADER = "http://10.0.0.1:2380", "http://10.0.0.4:2380"


def test_a_leader_that_the_member_never_heard_of_is_asked_when_another_names_it(tmp_path: Path) -> None:
    """Its membership is lost with its log, and the one it was started with is not the one of today."""
    asked: list[str] = []

    def ask(url: str, _claim: Claim) -> Grant:
        asked.append(url)
        if url == FOLLOWER:
            raise refusal(url, HTTPStatus.MISDIRECTED_REQUEST, b'{"leader": ["%s"]}' % LEADER.encode())
        return Grant(7, 12, True, (Member(12, ("http://10.0.0.3:2380",), is_learner=True),))

    config = Config(
        name="n3",
        data_dir=str(tmp_path),
        initial_advertise_peer_urls=["http://10.0.0.3:2380"],
        initial_cluster=f"n1={FOLLOWER},n3=http://10.0.0.3:2380",
    )
    config.wal_path.mkdir(parents=True)
    heal(config, DamagedLog("1.wal", 0, "is damaged"), Help(ask), 1 << 20)
    assert asked == [FOLLOWER, LEADER]
    meta = MetaFiles(config.wal_path).read()
    assert meta is not None
    assert meta.member_id == 12


def test_an_answer_that_is_none_names_nobody() -> None:
    found = refusal(FOLLOWER, HTTPStatus.SERVICE_UNAVAILABLE, b"no leader\n")
    assert (str(found), found.leader_urls) == (f"{FOLLOWER} answered 503: no leader", ())
    for body in (b"", b"[]", b"{}", b'{"leader": 3}', b"\xff"):
        with pytest.raises(ValueError):
            refusal(FOLLOWER, HTTPStatus.MISDIRECTED_REQUEST, body)
