"""The keys of an import: first all of them as of one revision, then every change after it.

A change is written together with the mark that says so (`import_mark`), many in one transaction. The changes of one
revision stay in one transaction as far as its limits permit. When the source has compacted what is needed next, all
keys are listed again and only what differs is written, and what the source no longer has is deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Final, NamedTuple

from quorate.client import methods
from quorate.client.errors import CompactedError, EtcdError
from quorate.client.ranges import FROM_KEY
from quorate.client.txn import delete, put
from quorate.client.watching import AsyncWatch
from quorate.ctl import import_mark
from quorate.ctl.failures import Failure
from quorate.ctl.import_mark import Destination, Mark, Phase, Side
from quorate.proto.kv_pb2 import Event, KeyValue
from quorate.proto.rpc_pb2 import RangeRequest, RequestOp

BATCH_BYTES: Final = 1 << 20  # of keys and values in a transaction, below the 1.5 MiB that members accept
PAGE_KEYS: Final = 1000
PAGE_BYTES: Final = 4 << 20  # a page that is larger has the next one ask for fewer keys
EVERY_KEY: Final = b"\0"  # from this key on


class Change(NamedTuple):
    """One key as it is to be; None: not there."""

    key: bytes
    value: bytes | None

    def operation(self) -> RequestOp:
        """Keys get their leases when all is there: until then none of them may end."""
        return delete(self.key) if self.value is None else put(self.key, self.value)

    @property
    def size(self) -> int:
        """Bytes it takes in a request, about."""
        return len(self.key) + len(self.value or b"") + 16


def differences(ours: Iterable[KeyValue], theirs: Iterable[KeyValue]) -> list[Change]:
    """What makes the destination's pairs of an interval equal to the source's, in the order of keys."""
    had = {pair.key: pair for pair in theirs if pair.key != import_mark.KEY}
    changes = []
    for pair in ours:
        there = had.pop(pair.key, None)
        if there is None or there.value != pair.value or there.lease:
            changes.append(Change(pair.key, pair.value))
    changes += [Change(key, None) for key in had]
    return sorted(changes)


def slices(changes: Sequence[Change], operations_max: int) -> Iterator[list[Change]]:
    """Cut into what fits a transaction; at least one change each."""
    held: list[Change] = []
    size = 0
    for change in changes:
        if held and (len(held) == operations_max or size + change.size > BATCH_BYTES):
            yield held
            held, size = [], 0
        held.append(change)
        size += change.size
    if held:
        yield held


class Keys:
    """Keys on their way from one cluster to another, from the destination's mark on."""

    def __init__(self, source: Side, destination: Destination, operations_max: int) -> None:
        self._source = source
        self._destination = destination
        self._operations_max = operations_max - 1  # one is the mark's
        self._page_keys = PAGE_KEYS
        self._batch: dict[bytes, Change] = {}  # of whole revisions, up to `_batch_revision`
        self._batch_bytes = 0
        self._batch_revision = 0
        self._until: int | None = None
        self.left = 0  # keys that are still to be copied, as the source says

    @property
    def mark(self) -> Mark:
        """How far the import is."""
        mark = self._destination.mark
        assert mark is not None
        return mark

    async def head(self) -> int:
        """The newest revision of the source."""
        answer = await self._source.ask(methods.RANGE, RangeRequest(key=import_mark.KEY))
        return answer.header.revision

    # --- all keys ---

    async def copy(self) -> None:
        """Everything at the revision of the mark; CompactedError when that is gone."""
        while self.mark.phase is Phase.COPYING:
            await self._copy_page()

    async def _copy_page(self) -> None:
        mark = self.mark
        start = mark.after + b"\0" if mark.after else EVERY_KEY
        asked = RangeRequest(key=start, range_end=FROM_KEY, limit=self._page_keys, revision=mark.revision)
        page = await self._source.ask(methods.RANGE, asked)
        pairs = list(page.kvs)
        if any(pair.key == import_mark.KEY for pair in pairs):
            raise Failure("the source is the destination of an import that has not ended")
        self._choose_page(sum(len(pair.key) + len(pair.value) for pair in pairs))
        end = pairs[-1].key + b"\0" if page.more else FROM_KEY
        theirs: list[KeyValue] = []
        if mark.compares:
            found = await self._destination.ask(
                methods.RANGE, RangeRequest(key=start, range_end=end, limit=PAGE_KEYS + len(pairs))
            )
            theirs = list(found.kvs)
            if found.more:
                end = theirs[-1].key + b"\0"
                pairs = [pair for pair in pairs if pair.key < end]
        await self._write_page(differences(pairs, theirs), len(pairs), end)
        self.left = max(page.count - len(pairs), 0)

    async def _write_page(self, changes: list[Change], keys: int, end: bytes) -> None:
        begun = self.mark
        done = replace(begun, after=end[:-1], keys=begun.keys + keys)
        if end == FROM_KEY:
            done = replace(done, phase=Phase.FOLLOWING, after=b"")
        cut = list(slices(changes, self._operations_max)) or [[]]
        written = 0
        for some in cut[:-1]:
            written += len(some)
            await self._write(some, replace(begun, after=some[-1].key, keys=begun.keys + min(written, keys)))
        await self._write(cut[-1], done)

    def _choose_page(self, size: int) -> None:
        if size > PAGE_BYTES:
            self._page_keys = max(self._page_keys // 2, 1)
        elif size < PAGE_BYTES // 4:
            self._page_keys = min(self._page_keys * 2, PAGE_KEYS)

    # --- every change ---

    async def follow(self, ending: asyncio.Event) -> None:
        """Every change after the mark's revision until `ending`, and then up to where the source is at that moment.
        CompactedError when changes that are needed were compacted."""
        self._until = None
        watch = self._source.client.watch(EVERY_KEY, FROM_KEY, start_revision=self.mark.revision + 1)
        closing = asyncio.create_task(self._close(watch, ending))
        try:
            async with watch:
                async for response in watch:
                    await self.apply(response.events)
                    if self._until is not None and self.mark.revision >= self._until:
                        break
            await closing
        except CompactedError:
            raise
        except EtcdError as error:
            raise self._source.failed(error) from error
        finally:
            closing.cancel()

    async def _close(self, watch: AsyncWatch, ending: asyncio.Event) -> None:
        await ending.wait()
        try:
            self._until = await self.head()
        except Failure:
            await watch.close()
            raise
        if self.mark.revision >= self._until:
            await watch.close()

    async def apply(self, events: Iterable[Event]) -> None:
        """Changes as a watcher is told them; those that the mark says are there are passed over."""
        for revision, group in groupby(events, key=lambda event: event.kv.mod_revision):
            changes = [_change(event) for event in group]
            if self.mark.part and not self._batch:
                await self._apply_parts(changes, revision)
            elif not self._fits(changes):
                await self._flush()
                if self._fits(changes):
                    self._add(changes, revision)
                else:
                    await self._apply_parts(changes, revision)
            else:
                self._add(changes, revision)
        await self._flush()

    def _fits(self, changes: Sequence[Change]) -> bool:
        return (
            len(self._batch) + len(changes) <= self._operations_max
            and self._batch_bytes + sum(change.size for change in changes) <= BATCH_BYTES
            and not any(change.key in self._batch for change in changes)
        )

    def _add(self, changes: Sequence[Change], revision: int) -> None:
        self._batch |= {change.key: change for change in changes}
        self._batch_bytes += sum(change.size for change in changes)
        self._batch_revision = revision

    async def _flush(self) -> None:
        if self._batch:
            some = list(self._batch.values())
            self._batch, self._batch_bytes = {}, 0
            await self._write(some, replace(self.mark, revision=self._batch_revision, part=0))

    async def _apply_parts(self, changes: Sequence[Change], revision: int) -> None:
        """The changes of one revision that are more than a transaction takes, or the rest of them."""
        before = self.mark
        left = changes[before.part :]
        part = before.part
        for some in slices(left, self._operations_max):
            part += len(some)
            await self._write(some, replace(before, part=part))
        await self._write([], replace(before, revision=revision, part=0))

    async def _write(self, changes: Sequence[Change], mark: Mark) -> None:
        await self._destination.write([change.operation() for change in changes], mark)


def _change(event: Event) -> Change:
    if event.kv.key == import_mark.KEY:
        raise Failure("the source is the destination of an import")
    return Change(event.kv.key, None if event.type == Event.DELETE else event.kv.value)
