"""Which ranges contain a key, against a loop over all of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quorate.watch.ranges import LENGTHS_MAX, TO_THE_END, Ranges, prefix_end

KEYS = st.binary(min_size=1, max_size=4).map(lambda raw: bytes(b"\x00\x01ab\xff"[byte % 5] for byte in raw))


@st.composite
def ranges(draw: st.DrawFn) -> tuple[bytes, bytes]:
    key = draw(KEYS)
    shape = draw(st.integers(0, 3))
    if shape == 0:
        return key, b""
    if shape == 1:
        return key, prefix_end(key)
    if shape == 2:
        return key, TO_THE_END
    other = draw(KEYS.filter(lambda end: end not in (key, TO_THE_END)))
    return (key, other) if key < other else (other, key) if key != TO_THE_END else (key, other)


def contains(key: bytes, range_end: bytes, wanted: bytes) -> bool:
    if not range_end:
        return wanted == key
    return key <= wanted and (range_end == TO_THE_END or wanted < range_end)


@given(st.lists(st.tuples(ranges(), st.booleans())), st.lists(KEYS, max_size=20))
def test_a_key_is_found_in_exactly_the_ranges_that_contain_it(
    steps: list[tuple[tuple[bytes, bytes], bool]], keys: list[bytes]
) -> None:
    found: Ranges[int] = Ranges()
    twin: dict[int, tuple[bytes, bytes]] = {}
    for number, ((key, range_end), removes) in enumerate(steps, 1000):
        if removes and twin:
            gone = next(iter(twin))
            found.remove(*twin.pop(gone), gone)
        found.add(key, range_end, number)
        twin[number] = key, range_end
        for wanted in (*keys, key):
            assert sorted(found.match(wanted)) == [n for n, (k, e) in twin.items() if contains(k, e, wanted)]
    for number, (key, range_end) in twin.items():
        found.remove(key, range_end, number)
    assert not found
    assert [list(found.match(key)) for key in keys] == [[] for _ in keys]


def test_prefixes_of_many_lengths_are_all_found() -> None:
    found: Ranges[int] = Ranges()
    lengths = range(1, 2 * LENGTHS_MAX)
    for length in lengths:
        found.add(b"k" * length, prefix_end(b"k" * length), length)
    assert sorted(found.match(b"k" * LENGTHS_MAX * 3)) == list(lengths)
    for length in lengths:
        found.remove(b"k" * length, prefix_end(b"k" * length), length)
    assert not found


def test_the_end_of_a_prefix_of_ff_is_the_end_of_all_keys() -> None:
    assert prefix_end(b"\xff\xff") == TO_THE_END
    assert prefix_end(b"a\xff") == b"b"
