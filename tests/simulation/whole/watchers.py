"""Clients that watch: they note every response, and go on at another node where they left off."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from quorate.api.watches import Census, Interest, Response
from quorate.proto import kv_pb2
from quorate.proto import rpc_pb2 as rpc
from quorate.wire.watching import Form
from tests.checking.watches import Event, Told, Watching
from tests.simulation.whole.world import MS, SECOND

if TYPE_CHECKING:
    from tests.simulation.whole.cluster import SimCluster
    from tests.simulation.whole.node import SimNode
    from tests.simulation.whole.plan import Visitor

RANGES = ((b"key/", b"key0"), (b"key/00", b""), (b"\0", b"\0"), (b"key/00", b"key/03"), (b"lease/", b"lease0"))


class Watcher:
    """One watch over all the connections it takes. It implements `api.watches.Owner`."""

    def __init__(self, cluster: SimCluster, visitor: Visitor, watched: list[Watching]) -> None:
        self.stream = 0
        self.is_held = False
        self.number = visitor.number
        self.is_over = False
        self._cluster = cluster
        self._rng = random.Random(visitor.seed)
        self._watched = watched
        self._node: SimNode = self._rng.choice(cluster.nodes)
        self._key, self._range_end = self._rng.choice(RANGES)
        self._form = self._rng.choice((0, 0, 0, Form.PREVIOUS, Form.NOPUT, Form.NODELETE))
        self._start = self._next_revision = 1
        self._answers: list[Told] = []
        self._interest: Interest | None = None
        self._synced = False
        self._is_settled = False

    def begin(self) -> None:
        self._cluster.world.after(self._rng.randrange(2 * SECOND), self._connect)

    def _connect(self) -> None:
        if self.is_over:
            return
        api = self._node.api
        if not api.is_open:
            self._node = self._rng.choice(self._cluster.members())
            self._cluster.world.after(50 * MS, self._connect)
            return
        api.on_end[self.number] = self._lost
        api.process.at(self._cluster.world.now, self._open)
        self._plan_something()

    def _open(self) -> None:
        watches = self._node.api.watches
        assert watches is not None
        self._interest = Interest(self, self._key, self._range_end, self._form, self._next_revision)
        watches.enter(self)
        watches.open(self._interest)

    def _lost(self) -> None:
        self._interest = None
        self._synced = False
        self._node = self._rng.choice(self._cluster.members())
        self._cluster.world.after(self._rng.randint(1, 200) * MS, self._connect)

    def _plan_something(self) -> None:
        """Now and then it asks for progress, takes nothing for a while, or leaves for another node."""
        process = self._node.api.process
        pace = self._cluster.plan.pace
        process.soon(self._rng.randint(20, 2000) * pace * MS, self._something, self._interest)

    def _something(self, interest: Interest | None) -> None:
        watches = self._node.api.watches
        if watches is None or self._interest is None:
            return
        choice = self._rng.random()
        if self.is_held:
            watches.resume(self)
        elif choice < 0.4 or self._is_settled:
            watches.ask_progress(self, True)
        elif choice < 0.6:
            watches.hold(self)
        elif choice < 0.7:
            watches.leave(self, [self._interest])
            self._node.api.on_end.pop(self.number, None)
            self._lost()
            if self._rng.random() < 0.5:
                self._begin_at_the_compact_revision()
            return
        self._plan_something()

    def _begin_at_the_compact_revision(self) -> None:
        """Another watch, from the oldest revision that can be watched (etcd #19179)."""
        self._note()
        self._answers = []
        self._start = self._next_revision = max(1, self._cluster.ledger.compact_revision)

    def finish(self) -> None:
        """The end of the run: what is known by now is judged."""
        if not self.is_over:
            self.is_over = True
            self._note()

    def _note(self) -> None:
        form = self._form
        self._watched.append(
            Watching(
                f"watcher {self.number}",
                self._key,
                self._range_end,
                self._start,
                self._answers,
                no_put=bool(form & Form.NOPUT),
                no_delete=bool(form & Form.NODELETE),
                reached_revision=self._reached(),
            )
        )

    def _reached(self) -> int:
        """Up to where it must have been told everything, which is known when it has caught up."""
        watches = self._node.api.watches
        return watches.revision if self._synced and watches is not None and not self.is_held else 0

    @property
    def is_behind(self) -> bool:
        """It has not been told everything there is."""
        return self._reached() < self._cluster.ledger.revision

    def resume(self) -> None:
        """It takes everything from now on, and stays where it is: nothing but what it is told brings it up to date."""
        self._is_settled = True
        if self.is_held and self._interest is not None:
            process = self._node.api.process
            process.at(self._cluster.world.now, self._resume)

    def _resume(self) -> None:
        watches = self._node.api.watches
        if watches is not None and self.is_held:
            watches.resume(self)

    # --- what it is told ---

    def told_events(self, interest: Interest, response: Response) -> None:
        if interest is not self._interest:
            return
        answer = rpc.WatchResponse.FromString(response.header + response.events)
        events = []
        for event in answer.events:
            pair = event.kv
            value = pair.value if event.type == kv_pb2.Event.PUT else None
            previous = event.prev_kv.mod_revision if self._form & Form.PREVIOUS else -1
            is_create = pair.create_revision == pair.mod_revision
            events.append(Event(pair.mod_revision, pair.key, value, is_create, previous))
        self._answers.append(Told(answer.header.revision, tuple(events)))
        self._next_revision = events[-1].revision + 1

    def told_synced(self, interest: Interest, revision: int, peer: Interest | None) -> None:
        if interest is self._interest:
            self._synced = True

    def told_behind(self, interest: Interest) -> None:
        if interest is self._interest:
            self._synced = False

    def told_joined(self, interest: Interest, into: Interest, is_joined: bool) -> None:
        raise AssertionError("it asked for nothing of the kind")

    def told_compacted(self, interest: Interest, compact_revision: int) -> None:
        """What it would be told next is gone: a new watch begins there."""
        if interest is not self._interest:
            return
        self._synced = False
        self._note()
        self._answers = []
        self._start = self._next_revision = compact_revision
        watches = self._node.api.watches
        assert watches is not None
        self._interest = Interest(self, self._key, self._range_end, self._form, self._next_revision)
        watches.open(self._interest)

    def told_progress(self, revision: int, by_client: bool) -> None:
        """As a stream does: progress is passed on only while everything before it was."""
        if self._synced and self._interest is not None:
            self._answers.append(Told(revision, ()))
            self._next_revision = max(self._next_revision, revision + 1)

    def census(self) -> Census:
        return Census(watchers=1)
