"""The first minute of a member: what etcd refuses, in etcd's words, and what a restart ignores."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quorate.consensus import bootstrap
from quorate.consensus.bootstrap import FetchMembers, Start
from quorate.consensus.membership import Member, member_id
from quorate.consensus.raft.messages import Entry, EntryKind, HardState
from quorate.node.config import Config
from quorate.node.lifecycle import OperatorError

SEGMENT_BYTES = 128 * 1024
URL_A, URL_B, URL_C = (f"http://127.0.0.{i}:2380" for i in (1, 2, 3))
BOTH = f"a={URL_A},b={URL_B}"
TOKEN = "etcd-cluster"  # the default of --initial-cluster-token


def nobody(_url: str, _timeout: float) -> tuple[int, list[Member]]:
    raise OSError("nobody there")


def answering(cluster: int, members: list[Member]) -> FetchMembers:
    return lambda _url, _timeout: (cluster, members)


def config(tmp_path: Path, **settings: Any) -> Config:
    given = {"name": "a", "initial_cluster": BOTH, "initial_advertise_peer_urls": [URL_A]} | settings
    return Config(data_dir=str(tmp_path / "data"), run_dir=str(tmp_path), unsafe_no_fsync=True, **given)


def begin(tmp_path: Path, fetch: FetchMembers = nobody, **settings: Any) -> Start:
    return bootstrap.start(config(tmp_path, **settings), fetch, SEGMENT_BYTES)


def refusal(tmp_path: Path, fetch: FetchMembers = nobody, **settings: Any) -> str:
    with pytest.raises(OperatorError) as raised:
        begin(tmp_path, fetch, **settings)
    return str(raised.value)


MISMATCH = (
    f"--initial-cluster has a={URL_A} but missing from --initial-advertise-peer-urls=http://127.0.0.9:1 "
    f'("http://127.0.0.9:1"(resolved from "http://127.0.0.9:1") != "{URL_A}"(resolved from "{URL_A}"))'
)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"name": "x"}, 'couldn\'t find local name "x" in the initial cluster configuration'),
        ({"initial_advertise_peer_urls": ["http://127.0.0.9:1"]}, MISMATCH),
        (
            {"initial_advertise_peer_urls": [URL_A, URL_C]},
            f"--initial-advertise-peer-urls has {URL_C} but missing from --initial-cluster=a={URL_A},a={URL_C}",
        ),
        (
            {"initial_cluster": f"a={URL_A},b={URL_A}"},
            f"initial cluster a={URL_A},b={URL_A} has duplicate url",
        ),
    ],
)
def test_a_wrong_initial_cluster_is_refused_in_etcds_words(tmp_path: Path, settings: dict[str, Any], text: str) -> None:
    assert text == refusal(tmp_path, **settings)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_founders_agree_on_their_ids(tmp_path: Path, count: int) -> None:
    urls = {f"m{i}": f"http://127.0.0.{i}:2380" for i in range(1, count + 1)}
    flag = ",".join(f"{name}={url}" for name, url in urls.items())
    seen = set()
    for name, url in urls.items():
        start = begin(tmp_path / name, name=name, initial_cluster=flag, initial_advertise_peer_urls=[url])
        assert member_id([url], TOKEN) == start.meta.member_id == start.wal.member_id
        seen.add((start.meta.membership.cluster_id, start.meta.membership.conf))
        assert count == len(start.meta.membership.conf.voters)
        start.wal.abandon()
    assert 1 == len(seen)


def test_another_name_of_the_same_address_is_accepted(tmp_path: Path) -> None:
    start = begin(
        tmp_path,
        initial_cluster="a=http://localhost:2380",
        initial_advertise_peer_urls=["http://127.0.0.1:2380"],
    )
    assert ("http://localhost:2380",) == start.meta.membership.members[start.meta.member_id].peer_urls
    start.wal.abandon()


def test_a_member_that_lost_its_data_is_not_let_in_again(tmp_path: Path) -> None:
    start = begin(tmp_path / "first")
    own, cluster = start.meta.member_id, start.meta.membership.cluster_id
    start.wal.abandon()
    known = Member(own, (URL_A,), "a", ("http://a:2379",))
    text = refusal(tmp_path / "second", answering(cluster, [known]))
    assert f"member {own:x} has already been bootstrapped" == text
    begin(tmp_path / "third", answering(cluster, [Member(own, (URL_A,), "a")])).wal.abandon()
    begin(tmp_path / "fourth", answering(cluster + 1, [known])).wal.abandon()


def test_a_restart_ignores_what_the_flags_say_of_the_cluster(tmp_path: Path) -> None:
    start = begin(tmp_path)
    meta = start.meta
    start.wal.append([Entry(1, 1, EntryKind.NOOP, b"")], HardState(1, meta.member_id, 0))
    start.wal.abandon()
    start = begin(tmp_path, initial_cluster="other=http://127.0.0.7:1", initial_cluster_state="existing")
    assert (meta, False, 1) == (start.meta, start.is_new, start.wal.last_index)
    start.wal.abandon()


def test_a_crash_between_membership_and_log_is_a_fresh_start(tmp_path: Path) -> None:
    start = begin(tmp_path)
    start.wal.abandon()
    for path in (tmp_path / "data" / "member" / "wal").glob("*.wal"):
        path.unlink()
    start = begin(tmp_path)
    assert start.is_new
    start.wal.abandon()


def test_a_lost_membership_is_refused(tmp_path: Path) -> None:
    begin(tmp_path).wal.abandon()
    for path in (tmp_path / "data" / "member" / "wal").glob("meta.*"):
        path.unlink()
    assert "both copies of the membership are missing" in refusal(tmp_path)


def test_a_snapshot_whose_installation_was_cut_replaces_the_log(tmp_path: Path) -> None:
    start = begin(tmp_path)
    start.wal.append([Entry(1, 1, EntryKind.NOOP, b"")], HardState(1, 5, 1))
    start.meta_files.write(
        replace(
            start.meta,
            membership=replace(start.meta.membership, index=500),
            snapshot_index=500,
            snapshot_term=3,
        )
    )
    start.wal.abandon()
    start = begin(tmp_path)
    assert (501, 500, 3) == (start.wal.first_index(), start.wal.last_index, start.wal.term(500))
    assert HardState(3, 0, 500) == start.wal.hard_state
    start.wal.abandon()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o500)
    assert "Permission denied" in refusal(tmp_path)


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"")
    assert f"cannot write to data directory {tmp_path}/data/member/wal: Not a directory" == refusal(tmp_path)


# --- joining ---


def joining(tmp_path: Path, fetch: FetchMembers, **settings: Any) -> Start:
    return begin(tmp_path, fetch, initial_cluster_state="existing", **settings)


def test_one_that_joins_takes_its_ids_from_the_running_cluster(tmp_path: Path) -> None:
    members = [Member(77, (URL_A,)), Member(99, (URL_B,), "b", ("http://b:2379",))]
    start = joining(tmp_path, answering(4711, members))
    assert (77, 4711) == (start.meta.member_id, start.meta.membership.cluster_id)
    assert () == start.meta.membership.conf.voters
    start.wal.abandon()


@pytest.mark.parametrize(
    ("fetch", "text"),
    [
        (
            nobody,
            "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs",
        ),
        (answering(1, [Member(77, (URL_A,))]), "member count is unequal"),
        (
            answering(1, [Member(77, (URL_A,)), Member(99, (URL_C,))]),
            f"PeerURLs: no match found for existing member (63, [{URL_C}]), last resolver error (<nil>)",
        ),
    ],
)
def test_a_wrong_join_is_refused_in_etcds_words(tmp_path: Path, fetch: FetchMembers, text: str) -> None:
    assert text in refusal(tmp_path, fetch, initial_cluster_state="existing")
