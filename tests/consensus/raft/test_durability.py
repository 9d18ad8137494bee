"""What an acknowledgement of the disk vouches for."""

from quorate.consensus.raft.durability import Durability
from quorate.consensus.raft.messages import TimeoutNow

MESSAGE = TimeoutNow(1, 2, 3)


def test_acknowledged_writes_are_stable() -> None:
    durability = Durability(term=1, vote=0, last_index=4)
    first = durability.write(5, 1, 0)
    second = durability.write(7, 2, 3)
    durability.persisted(first)
    assert (durability.stable_index, durability.term) == (5, 1)
    durability.persisted(second)
    assert (durability.stable_index, durability.term, durability.vote) == (7, 2, 3)


def test_one_acknowledgement_covers_all_writes_before_it() -> None:
    durability = Durability(1, 0, 0)
    durability.write(1, 1, 0)
    durability.persisted(durability.write(2, 1, 0))
    assert durability.stable_index == 2
    assert durability.is_idle()


def test_old_acknowledgement_does_not_vouch_for_a_replaced_entry() -> None:
    durability = Durability(1, 0, 1)
    old = durability.write(2, 1, 0)
    durability.truncate(2)
    new = durability.write(2, 2, 0)
    durability.persisted(old)
    assert durability.stable_index == 1
    durability.persisted(new)
    assert durability.stable_index == 2


def test_same_entry_written_twice_with_another_between_needs_its_own_acknowledgement() -> None:
    durability = Durability(1, 0, 1)
    first = durability.write(2, 1, 0)
    durability.truncate(2)
    between = durability.write(2, 2, 0)
    durability.truncate(2)
    again = durability.write(2, 3, 0)
    for number, stable in ((first, 1), (between, 1), (again, 2)):
        durability.persisted(number)
        assert stable == durability.stable_index


def test_truncation_takes_stability_back() -> None:
    durability = Durability(1, 0, 5)
    durability.truncate(3)
    assert (durability.stable_index, durability.written_index) == (2, 2)


def test_snapshot_is_stable_when_its_write_is() -> None:
    durability = Durability(1, 0, 5)
    pending = durability.write(6, 1, 0)
    durability.restore(9)
    snapshot = durability.write(9, 1, 0)
    durability.persisted(pending)
    assert durability.stable_index == 0
    durability.persisted(snapshot)
    assert durability.stable_index == 9


def test_held_message_leaves_with_the_next_write_and_asks_for_one() -> None:
    durability = Durability(1, 0, 0)
    earlier = durability.write(1, 1, 0)
    durability.hold(MESSAGE)
    assert durability.must_write()
    assert durability.persisted(earlier) == []
    number = durability.write(1, 1, 0)
    assert not durability.must_write()
    assert durability.persisted(number) == [MESSAGE]
