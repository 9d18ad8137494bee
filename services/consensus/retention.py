"""How much of the log stays: in memory for followers and storage, on disk for those that are far behind.

On disk nothing is dropped that storage could ask for again, that a live follower still has to get, or that follows an
image until the member it was made for has caught up (`snapshots`, `pins`). What is kept for members has a limit in
bytes, and on a disk without room nothing is: who needed it gets another image. Before segments go, the membership as of
a later index is made durable: it could no longer be read from the log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from quorate.consensus.membership import Membership, Meta
from quorate.consensus.meta import MetaFiles
from quorate.consensus.raft.core import RaftCore
from quorate.consensus.raft.messages import SnapshotMeta
from quorate.consensus.segments import is_full
from quorate.consensus.wal import Wal

CACHE_BYTES_MAX: Final = 16 * 1024 * 1024  # entries kept in memory
LAG_BYTES_MAX: Final = 256 * 1024 * 1024  # proposals are refused while storage is as far behind
LOG_BYTES_KEPT: Final = 64 * 1024 * 1024  # behind what storage has, for slow followers
LOG_BYTES_MAX: Final = 512 * 1024 * 1024  # a live follower may hold back as much; then it gets a snapshot
PINNED_BYTES_MAX: Final = 1024 * 1024 * 1024  # and one that was sent a snapshot as much; then it gets another one
CHECK_S: Final = 1.0  # between two looks at the disk


class Retention:
    """Decides what to drop, and drops it."""

    def __init__(
        self,
        core: RaftCore,
        wal: Wal,
        meta: Meta,
        files: MetaFiles,
        catchup_entries: int,
        held_index: Callable[[], int | None],
    ) -> None:
        """`held_index` says behind which index the log is needed by members with a snapshot."""
        self.meta = meta
        self._core = core
        self._wal = wal
        self._files = files
        self._catchup_entries = catchup_entries
        self._held_index = held_index
        self._written: deque[tuple[int, int]] = deque()  # (last index, bytes written so far), a point a tick
        self._checked_at = 0.0

    def trim_cache(self) -> None:
        """Once a tick: lets the oldest entries in memory go; they can be read back."""
        written = self._written
        total = self._wal.written_bytes
        if not written or written[-1][1] != total:
            written.append((self._core.stable_index, total))
        while len(written) > 1 and total - written[1][1] > CACHE_BYTES_MAX:
            written.popleft()
        if total - written[0][1] > CACHE_BYTES_MAX:
            self._core.compact(written[0][0])

    def lags(self, applied_index: int) -> bool:
        """True while storage has too much before it: more would only wait longer."""
        wal = self._wal
        return wal.bytes > LAG_BYTES_MAX and wal.bytes_between(applied_index, self._core.commit_index) > LAG_BYTES_MAX

    def drop_segments(self, now: float, durable_index: int, membership: Membership, seen_index: int) -> None:
        """Drops what nobody needs: storage never again up to `durable_index`; `membership` is as of `seen_index`."""
        floor = min(durable_index, seen_index)
        if now - self._checked_at < CHECK_S or not self._wal.can_drop(floor):
            return
        self._checked_at = now
        index = self._droppable(floor)
        if not self._wal.can_drop(index):
            return
        meta = replace(self.meta, membership=replace(membership, index=seen_index))
        try:
            self._files.write(meta)
        except OSError as error:
            if is_full(error):
                return  # the next look may find room
            raise
        self.meta = meta
        self._core.compact(index)
        self._wal.compact(index)

    def _droppable(self, floor: int) -> int:
        wal = self._wal
        index = max(floor - self._catchup_entries, wal.index_behind(floor, LOG_BYTES_KEPT))
        if wal.lacks_room_because is not None:
            return index
        if wal.bytes < LOG_BYTES_MAX:
            for progress in self._core.progress().values():
                if progress.is_active:
                    index = min(index, progress.match_index)
        held = self._held_index() if wal.bytes < PINNED_BYTES_MAX else None
        return index if held is None else min(index, held)

    def restart_at(self, snapshot: SnapshotMeta, membership: Membership) -> None:
        """A snapshot takes the log's place: durable before the log is emptied."""
        self.meta = Meta(self.meta.member_id, membership, snapshot.index, snapshot.term)
        self._files.write(self.meta)
        self._written.clear()
