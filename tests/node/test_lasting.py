"""What lasts is told at its beginning, at growing intervals, and at its end."""

import logging
from collections.abc import Iterator
from itertools import pairwise

import pytest

from quorate.node.lasting import AGAIN_S, AGAIN_S_MAX, CALM_S, Lasting
from quorate.node.logs import Log


@pytest.fixture
def told() -> Iterator[list[tuple[str, dict[str, object]]]]:
    lines: list[tuple[str, dict[str, object]]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append((record.getMessage(), record.__dict__["fields"]))

    logger, handler = logging.getLogger("lasting"), Keep()
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def lasting() -> Lasting:
    return Lasting(Log(logging.getLogger("lasting")), "over")


def test_it_is_told_at_once_and_then_ever_more_rarely(told: list[tuple[str, dict[str, object]]]) -> None:
    trouble = lasting()
    at = []
    for second in range(8 * 3600):
        before = len(told)
        trouble.found(float(second), "full", path="db")
        at += [second] * (len(told) - before)
    assert at[:6] == [0, 60, 180, 420, 900, 1860]
    assert {later - earlier for earlier, later in pairwise(at[7:])} == {AGAIN_S_MAX}
    assert told[0] == ("full", {"path": "db"})
    assert told[1] == ("full", {"path": "db", "times": AGAIN_S + 1, "lasting_seconds": AGAIN_S})


def test_its_end_is_told_once_when_it_has_stayed_away(told: list[tuple[str, dict[str, object]]]) -> None:
    trouble = lasting()
    trouble.better(0.0)
    trouble.found(1.0, "full")
    trouble.look(100.0)
    assert len(told) == 1
    trouble.better(100.0)
    assert told[1:] == [("over", {"times": 1, "lasted_seconds": 99})]
    trouble.better(101.0)
    trouble.found(200.0, "full")
    assert [message for message, _ in told] == ["full", "over", "full"]


def test_what_comes_and_goes_each_second_is_not_over(told: list[tuple[str, dict[str, object]]]) -> None:
    trouble = lasting()
    for second in range(50):
        trouble.found(second + 0.0, "full")
        trouble.better(second + 0.5)
        trouble.look(second + 0.7)
    assert [message for message, _ in told] == ["full"]
    trouble.look(49.0 + CALM_S)
    assert [message for message, _ in told] == ["full", "over"]
