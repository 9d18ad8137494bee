"""What the damages do to files: no more than they say."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.chaos import of_damage
from tests.chaos.faults import NotNow

WRITTEN = bytes(range(1, 256)) * 40


@pytest.fixture
def member(tmp_path: Path) -> Path:
    """A log of three segments that are not full, two copies of the membership, and a database."""
    (tmp_path / "wal").mkdir()
    (tmp_path / "snap").mkdir()
    for number in range(3):
        (tmp_path / "wal" / f"{number}-{number}.wal").write_bytes(WRITTEN.ljust(20_000, b"\0"))
    for name in ("wal/meta.a", "wal/meta.b", "snap/db"):
        (tmp_path / name).write_bytes(WRITTEN)
    return tmp_path


def contents(member: Path) -> dict[str, bytes]:
    return {str(path.relative_to(member)): path.read_bytes() for path in member.rglob("*") if path.is_file()}


def turned(before: bytes, after: bytes) -> int:
    """How many bits differ; the length has to be the same."""
    return sum((a ^ b).bit_count() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_one_bit_turns_in_each_of_some_segments_within_what_was_written(member: Path, seed: int) -> None:
    before = contents(member)
    of_damage.turn_bits_of_log(member, random.Random(seed))
    after = contents(member)
    changed = [name for name in before if before[name] != after[name]]
    assert changed
    assert all(name.endswith(".wal") for name in changed)
    assert [1] * len(changed) == [turned(before[name][: len(WRITTEN)], after[name][: len(WRITTEN)]) for name in changed]


@pytest.mark.parametrize("seed", range(20))
def test_the_last_segment_is_never_the_one_that_is_lost(member: Path, seed: int) -> None:
    before = contents(member)
    of_damage.lose_segment(member, random.Random(seed))
    after = contents(member)
    assert before["wal/2-2.wal"] == after["wal/2-2.wal"]
    assert 1 == sum(before[name] != after.get(name) for name in before)


def test_a_log_of_one_segment_loses_none(member: Path) -> None:
    for number in range(2):
        (member / "wal" / f"{number}-{number}.wal").unlink()
    with pytest.raises(NotNow):
        of_damage.lose_segment(member, random.Random(1))


def test_both_copies_of_the_membership_are_damaged(member: Path) -> None:
    before = contents(member)
    of_damage.lose_membership(member, random.Random(1))
    after = contents(member)
    assert ["wal/meta.a", "wal/meta.b"] == sorted(name for name in before if before[name] != after[name])


@pytest.mark.parametrize("damage", [of_damage.turn_bits_of_database, of_damage.cut_database])
def test_damage_to_the_database_leaves_the_log_alone(member: Path, damage: of_damage.Damage) -> None:
    before = contents(member)
    damage(member, random.Random(1))
    after = contents(member)
    assert ["snap/db"] == [name for name in before if before[name] != after[name]]


@pytest.mark.parametrize("name", of_damage.DAMAGES)
def test_a_member_that_has_just_begun_has_nothing_to_damage(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotNow):
        of_damage.DAMAGES[name](tmp_path, random.Random(1))
