"""The hub: every batch of changes comes in once and goes out to all groups that wait for it, exactly once, in order.

The hub is pure: it is fed what neighbours say and says through the callables it was given. Its `revision` is the one
up to which everything was published. What storage publishes is taken as it comes while it follows on that; what was
published before is skipped (storage replays its log after a restart); a gap is read from history first, and what is
published meanwhile waits. So a synced group never misses a change and never gets one twice.

A group is told something only while its stream and its worker take it. Otherwise the first change that concerns it
makes it a victim, which costs nothing until the stream is resumed; it then catches up from history like any other that
is behind. No change is kept for it here: what a slow client costs is one object.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
from typing import Final

from quorate.watch.catch_up import SLICE_BYTES_MAX, SLICE_REVISIONS_MAX, Batch, CatchUp, Cohort
from quorate.watch.events import encoded
from quorate.watch.groups import PREVIOUS, Fan, Group, State, Worker
from quorate.watch.ranges import TO_THE_END, Ranges
from quorate.wire.messages import EVENTS, MAIN_SHIFT, main_revision
from quorate.wire.watching import (
    BEHIND,
    COMPACTED,
    DELIVER_EVENTS,
    HANDLE_BYTES,
    HISTORY,
    MARK,
    SYNCED,
    WATCH_NEEDS,
    Change,
    HistoryRead,
    Told,
    changes_of,
)

EARLY_BYTES_MAX: Final = 64 * 1024 * 1024  # published while a gap is read; beyond this the gap grows instead
EVERYTHING: Final = (TO_THE_END, TO_THE_END)  # the range of all keys
NO_GROUP: Final = 0
_FUTURE_GONE_MAX: Final = 1_000
_GAP_READ: Final = 0  # request id of the hub's own reads
_UNKNOWN: Final = -1
_EVENTS: Final = int(Told.EVENTS)


class Hub:
    """All watching of a node.

    `ask(read)` puts a question for history to storage, `need(previous)` tells it whether events must carry the
    KeyValue before the change.
    """

    def __init__(self, ask: Callable[[HistoryRead], None], need: Callable[[bool], None]) -> None:
        self.revision = _UNKNOWN
        self.catch_up = CatchUp()
        self._ask = ask
        self._need = need
        self._ranges: Ranges[Fan] = Ranges()
        self._workers: list[Worker] = []
        self._future: list[Group] = []  # a heap by next revision
        self._future_gone = 0  # closed groups that are still in the heap
        self._unconfirmed: dict[Group, None] = {}
        self._stalled: list[Group] = []  # storage had not what they asked for yet
        self._previous_groups = 0
        self._previous_needed = False
        self._previous_told = False  # storage confirmed: what it publishes carries previous values
        self.is_behind = False  # storage told nothing while nobody waited, and has not yet said where it is
        self._gap_end = 0  # while a gap is read: its last revision
        self._gap_with_previous = False
        self._early: deque[tuple[bytes, bool]] = deque()  # EVENTS, and whether they carry previous values
        self._early_bytes = 0

    # --- workers and groups --------------------------------------------------------------------------------

    def add_worker(self, send: Callable[..., None]) -> Worker:
        """A new incarnation of an api worker: it opens its groups next."""
        worker = Worker(send)
        self._workers.append(worker)
        return worker

    def drop_worker(self, worker: Worker) -> None:
        """The incarnation is gone and its groups with it."""
        self._workers.remove(worker)
        for fan in {group.fan for group in worker.groups.values() if group.state is State.SYNCED}:
            self._leave(fan, fan.groups)
        for group in list(worker.groups.values()):
            if group.state is State.SYNCED:
                group.state = State.READING
            self.close(worker, group.handle)

    def open(self, worker: Worker, group: Group) -> None:
        """Let a group wait from its next revision on."""
        assert group.handle not in worker.groups, "a handle is drawn once"
        worker.groups[group.handle] = group
        if group.fan.form & PREVIOUS:
            self._previous_groups += 1
            self._announce_needs()
        self._place(group)

    def close(self, worker: Worker, handle: int) -> None:
        """Forget a group; nothing happens if it is gone already."""
        group = worker.groups.pop(handle, None)
        if group is None:
            return
        if group.fan.form & PREVIOUS:
            self._previous_groups -= 1
        state, group.state = group.state, State.GONE
        if state is State.SYNCED:
            self._leave(group.fan, (group,))
        elif state is State.WAITING:
            self.catch_up.discard(group)
        elif state is State.VICTIM:
            group.stream.victims.pop(group, None)
            worker.victims.pop(group, None)
        elif state is State.UNCONFIRMED:
            del self._unconfirmed[group]
        elif state is State.FUTURE:
            self._future_gone += 1
            if self._future_gone > max(_FUTURE_GONE_MAX, len(self._future) // 2):
                self._future = [one for one in self._future if one.state is State.FUTURE]
                heapify(self._future)
                self._future_gone = 0

    def join(self, worker: Worker, handle: int, into: int) -> bool:
        """Fold one group into another if both are synced and alike."""
        group, other = worker.groups.get(handle), worker.groups.get(into)
        if group is None or other is None or group is other:
            return False
        if group.fan is not other.fan or group.stream is not other.stream or group.state is not State.SYNCED:
            return False
        self.close(worker, handle)
        return True

    def hold(self, worker: Worker, number: int) -> None:
        stream = worker.stream(number)
        if not stream.held:
            stream.held = True
            worker.held_streams += 1

    def resume(self, worker: Worker, number: int) -> None:
        stream = worker.stream(number)
        if stream.held:
            stream.held = False
            worker.held_streams -= 1
            victims, stream.victims = stream.victims, {}
            self._place_again(victims, State.VICTIM)

    def forget_stream(self, worker: Worker, number: int) -> None:
        """A stream is over; its groups were closed."""
        stream = worker.streams.pop(number, None)
        if stream is not None and stream.held:
            worker.held_streams -= 1

    def set_full(self, worker: Worker, is_full: bool) -> None:
        """Whether the link to a worker has room."""
        worker.is_full = is_full
        if not is_full and worker.victims:
            victims, worker.victims = worker.victims, {}
            self._place_again(victims, State.VICTIM)

    # --- storage ---------------------------------------------------------------------------------------------

    def storage_opened(self, revision: int) -> None:
        """Storage (again) is there, and its history reaches to `revision`. What it was asked before is lost."""
        lost = self.catch_up.lost()
        self._gap_end = 0
        self._early.clear()
        self._early_bytes = 0
        self._previous_told = False
        self._previous_needed = False
        if self.revision == _UNKNOWN:
            self.revision = revision
            self._wake_future()
        elif revision > self.revision:
            self._read_gap(revision)
        for cohort in lost:
            self._place_again(cohort.groups, State.READING)
        self._announce_needs()

    def publish(self, body: bytes) -> None:
        """EVENTS: what storage applied."""
        self._take(body, self._previous_told)

    def _take(self, body: bytes, with_previous: bool) -> None:
        before, after, count = EVENTS.unpack_from(body)
        if after <= self.revision:
            return
        if self._gap_end:
            self._keep_early(body, with_previous, before)
            return
        if not self._ranges and not self.catch_up.is_reading:  # whoever waits reads history from where it stands
            self.revision = after
        elif before > self.revision:
            self._keep_early(body, with_previous, before)
            return
        else:
            changes = changes_of(body, EVENTS.size, count)
            if before < self.revision:
                changes = [change for change in changes if main_revision(change[0]) > self.revision]
            self._publish(Batch(self.revision, after, changes, with_previous, len(body)))
        self._wake_future()

    def answer(self, body: bytes) -> None:
        """HISTORY: a slice that was asked for."""
        request_id, compact_revision, complete_revision, count = HISTORY.unpack_from(body)
        changes = changes_of(body, HISTORY.size, count)
        if request_id == _GAP_READ:
            if self._gap_end:
                self._fill_gap(compact_revision, complete_revision, changes, len(body))
            return
        cohort = self.catch_up.answered(request_id)
        if cohort is None:
            return
        if compact_revision:
            self._compacted(cohort, compact_revision)
        else:
            self._advance(cohort, complete_revision, changes)
        self.catch_up.settle()

    def needs_confirmed(self, body: bytes) -> None:
        """WATCH_NEEDS: storage says what it publishes carries from now on."""
        needed, _revision = WATCH_NEEDS.unpack_from(body)
        self._previous_told = bool(needed) and self._previous_needed
        if self._previous_told:
            unconfirmed, self._unconfirmed = self._unconfirmed, {}
            self._place_again(unconfirmed, State.UNCONFIRMED)

    @property
    def is_idle(self) -> bool:
        """Nobody waits for anything."""
        return not any(worker.groups for worker in self._workers)

    # --- time ------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Ask for what is needed next: at the end of each turn of the loop."""
        if self.catch_up and self.revision != _UNKNOWN and not self._gap_end and not self.is_behind:
            for read in self.catch_up.next_reads(self.revision):
                self._ask(read)

    def tick(self) -> None:
        """About once a second: say where everybody is, and want nothing that nobody needs."""
        for worker in self._workers:
            if worker.groups and worker.marked_revision != self.revision and self.revision != _UNKNOWN:
                worker.marked_revision = self.revision
                worker.send(MARK.pack(Told.MARK, self.revision))
        if not self._previous_groups:
            self._announce_needs()
        stalled, self._stalled = self._stalled, []
        self._place_again(stalled, State.READING)

    # --- publishing ------------------------------------------------------------------------------------------

    def _publish(self, batch: Batch) -> None:
        """Hand a batch that follows on `revision` to all synced groups."""
        touched: list[Fan] = []
        shared = False
        match = self._ranges.match
        for record, key, key_value, previous in batch.changes:
            fans = match(key)
            if not fans:
                continue
            shared = shared or len(fans) > 1
            is_tombstone = record & 1
            main = record >> MAIN_SHIFT
            plain = with_previous = b""
            for fan in fans:
                form = fan.form
                if form & 3 and not fan.wants(is_tombstone):
                    continue
                if form & PREVIOUS:
                    event = with_previous = with_previous or encoded(is_tombstone, key_value, previous)
                else:
                    event = plain = plain or encoded(is_tombstone, key_value, b"")
                if fan.events is None:
                    fan.events = [(main, event)]
                    touched.append(fan)
                else:
                    fan.events.append((main, event))
        if touched:
            self._tell(touched, batch, shared)
        if self.catch_up.is_reading:
            self.catch_up.publish(batch)
        self.revision = batch.after

    def _tell(self, touched: list[Fan], batch: Batch, shared: bool) -> None:
        """Tell the fans what was collected for them; where several want the same, it crosses to a worker once."""
        following = batch.after + 1
        alike: dict[tuple[Worker, tuple[int, ...]], list[Fan]] = {}
        for fan in touched:
            worker = fan.worker
            events = fan.events
            assert events is not None
            if worker.held_streams or worker.is_full or (fan.form & PREVIOUS and not batch.with_previous):
                self._fall_behind(fan, batch)
                if fan.is_empty:
                    fan.events = None
                    continue
            if shared:
                alike.setdefault((worker, tuple([id(event) for _, event in events])), []).append(fan)
                continue
            if len(events) == 1:
                handles = fan.handles
                head = DELIVER_EVENTS.pack(_EVENTS, events[0][0], following, 1, len(handles) // HANDLE_BYTES)
                worker.send(head, handles, events[0][1])
            else:
                worker.tell_handles(fan.handles, events, 0, following)
            fan.events = None
        for (worker, _), fans in alike.items():
            events = fans[0].events
            assert events is not None
            worker.tell_handles(b"".join([fan.handles for fan in fans]), events, 0, following)
            for fan in fans:
                fan.events = None

    def _fall_behind(self, fan: Fan, batch: Batch) -> None:
        """Take those groups out of a fan that can not be told this batch."""
        worker = fan.worker
        is_ready = batch.with_previous or not fan.form & PREVIOUS
        if worker.is_full or not is_ready:
            leaving = fan.groups
        else:
            leaving = tuple(group for group in fan.groups if group.stream.held)
        if not leaving:
            return
        self._leave(fan, leaving)
        for group in leaving:
            group.next_revision = batch.before + 1
            worker.send(BEHIND.pack(Told.BEHIND, group.handle, group.next_revision))
            self.catch_up.add(group, batch.after)

    # --- gaps ------------------------------------------------------------------------------------------------

    def _keep_early(self, body: bytes, with_previous: bool, before: int) -> None:
        """Something was published behind a gap."""
        if not self._gap_end:
            self._read_gap(before)
        if self._early_bytes > EARLY_BYTES_MAX:
            self._early.clear()
            self._early_bytes = 0
        self._early.append((body, with_previous))
        self._early_bytes += len(body)

    def _read_gap(self, last_revision: int) -> None:
        self._gap_end = last_revision
        self._gap_with_previous = self._previous_groups > 0
        self._ask(
            HistoryRead(
                _GAP_READ,
                self.revision + 1,
                last_revision,
                SLICE_REVISIONS_MAX,
                SLICE_BYTES_MAX,
                self._gap_with_previous,
                *EVERYTHING,
            )
        )

    def _fill_gap(self, compact_revision: int, complete_revision: int, changes: list[Change], size: int) -> None:
        end, self._gap_end = self._gap_end, 0
        if compact_revision:
            self._skip_gap(end)
        elif complete_revision > self.revision:
            self._publish(Batch(self.revision, complete_revision, changes, self._gap_with_previous, size))
        self._wake_future()
        if self.revision < end:
            self._read_gap(end)
            return
        early, self._early = self._early, deque()
        self._early_bytes = 0
        for body, with_previous in early:
            self._take(body, with_previous)

    def _skip_gap(self, end: int) -> None:
        """What the synced groups need next is gone: each of them learns it from its own reading."""
        for worker in self._workers:
            synced = [group for group in worker.groups.values() if group.state is State.SYNCED]
            for group in synced:
                self._leave(group.fan, (group,))
                group.next_revision = self.revision + 1
                worker.send(BEHIND.pack(Told.BEHIND, group.handle, group.next_revision))
                self.catch_up.add(group, end)
        self.revision = end

    # --- groups between the states -----------------------------------------------------------------------------

    def _place(self, group: Group) -> None:
        """Put a group where it belongs by its next revision."""
        if self.revision == _UNKNOWN or group.next_revision > self.revision + 1:
            group.state = State.FUTURE
            heappush(self._future, group)
        elif group.next_revision <= self.revision:
            self.catch_up.add(group, self.revision)
        elif group.fan.form & PREVIOUS and not self._previous_told:
            group.state = State.UNCONFIRMED
            self._unconfirmed[group] = None
        else:
            self._sync(group)

    def _place_again(self, groups: Iterable[Group], state: State) -> None:
        """Place those of `groups` that are still in `state`."""
        for group in groups:
            if group.state is state:
                self._place(group)

    def _sync(self, group: Group) -> None:
        """A group has reached the present."""
        own = group.fan
        fan = own
        for other in self._ranges.targets(own.key, own.range_end):
            if other.worker is own.worker and other.form == own.form:
                fan = other
                break
        else:
            self._ranges.add(own.key, own.range_end, own)
        peer = fan.of_stream(group.stream)
        fan.add(group)
        group.state = State.SYNCED
        group.next_revision = 0
        fan.worker.send(SYNCED.pack(Told.SYNCED, group.handle, self.revision, peer.handle if peer else NO_GROUP))

    def _leave(self, fan: Fan, leaving: tuple[Group, ...]) -> None:
        """Take synced groups out of their fan; each gets one of its own."""
        fan.remove(leaving)
        if fan.is_empty:
            self._ranges.remove(fan.key, fan.range_end, fan)
        for group in leaving:
            group.fan = Fan(fan.worker, fan.key, fan.range_end, fan.form)

    def _wake_future(self) -> None:
        """Place the groups whose first revision is the next or was passed."""
        future = self._future
        while future and future[0].next_revision <= self.revision + 1:
            group = heappop(future)
            if group.state is State.FUTURE:
                self._place(group)
            else:
                self._future_gone -= 1

    def _advance(self, cohort: Cohort, complete_revision: int, changes: list[Change]) -> None:
        """Tell a cohort its slice of history, and let it go on or be synced."""
        cohort.add(changes)
        reached = complete_revision
        if complete_revision >= cohort.last_revision:
            recent = self.catch_up.recent(cohort.last_revision, self.revision, cohort.with_previous)
            if recent is not None:
                cohort.add(recent)
                reached = self.revision
        for bucket in cohort.buckets:
            groups = [group for group in bucket.groups if group.state is State.READING]
            if not groups:
                continue
            following = max(bucket.next_revision, reached + 1)
            if bucket.events:
                bucket.fan.worker.tell_events(groups, bucket.events, self.revision, following)
            for group in groups:
                group.next_revision = following
        if complete_revision < cohort.first_revision:
            self._stalled += cohort.groups
        else:
            self._place_again(cohort.groups, State.READING)

    def _compacted(self, cohort: Cohort, compact_revision: int) -> None:
        """Part of the history a cohort needs is gone: tell those who need it."""
        for group in cohort.groups:
            if group.next_revision < compact_revision:
                worker = group.fan.worker
                worker.send(COMPACTED.pack(Told.COMPACTED, group.handle, compact_revision))
                self.close(worker, group.handle)
        self._place_again(cohort.groups, State.READING)

    def _announce_needs(self) -> None:
        """Tell storage whether previous values are needed, where that changed. It is withdrawn only once it was
        confirmed, so that a confirmation is never that of an earlier need."""
        needed = self._previous_groups > 0
        if needed == self._previous_needed or (self._previous_needed and not self._previous_told):
            return
        self._previous_needed = needed
        self._previous_told = False
        self._need(needed)
