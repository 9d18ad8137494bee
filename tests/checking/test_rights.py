"""The rules of rights: what is right passes, and each violation is found."""

from __future__ import annotations

import pytest

from tests.checking.rights import Grant, Visit, check_rights

GRANT = Grant(b"a/", 10, 20, 30, 40)


def visit(invoked_ns: int, returned_ns: int, served: bool) -> Visit:
    return Visit(b"a/", "put", invoked_ns, returned_ns, served)


@pytest.mark.parametrize(
    "lawful",
    [
        visit(1, 9, False),
        visit(1, 11, True),  # while it was being given
        visit(11, 19, False),
        visit(21, 29, True),
        visit(21, 31, False),  # while it was being taken away
        visit(39, 50, True),
        visit(41, 50, False),
    ],
)
def test_what_the_rights_allow_passes(lawful: Visit) -> None:
    assert [] == list(check_rights([GRANT], [lawful]))


@pytest.mark.parametrize("served", [visit(1, 9, True), visit(41, 50, True)])
def test_a_call_that_is_served_without_a_right_is_found(served: Visit) -> None:
    assert len(list(check_rights([GRANT], [served]))) == 1


def test_a_call_that_is_refused_in_spite_of_a_right_is_found() -> None:
    assert len(list(check_rights([GRANT], [visit(21, 29, False)]))) == 1


def test_nobody_is_ever_served_where_nothing_is_given() -> None:
    assert [] == list(check_rights([Grant(b"a/")], [visit(1, 2, False)]))
    assert len(list(check_rights([Grant(b"a/")], [visit(1, 2, True)]))) == 1


def test_an_attempt_to_give_that_may_come_late_excuses_what_is_served_afterwards() -> None:
    late = GRANT._replace(is_settled=False)
    assert [] == list(check_rights([late], [visit(41, 50, True)]))
    assert len(list(check_rights([late], [visit(1, 9, True)]))) == 1
