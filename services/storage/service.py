"""The loop of the storage process: receive, apply all, answer, flush; write to the database when there is time.

One thread does everything that changes state. Each turn takes what has arrived, in the order of the log; the answers
leave before the rows are written, because the Raft log already holds them. Whatever takes longer than a moment (large
reads, compaction, checkpoints, images) happens in slices between two turns or on a thread of its own.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from contextlib import suppress
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Final

from quorate.node.clock import Clock
from quorate.node.logs import Log
from quorate.storage import auto_compaction, hashkv
from quorate.storage.answering import Answers
from quorate.storage.apply import Applier
from quorate.storage.commits import Commits
from quorate.storage.compaction import Compaction
from quorate.storage.corruption import REPORT
from quorate.storage.database import DiskFull
from quorate.storage.headers import Headers
from quorate.storage.history import History
from quorate.storage.image_orders import ImageOrders
from quorate.storage.proposer import Proposer
from quorate.storage.publishing import Publisher
from quorate.storage.reads import Questions, Readers, Task
from quorate.storage.scrub import Scrub
from quorate.storage.settings import Settings, corruption_of
from quorate.storage.state import State
from quorate.storage.vacuum import Vacuum
from quorate.wire.identity import AuthState
from quorate.wire.messages import (
    APPLIED,
    COMMANDS_MAX,
    ENTRY,
    MAIN_SHIFT,
    SPACE,
    START,
    STORAGE_HELLO,
    STORAGE_WORKER,
    BadBatch,
    EntryKind,
    Kind,
    Origin,
    Part,
    Role,
    chunks_of,
    pack_chunk,
)
from quorate.wire.sockets import Address, Channel, Endpoint, Message
from quorate.wire.watching import STORAGE_TO_WATCH_HELLO, unpack_history_read

if TYPE_CHECKING:
    from quorate.storage.stats import Stats

MEBIBYTE: Final = 1024 * 1024
TELL_ENTRIES: Final = 64  # consensus hears of applied entries at least this often, or in the first quiet moment
QUIET_MS: Final = 5  # silence after which pending rows are written: the next request is not in the way
RETRY_MS: Final = 1  # a neighbour took no more; look again soon
IDLE_MS: Final = 500
ALARM_SECONDS_MAX: Final = 3.0  # a refusal waits no longer for its alarm
TOKEN_CHECK_SECONDS: Final = 10.0  # an expired token is refused at once; this is for the memory it takes


class Service:
    """Storage on the node's ring, over a state and an endpoint that the caller opens and closes."""

    def __init__(
        self, state: State, endpoint: Endpoint, settings: Settings, clock: Clock, log: Log, *, is_anew: bool = False
    ) -> None:
        """`is_anew` says that the database takes the place of one that was damaged."""
        self.state = state
        self.endpoint = endpoint
        self.headers = Headers()
        self.headers.reach_term(state.database.marks.applied_term)
        self.applier = Applier(state, self.headers, settings.quota_bytes)
        self.questions = Questions(self.applier)
        self.compaction = Compaction(state.store)
        self.corruption = corruption_of(settings, clock.monotonic())
        retention = auto_compaction.policy(
            settings.auto_compaction_mode, settings.auto_compaction_retention, clock.monotonic()
        )
        self.proposer = Proposer(self.applier, retention, self.corruption, log)
        self.vacuum = Vacuum(state.database)
        if self.vacuum.request_at_start(settings.bootstrap_defrag_threshold_megabytes * MEBIBYTE):
            log.info("defragmenting after the start", size_bytes=state.database.size_bytes)
        self.slow_applies = 0
        self._slow_apply_s = settings.warning_apply_duration / 1000
        self.is_stopping = False
        self._stats: Stats | None = None
        self._clock = clock
        self._log = log
        self._scrub = Scrub(state.database.path)
        self._wake_up = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(endpoint.fileno(), select.POLLIN)
        self._poll.register(self._wake_up, select.POLLIN)
        self.readers = Readers(self.wake)
        self.answers = Answers(endpoint, self.readers, self.vacuum)
        self._started = False  # START was heard: entries and reads are for us
        self._is_anew = is_anew
        self._current_from = 0  # the index committed at START: below it this state may be older than it once was
        self._held: list[bytes] = []  # questions that wait for it; the api workers bound how many
        self._role: Role | None = None
        self._told = (0, 0)
        self._is_quiet = False  # the last wait heard nothing
        self._told_size_bytes = 0
        self._alarm_awaited_until = inf  # by those who are refused for want of room
        self._proposals = 0
        self._auth_epoch = state.auth.epoch  # that the api workers know
        self._tokens_checked = clock.monotonic()
        endpoint.accept(lambda address: self._hello_to_api if address.part is Part.API else None)
        endpoint.when_opened(self._meet)
        # The api workers come first: channels are flushed in this order, and clients wait for them. They introduce
        # themselves, but not again after our restart.
        for number in range(settings.api_workers):
            endpoint.connect(Address(Part.API, number), self._hello_to_api)
        self._consensus = endpoint.connect(Address(Part.CONSENSUS), self._hello)
        self._watch = endpoint.connect(Address(Part.WATCH), self._hello_to_watch)
        self.publisher = Publisher(state, self._watch)
        self.commits = Commits(
            state, self.applier, self.publisher, self._refuse_for_want_of_room, clock.monotonic(), log
        )
        self.images = ImageOrders(state, self.applier, self.readers, self._consensus, log)

    # --- the loop ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until `stop`, or until an image is to be installed."""
        while not self.is_stopping:
            self.turn(IDLE_MS)
        if self.images.to_install is None:
            with suppress(DiskFull):  # what there is no room for comes again from the log
                self.state.commit()

    def stop(self) -> None:
        """Have `run` return after this turn; may be called from a signal handler."""
        self.is_stopping = True
        self.wake()

    def wake(self) -> None:
        """Have the loop look around; may be called from any thread."""
        os.eventfd_write(self._wake_up, 1)

    def turn(self, wait_ms: int) -> None:
        """One turn: everything that has arrived, then whatever there is time for; waits when there is nothing."""
        batches = self.endpoint.receive()
        now = self.applier.now = self._clock.monotonic()
        if batches:
            for channel, messages in batches:
                self._hear(channel, messages)
            if self._held:
                self._answer_held()
            self.publisher.publish(now)
            self.state.store.forget_recent()
            if not self.commits.dirty_since and self.state.is_dirty:
                self.commits.dirty_since = now
        self._answer_later_ones()
        if self.answers.waits_for_alarm:
            self._refuse_when_alarmed(now)
        if self._scrub.fault is not None:
            raise self._scrub.fault
        if self.applier.data_checks or self.applier.data_reports:
            self._check_data(now)
        if self.images.again_at <= now:
            self.images.take()
        self._propose(now)
        if now - self._tokens_checked > TOKEN_CHECK_SECONDS:
            self._tokens_checked = now
            self.state.auth.forget_expired_tokens(int(now * 1000))
        self._tell_applied()
        self._tell_space()
        flushed = self.endpoint.flush()
        self.commits.mind(now)
        if self._advance_background() or batches:
            return
        self._is_quiet = not self._wait(min(wait_ms, self._patience_ms(flushed)))
        if self._is_quiet and self.commits.dirty_since:
            self.commits.maybe_commit()

    def close(self) -> None:
        """Let go of threads and descriptors; the state and the endpoint are the caller's."""
        self._scrub.close()
        self.readers.close()
        os.close(self._wake_up)

    def _wait(self, timeout_ms: int) -> bool:
        if self.endpoint.wait(0):
            return True
        heard = self._poll.poll(timeout_ms)
        for descriptor, _ in heard:
            if descriptor == self._wake_up:
                os.eventfd_read(self._wake_up)
        return bool(heard)

    def _patience_ms(self, flushed: bool) -> int:
        if not flushed or self.answers.is_late:
            return RETRY_MS
        database = self.state.database
        if self.commits.dirty_since or database.checkpoint_is_running or database.marks.applied_index != self._told[0]:
            return QUIET_MS
        return IDLE_MS

    def _advance_background(self) -> bool:
        """Give slices to what is waiting for time; True when there is more to do at once."""
        if self.readers.wants_turn and self.applier.now >= self.commits.again_at:
            self.readers.advance(self.commits.commit)
            return self.readers.wants_turn
        if self.state.database.checkpoint_is_running or self.applier.now < self.commits.again_at:
            return False
        if self.vacuum.is_due:
            self._advance_vacuum()
            return True
        if not self.compaction.is_due:
            return False
        if any(revision < self.compaction.pinned_by for revision in self.readers.revisions()):
            return False
        try:
            self.compaction.advance()
        except DiskFull as finding:
            self.commits.bear_full_disk(finding)
            return False
        self.commits.dirty_since = self.commits.dirty_since or self.applier.now
        return self.compaction.is_due

    def _advance_vacuum(self) -> None:
        if not self.commits.commit():
            return
        try:
            self.vacuum.advance()
        except DiskFull as finding:
            self.commits.bear_full_disk(finding)
            return
        if not self.vacuum.is_due:
            self.answers.defragmented()

    def _refuse_for_want_of_room(self) -> None:
        self.vacuum.give_up()
        self.answers.without_room()
        self.readers.without_room()

    # --- hearing -----------------------------------------------------------------------------------------------------

    def _hello(self) -> bytes:
        # Entries above it that are applied already are sent again and ignored: consensus drops from its log what the
        # hello says, so this has to be what a power loss cannot take back.
        # Once everything is in the database again it is like any other, also for a consensus that starts later.
        is_rebuilt = 0 < self._current_from <= self.state.database.marks.applied_index
        return STORAGE_HELLO.pack(self.state.database.durable_index, self._is_anew and not is_rebuilt)

    def _hello_to_watch(self) -> bytes:
        return STORAGE_TO_WATCH_HELLO.pack(self.state.store.revision)

    def _hello_to_api(self) -> bytes:
        return AuthState(self.state.auth.enabled, self.state.auth.revision).pack()

    def _tell_auth(self) -> None:
        """Have the api workers forget what they knew of callers, before any of them hears of what changed it."""
        self._auth_epoch = self.state.auth.epoch
        body = self._hello_to_api()
        for channel in self.endpoint.channels.values():
            if channel.peer.part is Part.API:
                channel.send(Kind.AUTH, body)

    def _meet(self, channel: Channel, _hello: bytes) -> None:
        self._log.debug("met a neighbour", neighbour=str(channel.peer))
        if channel is self._consensus:
            self._started = False
            self._told = (0, 0)
        elif channel.peer.part is Part.API:
            self._told_size_bytes = 0
            channel.send(Kind.AUTH, self._hello_to_api())  # it may have moved since the hello was said
            self.answers.meet(channel)
        elif channel is self._watch:
            self.publisher.meet()

    def _hear(self, channel: Channel, messages: list[Message]) -> None:
        for kind, body in messages:
            match kind:
                case Kind.ENTRY:
                    if self._started:
                        self._apply(body)
                case Kind.READ:
                    if self._started:
                        self._answer(body)
                case Kind.LOCAL:
                    if self._started and self.state.database.marks.applied_index >= self._current_from:
                        self._answer(body)
                    else:
                        self._held.append(body)
                case Kind.START:
                    cluster_id, member_id, _first, self._current_from = START.unpack(body)
                    self.headers.identify(cluster_id, member_id)
                    self._started = True
                case Kind.ROLE:
                    self._role = Role.unpack(body)
                case Kind.REFUSE:
                    pass  # of our own proposals: what is still true is proposed again
                case Kind.WATCH_IDLE:
                    self.publisher.set_idle(body, self.applier.now)
                case Kind.WATCH_NEEDS:
                    self.publisher.set_needs(body, self.applier.now)
                case Kind.HISTORY_READ:
                    history = History(self.state.store, unpack_history_read(body))
                    self.readers.submit(self._tell_watch(channel.peer_incarnation), history)
                case Kind.STATS_READ:
                    channel.send(Kind.STATS, body[:8], self._figures())
                case Kind.IMAGE_TAKE:
                    self.images.take()
                case Kind.IMAGE_INSTALL:
                    self.images.install(body)
                    self.is_stopping = True
                case _:
                    raise AssertionError(f"{channel.peer} sent a message of kind {kind}")

    def _answer(self, body: bytes) -> None:
        for chunk in chunks_of(body):
            self.answers.reply(chunk.origin, chunk.number, self.questions.chunk(chunk))

    def _answer_held(self) -> None:
        """Answer what the api workers asked of this member alone before it was where it had been before its restart."""
        if self._started and self.state.database.marks.applied_index >= self._current_from:
            held, self._held = self._held, []
            for body in held:
                self._answer(body)

    def _apply(self, body: bytes) -> None:
        index, term, kind = ENTRY.unpack_from(body)
        marks = self.state.database.marks
        if index <= marks.applied_index:
            return
        assert index == marks.applied_index + 1, f"entry {index} follows {marks.applied_index}"
        self.headers.reach_term(term)
        if kind == EntryKind.BATCH:
            began = perf_counter()
            member_id = self.headers.member_id
            try:
                for chunk in chunks_of(body[ENTRY.size :]):
                    self.applier.index = index
                    results = self.applier.chunk(chunk)
                    if self.state.auth.epoch != self._auth_epoch:
                        self._tell_auth()
                    if chunk.origin.member_id == member_id:
                        self.answers.reply(chunk.origin, chunk.number, results)
            except BadBatch as finding:  # for every member alike
                self._log.error("an entry cannot be read to its end", index=index, reason=str(finding))
            if (took_s := perf_counter() - began) > self._slow_apply_s:
                self._tell_slow(index, took_s, len(body))
        marks.applied_index = index
        marks.applied_term = term

    def _tell_slow(self, index: int, took_s: float, size_bytes: int) -> None:
        self.slow_applies += 1
        facts = {"took": f"{took_s:.6f}s", "expected-duration": f"{self._slow_apply_s:g}s"}
        self._log.warn("apply request took too long", **facts, index=index, size_bytes=size_bytes)

    def _figures(self) -> bytes:
        if self._stats is None:
            from quorate.storage.stats import Stats  # only where somebody scrapes: it costs memory and start-up time

            times = self.questions.hash_times
            self._stats = Stats(
                self.applier, self.compaction, self.readers, self.vacuum, times, lambda: self.slow_applies
            )
        return self._stats.render()

    # --- telling -----------------------------------------------------------------------------------------------------

    def _answer_later_ones(self) -> None:
        finished = self.compaction.finished_revision
        if self.answers.wait_for_compaction(finished) and self.commits.commit():
            self.answers.compacted(finished)
        self.readers.collect()
        self.answers.send_late()

    def _refuse_when_alarmed(self, now: float) -> None:
        """Who is refused for want of room finds the alarm on, as in etcd, unless it cannot be ordered."""
        self._alarm_awaited_until = min(self._alarm_awaited_until, now + ALARM_SECONDS_MAX)
        if self.applier.space_alarm_is_on or now >= self._alarm_awaited_until:
            self._alarm_awaited_until = inf
            self.answers.alarmed()

    def _tell_watch(self, incarnation: int) -> Callable[[bytes], None]:
        def told(body: bytes) -> None:
            if self._watch.peer_incarnation == incarnation:
                self._watch.send(Kind.HISTORY, body)

        return told

    def _tell_applied(self) -> None:
        """Tell consensus how far things are: now and then, as a message of its own costs as much as ten puts."""
        database = self.state.database
        applied = (database.marks.applied_index, database.durable_index)
        if applied == self._told or not self._started:
            return
        if self._is_quiet or applied[0] - self._told[0] >= TELL_ENTRIES or applied[1] != self._told[1]:
            self._told = applied
            self._consensus.send(Kind.APPLIED, APPLIED.pack(*applied))

    def _tell_space(self) -> None:
        """Tell api workers how much room is left, when that has changed since the last commit."""
        size_bytes = self.state.database.size_bytes
        if size_bytes != self._told_size_bytes:
            self._told_size_bytes = size_bytes
            for channel in self.endpoint.channels.values():
                if channel.peer.part is Part.API and channel.opened:
                    channel.send(Kind.SPACE, SPACE.pack(self.applier.space_left_bytes))

    # --- comparing ----------------------------------------------------------------------------------------------------

    def _check_data(self, now: float) -> None:
        applier = self.applier
        for index, revision, compact_revision in applier.data_checks:
            self.corruption.begun(index, now)
            self.readers.submit(self.proposer.reports.append, self._report(index, revision, compact_revision))
        for body in applier.data_reports:
            self.corruption.report(body, now)
        applier.data_checks.clear()
        applier.data_reports.clear()

    def _report(self, index: int, revision: int, compact_revision: int) -> Task:
        path, member_id = self.state.database.path, self.headers.member_id
        seconds = self.questions.hash_times.revision_seconds

        def work() -> bytes:
            end = revision + 1 << MAIN_SHIFT
            value = hashkv.timed(lambda: hashkv.hash_kv(path, compact_revision, end), seconds)
            return REPORT.pack(index, member_id, value)

        return Task(max(0, compact_revision), work)

    # --- proposing ---------------------------------------------------------------------------------------------------

    def _propose(self, now: float) -> None:
        """Have ordered what only storage notices."""
        if not self._started or self._role is None:
            return
        commands = self.proposer.commands(now, self._role.is_leader)
        if commands:
            assert len(commands) <= COMMANDS_MAX
            self._proposals += 1
            origin = Origin(self.headers.member_id, self.endpoint.incarnation, STORAGE_WORKER)
            self._consensus.send(Kind.PROPOSE, pack_chunk(origin, self._proposals, commands))
