"""Texts as Go reads and writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.ctl import go_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (1e-9, "1ns"),
        (1.5e-6, "1.5µs"),
        (0.003588416, "3.588416ms"),
        (1, "1s"),
        (2.25, "2.25s"),
        (60, "1m0s"),
        (3661.5, "1h1m1.5s"),
        (-0.5, "-500ms"),
    ],
)
def test_durations_are_written_as_go_writes_them(seconds: float, text: str) -> None:
    assert go_text.duration(seconds) == text
    assert go_text.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "x", "5", "1.5.5s", "5 s", "s", "5sx"])
def test_a_text_that_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="time: "):
        go_text.parse_duration(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (9, "9 B"),
        (20480, "20 kB"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (9_940, "9.9 kB"),
        (2147483648, "2.1 GB"),
        (16_384, "16 kB"),
    ],
)
def test_sizes_are_written_for_people(size: int, text: str) -> None:
    assert go_text.human_bytes(size) == text


@given(st.binary(max_size=40))
def test_what_is_quoted_can_be_read_back(raw: bytes) -> None:
    assert go_text.unquote(go_text.quote(raw)) == raw


@pytest.mark.parametrize(
    ("raw", "text"),
    [(b'a"b', r'"a\"b"'), (b"\x00\x7f", r'"\x00\x7f"'), (b"\xff", r'"\xff"'), ("✓".encode(), '"✓"'), (b"\n", r'"\n"')],
)
def test_bytes_are_quoted_as_go_quotes_them(raw: bytes, text: str) -> None:
    assert go_text.quote(raw) == text


@pytest.mark.parametrize("text", ["a", '"a', 'a"', r'"\q"', '"a"b"'])
def test_a_text_that_is_no_literal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid syntax"):
        go_text.unquote(text)


def test_integers_are_refused_in_gos_words() -> None:
    assert go_text.parse_int("ff", 16) == 255
    assert go_text.parse_int("0x10", 0) == 16
    with pytest.raises(ValueError, match=r'strconv.ParseInt: parsing "zz": invalid syntax'):
        go_text.parse_int("zz", 16)
    with pytest.raises(ValueError, match="value out of range"):
        go_text.parse_int("9223372036854775808")
    with pytest.raises(ValueError, match=r"strconv.ParseUint"):
        go_text.parse_int("-1", signed=False)
