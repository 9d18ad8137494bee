"""The cached log against a plain list, with and without older entries in a storage."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quorate.consensus.raft.log import RaftLog, take_bytes
from quorate.consensus.raft.messages import Entry, EntryKind


def make_entries(terms: list[int], first: int = 1) -> list[Entry]:
    return [Entry(first + position, term, EntryKind.BATCH, b"%d" % term) for position, term in enumerate(terms)]


class ListStorage:
    """A log on disk, dropped up to `base`."""

    def __init__(self, entries: list[Entry], base: int = 0):
        self.all = entries
        self.base = base

    def first_index(self) -> int:
        return self.base + 1

    def term(self, index: int) -> int:
        assert index >= self.base
        return self.all[index - 1].term if index else 0

    def entries(self, first: int, end: int, bytes_max: int) -> list[Entry]:
        assert first > self.base
        return take_bytes(self.all[first - 1 : end - 1], bytes_max)


TERMS = st.lists(st.integers(1, 5), min_size=1, max_size=12).map(sorted)


@given(TERMS, st.data())
def test_terms_and_entries_are_the_same_wherever_they_lie(terms: list[int], data: st.DataObject) -> None:
    entries = make_entries(terms)
    cached = data.draw(st.integers(0, len(entries)))
    base = data.draw(st.integers(0, cached))
    storage = ListStorage(entries, base)
    log = RaftLog(storage, cached, storage.term(cached), entries[cached:])
    for index in range(len(entries) + 2):
        known = base <= index <= len(entries)
        assert log.term(index) == (storage.term(index) if known else None)
    first = data.draw(st.integers(base + 1, len(entries) + 1))
    found = log.entries(first, len(entries), 1 << 30)
    assert entries[first - 1 : first - 1 + len(found)] == found
    assert bool(found) == (first <= len(entries))


@given(TERMS, st.integers(0, 14), st.integers(0, 6), st.data())
def test_hint_is_the_last_index_within_the_term(terms: list[int], index: int, term: int, data: st.DataObject) -> None:
    entries = make_entries(terms)
    cached = data.draw(st.integers(0, len(entries)))
    storage = ListStorage(entries)
    log = RaftLog(storage, cached, storage.term(cached), entries[cached:])
    candidates = [i for i in range(min(index, len(entries)) + 1) if storage.term(i) <= term]
    assert max(candidates) == log.last_index_within_term(index, term)


@given(TERMS, TERMS, st.integers(1, 10))
def test_new_entries_start_at_the_first_difference(ours: list[int], theirs: list[int], first: int) -> None:
    first = min(first, len(ours) + 1)
    log = RaftLog(None, 0, 0, make_entries(ours))
    offered = make_entries(theirs, first)
    have = {entry.index: entry.term for entry in make_entries(ours)}
    expected = next((p for p, e in enumerate(offered) if have.get(e.index) != e.term), len(offered))
    assert list(log.new_entries(offered)) == offered[expected:]


def test_size_limit_cuts_but_always_gives_one_entry() -> None:
    entries = [Entry(index, 1, EntryKind.BATCH, b"12345") for index in (1, 2, 3)]
    log = RaftLog(None, 0, 0, entries)
    assert len(log.entries(1, 3, 1)) == 1
    assert len(log.entries(1, 3, 10)) == 2
    assert len(log.entries(1, 3, 15)) == 3


def test_compaction_keeps_the_term_before_the_cache() -> None:
    log = RaftLog(None, 0, 0, make_entries([1, 1, 2, 3]))
    log.compact(3)
    assert (log.first_index(), log.term(3), log.term(2), log.last_index) == (4, 2, None, 4)
    log.compact(2)
    assert log.first_index() == 4


def test_restore_forgets_everything() -> None:
    log = RaftLog(None, 0, 0, make_entries([1, 1]))
    log.restore(9, 4)
    assert (log.first_index(), log.last_index, log.last_term, log.term(9), log.term(2)) == (10, 9, 4, 4, None)


def test_truncation_gives_the_last_term_back() -> None:
    log = RaftLog(None, 0, 0, make_entries([1, 2, 3]))
    log.truncate(2)
    assert (log.last_index, log.last_term) == (1, 1)
    log.truncate(1)
    assert (log.last_index, log.last_term) == (0, 0)
