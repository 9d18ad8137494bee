"""The rules of watching: what a lawful watcher was told passes, and every planted violation is found."""

import random
from collections.abc import Callable

import pytest

from tests.checking.history import Change
from tests.checking.watches import Event, Log, Told, Watching, check_watch

CHANGES = 200


def log(seed: int) -> list[Change]:
    """Puts and deletions of four keys; a revision has up to three changes."""
    dice = random.Random(seed)
    made: list[Change] = []
    held: set[bytes] = set()
    for revision in range(2, CHANGES):
        for key in dice.sample([b"k0", b"k1", b"k2", b"other"], dice.randrange(1, 4)):
            deleted = key in held and dice.random() < 0.3
            held.symmetric_difference_update({key} if deleted or key not in held else ())
            made.append(Change(revision, key, None if deleted else b"%d" % revision))
    return made


def lawful(seed: int, start: int = 20) -> Watching:
    """A watcher of k0 to k2 that was told everything, some revisions at once, with notes of progress."""
    dice = random.Random(seed)
    wanted = [e for e in Log(log(seed)).since(start) if e.key != b"other"]
    told: list[Told] = []
    batch: list[Event] = []
    for number, event in enumerate(wanted):
        batch.append(event)
        last_of_revision = number + 1 == len(wanted) or wanted[number + 1].revision != event.revision
        if last_of_revision and dice.random() < 0.5:
            told.append(Told(event.revision, tuple(batch)))
            batch = []
            if dice.random() < 0.2:
                told.append(Told(event.revision, ()))
    return Watching("w", b"k", b"l", start, told)


@pytest.mark.parametrize("seed", range(10))
def test_a_lawful_watcher_has_no_violation(seed: int) -> None:
    assert [] == list(check_watch(lawful(seed), Log(log(seed))))


def test_nothing_at_all_is_lawful_too() -> None:
    assert [] == list(check_watch(Watching("w", b"k", b"l", 2, []), Log(log(1))))


def _events(watching: Watching) -> list[Told]:
    return [told for told in watching.told if told.events]


def lose_an_event(told: list[Told]) -> None:
    number = next(n for n, one in enumerate(told) if len(one.events) > 1)
    told[number] = told[number]._replace(events=told[number].events[1:])


def lose_a_response(told: list[Told]) -> None:
    del told[next(n for n, one in enumerate(told) if one.events)]


def tell_twice(told: list[Told]) -> None:
    number = next(n for n, one in enumerate(told) if one.events)
    told.insert(number + 1, told[number])


def swap(told: list[Told]) -> None:
    first, second = [n for n, one in enumerate(told) if one.events][:2]
    told[first], told[second] = told[second], told[first]


def split_a_revision(told: list[Told]) -> None:
    number, cut = next(
        (n, i)
        for n, one in enumerate(told)
        for i in range(1, len(one.events))
        if one.events[i].revision == one.events[i - 1].revision
    )
    events = told[number].events
    told[number : number + 1] = [
        told[number]._replace(events=events[:cut]),
        told[number]._replace(events=events[cut:]),
    ]


def promise_too_much(told: list[Told]) -> None:
    told.insert(0, Told(told[-1].header_revision, ()))


def go_back_in_progress(told: list[Told]) -> None:
    told.append(Told(CHANGES - 50, ()))
    told.append(Told(CHANGES - 60, ()))


def tell_what_was_not_asked_for(told: list[Told]) -> None:
    told[0] = told[0]._replace(events=(*told[0].events, Event(told[0].header_revision, b"other", b"x")))


def wrong_value(told: list[Told]) -> None:
    _change(told, value=b"wrong")


def wrong_before(told: list[Told]) -> None:
    _change(told, prev_revision=1)


def wrong_create(told: list[Told]) -> None:
    event = next(one.events[0] for one in told if one.events)
    _change(told, is_create=not event.is_create)


def from_a_later_revision(told: list[Told]) -> None:
    """The first change after the start is left out, as if the watcher had begun later."""
    del told[0]


def _change(told: list[Told], **changes: object) -> None:
    number = next(n for n, one in enumerate(told) if one.events)
    first, *rest = told[number].events
    told[number] = told[number]._replace(events=(first._replace(**changes), *rest))  # type: ignore[arg-type]


PLANTS = [
    lose_an_event, lose_a_response, tell_twice, swap, split_a_revision, promise_too_much, go_back_in_progress,
    tell_what_was_not_asked_for, wrong_value, wrong_before, wrong_create, from_a_later_revision,
]  # fmt: skip


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("seed", range(3))
def test_a_planted_violation_is_found(plant: Callable[[list[Told]], None], seed: int) -> None:
    watching = lawful(seed)
    told = list(watching.told)
    plant(told)
    assert [] != list(check_watch(watching._replace(told=told), Log(log(seed))))


def test_the_pair_before_may_be_missing_only_when_it_is_compacted() -> None:
    changes = [Change(2, b"k", b"a"), Change(3, b"k", b"b")]
    told = [Told(3, (Event(3, b"k", b"b", False, 0),))]
    watching = Watching("w", b"k", b"", 3, told)
    assert [] == list(check_watch(watching, Log(changes), compacted=2))
    assert [] != list(check_watch(watching, Log(changes), compacted=1))


def test_a_watcher_is_given_up_only_when_what_it_needs_is_compacted() -> None:
    changes = [Change(revision, b"k", b"%d" % revision) for revision in range(2, 9)]
    watching = Watching("w", b"k", b"", 4, [], compact_revision=6)
    assert [] == list(check_watch(watching, Log(changes)))
    assert [] != list(check_watch(watching._replace(compact_revision=4), Log(changes)))
