"""Changes for somebody inside this process, who waits for them with `await`."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final

from quorate.api.watches import Census, Interest, Response, Watches
from quorate.proto.rpc_pb2 import WatchResponse

RESPONSES_MAX: Final = 100  # that wait here; beyond it the watch process holds the rest back


class Compacted(Exception):  # noqa: N818 - etcd's word for it
    """What a feed would tell next is gone."""


class Feed:
    """A watcher of one range: `async with Feed(...) as feed: response = await feed.next()`.

    Every change from the first revision on comes once and in order, over restarts of the watch process too.
    """

    def __init__(self, watches: Watches, key: bytes, range_end: bytes, form: int, first_revision: int) -> None:
        self.stream = 0
        self.is_held = False
        self._watches = watches
        self._interest = Interest(self, key, range_end, form, first_revision)
        self._responses: list[WatchResponse] = []
        self._is_compacted = False
        self._news = asyncio.Event()

    async def __aenter__(self) -> Feed:
        self._watches.enter(self)
        self._watches.open(self._interest)
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._watches.leave(self, [self._interest])

    async def next(self) -> WatchResponse:
        """The next changes, in whole revisions. Raises Compacted when they are gone."""
        while not self._responses:
            if self._is_compacted:
                raise Compacted
            self._news.clear()
            await self._news.wait()
        response = self._responses.pop(0)
        if self.is_held and not self._responses:
            self._watches.resume(self)
        return response

    def census(self) -> Census:
        return Census(1, int(not self._interest.is_live), len(self._responses))

    # --- what the watch process tells ------------------------------------------------------------------------

    def told_events(self, interest: Interest, response: Response) -> None:
        self._responses.append(WatchResponse.FromString(response.header + response.events))
        if len(self._responses) > RESPONSES_MAX and not self.is_held:
            self._watches.hold(self)
        self._news.set()

    def told_synced(self, interest: Interest, revision: int, peer: Interest | None) -> None:
        """It makes no difference here."""

    def told_behind(self, interest: Interest) -> None:
        """It makes no difference here."""

    def told_joined(self, interest: Interest, into: Interest, is_joined: bool) -> None:
        raise AssertionError("a feed has one interest")

    def told_compacted(self, interest: Interest, compact_revision: int) -> None:
        self._is_compacted = True
        self._news.set()

    def told_progress(self, revision: int, by_client: bool) -> None:
        raise AssertionError("a feed asks for no progress")
