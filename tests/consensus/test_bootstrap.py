"""The first minute of a member: what etcd refuses, in etcd's words, and what a restart ignores."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quorate.consensus import bootstrap
from quorate.consensus.bootstrap import Start
from quorate.consensus.joining import ANSWER_S, FIRST_ANSWER_S, PATIENCE_S, FetchMembers, Known, Patience
from quorate.consensus.membership import Member, member_id
from quorate.consensus.raft.messages import Entry, EntryKind, HardState
from quorate.node.config import Config
from quorate.node.lifecycle import OperatorError

SEGMENT_BYTES = 128 * 1024
URL_A, URL_B, URL_C = (f"http://127.0.0.{i}:2380" for i in (1, 2, 3))
BOTH = f"a={URL_A},b={URL_B}"
TOKEN = "etcd-cluster"  # the default of --initial-cluster-token


def nobody(_url: str, _timeout: float) -> Known:
    raise OSError("nobody there")


def answering(cluster: int, members: list[Member]) -> FetchMembers:
    return lambda _url, _timeout: Known(cluster, members, index=7)


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


NOBODY_ANSWERS = "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs"


@pytest.mark.parametrize(
    ("fetch", "text"),
    [
        (nobody, NOBODY_ANSWERS),
        (answering(1, [Member(77, (URL_A,))]), "member count is unequal"),
        (
            answering(1, [Member(77, (URL_A,)), Member(99, (URL_C,))]),
            f"PeerURLs: no match found for existing member (63, [{URL_C}]), last resolver error (<nil>)",
        ),
    ],
)
def test_a_wrong_join_is_refused_in_etcds_words(tmp_path: Path, fetch: FetchMembers, text: str) -> None:
    assert text in refusal(tmp_path, fetch, initial_cluster_state="existing")


ALL_THREE = f"a={URL_A},b={URL_B},c={URL_C}"
OWN, B, C = Member(77, (URL_A,)), Member(2, (URL_B,), "b", ("http://b:2379",)), Member(3, (URL_C,), "c")
FORMER = Member(66, (URL_A,), "a", ("http://a:2379",))  # removed, and its address was given to the new one
BEFORE, AFTER = Known(1, [B, C], index=10), Known(1, [OWN, B, C], index=20)
Answer = Known | type[OSError]


class Others:
    """The other members, each with what it answers in turn; the last answer stays. Time passes only here."""

    def __init__(self, **answers: list[Answer]) -> None:
        self.now = 100.0
        self.asked: list[tuple[str, float]] = []
        self._answers = answers
        self.patience = Patience(lambda: self.now, self._pass)

    def fetch(self, url: str, timeout_s: float) -> Known:
        name = {URL_B: "b", URL_C: "c"}[url]
        self.asked.append((name, timeout_s))
        answers = self._answers[name]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Known):
            return answer
        if answer is TimeoutError:
            self.now += timeout_s
        raise answer("no answer")

    def _pass(self, seconds: float) -> None:
        self.now += seconds

    def joined(self) -> tuple[int, float]:
        """The id that the member takes, and the seconds that it took."""
        given = Config(
            name="a",
            initial_cluster=ALL_THREE,
            initial_advertise_peer_urls=[URL_A],
            initial_cluster_state="existing",
            data_dir="/nowhere",
        )
        begun = self.now
        return bootstrap.joined(given, self.fetch, self.patience).member_id, self.now - begun

    def refused(self) -> tuple[str, float]:
        begun = self.now
        with pytest.raises(OperatorError) as raised:
            self.joined()
        return str(raised.value), self.now - begun


@pytest.mark.parametrize(("b", "c"), [(BEFORE, AFTER), (AFTER, BEFORE)])
def test_of_two_lists_the_one_with_the_new_member_counts_at_once(b: Known, c: Known) -> None:
    others = Others(b=[b], c=[c])
    assert others.joined() == (77, 0)


def test_one_that_joins_asks_again_when_nobody_who_answers_has_heard_of_it() -> None:
    """The one that was asked to add it is slow to answer now, and the other lags."""
    others = Others(b=[BEFORE, BEFORE, AFTER], c=[OSError])
    number, seconds = others.joined()
    assert number == 77
    assert 0 < seconds < PATIENCE_S


def test_a_list_of_one_that_has_no_leader_is_no_verdict() -> None:
    """It was started again and does not know yet what is committed."""
    unsure = replace(BEFORE, index=0)
    others = Others(b=[unsure, unsure, AFTER], c=[unsure, unsure, unsure, AFTER])
    assert others.joined()[0] == 77


def test_when_all_agree_that_it_is_not_there_it_is_told_at_once() -> None:
    others = Others(b=[BEFORE], c=[replace(BEFORE, index=9)])
    text, seconds = others.refused()
    assert text.startswith("error validating peerURLs {ClusterID:1 Members:[&{ID:2 ")
    assert text.endswith("member count is unequal")
    assert (seconds, len(others.asked)) == (0, 2)


@pytest.mark.parametrize("silent", [OSError, TimeoutError])
def test_while_one_is_silent_it_is_told_after_a_few_seconds(silent: type[OSError]) -> None:
    others = Others(b=[BEFORE], c=[silent])
    text, seconds = others.refused()
    assert text.endswith("member count is unequal")
    assert PATIENCE_S <= seconds < PATIENCE_S + 2 * FIRST_ANSWER_S


def test_a_paused_member_costs_one_that_joins_a_second() -> None:
    others = Others(b=[TimeoutError], c=[AFTER])
    assert others.joined() == (77, FIRST_ANSWER_S)


def test_when_nobody_answers_in_a_second_they_have_as_long_as_with_etcd() -> None:
    others = Others(b=[TimeoutError], c=[TimeoutError, AFTER])
    assert others.joined() == (77, 2 * FIRST_ANSWER_S + ANSWER_S)
    silent = Others(b=[TimeoutError], c=[TimeoutError])
    assert silent.refused() == (NOBODY_ANSWERS, 2 * FIRST_ANSWER_S + 2 * ANSWER_S)
    dead = Others(b=[OSError], c=[OSError])
    assert dead.refused() == (NOBODY_ANSWERS, 0)


@pytest.mark.parametrize("lagging_index", [15, 0])
def test_an_id_that_a_newer_list_has_no_more_is_not_taken(lagging_index: int) -> None:
    """A lagging list may have a former member at the address of the new one."""
    former = Known(1, [FORMER, B, C], index=lagging_index)
    others = Others(b=[former], c=[AFTER])
    assert others.joined() == (77, 0)
    gone = Others(b=[former], c=[Known(1, [B, C], index=17)])
    assert gone.refused()[0].endswith("member count is unequal")


def test_a_member_that_served_already_may_be_a_former_one_until_all_have_answered() -> None:
    former = Known(1, [FORMER, B, C], index=15)
    others = Others(b=[former], c=[OSError, OSError, AFTER])
    assert others.joined()[0] == 77
    alone = Others(b=[former], c=[OSError])
    text, seconds = alone.refused()
    assert text == f"member {FORMER.id:x} has already been bootstrapped"
    assert seconds >= PATIENCE_S


def test_a_list_before_a_later_member_was_added_is_good_enough() -> None:
    later = Known(1, [OWN, B, C, Member(5, ("http://127.0.0.5:2380",))], index=30)
    others = Others(b=[later], c=[AFTER])
    assert others.joined() == (77, 0)


def test_members_of_two_clusters_are_not_joined() -> None:
    others = Others(b=[AFTER], c=[replace(AFTER, cluster_id=2, index=30)])
    text, seconds = others.refused()
    assert text == "--initial-cluster names members of different clusters: b of 1, c of 2"
    assert seconds == 0
