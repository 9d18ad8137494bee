"""Clients that watch: some write down the whole log at one member each, others narrow ranges from here and there."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final

import grpc

from quorate.proto import kv_pb2, rpc_pb2
from tests.chaos.calls import AsyncCaller, refusal
from tests.chaos.crowd import Crowd
from tests.chaos.registers import KEYS, PREFIX, PREFIX_END
from tests.chaos.tenants import LEASED, one
from tests.checking.history import Change
from tests.checking.watches import Event, Told, Watching

GROWS_OLD_S: Final = (0.5, 8.0)
LOGIN_S_MAX: Final = 3.0
BACK_AT_MOST: Final = 300  # revisions


class Watcher:
    """One watcher after the other, at one member."""

    def __init__(self, crowd: Crowd, name: str, caller: AsyncCaller) -> None:
        self.done: list[Watching] = []
        self.name = name
        self._crowd = crowd
        self._caller = caller
        self._dice = random.Random(f"watcher {crowd.seed} {name}")
        self._revision = 1

    async def run(self) -> None:
        while not self._crowd.stopping.is_set():
            await self._watch(self._request(), self._dice.uniform(*GROWS_OLD_S))

    def _request(self) -> rpc_pb2.WatchCreateRequest:
        """A key, the keys of the registers, those with leases, or everything; from now, the past or the future."""
        key, range_end = self._dice.choice(
            ((PREFIX + b"%d" % self._dice.randrange(KEYS), b""), (PREFIX, PREFIX_END), (LEASED, b"leased0"))
        )
        start = self._dice.choice((0, self._revision - self._dice.randrange(BACK_AT_MOST), self._revision + 50))
        return rpc_pb2.WatchCreateRequest(
            key=key,
            range_end=range_end,
            start_revision=max(0, start),
            prev_kv=self._dice.random() < 0.5,
            progress_notify=self._dice.random() < 0.5,
        )

    async def _watch(self, create: rpc_pb2.WatchCreateRequest, seconds: float | None) -> int:
        """Watch until the stream ends or it was long enough; the revision with which it was given up, or 0."""
        told: list[Told] = []
        start, compacted, ended = 0, 0, asyncio.Event()
        try:
            await self._caller.person.come_in(self._caller, LOGIN_S_MAX)
        except grpc.RpcError as error:
            await self._crowd.failed(refusal(error))
            return 0
        token = self._caller.person.token
        call = self._caller.stream("Watch/Watch", one(rpc_pb2.WatchRequest(create_request=create), ended), None)
        try:
            async with asyncio.timeout(seconds):
                while (answer := await call.read()) is not grpc.aio.EOF:
                    if answer.created and not start:
                        start = create.start_revision or answer.header.revision + 1
                    if answer.canceled:
                        compacted = answer.compact_revision
                        if not compacted:
                            self._caller.person.refused(token, answer.cancel_reason)
                            await self._crowd.failed(("UNAVAILABLE", f"watcher: {answer.cancel_reason}"))
                        break
                    if not answer.created or answer.events:
                        self._take(answer, create.prev_kv, told)
        except TimeoutError:
            pass
        except grpc.RpcError as error:
            self._caller.person.refused(token, refusal(error)[1])
            await self._crowd.failed(refusal(error))
        finally:
            ended.set()
            call.cancel()
            if start:
                name = f"{self.name} #{len(self.done)}"
                self.done.append(Watching(name, create.key, create.range_end, start, told, compacted))
        return compacted

    def _take(self, answer: rpc_pb2.WatchResponse, prev_kv: bool, told: list[Told]) -> None:
        events = tuple(_event(event, prev_kv) for event in answer.events)
        told.append(Told(answer.header.revision, events))
        self._revision = max(self._revision, answer.header.revision)


class Collector(Watcher):
    """Writes down every change, and when it was first seen, as one member tells it."""

    def __init__(self, crowd: Crowd, name: str, caller: AsyncCaller) -> None:
        super().__init__(crowd, name, caller)
        self.next_revision = 2
        self.seen_ns: dict[int, int] = {}
        self.ended = asyncio.Event()

    async def run(self) -> None:
        """Goes on until it is cancelled."""
        while True:
            create = rpc_pb2.WatchCreateRequest(
                key=b"\0", range_end=b"\0", start_revision=self.next_revision, prev_kv=True, progress_notify=True
            )
            compacted = await self._watch(create, None)
            self.next_revision = max(self.next_revision, compacted)
            await asyncio.sleep(0.05)

    def _take(self, answer: rpc_pb2.WatchResponse, prev_kv: bool, told: list[Told]) -> None:
        super()._take(answer, prev_kv, told)
        now = time.monotonic_ns()
        for event in answer.events:
            self.seen_ns.setdefault(event.kv.mod_revision, now)
        if answer.events:
            self.next_revision = answer.events[-1].kv.mod_revision + 1
            self._crowd.last_seen = max(self._crowd.last_seen, self.next_revision - 1)


def joined(collectors: list[Collector]) -> tuple[list[Change], dict[int, int]]:
    """The log as all collectors together have it, and when each revision was first seen by anyone.

    A revision is taken from whoever has it; that all tell the same is for the rules of watching to judge.
    """
    by_revision: dict[int, list[Change]] = {}
    seen_ns: dict[int, int] = {}
    for collector in collectors:
        for revision, when in collector.seen_ns.items():
            seen_ns[revision] = min(when, seen_ns.get(revision, when))
        for watching in collector.done:
            for told in watching.told:
                fresh = {event.revision for event in told.events if event.revision not in by_revision}
                for event in told.events:
                    if event.revision in fresh:
                        change = Change(event.revision, event.key, event.value)
                        by_revision.setdefault(event.revision, []).append(change)
    return [change for revision in sorted(by_revision) for change in by_revision[revision]], seen_ns


def _event(event: kv_pb2.Event, prev_kv: bool) -> Event:
    kv = event.kv
    deleted = event.type == kv_pb2.Event.DELETE
    before = event.prev_kv.mod_revision if prev_kv else -1
    is_create = not deleted and kv.create_revision == kv.mod_revision and kv.version == 1
    return Event(kv.mod_revision, kv.key, None if deleted else kv.value, is_create, before)
