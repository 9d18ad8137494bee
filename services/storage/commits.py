"""When rows are written: when there are enough of them, or nothing else to do, or before long if the disk takes them.

Then the database takes in its WAL, so that the log can be dropped that far. A checkpoint that is under way ends sooner
and takes the whole WAL when nothing is added, so commits wait for it as long as memory allows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from quorate.node.lasting import Lasting
from quorate.node.logs import Log
from quorate.storage.apply import Applier
from quorate.storage.database import PENDING_BYTES_MAX, DiskFull
from quorate.storage.publishing import Publisher
from quorate.storage.state import State

COMMIT_ROWS: Final = 500  # rows that make a transaction worth its while: one to two milliseconds of writing
COMMIT_SECONDS_MAX: Final = 0.05  # nothing waits longer, so that little is replayed after a crash
DISK_FULL_SECONDS: Final = 1.0
CHECKPOINT_SECONDS: Final = 30.0  # an idle member's log can be truncated, too


class Commits:
    """Writes what the applier left pending. `refuse` answers those who wait for what takes room, when there is none."""

    def __init__(
        self, state: State, applier: Applier, publisher: Publisher, refuse: Callable[[], None], now: float, log: Log
    ) -> None:
        self.dirty_since = 0.0  # when the oldest pending row was noted; 0: there is none
        self.again_at = 0.0  # not before: the disk was full
        self._state = state
        self._applier = applier
        self._publisher = publisher
        self._refuse = refuse
        self._full_disk = Lasting(log, "there is room for the database again")
        self._checkpointed = now

    def mind(self, now: float) -> None:
        """Once a turn: write if it is time, then see to the checkpoint."""
        database = self._state.database
        if self.dirty_since and (len(database.pending) >= COMMIT_ROWS or now - self.dirty_since > COMMIT_SECONDS_MAX):
            self.maybe_commit()
        if self._full_disk.is_on:
            self._full_disk.look(now)
        if database.finish_checkpoint():
            self._checkpointed = now
        elif database.checkpoint_is_due or (now - self._checkpointed > CHECKPOINT_SECONDS and self._lacks_checkpoint()):
            self._checkpointed = now
            database.start_checkpoint()

    def maybe_commit(self) -> None:
        """Commit, unless the disk was full a moment ago or a checkpoint is under way and memory suffices."""
        database = self._state.database
        if self._applier.now < self.again_at:
            return
        if database.checkpoint_is_running:
            if database.pending_bytes < PENDING_BYTES_MAX:
                return
            database.wait_for_checkpoint()
        self.commit()

    def commit(self) -> bool:
        """Write everything; False when the disk is full, and it is tried again in a while."""
        try:
            self._state.commit()
        except DiskFull as finding:
            self.bear_full_disk(finding)
            return False
        self._publisher.committed()
        if self._full_disk.is_on and self.dirty_since:
            self._full_disk.better(self._applier.now)
        self.dirty_since = 0.0
        return True

    def bear_full_disk(self, finding: DiskFull) -> None:
        """Refuse those who wait for what takes room; what was applied stays in memory, and in the log."""
        self._full_disk.found(self._applier.now, str(finding))
        self._applier.wants_space_alarm = True
        self._refuse()
        self.again_at = self._applier.now + DISK_FULL_SECONDS

    def _lacks_checkpoint(self) -> bool:
        database = self._state.database
        return (
            not database.checkpoint_is_running
            and not database.is_held_still
            and database.durable_index < database.marks.applied_index
            and not self.dirty_since
        )
