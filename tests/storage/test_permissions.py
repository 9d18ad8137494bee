"""Merged key intervals against a dumb twin that looks at every key."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.storage.permissions import IntervalSet, is_valid_grant

ALPHABET = b"\x00ab"
KEYS = [bytes(letters) for length in (1, 2, 3) for letters in product(ALPHABET, repeat=length)]
short = st.sampled_from(KEYS)
range_ends = st.one_of(st.just(b""), st.just(b"\0"), short)


def members(key: bytes, range_end: bytes) -> set[bytes]:
    """The keys of the small world that a pair means; a single key or an empty interval counts as the key itself."""
    if not range_end:
        return {key}
    if range_end == b"\0":
        return {k for k in KEYS if k >= key} | {b"\xff open"}
    return {k for k in KEYS if key <= k < range_end} or {key}


@given(st.lists(st.tuples(short, range_ends), max_size=6), short, range_ends)
def test_a_set_covers_what_its_grants_together_contain(
    grants: list[tuple[bytes, bytes]], key: bytes, range_end: bytes
) -> None:
    inside = {k for begin, end in grants if not (end not in (b"", b"\0") and end <= begin) for k in members(begin, end)}
    covered = IntervalSet(grants).covers(key, range_end)
    if covered:
        assert members(key, range_end) <= inside
    if not range_end:
        assert covered == (key in inside)


def test_neighbouring_grants_merge() -> None:
    both = IntervalSet([(b"a", b"c"), (b"c", b"e")])
    assert both.covers(b"a", b"e")
    assert not both.covers(b"a", b"f")


def test_a_gap_of_one_key_is_a_gap() -> None:
    assert not IntervalSet([(b"a", b"c"), (b"c\0", b"e")]).covers(b"a", b"e")


def test_a_single_key_does_not_open_everything_behind_it() -> None:
    assert not IntervalSet([(b"a", b"")]).covers(b"a", b"\0")


@pytest.mark.parametrize(
    ("key", "range_end", "valid"),
    [(b"", b"", False), (b"a", b"", True), (b"a", b"\0", True), (b"a", b"b", True), (b"b", b"a", False)],
)
def test_which_ranges_may_be_granted(key: bytes, range_end: bytes, valid: bool) -> None:
    assert valid is is_valid_grant(key, range_end)
