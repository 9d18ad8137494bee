"""Packing and unpacking of chunks, results and roles."""

from collections.abc import Callable
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorate.wire import messages
from quorate.wire.messages import BadBatch, Op, Origin, Role, chunks_of, commands_of, pack_chunk, pack_command

commands = st.lists(st.tuples(st.sampled_from(list(Op)), st.binary(max_size=20), st.binary(max_size=300)), max_size=20)


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), commands), max_size=5))
def test_an_entry_gives_back_its_chunks_and_their_commands(
    chunks: list[tuple[int, list[tuple[Op, bytes, bytes]]]],
) -> None:
    origin = Origin(2**64 - 1, 2**32 - 1, 7)
    payload = b"".join(
        messages.pack_chunk(origin, number, [messages.pack_command(op, body, who) for op, who, body in items])
        for number, items in chunks
    )
    seen = list(messages.chunks_of(payload))
    assert [number for number, _ in chunks] == [chunk.number for chunk in seen]
    assert all(chunk.origin == origin for chunk in seen)
    assert [items for _, items in chunks] == [list(messages.commands_of(chunk.commands)) for chunk in seen]
    assert [len(items) for _, items in chunks] == [chunk.size for chunk in seen]


@given(
    st.integers(0, 2**64 - 1),
    st.integers(0, 500),
    st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=50))),
)
def test_results_come_back_in_order(number: int, first: int, results: list[tuple[int, bytes]]) -> None:
    packed = messages.pack_results(number, 9, first, [messages.pack_result(e, body) for e, body in results])
    assert (number, 9, first, results) == messages.unpack_results(packed)


def test_a_role_survives_packing() -> None:
    for flags in product((False, True), repeat=3):
        role = Role(2**64 - 1, 1, 5, 1, 77, *flags)
        assert role == Role.unpack(role.pack())


def test_record_ids_are_ordered_by_revision_and_fit_a_signed_64_bit_integer() -> None:
    ids = [
        messages.record_id(main, sub, dead) for main in (1, 2, 10**9) for sub in (0, 1, 4000) for dead in (False, True)
    ]
    assert sorted(ids) == ids
    assert max(ids) < 2**63
    assert [1, 1, 1, 1, 1, 1, 2] == [messages.main_revision(i) for i in ids[:7]]


CHUNKS = pack_chunk(Origin(1, 2, 3), 4, [pack_command(Op.PUT, b"body", b"who"), pack_command(Op.RANGE, b"x")])


@pytest.mark.parametrize("payload", [CHUNKS[:-1], CHUNKS + b"x", CHUNKS + CHUNKS[:20], b"\xff" * 40])
def test_what_is_no_row_of_chunks_is_named(payload: bytes) -> None:
    with pytest.raises(BadBatch, match="not the sum of its chunks"):
        list(chunks_of(payload))


@pytest.mark.parametrize("cut", [1, 5, 8])
def test_what_is_no_row_of_commands_is_named(cut: int) -> None:
    (chunk,) = chunks_of(CHUNKS)
    assert len(list(commands_of(chunk.commands))) == 2
    with pytest.raises(BadBatch, match="not the sum of its commands"):
        list(commands_of(chunk.commands[:-cut]))


@pytest.mark.parametrize("change", [lambda body: body[:-1], lambda body: body + b"x", lambda body: body[:3]])
def test_what_is_no_row_of_answers_is_named(change: Callable[[bytes], bytes]) -> None:
    good = messages.pack_results(1, 2, 0, [messages.pack_result(0, b"a"), messages.pack_result(5, b"")])
    with pytest.raises(BadBatch, match="not the sum of their answers"):
        messages.unpack_results(change(good))
