"""Whose data differ, and when it is asked."""

from __future__ import annotations

import pytest

from quorate.storage.corruption import REPORT, SETTLE_SECONDS, Corruption, corrupt_members


@pytest.mark.parametrize(
    ("hashes", "corrupt"),
    [
        ({1: 7, 2: 7, 3: 7}, []),
        ({1: 7}, []),
        ({}, []),
        ({1: 7, 2: 8, 3: 7}, [2]),
        ({1: 8, 2: 7, 3: 7}, [1]),
        ({1: 7, 2: 8}, [0]),
        ({1: 7, 2: 8, 3: 9}, [0]),
        ({1: 7, 2: 7, 3: 8, 4: 9, 5: 7}, [3, 4]),
    ],
)
def test_who_differs_from_the_majority_is_corrupt(hashes: dict[int, int], corrupt: list[int]) -> None:
    assert corrupt == corrupt_members(hashes)


def test_the_leader_asks_once_a_period() -> None:
    corruption = Corruption(60, 0, False, 0)
    asked = [now for now in range(200) if corruption.is_due(now, -1, True)]
    assert [60, 120, 180] == asked
    corruption = Corruption(60, 0, False, 0)
    assert not any(corruption.is_due(now, -1, False) for now in range(200))


def test_the_next_check_waits_for_the_end_of_this_one() -> None:
    corruption = Corruption(1, 0, False, 0)
    corruption.begun(5, 0)
    assert not corruption.is_due(5, -1, True)
    assert (5, []) == corruption.verdict(SETTLE_SECONDS)
    assert corruption.is_due(SETTLE_SECONDS, -1, True)


def test_after_a_compaction_it_is_asked_once() -> None:
    corruption = Corruption(0, 60, False, 0)
    asked = [now for now in range(300) if corruption.is_due(now, -1 if now < 100 else 50, True)]
    assert [120] == asked


def test_a_new_member_asks_until_a_check_has_begun() -> None:
    corruption = Corruption(0, 0, True, 0)
    asked = [now for now in range(1, 25) if corruption.is_due(now, -1, False)]
    assert [1, 11, 21] == asked
    corruption.begun(9, 25)
    assert not any(corruption.is_due(now, -1, False) for now in range(25, 60))


def test_a_check_is_over_when_nobody_reports_any_more() -> None:
    corruption = Corruption(60, 0, False, 0)
    corruption.begun(5, 100)
    for member_id, value, now in ((1, 7, 101), (2, 8, 104), (3, 7, 108)):
        corruption.report(REPORT.pack(5, member_id, value), now)
        assert corruption.verdict(now + 1) is None
    corruption.report(REPORT.pack(4, 9, 9), 109)  # of another check
    assert (5, [2]) == corruption.verdict(108 + SETTLE_SECONDS)
    assert corruption.verdict(200) is None
