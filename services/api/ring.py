"""The api worker's place on the ring: commands leave in chunks, answers come back to whoever waits for them.

What piles up during one turn of the event loop leaves as one chunk a lane: PROPOSE for what has to be ordered, READ
for linearizable reads, LOCAL for what storage answers at once. A chunk that waits is one row of a table: its number,
and the functions to call, in order. There is no task, timer or message object per call.

When a neighbour comes back after a restart, reads are asked again, as they change nothing; writes are not, because
whether they happened is not known: their answer comes after the replay, or they time out. Both sides of a call wait
no longer than etcd does, five seconds and two election timeouts; one sweep a tenth of a second looks after all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Final

from quorate.api.answering import answer_error, answer_fault, answer_one
from quorate.api.calling import Done
from quorate.api.lanes import Lane, Waiting
from quorate.node import logs
from quorate.wire import errors, messages
from quorate.wire.errors import CallFailed, EtcdError
from quorate.wire.messages import ClusterOp, Kind, Part, Role
from quorate.wire.sockets import Address, Channel, Endpoint

log = logs.named("timing")

Handler = Callable[[bytes], None]

REQUEST_TIMEOUT_S: Final = 5.0  # etcd: ReqTimeout without the elections
ASK_AGAIN_S: Final = (0.5, 2.0)  # after a neighbour came back
SWEEP_INTERVAL_S: Final = 0.1
FOREVER: Final = float("inf")  # the start of a wait that does not end by itself
READY_CHECK_S: Final = 0.01
FLUSH_RETRY_S: Final = 0.001
WAITING_MAX: Final = 20_000  # commands of one worker without an answer; etcd refuses at 5,000 entries not applied
UNSENT_BYTES_MAX: Final = 64 << 20  # of requests while the neighbour is away
RECEIVE_ROUNDS: Final = 4  # of up to 16 frames each, before the loop has another turn

_pack_head: Final = messages.COMMAND.pack
_REPEATABLE: Final = frozenset((ClusterOp.MEMBER_LIST, ClusterOp.STATUS, ClusterOp.VERSION))


class Ring:
    """Call `add` and `call` from the event loop; `done` is called from it exactly once for each."""

    def __init__(
        self,
        endpoint: Endpoint,
        election_timeout_s: float,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        slow_s: float = FOREVER,
    ) -> None:
        """The sweep tells the log of chunks that wait longer than `slow_s`, so that the fast ones pay nothing."""
        self._slow_s = slow_s
        self._slow_told = 0  # the number of the last chunk that was told
        self._endpoint = endpoint
        self._loop = asyncio.get_running_loop()
        self.election_timeout_s = election_timeout_s
        self._timeout_s = request_timeout_s + 2 * election_timeout_s
        self._numbers = count(1)
        self._waiting: dict[int, Waiting] = {}  # in the order of their start
        self._impatient: dict[int, Waiting] = {}  # those with a client's deadline
        self._unanswered = 0
        self._flush_scheduled = False
        self._sweep_scheduled = False
        self._closed = False
        self._incarnations: dict[Address, int] = {}
        self._handlers: dict[tuple[Part, int], Handler] = {
            (Part.STORAGE, Kind.RESULTS): self._on_results,
            (Part.CONSENSUS, Kind.REFUSE): self._on_refuse,
            (Part.CONSENSUS, Kind.CLUSTER_REPLY): self._on_cluster_reply,
            (Part.CONSENSUS, Kind.ROLE): self._on_role,
        }
        self._open_handlers: dict[Part, Callable[[bytes], None]] = {}
        self._role_handlers: list[Callable[[Role], None]] = []
        self.failure: asyncio.Future[None] = self._loop.create_future()  # has the fault that ends this process
        self.role: Role | None = None  # None until consensus has said it
        self.is_learner = False  # this member does not vote
        self.leader_seen_at = -float("inf")  # when a leader was elected last, as far as this worker heard
        self.consensus = endpoint.connect(Address(Part.CONSENSUS))
        self.storage = endpoint.connect(Address(Part.STORAGE))
        self.watch = endpoint.connect(Address(Part.WATCH))
        self.writes = Lane(Kind.PROPOSE, self.consensus)
        self.reads = Lane(Kind.READ, self.consensus)
        self.local = Lane(Kind.LOCAL, self.storage)
        self.patient = Lane(Kind.LOCAL, self.storage, is_patient=True)
        for channel in (self.consensus, self.storage):
            channel.watch_for_loss()
        self._lanes = (self.writes, self.reads, self.local, self.patient)
        self._cluster = Lane(Kind.CLUSTER_CALL, self.consensus)
        endpoint.when_opened(self._on_open)
        self._loop.add_reader(endpoint.fileno(), self._on_readable)
        self._loop.call_soon(self._on_readable)

    # --- asking ------------------------------------------------------------------------------------------------------

    def add(
        self,
        lane: Lane,
        op: int,
        body: bytes,
        done: Done,
        expires_at: float | None = None,
        identity: bytes = b"",
    ) -> None:
        """Send one command; `expires_at` (loop time) is the client's own deadline.

        Raises CallFailed when too much is waiting already.
        """
        if self._unanswered >= WAITING_MAX or lane.unsent_bytes > UNSENT_BYTES_MAX or lane.channel.full:
            raise CallFailed(errors.TOO_MANY_REQUESTS)
        size = len(body)
        head = _pack_head(op, 0, len(identity), size)
        self._unanswered += 1
        chunk = lane.open
        if chunk is None:
            chunk = lane.open = self._begin(lane.kind, lane.is_patient)
        command = head + identity + body if identity else head + body
        chunk.commands.append(command)
        if expires_at is not None:
            self._expire(chunk, len(chunk.dones), expires_at)
        chunk.dones.append(done)
        chunk.left += 1
        lane.bytes += size
        lane.unsent_bytes += len(command)
        if len(chunk.dones) >= messages.COMMANDS_MAX or lane.bytes >= messages.CHUNK_BYTES_MAX:
            lane.full.append(chunk)
            lane.open = None
            lane.bytes = 0
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def call(self, op: ClusterOp, body: bytes, done: Done, expires_at: float | None = None) -> None:
        """Ask consensus for what it answers itself."""
        if self._unanswered >= WAITING_MAX or self._cluster.unsent_bytes > UNSENT_BYTES_MAX:
            raise CallFailed(errors.TOO_MANY_REQUESTS)
        self._unanswered += 1
        waiting = self._begin(Kind.CLUSTER_CALL)
        waiting.dones.append(done)
        waiting.left = 1
        command = messages.CLUSTER_CALL.pack(waiting.number, op) + body
        waiting.commands.append(command)
        self._cluster.unsent_bytes += len(command)
        if expires_at is not None:
            self._expire(waiting, 0, expires_at)
        self._cluster.full.append(waiting)
        self.flush_soon()

    def now(self) -> float:
        """The clock of `expires_at`."""
        return self._loop.time()

    def soon(self, callback: Callable[..., None], *values: object) -> None:
        """Call `callback` at the next turn of the loop."""
        self._loop.call_soon(callback, *values)

    def at(self, when: float, callback: Callable[..., None], *values: object) -> Callable[[], None]:
        """Call `callback` at a time of `now`; the result calls it off."""
        return self._loop.call_at(when, callback, *values).cancel

    def flush_soon(self) -> None:
        """Send what is queued on any channel at the end of this turn of the loop."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def connect(self, neighbour: Address) -> Channel:
        """A channel to a process that is no part of every call."""
        return self._endpoint.connect(neighbour)

    # --- hearing -----------------------------------------------------------------------------------------------------

    def on_message(self, part: Part, kind: Kind, handler: Handler) -> None:
        """Have `handler` take the messages of one kind from one neighbour."""
        self._handlers[part, kind] = handler

    def on_open(self, part: Part, handler: Callable[[bytes], None]) -> None:
        """Have `handler` called with the neighbour's hello whenever its channel opens, so after each restart."""
        self._open_handlers[part] = handler

    def on_role(self, handler: Callable[[Role], None]) -> None:
        """Have `handler` called whenever consensus says what this member is."""
        self._role_handlers.append(handler)

    @property
    def has_leader(self) -> bool:
        """A leader is known."""
        return self.role is not None and self.role.leader_id != 0

    @property
    def _is_placed(self) -> bool:
        return self.has_leader and self.role is not None and self.role.is_published

    @property
    def waiting(self) -> int:
        """Calls without an answer."""
        return self._unanswered

    @property
    def is_ready(self) -> bool:
        """Both neighbours of every call are there."""
        return self.role is not None and self.consensus.opened and self.storage.opened

    async def wait_ready(self, timeout_s: float, stop: asyncio.Event) -> bool:
        """Wait until both neighbours are there, and for `timeout_s` more for a leader
        and for the member's own name and urls to be in the log. False: `stop` came first."""
        ends_at: float | None = None
        while not stop.is_set():
            if self.is_ready:
                ends_at = ends_at or self.now() + timeout_s
                if self._is_placed or self.now() >= ends_at:
                    return True
            await asyncio.sleep(READY_CHECK_S)
        return False

    async def fail(self) -> None:
        """Wait for the fault that ends this process, and raise it."""
        await self.failure

    def close(self) -> None:
        """Answer everybody who still waits, and leave the ring."""
        for waiting in list(self._waiting.values()):
            self._fail(waiting, errors.STOPPED)
        self._closed = True
        self._loop.remove_reader(self._endpoint.fileno())
        self._endpoint.close()

    # --- sending -----------------------------------------------------------------------------------------------------

    def _begin(self, kind: int, is_patient: bool = False) -> Waiting:
        number = next(self._numbers)
        waiting = Waiting(kind, number, FOREVER if is_patient else self._loop.time())
        self._waiting[number] = waiting
        if not self._sweep_scheduled:
            self._sweep_scheduled = True
            self._loop.call_later(SWEEP_INTERVAL_S, self._sweep)
        return waiting

    def _expire(self, waiting: Waiting, position: int, expires_at: float) -> None:
        if expires_at < waiting.started_at + self._timeout_s:
            waiting.sooner[position] = expires_at
            if expires_at < waiting.earliest:
                waiting.earliest = expires_at
            self._impatient[waiting.number] = waiting

    def _flush(self) -> None:
        if self._closed:
            return
        self._flush_scheduled = False
        role = self.role
        if role is not None:
            origin = messages.Origin(role.member_id, self._endpoint.incarnation, self._endpoint.address.number)
            for lane in self._lanes:
                if (lane.open is not None or lane.full) and _takes(lane.channel):
                    self._send_chunks(lane, origin)
        if self._cluster.full and _takes(self.consensus):
            for call in self._cluster.full:
                (call.packed,) = call.commands
                self.consensus.send(Kind.CLUSTER_CALL, call.packed)
            self._cluster.full.clear()
            self._cluster.unsent_bytes = 0
        if not self._endpoint.flush():
            self._flush_scheduled = True
            self._loop.call_later(FLUSH_RETRY_S, self._flush)

    def _send_chunks(self, lane: Lane, origin: messages.Origin) -> None:
        if lane.open is not None:
            lane.full.append(lane.open)
            lane.open = None
            lane.bytes = 0
        for chunk in lane.full:
            packed = messages.pack_chunk(origin, chunk.number, chunk.commands)
            chunk.commands = []
            if lane.kind != Kind.PROPOSE:
                chunk.packed = packed
            lane.channel.send(lane.kind, packed)
        lane.full.clear()
        lane.unsent_bytes = 0

    def _on_open(self, channel: Channel, hello: bytes) -> None:
        """A neighbour is there; if it is a new one, it does not know what its predecessor was asked."""
        met_before = channel.peer in self._incarnations
        self._incarnations[channel.peer] = channel.peer_incarnation
        if met_before:
            last = next(self._numbers)
            self._ask_again(channel.peer.part, last)
            for delay_s in ASK_AGAIN_S:
                self._loop.call_later(delay_s, self._ask_again, channel.peer.part, last)
        handler = self._open_handlers.get(channel.peer.part)
        if handler is not None:
            handler(hello)
        self.flush_soon()

    def _ask_again(self, part: Part, last: int) -> None:
        """Repeat the questions up to chunk `last` that a restart of `part` may have swallowed.

        Once is not enough: a read goes by way of consensus, which may hear of the new storage later than we do.
        """
        lost = self._lost_with(part)
        for waiting in self._waiting.values():
            if waiting.number < last and waiting.packed and waiting.kind in lost:
                target = self.storage if waiting.kind == Kind.LOCAL else self.consensus
                if target.opened and self._may_repeat(waiting):
                    target.send(waiting.kind, waiting.packed)
        self.flush_soon()

    @staticmethod
    def _lost_with(part: Part) -> tuple[int, ...]:
        """Which kinds of questions a restart of `part` may have swallowed."""
        if part is Part.CONSENSUS:
            return (Kind.READ, Kind.CLUSTER_CALL)
        return (Kind.READ, Kind.LOCAL) if part is Part.STORAGE else ()

    @staticmethod
    def _may_repeat(waiting: Waiting) -> bool:
        if waiting.kind != Kind.CLUSTER_CALL:
            return True
        return messages.CLUSTER_CALL.unpack_from(waiting.packed)[1] in _REPEATABLE

    # --- answers -----------------------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        try:
            self._receive()
        except Exception as error:  # what a neighbour said is lost, so what is known here may be wrong
            self._loop.remove_reader(self._endpoint.fileno())
            if not self.failure.done():
                self.failure.set_exception(error)

    def _receive(self) -> None:
        handlers = self._handlers
        for _ in range(RECEIVE_ROUNDS):
            batches = self._endpoint.receive(16)
            if not batches:
                break
            for channel, said in batches:
                part = channel.peer.part
                for kind, body in said:
                    handler = handlers.get((part, kind))
                    if handler is not None:
                        handler(body)
        else:
            self._loop.call_soon(self._on_readable)

    def _on_results(self, body: bytes) -> None:
        number, incarnation, first, results = messages.unpack_results(body)
        waiting = self._waiting.get(number)
        if waiting is None or incarnation != self._endpoint.incarnation:
            return
        dones = waiting.dones
        if waiting.left == len(results) == len(dones):
            self._forget(waiting)
            for done, (error_id, answer) in zip(dones, results, strict=True):
                assert done is not None, "nothing of the chunk was answered"
                try:
                    if error_id:
                        answer_error(done, error_id, answer)
                    else:
                        done(0, "", answer)
                except Exception as fault:  # whatever it is, it is this call's alone
                    answer_fault(done, fault)
            return
        for position, (error_id, answer) in enumerate(results, first):
            done = self._take(waiting, position)
            if done is not None:
                answer_one(done, error_id, answer)

    def _on_refuse(self, body: bytes) -> None:
        number, incarnation, error_id = messages.REFUSE.unpack_from(body)
        waiting = self._waiting.get(number)
        if waiting is not None and incarnation == self._endpoint.incarnation:
            self._fail(waiting, errors.by_id(error_id))

    def _on_cluster_reply(self, body: bytes) -> None:
        number, error_id = messages.CLUSTER_REPLY.unpack_from(body)
        waiting = self._waiting.get(number)
        if waiting is None:
            return
        done = self._take(waiting, 0)
        if done is not None:
            answer_one(done, error_id, body[messages.CLUSTER_REPLY.size :])

    def _on_role(self, body: bytes) -> None:
        before, self.role = self.role, Role.unpack(body)
        self.is_learner = self.role.is_learner
        leader_id = self.role.leader_id
        if leader_id and (before is None or before.leader_id != leader_id or before.term != self.role.term):
            self.leader_seen_at = self._loop.time()
        for handler in self._role_handlers:
            handler(self.role)
        self.flush_soon()

    # --- the table ---------------------------------------------------------------------------------------------------

    def _take(self, waiting: Waiting, position: int) -> Done | None:
        """Who waits for this answer; once only."""
        done = waiting.dones[position]
        if done is None:
            return None
        waiting.dones[position] = None
        if waiting.left == 1:
            self._forget(waiting)
        else:
            waiting.left -= 1
            self._unanswered -= 1
            waiting.sooner.pop(position, None)
        return done

    def _forget(self, waiting: Waiting) -> None:
        del self._waiting[waiting.number]
        self._unanswered -= waiting.left
        if waiting.sooner:
            self._impatient.pop(waiting.number, None)

    def _fail(self, waiting: Waiting, error: EtcdError) -> None:
        """One error for everybody who waits for this chunk."""
        self._forget(waiting)
        for lane in (*self._lanes, self._cluster):
            lane.drop(waiting)
        for done in waiting.dones:
            if done is not None:
                answer_one(done, error.id, b"")

    def _sweep(self) -> None:
        """Answer those who have waited long enough."""
        now = self._loop.time()
        self._tell_slow(now)
        for waiting in [waiting for waiting in self._impatient.values() if waiting.earliest <= now]:
            self._expire_some(waiting, now)
        overdue = []
        for waiting in self._waiting.values():
            if waiting.started_at == FOREVER:
                continue
            if waiting.started_at + self._timeout_s > now:
                break
            overdue.append(waiting)
        for waiting in overdue:
            self._fail(waiting, self._timeout_error(waiting))
        if self._waiting:
            self._loop.call_later(SWEEP_INTERVAL_S, self._sweep)
        else:
            self._sweep_scheduled = False

    def _tell_slow(self, now: float) -> None:
        for waiting in self._waiting.values():
            if waiting.started_at == FOREVER or waiting.number <= self._slow_told:
                continue
            if waiting.started_at + self._slow_s > now:
                return
            self._slow_told = waiting.number
            facts = {"response type": Kind(waiting.kind).name, "time spent": f"over {now - waiting.started_at:.3f}s"}
            log.warn("request stats", **facts, requests=waiting.left)

    def _expire_some(self, waiting: Waiting, now: float) -> None:
        error = errors.CONTEXT_DEADLINE_EXCEEDED
        for position in [position for position, at in waiting.sooner.items() if at <= now]:
            done = self._take(waiting, position)
            waiting.sooner.pop(position, None)
            if done is not None:
                answer_one(done, error.id, b"")
        waiting.earliest = min(waiting.sooner.values(), default=float("inf"))
        if not waiting.sooner:
            self._impatient.pop(waiting.number, None)

    def _timeout_error(self, waiting: Waiting) -> EtcdError:
        """etcd tells calls that began just before a new leader was found from the rest."""
        elected_at = self.leader_seen_at
        if elected_at - 2 * self.election_timeout_s < waiting.started_at <= elected_at:
            return errors.TIMEOUT_DUE_TO_LEADER_FAIL
        return errors.TIMEOUT


def _takes(channel: Channel) -> bool:
    """The neighbour is there: a write that is sent to nobody could not be told from one that was."""
    return channel.opened and not channel.gone()
