"""The stream to storage: committed entries in their order, from where its database is, or an image before them.

Storage says where it stands whenever it is met. It may be ahead of what a restarted member knows to be committed; the
stream begins when the log is known to be committed that far, and nothing is ever told twice and differently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from quorate.consensus.membership import Meta
from quorate.consensus.neighbours import SnapshotCourier
from quorate.consensus.raft.core import RaftCore
from quorate.consensus.raft.messages import Entry, EntryKind, Role
from quorate.node.lifecycle import OperatorError
from quorate.wire import messages
from quorate.wire.messages import ENTRY, IMAGE, START, STORAGE_HELLO, Kind
from quorate.wire.sockets import Channel

# The numbers in the log begin with 1 (0 is no kind); between the processes they begin with 0.
_WIRE_KINDS: Final = {
    EntryKind.BATCH: messages.EntryKind.BATCH,
    EntryKind.NOOP: messages.EntryKind.NOOP,
    EntryKind.CONF: messages.EntryKind.CONF,
    EntryKind.ATTR: messages.EntryKind.ATTRIBUTES,
}
_KIND_OF: Final = {int(kind): int(wire) for kind, wire in _WIRE_KINDS.items()}


class StorageStream:
    """One member's storage, seen from its log. `meta`, `courier` and `skip_to` are asked when they are needed."""

    def __init__(
        self,
        channel: Channel,
        core: RaftCore,
        meta: Callable[[], Meta],
        courier: Callable[[], SnapshotCourier],
        skip_to: Callable[[int], None],
    ) -> None:
        """`skip_to` takes what concerns the membership from entries up to an index that storage has already."""
        self.channel = channel
        self.meetings = 0  # so many runs of storage were met
        self.is_open = False  # storage is told entries
        self.lacks_image = False  # what storage has cannot be continued from the log
        self.is_anew = False  # storage had to set its database aside; whoever sees to that takes it back
        self.is_installing = False  # storage was given an image and has not come back with it
        self.start_index: int | None = None  # where it wants to go on, until the log is committed that far
        self.handed_index = 0  # newest entry in the stream
        self.applied_index = 0
        self.durable_index = 0  # what storage never needs again
        self._core = core
        self._meta = meta
        self._courier = courier
        self._skip_to = skip_to

    @property
    def incarnation(self) -> int:
        """Which run of storage is there."""
        return self.channel.peer_incarnation

    def has(self, index: int) -> bool:
        """Storage is there and has applied what the log has up to `index`."""
        return self.is_open and self.applied_index >= index

    def hand(self, committed: Sequence[Entry]) -> None:
        """Put committed entries into the stream; without one they are replayed when storage is there."""
        if not self.is_open:
            return
        send = self.channel.send
        for index, term, kind, payload in committed:
            send(Kind.ENTRY, ENTRY.pack(index, term, _KIND_OF[kind]), payload)
        self.handed_index = committed[-1].index
        if committed[0].index <= self.applied_index:  # storage outlived this process and passes over it silently
            self._core.on_applied(min(self.applied_index, self.handed_index))

    def note_applied(self, applied_index: int, durable_index: int) -> None:
        """How far storage is."""
        if self.is_open:
            self.applied_index = applied_index
            self.durable_index = durable_index
            # A storage that outlived this process may have applied more than we know to be committed yet.
            self._core.on_applied(min(applied_index, self.handed_index))

    def met(self, hello: bytes) -> None:
        """Storage is there, for the first time or again."""
        self.meetings += 1
        self.durable_index, is_anew = STORAGE_HELLO.unpack(hello)
        self.is_anew = self.is_anew or bool(is_anew)
        self.is_open = self.lacks_image = self.is_installing = False
        self.start_index = self.durable_index
        self.resume()

    def resume(self) -> None:
        """Go on where storage left off, as soon as the log is known to be committed that far.

        OperatorError when this member leads and its log ends before.
        """
        start, core = self.start_index, self._core
        if self.lacks_image or start is None:
            return
        if start > core.commit_index:
            if core.role is Role.LEADER and start > core.last_index:
                raise OperatorError(
                    f"the database is at log index {start} and the log ends at {core.last_index}: "
                    "the log was replaced or lost; put it back (--wal-dir), or make a data directory of the database "
                    "with `quorateutl snapshot restore member/snap/db --skip-hash-check --data-dir DIRECTORY`"
                )
            return  # what storage has was committed; this member only has to learn of it again
        self.start_index = None
        if start < core.first_index - 1:
            self._reinstall(start)
            return
        self._skip_to(start)
        core.replay_from(start)
        self.handed_index = self.applied_index = start
        self.is_open = True
        self._courier().installed(start)
        meta = self._meta()
        self.channel.send(
            Kind.START, START.pack(meta.membership.cluster_id, meta.member_id, start + 1, core.commit_index)
        )

    def install(self, index: int, term: int, path: str) -> None:
        """Storage gets a snapshot's file; its next hello shows that it has it.

        One that has more, and only waits for the log to be known to be committed so far, keeps it: nobody is to see it
        go back.
        """
        if self.start_index is not None and self.start_index >= index:
            return
        self.is_open = self.lacks_image = False
        self.start_index = None
        self.is_installing = True
        self.channel.send(Kind.IMAGE_INSTALL, IMAGE.pack(index, term), path.encode())

    def take_image(self) -> bool:
        """Ask storage for an image; False while it is not there."""
        if self.is_open:
            self.channel.send(Kind.IMAGE_TAKE)
        return self.is_open

    def _reinstall(self, start: int) -> None:
        """What storage has is too old for the log, or nothing: the snapshot that is here helps, or the others do."""
        meta = self._meta()
        path = self._courier().install_path(meta.snapshot_index)
        if path is None or start >= meta.snapshot_index:
            self.lacks_image = True
            self.start_index = start
        else:
            self.install(meta.snapshot_index, meta.snapshot_term, path)
