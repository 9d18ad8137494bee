"""What the node says goes out whole and in order, and to nobody without harm."""

import json
import os
from collections.abc import Iterator

import pytest

from quorate.node.outlet import Outlet

BOUND = 8192


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def filled(writer: int) -> int:
    """Fill a pipe to the brim; how many bytes that took."""
    os.set_blocking(writer, False)
    total = 0
    try:
        while True:
            total += os.write(writer, b"x" * 512)
    except BlockingIOError:
        os.set_blocking(writer, True)
        return total


def drained(reader: int, outlet: Outlet) -> bytes:
    """Everything that was written and waits to be."""
    os.set_blocking(reader, False)
    heard = b""
    while True:
        outlet.flush()
        try:
            heard += os.read(reader, 65536)
        except BlockingIOError:
            assert not outlet.is_waiting
            return heard


def test_what_has_room_goes_out_at_once(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    outlet = Outlet(writer)
    outlet.write("one\n")
    outlet.pass_on(b"two\n")
    assert os.read(reader, 100) == b"one\ntwo\n"
    assert not outlet.is_waiting


def test_what_has_no_room_waits_up_to_a_bound_and_the_rest_is_counted(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    before = filled(writer)
    outlet = Outlet(writer, BOUND)
    lines = [b"%04d %s\n" % (number, b"." * 100) for number in range(200)]
    for line in lines:
        outlet.pass_on(line)
    assert outlet.is_waiting
    kept = BOUND // len(lines[0])
    assert outlet.dropped_lines == len(lines) - kept
    heard = drained(reader, outlet)
    *told, last = heard[before:].splitlines(keepends=True)
    assert told == lines[:kept]
    assert json.loads(last)["lines"] == len(lines) - kept
    outlet.write("and on it goes\n")
    assert os.read(reader, 100) == b"and on it goes\n"


def test_the_end_does_not_wait_for_a_reader_for_long(pipe: tuple[int, int]) -> None:
    filled(pipe[1])
    outlet = Outlet(pipe[1])
    outlet.write("last words\n")
    outlet.drain(0.05)
    assert outlet.is_waiting


def test_a_reader_that_has_gone_takes_nobody_with_it() -> None:
    reader, writer = os.pipe()
    outlet = Outlet(writer)
    os.close(reader)
    outlet.write("to nobody\n")
    assert not outlet.is_waiting
    os.close(writer)
