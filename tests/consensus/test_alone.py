"""A member that lost the others for good."""

from __future__ import annotations

from pathlib import Path

import pytest

from quorate.consensus import bootstrap
from quorate.consensus.alone import go_alone
from quorate.consensus.bootstrap import Start
from quorate.consensus.joining import Known
from quorate.consensus.node import known_membership
from quorate.consensus.raft.confchange import encode
from quorate.consensus.raft.messages import ConfState, Entry, EntryKind, HardState
from quorate.node.config import Config
from quorate.node.lifecycle import OperatorError

URLS = [f"http://127.0.0.{number}:2380" for number in (1, 2, 3)]
SEGMENT_BYTES = 128 * 1024


def nobody(_url: str, _timeout: float) -> Known:
    raise OSError("nobody there")


def begin(tmp_path: Path) -> Start:
    members = ",".join(f"{name}={url}" for name, url in zip("abc", URLS, strict=True))
    config = Config(
        name="a",
        data_dir=str(tmp_path / "data"),
        run_dir=str(tmp_path),
        unsafe_no_fsync=True,
        initial_cluster=members,
        initial_advertise_peer_urls=URLS[:1],
    )
    return bootstrap.start(config, nobody, SEGMENT_BYTES)


def test_it_is_the_only_voter_and_keeps_its_ids_and_its_whole_log(tmp_path: Path) -> None:
    start = begin(tmp_path)
    own, cluster_id = start.meta.member_id, start.meta.membership.cluster_id
    start.wal.append([Entry(i, 4, EntryKind.BATCH, b"x%d" % i) for i in range(1, 6)], HardState(5, 0, 2))
    start.wal.close()
    start = begin(tmp_path)
    go_alone(start)
    assert (6, HardState(5, own, 6)) == (start.wal.last_index, start.wal.hard_state)
    start.wal.close()
    again = begin(tmp_path)
    assert [b"x1", b"x2", b"x3", b"x4", b"x5"] == [entry.payload for entry in again.wal.entries(1, 6, 1 << 20)]
    membership = known_membership(again.meta.membership, again.wal.recovered, 6)
    assert (cluster_id, ConfState(voters=(own,))) == (membership.cluster_id, membership.conf)
    assert [own] == list(membership.members)
    assert 2 == len(membership.removed)
    go_alone(again)
    assert 6 == again.wal.last_index
    again.wal.close()


def test_a_member_that_was_removed_cannot_go_alone(tmp_path: Path) -> None:
    start = begin(tmp_path)
    others = tuple(number for number in sorted(start.meta.membership.members) if number != start.meta.member_id)
    entry = Entry(1, 1, EntryKind.CONF, encode(ConfState(voters=others)))
    start.wal.append([entry], HardState(1, 0, 1))
    start.wal.recovered.append(entry)
    with pytest.raises(OperatorError, match="was removed from its cluster"):
        go_alone(start)
    start.wal.close()
