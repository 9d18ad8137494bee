"""/health, /livez and /readyz say what etcd's say."""

import json

import pytest

from quorate.wire import errors
from tests.api.conftest import Pages


def test_a_healthy_member_says_true(pages: Pages) -> None:
    answer = pages.get("/health")
    assert (200, '{"health":"true","reason":""}') == (answer.status_code, answer.text)


def expect_unhealthy(pages: Pages, path: str, reason: str) -> None:
    answer = pages.get(path)
    assert (503, f'{{"health":"false","reason":"{reason}"}}\n') == (answer.status_code, answer.text)
    assert json.loads(answer.text)["reason"] == reason


def test_alarms_come_first(pages: Pages) -> None:
    pages.node.answer.leader = 0
    pages.node.answer.errors.append("memberID:10276657743932975437 alarm:NOSPACE ")
    expect_unhealthy(pages, "/health", "ALARM NOSPACE")
    expect_unhealthy(pages, "/health?serializable=true", "ALARM NOSPACE")


def test_alarms_can_be_left_out(pages: Pages) -> None:
    pages.node.answer.errors.extend(["memberID:1 alarm:NOSPACE ", "memberID:2 alarm:CORRUPT "])
    expect_unhealthy(pages, "/health?exclude=NOSPACE", "ALARM CORRUPT")
    assert pages.get("/health?exclude=NOSPACE&exclude=CORRUPT").status_code == 200


def test_an_alarm_of_no_known_kind_is_unknown(pages: Pages) -> None:
    pages.node.answer.errors.append("memberID:1 alarm:7 ")
    expect_unhealthy(pages, "/health", "ALARM UNKNOWN")


def test_a_member_without_leader_is_unhealthy_unless_that_is_not_asked(pages: Pages) -> None:
    pages.node.answer.leader = 0
    pages.node.linearizable_read_error = errors.NO_LEADER
    expect_unhealthy(pages, "/health", "RAFT NO LEADER")
    assert pages.get("/health?serializable=true").status_code == 200


def test_a_read_that_fails_is_named(pages: Pages) -> None:
    pages.node.linearizable_read_error = errors.TIMEOUT
    expect_unhealthy(pages, "/health", "RANGE ERROR:etcdserver: request timed out")


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz", "/version", "/metrics", "/debug/vars"])
def test_only_get_is_allowed(pages: Pages, path: str) -> None:
    answer = pages.request("POST", path)
    assert (405, "GET", "Method Not Allowed\n") == (answer.status_code, answer.headers["allow"], answer.text)


def test_the_livez_family_says_ok(pages: Pages) -> None:
    for path in ("/livez", "/readyz", "/livez/serializable_read", "/readyz/non_learner"):
        answer = pages.get(path)
        assert (200, "ok\n") == (answer.status_code, answer.text)
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_verbose_lists_the_checks(pages: Pages) -> None:
    assert pages.get("/livez?verbose").text == "[+]serializable_read ok\nok\n"
    assert pages.get("/readyz?verbose&exclude=data_corruption&exclude=nothing").text.splitlines() == [
        "[+]serializable_read ok",
        "[+]linearizable_read ok",
        "[+]non_learner ok",
        "[+]data_corruption excluded: ok",
        "ok",
    ]


def test_a_check_that_fails_is_listed_with_the_others(pages: Pages) -> None:
    pages.node.linearizable_read_error = errors.NO_LEADER
    pages.node.answer.isLearner = True
    pages.node.answer.errors.append("memberID:1 alarm:CORRUPT ")
    answer = pages.get("/readyz")
    assert answer.status_code == 503
    assert answer.text.splitlines() == [
        "[-]data_corruption failed: alarm activated: CORRUPT",
        "[+]serializable_read ok",
        "[-]linearizable_read failed: etcdserver: no leader",
        "[-]non_learner failed: not supported for learner",
    ]
    assert pages.get("/readyz/linearizable_read").status_code == 503
    assert pages.get("/readyz?exclude=data_corruption&exclude=linearizable_read&exclude=non_learner").text == "ok\n"
    assert pages.get("/livez").status_code == 200


def test_a_check_that_does_not_exist_is_not_found(pages: Pages) -> None:
    answer = pages.get("/livez/linearizable_read")
    assert (404, "404 page not found\n") == (answer.status_code, answer.text)
