"""The end of a prefix."""

from hypothesis import given
from hypothesis import strategies as st

from quorate.client import FROM_KEY, prefix_end
from quorate.client.ranges import prefix_range

short_keys = st.lists(st.sampled_from([0, 1, 0x61, 0xFE, 0xFF]), max_size=4).map(bytes)


@given(short_keys, short_keys)
def test_a_key_is_in_the_range_exactly_when_it_has_the_prefix(prefix: bytes, key: bytes) -> None:
    end = prefix_end(prefix)
    assert (prefix <= key and (end == FROM_KEY or key < end)) == key.startswith(prefix)


def test_the_empty_prefix_means_every_key() -> None:
    assert prefix_range("") == (b"\0", FROM_KEY)


def test_a_prefix_that_ends_in_the_last_byte_ends_at_the_next_shorter_one() -> None:
    assert prefix_end(b"a\xff") == b"b"
