"""Groups that are behind, and what is read from history for them.

History is read in slices, each for a *cohort* of groups. Two kinds of cohorts share the work:

- *near*: all groups that lack only the last few revisions. They share one read of everything that happened, as many
  watchers that fell behind together (a restart of this process, a pause of an api worker) lack the same few changes.
- *far*: groups of one range that are at about the same place. The read is for their range alone, so its cost follows
  what is sent. Streams take turns, so a stream of a thousand groups that want old history delays nobody else.

Nothing is read for groups whose stream is held. A cohort that reached the revision that was current when its slice was
asked for is brought to the present with `recent`, the changes that were published since.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from quorate.watch.events import encoded
from quorate.watch.groups import PREVIOUS, Encoded, Fan, Group, State, Stream, Worker
from quorate.watch.ranges import TO_THE_END, Ranges
from quorate.wire.messages import main_revision
from quorate.wire.watching import Change, HistoryRead

NEAR_REVISIONS_MAX: Final = 2_000
NEAR_GROUPS_MIN: Final = 3  # fewer are read one by one: their ranges may be small
FAR_READS_MAX: Final = 2  # in flight: one is answered while the next is read
SLICE_REVISIONS_MAX: Final = 1_000
SLICE_BYTES_MAX: Final = 1024 * 1024
RECENT_BYTES_MAX: Final = 16 * 1024 * 1024


class Batch(NamedTuple):
    """Changes that were published together."""

    before: int  # revision of the store before them
    after: int
    changes: list[Change]
    with_previous: bool
    size: int  # bytes, about


class Bucket:
    """Groups of a cohort that are told the same."""

    __slots__ = ("events", "fan", "groups", "next_revision")

    def __init__(self, fan: Fan, next_revision: int) -> None:
        self.fan = fan  # any of theirs: they have one worker, range and form
        self.next_revision = next_revision
        self.groups: list[Group] = []
        self.events: list[Encoded] = []


class Cohort:
    """Groups for which one slice of history was asked."""

    def __init__(self, groups: list[Group], revision: int, whole: bool) -> None:
        self.first_revision = min(group.next_revision for group in groups)
        self.last_revision = revision
        self.is_near = whole
        self.key, self.range_end = (TO_THE_END, TO_THE_END) if whole else _range_of(groups[0])
        self.with_previous = any(group.fan.form & PREVIOUS for group in groups)
        self._ranges: Ranges[Bucket] = Ranges()
        buckets: dict[tuple[Worker, bytes, bytes, int, int], Bucket] = {}
        for group in groups:
            group.state = State.READING
            fan = group.fan
            place = (fan.worker, fan.key, fan.range_end, fan.form, group.next_revision)
            bucket = buckets.get(place)
            if bucket is None:
                bucket = buckets[place] = Bucket(fan, group.next_revision)
                self._ranges.add(fan.key, fan.range_end, bucket)
            bucket.groups.append(group)
        self.buckets = list(buckets.values())

    @property
    def groups(self) -> list[Group]:
        """Those that were not closed meanwhile."""
        return [group for bucket in self.buckets for group in bucket.groups if group.state is State.READING]

    def add(self, changes: list[Change]) -> None:
        """Sort changes, which follow on those added before, into the buckets that want them."""
        match = self._ranges.match
        for record, key, key_value, previous in changes:
            main = main_revision(record)
            is_tombstone = record & 1
            plain = with_previous = b""
            for bucket in match(key):
                if main < bucket.next_revision or not bucket.fan.wants(is_tombstone):
                    continue
                if bucket.fan.form & PREVIOUS:
                    with_previous = with_previous or encoded(is_tombstone, key_value, previous)
                    bucket.events.append((main, with_previous))
                else:
                    plain = plain or encoded(is_tombstone, key_value, b"")
                    bucket.events.append((main, plain))


class CatchUp:
    """The queues of waiting groups and the reads in flight."""

    def __init__(self) -> None:
        self._near: dict[Group, None] = {}
        self._far: dict[Stream, dict[Group, None]] = {}  # streams in the order of their turns
        self._far_ranges: dict[tuple[bytes, bytes], dict[Group, None]] = {}
        self._reads: dict[int, Cohort] = {}
        self._near_reading = False
        self._request_id = 0
        self._recent: deque[Batch] = deque()
        self._recent_bytes = 0

    @property
    def is_reading(self) -> bool:
        return bool(self._reads)

    def __len__(self) -> int:
        """Groups that are behind and neither held nor reading."""
        return len(self._near) + sum(map(len, self._far.values()))

    def add(self, group: Group, revision: int) -> None:
        """Queue a group that lacks something at or below `revision`."""
        group.state = State.WAITING
        if group.next_revision > revision - NEAR_REVISIONS_MAX:
            self._near[group] = None
            return
        self._far.setdefault(group.stream, {})[group] = None
        self._far_ranges.setdefault(_range_of(group), {})[group] = None

    def discard(self, group: Group) -> None:
        """Take a waiting group out of its queue."""
        if group in self._near:
            del self._near[group]
            return
        self._take_far(group)

    def next_reads(self, revision: int) -> list[HistoryRead]:
        """What to ask storage for now, with everything below `revision` published. Groups whose stream or worker
        takes nothing are left as victims of it."""
        reads = []
        if self._near and not self._near_reading:
            near = [group for group in self._near if not _set_aside(group)]
            self._near.clear()
            if len(near) >= NEAR_GROUPS_MIN:
                self._near_reading = True
                reads.append(self._read(near, revision, whole=True))
            else:
                for group in near:
                    reads.append(self._read([group], revision, whole=False))
        while self._far and len(self._reads) < FAR_READS_MAX + self._near_reading:
            groups = self._next_far()
            if groups:
                reads.append(self._read(groups, revision, whole=False))
        return reads

    def answered(self, request_id: int) -> Cohort | None:
        """The cohort that waits for this answer; None if it is not waited for any more."""
        cohort = self._reads.pop(request_id, None)
        if cohort is not None and cohort.is_near:
            self._near_reading = False
        return cohort

    def lost(self) -> list[Cohort]:
        """Storage will not answer what it was asked: the cohorts that were reading."""
        cohorts = list(self._reads.values())
        self._reads.clear()
        self._near_reading = False
        self._forget_recent()
        return cohorts

    def publish(self, batch: Batch) -> None:
        """Remember what was published while cohorts read."""
        self._recent.append(batch)
        self._recent_bytes += batch.size
        if self._recent_bytes > RECENT_BYTES_MAX:
            self._forget_recent()

    def recent(self, after_revision: int, revision: int, with_previous: bool) -> list[Change] | None:
        """The changes published behind `after_revision` up to the present; None when they are not all known."""
        if after_revision >= revision:
            return []
        batches = [batch for batch in self._recent if batch.after > after_revision]
        if not batches or batches[0].before > after_revision:
            return None
        if with_previous and not all(batch.with_previous for batch in batches):
            return None
        return [change for batch in batches for change in batch.changes if main_revision(change[0]) > after_revision]

    def settle(self) -> None:
        """Forget what no cohort can need any more."""
        if not self._reads:
            self._forget_recent()
            return
        needed = min(cohort.last_revision for cohort in self._reads.values())
        while self._recent and self._recent[0].after <= needed:
            self._recent_bytes -= self._recent.popleft().size

    def _read(self, groups: list[Group], revision: int, *, whole: bool) -> HistoryRead:
        cohort = Cohort(groups, revision, whole)
        self._request_id += 1
        self._reads[self._request_id] = cohort
        return HistoryRead(
            self._request_id,
            cohort.first_revision,
            revision,
            SLICE_REVISIONS_MAX,
            SLICE_BYTES_MAX,
            cohort.with_previous,
            cohort.key,
            cohort.range_end,
        )

    def _next_far(self) -> list[Group]:
        """The groups whose turn it is: of the next stream, and all of the same range at about the same place."""
        stream = next(iter(self._far))
        first = next(iter(self._far[stream]))
        self._far[stream] = self._far.pop(stream)
        limit = first.next_revision + SLICE_REVISIONS_MAX
        alike = [
            group for group in self._far_ranges[_range_of(first)] if first.next_revision <= group.next_revision < limit
        ]
        for group in alike:
            self._take_far(group)
        return [group for group in alike if not _set_aside(group)]

    def _take_far(self, group: Group) -> None:
        groups = self._far[group.stream]
        del groups[group]
        if not groups:
            del self._far[group.stream]
        place = _range_of(group)
        alike = self._far_ranges[place]
        del alike[group]
        if not alike:
            del self._far_ranges[place]

    def _forget_recent(self) -> None:
        self._recent.clear()
        self._recent_bytes = 0


def _range_of(group: Group) -> tuple[bytes, bytes]:
    return group.fan.key, group.fan.range_end


def _set_aside(group: Group) -> bool:
    """Make a group a victim if it can be told nothing now."""
    worker = group.fan.worker
    if group.stream.held:
        group.stream.victims[group] = None
    elif worker.is_full:
        worker.victims[group] = None
    else:
        return False
    group.state = State.VICTIM
    return True
