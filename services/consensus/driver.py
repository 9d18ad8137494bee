"""The Ready loop: what may be sent goes out, what must be durable is written, what had to wait follows. In that order.

One turn takes everything that arrived, from the node's other parts and from the peers, makes one entry of the commands
and one question of the reads, and then does what the Raft core asks until it asks for nothing more. The log is
written inline: while the disk works, everything that arrives piles up and becomes the next batch. There is no timer
on this way, so an idle node answers at once and a busy one batches by itself.

Nothing here decodes a command. Work is per chunk and per entry, never per command.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from quorate.consensus import acceptance
from quorate.consensus.commit_news import CommitNews
from quorate.consensus.frames import Call, CallReply, PeerMessage, SnapshotAck, SnapshotChunk, SnapshotEnd, SnapshotMeta
from quorate.consensus.membership import Member, Membership, Meta
from quorate.consensus.meta import MetaFiles
from quorate.consensus.neighbours import Network, SnapshotCourier, Times
from quorate.consensus.proposals import Proposals
from quorate.consensus.raft.core import RaftCore
from quorate.consensus.raft.messages import (
    NOBODY,
    Append,
    Entry,
    EntryKind,
    Forward,
    ImpossibleMessage,
    InstallSnapshot,
    Message,
    Ready,
    Refusal,
)
from quorate.consensus.raft.messages import Role as RaftRole
from quorate.consensus.reads import Reads
from quorate.consensus.retention import Retention
from quorate.consensus.storage_stream import StorageStream
from quorate.consensus.wal import Wal
from quorate.node import logs
from quorate.node.lasting import Lasting
from quorate.wire import errors, messages
from quorate.wire.messages import APPLIED, IMAGE, Kind, Part
from quorate.wire.sockets import Address, Channel, Endpoint

log = logs.named("raft")

MEMBERSHIPS_KEPT: Final = 1024  # changes while an image is being written; a member that waits for it makes one a second
FRAMES_MAX: Final = 64  # taken in one turn
FLUSH_RETRY_S: Final = 0.001
# Tuples, as `isinstance` looks through them much faster than through unions.
_CALLS: Final = (Call, CallReply)
_OF_IMAGES: Final = (SnapshotMeta, SnapshotChunk, SnapshotAck, SnapshotEnd)


class Driver:
    """One member at work. `network`, `courier`, `on_membership` and `on_call` are set before `start`."""

    network: Network
    _news: CommitNews
    courier: SnapshotCourier

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        endpoint: Endpoint,
        core: RaftCore,
        wal: Wal,
        meta: Meta,
        meta_files: MetaFiles,
        seen_index: int,
        times: Times,
        catchup_entries: int,
    ) -> None:
        """`meta.membership` is as of `seen_index`, from which on the core hands out committed entries."""
        self.core = core
        self.wal = wal
        self.membership = meta.membership
        self.member_id = meta.member_id
        self.times = times
        self.first_number = endpoint.incarnation << 32  # no answer to an earlier run fits a question of this one
        self.proposals = Proposals(times.request_s, self.first_number)
        self.reads = Reads(times.request_s)
        self.leader_changes = 0
        self.slow_ticks = 0
        self.impossible_messages = 0
        self.failure: asyncio.Future[None] = loop.create_future()
        self._memberships = deque((meta.membership,), MEMBERSHIPS_KEPT)  # the last ones, in the order of their indexes
        self._newcomers: dict[int, Member] = {}  # by entries that are not committed yet
        self.seen_index = seen_index
        self.role_changed = asyncio.Event()
        self.on_membership: Callable[[], None] = lambda: None
        self.on_leader: Callable[[], None] = lambda: None
        self.on_removed: Callable[[], None] = lambda: None
        self.on_call: Callable[[Channel, bytes], None] = lambda _channel, _body: None
        self.on_peer_call: Callable[[Call | CallReply], None] = lambda _call: None
        self.on_stats: Callable[[], bytes] = bytes
        self.on_results: Callable[[bytes], None] = lambda _body: None
        self.on_tick: Callable[[float], None] = lambda _now: None
        self.ailments: Callable[[], list[str]] = list  # what the status says is wrong with this member
        self._loop = loop
        self._endpoint = endpoint
        self._hard_state = wal.hard_state
        self._peer_inbox: list[PeerMessage] = []
        self._turn_due = False
        self._flush_due = False
        self._has_room = True
        self._full_disk = Lasting(log, "there is room for the log again")
        self.is_published = False  # until the publisher has seen it in the log
        self._role = self._role_now()
        self._next_tick = 0.0
        self._overloaded = False
        retention = self._retention = Retention(
            core, wal, meta, meta_files, catchup_entries, lambda: self.courier.held_index()
        )
        storage = endpoint.connect(Address(Part.STORAGE))
        self.stream = StorageStream(storage, core, lambda: retention.meta, lambda: self.courier, self._skip_to)

    # --- life ---

    def start(self, api_workers: int = 1, hasten: bool = True) -> None:
        """Begins to listen and to tick; with `hasten` a cluster of one elects itself at once.

        The neighbours are greeted first: they may have known an earlier run of this process.
        """
        self._news = CommitNews(self.network, self._loop.call_later)
        endpoint = self._endpoint
        endpoint.when_opened(self._opened)
        endpoint.accept(lambda address: bytes if address.part is Part.API else None)
        endpoint.connect(Address(Part.WATCH))
        for number in range(api_workers):
            endpoint.connect(Address(Part.API, number))
        self._meet_newcomers([entry for entry in self.wal.recovered if entry.index > self.seen_index])
        self._loop.add_reader(endpoint.fileno(), self.turn)
        self._next_tick = self._loop.time() + self.times.tick_s
        self._loop.call_at(self._next_tick, self._tick)
        if hasten and self.core.conf_state.voters == (self.member_id,) and not self.core.conf_state.is_joint:
            self.core.campaign()
        self.schedule()

    def stop(self) -> None:
        """No more turns."""
        self._loop.remove_reader(self._endpoint.fileno())
        if not self.failure.done():
            self.failure.set_result(None)

    def ask_storage(self, chunk: bytes) -> None:
        """Send a chunk of questions of our own; what storage answers comes to `on_results`."""
        self.stream.channel.send(Kind.LOCAL, chunk)

    def schedule(self) -> None:
        """A turn soon: something arrived outside of the local sockets."""
        if not self._turn_due:
            self._turn_due = True
            self._loop.call_soon(self.turn)

    def hear(self, arrived: list[PeerMessage]) -> None:
        """Messages of a peer, for the next turn."""
        self._peer_inbox += arrived
        self.schedule()

    def _fail(self, error: BaseException) -> None:
        if not self.failure.done():
            if isinstance(error, OSError):
                error = LogFailed(f"failed to write the log in {self.wal.directory}: {error.strerror}")
            self.failure.set_exception(error)

    # --- the turn ---

    def turn(self) -> None:
        """Takes what arrived and does what follows from it."""
        self._turn_due = False
        if self.failure.done():
            return
        try:
            more = self._receive()
            self._work()
        except Exception as error:  # any exception here ends the process, in `__main__`
            self._fail(error)
            return
        if more:
            self.schedule()

    def _receive(self) -> bool:
        """Takes one turn's input; True if there may be more."""
        stream = self.stream
        meetings = stream.meetings
        batches = self._endpoint.receive(FRAMES_MAX)
        is_late = stream.meetings != meetings  # what storage said is from the run before the one that was met meanwhile
        now = time.monotonic()
        for channel, arrived in batches:
            for kind, body in arrived:
                if kind == Kind.PROPOSE:
                    self.proposals.add(channel, body, now)
                elif kind == Kind.READ:
                    self.reads.add(channel, body, now)
                elif kind == Kind.APPLIED:
                    if not is_late:
                        stream.note_applied(*APPLIED.unpack(body))
                else:
                    self._take_rare(channel, kind, body)
        if self._peer_inbox:
            inbox, self._peer_inbox = self._peer_inbox, []
            for message in inbox:
                self._take_peer(message)
        return len(batches) == FRAMES_MAX

    def _work(self) -> None:
        core = self.core
        if self._has_room and not self._overloaded:
            is_remote = core.role is not RaftRole.LEADER
            self.proposals.propose_open(self._propose, is_remote)
        else:
            self.proposals.refuse_open(errors.TOO_MANY_REQUESTS if self._has_room else errors.NO_SPACE)
        self.reads.ask(core.read_index)
        while (ready := core.ready()) is not None:
            self._fulfil(ready)
        stream = self.stream
        self.reads.release(stream.handed_index, stream.channel, stream.is_open)
        if stream.start_index is not None:
            stream.resume()
        self._tell_role()
        flushed = self._endpoint.flush()  # clients wait behind storage, so it comes before what peers hear besides
        self.network.flush()
        if not flushed and not self._flush_due:
            self._flush_due = True
            self._loop.call_later(FLUSH_RETRY_S, self._flush_again)

    def _flush_again(self) -> None:
        """There was no room for something; one such turn is due at a time, whatever other turns come between."""
        self._flush_due = False
        self.turn()

    def _propose(self, payload: bytes, ref: int) -> Refusal | None:
        return self.core.propose(payload, ref=ref)

    def _take_peer(self, message: PeerMessage) -> None:
        if isinstance(message, Append):
            if message.entries and not self._has_room:
                return  # the leader says it again; until then this member has not got it
        elif isinstance(message, _CALLS):
            self.on_peer_call(message)
            return
        assert not isinstance(message, _OF_IMAGES), "images come by streams of their own"
        if self._step(message) and isinstance(message, Forward):
            self._news.expect(message.from_id, self.core.last_index)

    def _step(self, message: Message) -> bool:
        """Give it to the core; False for one that is dropped, as it breaks the rules of Raft."""
        try:
            acceptance.check(message, self.membership)
            self.core.step(message)
        except ImpossibleMessage as finding:
            self.impossible_messages += 1
            if self.impossible_messages & self.impossible_messages - 1 == 0:  # the first, second, fourth, ...
                kind, sender, count = type(message).__name__, f"{message.from_id:x}", self.impossible_messages
                log.warn("dropped a message", sender=sender, kind=kind, reason=str(finding), dropped=count)
            return False
        return True

    def _take_rare(self, channel: Channel, kind: int, body: bytes) -> None:
        match kind:
            case Kind.CLUSTER_CALL:
                self.on_call(channel, body)
            case Kind.STATS_READ:
                channel.send(Kind.STATS, body, self.on_stats())
            case Kind.RESULTS:
                self.on_results(body)
            case Kind.IMAGE_TAKEN:
                index, term = IMAGE.unpack_from(body)
                self.courier.image_taken(index, term, body[IMAGE.size :].decode())
            case _:
                raise AssertionError(f"message {kind} is not for consensus")

    def _fulfil(self, ready: Ready) -> None:
        network = self.network
        if ready.messages:
            for message in ready.messages:
                self._news.send(message)
            if ready.must_sync:
                network.flush()  # before the disk: followers write while we do
        if ready.hard_state is not None:
            self._hard_state = ready.hard_state
        if ready.must_sync:
            if ready.snapshot is not None:
                self._replace_log(ready)
            self.wal.append(ready.entries, self._hard_state)
            self.core.on_persisted(ready.number)
            if ready.conf_state is not None:
                self._meet_newcomers(ready.entries)
        if committed := ready.committed:
            if committed[-1].index > self.seen_index:
                for entry in committed:
                    if entry.kind > EntryKind.NOOP and entry.index > self.seen_index:
                        self._apply(entry)
                self.seen_index = committed[-1].index
            self.stream.hand(committed)
        for ctx, index in ready.read_states:
            self.reads.confirm(ctx, index)
        for ctx, _why in ready.refused_reads:
            self.reads.ask_again(ctx)
        for ref, why in ready.refused_proposals:
            self.proposals.refused(ref, why)
        for number in ready.snapshot_peers:
            self.courier.send(number)
        if ready.soft_state is not None and ready.soft_state.leader_id != NOBODY:
            self.proposals.propose_held(self._propose, self.core.role is not RaftRole.LEADER)
            self.reads.ask(self.core.read_index)

    # --- neighbours ---

    def _opened(self, channel: Channel, hello: bytes) -> None:
        """A neighbour is there, for the first time or again."""
        channel.send(Kind.ROLE, self._role.pack())
        if channel is self.stream.channel:
            self.stream.met(hello)
        self.schedule()

    def _skip_to(self, index: int) -> None:
        """Takes what concerns the membership from committed entries that storage has already."""
        while self.seen_index < index:
            entries = self.wal.entries(self.seen_index + 1, index + 1, 1 << 20)
            for entry in entries:
                if entry.kind > EntryKind.NOOP:
                    self._apply(entry)
            self.seen_index = entries[-1].index

    # --- snapshots that arrive ---

    def install_snapshot(self, message: InstallSnapshot, membership: Membership) -> None:
        """A snapshot is whole and durable in its file: it replaces the log, unless the log has all of it."""
        if not self._step(message):
            return
        self._arriving = membership
        snapshot = message.snapshot
        if self.stream.lacks_image and not self.core.is_restoring and snapshot.index >= self.core.first_index - 1:
            path = self.courier.install_path(snapshot.index)
            if path is not None and snapshot.index <= self.core.commit_index:
                self.stream.install(snapshot.index, snapshot.term, path)
        self.schedule()

    def _replace_log(self, ready: Ready) -> None:
        snapshot = ready.snapshot
        assert snapshot is not None
        membership = replace(self._arriving, index=snapshot.index)
        self._retention.restart_at(snapshot, membership)
        self.wal.reset(snapshot.index, snapshot.term, self._hard_state)
        self.membership = membership
        self.seen_index = snapshot.index
        self._memberships.clear()
        self._memberships.append(membership)
        self._changed()
        path = self.courier.install_path(snapshot.index)
        assert path is not None, "a snapshot is durable before it is stepped"
        self.stream.install(snapshot.index, snapshot.term, path)

    # --- membership ---

    def _apply(self, entry: Entry) -> None:
        """A committed entry that concerns the membership."""
        if entry.kind == EntryKind.CONF:
            self.membership = self.membership.with_conf(entry.index, entry.payload)
        else:
            self.membership = self.membership.with_attributes(entry.index, entry.payload)
        self._memberships.append(self.membership)
        self._changed()

    def membership_at(self, index: int) -> Membership | None:
        """The cluster as of an index; None when that was too many changes ago, or is not known to be committed."""
        if index > self.seen_index:
            return None  # a storage that outlived this process can be there already
        return next((known for known in reversed(self._memberships) if known.index <= index), None)

    def _changed(self) -> None:
        self._reach_members()
        self.on_membership()
        if self.member_id in self.membership.removed:
            self.on_removed()

    def member(self, number: int) -> Member | None:
        """A member of the configuration in force, whether that is committed or not."""
        return self.membership.members.get(number) or self._newcomers.get(number)

    def _meet_newcomers(self, entries: Sequence[Entry]) -> None:
        """A new member has to be reached before its entry is committed: it may be needed for the quorum."""
        members = self._newcomers  # nobody is removed before it is committed
        for entry in entries:
            if entry.kind == EntryKind.CONF:
                members = members | self.membership.with_conf(entry.index, entry.payload).members
        self._newcomers = members
        self._reach_members()

    def _reach_members(self) -> None:
        known = self.membership
        present = self.core.conf_state.members() - known.members.keys()
        self._newcomers = {number: member for number, member in self._newcomers.items() if number in present}
        self.network.update(replace(known, members=known.members | self._newcomers))

    # --- time ---

    def _tick(self) -> None:
        if self.failure.done():
            return
        now = self._loop.time()
        if now > self._next_tick + self.times.tick_s:
            self.slow_ticks += 1  # a pause: one tick, and only after everything that arrived meanwhile
        self._next_tick = max(self._next_tick + self.times.tick_s, now)
        self._loop.call_at(self._next_tick, self._tick)
        self.turn()
        if self.failure.done():
            return
        try:
            self._pass_time(time.monotonic())
            self._work()
        except Exception as error:  # as in `turn`
            self._fail(error)

    def _look_for_room(self, now: float) -> None:
        self._has_room = self.wal.has_room()
        if not self._has_room:
            reason = self.wal.lacks_room_because
            self._full_disk.found(
                now,
                "no room for a further log segment; writes are refused",
                directory=str(self.wal.directory),
                error=reason.strerror if reason is not None else None,
            )
        elif self._full_disk.is_on:
            self._full_disk.better(now)

    def _pass_time(self, now: float) -> None:
        self.core.tick()
        self._look_for_room(now)
        self.wal.settle(self._hard_state)
        self.proposals.expire(now)
        self.reads.expire(now)
        if self.core.leader_id != NOBODY:
            self.proposals.propose_held(self._propose, self.core.role is not RaftRole.LEADER)
        self._retention.trim_cache()
        stream = self.stream
        self._overloaded = self._retention.lags(stream.applied_index)
        if stream.is_open:
            durable = min(stream.durable_index, stream.applied_index)
            self._retention.drop_segments(now, durable, self.membership, self.seen_index)
        self.courier.look(now)
        self.on_tick(now)

    # --- who leads ---

    def _role_now(self) -> messages.Role:
        core = self.core
        own = self.membership.members.get(self.member_id)
        return messages.Role(
            self.membership.cluster_id,
            self.member_id,
            core.term,
            core.leader_id,
            core.commit_index,
            core.role is RaftRole.LEADER,
            own is not None and own.is_learner,
            self.is_published,
        )

    def _tell_role(self) -> None:
        """Tells every neighbour when who leads, or what this member is, has changed."""
        last, core = self._role, self.core
        is_placed = core.term == last.term and core.leader_id == last.leader_id
        if is_placed and self._told_membership is self.membership and self.is_published == last.is_published:
            return
        self._told_membership = self.membership
        role = self._role_now()
        if replace(role, commit_index=last.commit_index) == last:
            return
        if role.leader_id not in (last.leader_id, NOBODY):
            self.leader_changes += 1
            log.info(
                "elected leader",
                local_member_id=f"{self.member_id:x}",
                elected_leader_id=f"{role.leader_id:x}",
                elected_leader_term=role.term,
            )
            self._loop.call_soon(self.on_leader)
        elif role.leader_id == NOBODY and last.leader_id != NOBODY:
            log.warn("lost leader", local_member_id=f"{self.member_id:x}", term=role.term)
        self.network.has_leader = role.leader_id != NOBODY
        self._role = role
        self.role_changed.set()
        packed = role.pack()
        for channel in self._endpoint.channels.values():
            channel.send(Kind.ROLE, packed)

    _told_membership: Membership | None = None
    _arriving: Membership


class LogFailed(Exception):  # noqa: N818 - it states a condition
    """The disk failed: the log is not used again, and only a new process can tell what it holds."""
