"""What Lock and Election have in common: keys under a prefix, in the order of their creation, each under a lease.

A call of these services is a sequence of key-value calls and waits, so it is a coroutine; `Recipes.start` makes a
unary call of it. Whatever goes wrong reaches the client as UNKNOWN with the plain text, as from etcd. A caller who is
gone, or whose deadline is over, leaves nothing behind: what the call had made is taken back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from quorate.api import faults
from quorate.api.callers import Callers
from quorate.api.calling import Cancel, Done, Failed, awaited
from quorate.api.calls import Context, Route
from quorate.api.feed import Compacted, Feed
from quorate.api.lanes import Lane
from quorate.api.ring import Ring
from quorate.api.v3rpc.lease import Lease
from quorate.api.watches import Watches
from quorate.proto.rpc_pb2 import (
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    ResponseHeader,
    TxnRequest,
    TxnResponse,
)
from quorate.wire import errors
from quorate.wire.errors import CallFailed, Code
from quorate.wire.messages import Op
from quorate.wire.watching import Form

CALLS_MAX: Final = 20_000  # that wait for their turn in one worker; some kilobytes each
SESSION_TTL_S: Final = 60  # of a lease that is granted here, as etcd's sessions have it

Request = TypeVar("Request", bound=Message)
Result = TypeVar("Result")


def prefix_end(prefix: bytes) -> bytes:
    """The range end for all keys with this prefix, which ends in a slash."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))


def is_created_at(key: bytes, revision: int) -> Compare:
    """The key was created at this revision; 0: it does not exist."""
    return Compare(key=key, target=Compare.CREATE, result=Compare.EQUAL, create_revision=revision)


def first_created(prefix: bytes) -> RangeRequest:
    """The oldest key of the prefix: whose turn it is."""
    return RangeRequest(
        key=prefix,
        range_end=prefix_end(prefix),
        limit=1,
        sort_order=RangeRequest.ASCEND,
        sort_target=RangeRequest.CREATE,
    )


class Keys:
    """Key-value calls for one caller. Writes are asked once; whether one that failed happened is not known."""

    def __init__(self, ring: Ring, lease: Lease, callers: Callers, context: Context) -> None:
        self._ring = ring
        self._callers = callers
        self._lease = lease
        self._context = context

    async def txn(self, request: TxnRequest) -> TxnResponse:
        return TxnResponse.FromString(await self._order(Op.TXN, request))

    async def get(self, request: RangeRequest) -> RangeResponse:
        return RangeResponse.FromString(await self._ask(self._ring.reads, Op.RANGE, request))

    async def delete(self, key: bytes) -> DeleteRangeResponse:
        if not key:
            raise Failed(errors.EMPTY_KEY.code, errors.EMPTY_KEY.text)
        request = DeleteRangeRequest(key=key)
        return DeleteRangeResponse.FromString(await self._order(Op.DELETE_RANGE, request))

    async def grant(self) -> int:
        """A lease that nobody renews here; its id."""
        body = LeaseGrantRequest(TTL=SESSION_TTL_S).SerializeToString()
        answer = await self._asked(lambda done: self._lease.grant(body, self._context, done, None))
        return LeaseGrantResponse.FromString(answer).ID

    async def revoke(self, lease_id: int) -> None:
        await self._order(Op.LEASE_REVOKE, LeaseRevokeRequest(ID=lease_id))

    async def _order(self, op: int, request: Message) -> bytes:
        return await self._ask(self._ring.writes, op, request)

    async def _ask(self, lane: Lane, op: int, request: Message) -> bytes:
        body = request.SerializeToString()
        return await self._asked(lambda done: self._ring.add(lane, op, body, done, identity=self._context.identity))

    async def _asked(self, start: Callable[[Done], None]) -> bytes:
        """The answer to one call, started when it is known again whose it is; raises Failed."""
        answer, done = awaited()

        def identified(code: int, message: str) -> None:
            if code:
                done(code, message, b"")
                return
            try:
                start(done)
            except CallFailed as failed:
                done(failed.error.code, failed.error.text, b"")

        self._callers.identify(self._context, identified)
        return await answer


class Place:
    """A key of one's own in the order of creation under a prefix."""

    def __init__(self, keys: Keys, lease_id: int, is_lease_granted: bool, prefix: bytes) -> None:
        self.keys = keys
        self.lease_id = lease_id
        self.prefix = prefix
        self.key = prefix + b"%x" % lease_id
        self.revision = 0  # at which the key was created
        self._is_lease_granted = is_lease_granted  # for this call alone

    async def take(self, value: bytes) -> TxnResponse:
        """Create the key unless it exists, and see it and the oldest key of the prefix."""
        mine = RequestOp(request_range=RangeRequest(key=self.key))
        put = RequestOp(request_put=PutRequest(key=self.key, value=value, lease=self.lease_id))
        oldest = RequestOp(request_range=first_created(self.prefix))
        taken = await self.keys.txn(
            TxnRequest(compare=[is_created_at(self.key, 0)], success=[put, oldest], failure=[mine, oldest])
        )
        if taken.succeeded:
            self.revision = taken.header.revision
        else:
            self.revision = taken.responses[0].response_range.kvs[0].create_revision
        return taken

    async def wait_for_turn(self, watches: Watches) -> ResponseHeader:
        """Until no older key is left; the header of the read that saw it. No polling: each wait is for the deletion
        of the key just before this one."""
        newest_before = RangeRequest(
            key=self.prefix,
            range_end=prefix_end(self.prefix),
            limit=1,
            sort_order=RangeRequest.DESCEND,
            sort_target=RangeRequest.CREATE,
            max_create_revision=self.revision - 1,
        )
        while True:
            found = await self.keys.get(newest_before)
            if not found.kvs:
                return found.header
            first_revision = found.header.revision + 1
            async with Feed(watches, found.kvs[0].key, b"", Form.NOPUT, first_revision) as feed:
                with contextlib.suppress(Compacted):  # then the key is looked for again
                    await feed.next()

    async def give_back(self) -> None:
        """Delete the key if it is still the one that was taken."""
        if self.revision:
            delete = RequestOp(request_delete_range=DeleteRangeRequest(key=self.key))
            await self.keys.txn(TxnRequest(compare=[is_created_at(self.key, self.revision)], success=[delete]))
        if self._is_lease_granted:
            await self.keys.revoke(self.lease_id)


class Recipes:
    """Runs such calls as tasks of this process."""

    def __init__(self, ring: Ring, watches: Watches, lease: Lease, callers: Callers) -> None:
        self.ring = ring
        self._callers = callers
        self.watches = watches
        self._lease = lease
        self._tasks: set[asyncio.Task[Any]] = set()

    def route(self, request_type: type[Request], work: Callable[[Keys, Request], Awaitable[Message]]) -> Route:
        """A unary method that does `work`."""

        def start(body: bytes, context: Context, done: Done, expires_at: float | None) -> Cancel | None:
            if len(self._tasks) >= CALLS_MAX:
                raise CallFailed(errors.TOO_MANY_REQUESTS)
            return self._start(work(self.keys(context), request_type.FromString(body)), done, expires_at)

        return Route(start)

    def keys(self, context: Context) -> Keys:
        return Keys(self.ring, self._lease, self._callers, context)

    async def place(self, keys: Keys, lease_id: int, name: bytes) -> Place:
        """A place under `name` for the lease, or for one that is granted now."""
        if lease_id:
            return Place(keys, lease_id, False, name + b"/")
        return Place(keys, await keys.grant(), True, name + b"/")

    async def taken(self, place: Place, value: bytes) -> TxnResponse:
        """Take a place; a caller who goes meanwhile does not leave it taken."""
        taking = self._task(place.take(value))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            self.run(_undo(taking, place))
            raise

    async def turn(self, place: Place) -> ResponseHeader:
        """Wait until it is the place's turn; a caller who goes meanwhile, or fails, gives it back."""
        try:
            return await place.wait_for_turn(self.watches)
        except (asyncio.CancelledError, Exception):
            self.run(_given_back(place))
            raise

    def run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run on, whatever becomes of the caller. Nobody waits for what comes of it: a fault is logged."""
        task = self._task(work)
        task.add_done_callback(_report_fault)
        return task

    async def close(self) -> None:
        """End what still runs."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _task(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _start(self, work: Awaitable[Message], done: Done, expires_at: float | None) -> Cancel:
        async def answer() -> bytes:
            return (await work).SerializeToString()

        task = self._task(answer())
        is_over = False

        def finished(task: asyncio.Task[bytes]) -> None:
            nonlocal is_over
            withdraw()
            if is_over:
                return
            is_over = True
            if task.cancelled():
                done(errors.STOPPED.code, errors.STOPPED.text, b"")
            elif isinstance(failure := task.exception(), Failed):
                done(Code.UNKNOWN, failure.message, b"")
            elif failure is not None:
                done(*faults.report(failure), b"")
            else:
                done(0, "", task.result())

        def end(error: errors.EtcdError | None) -> None:
            nonlocal is_over
            if not is_over:
                is_over = True
                task.cancel()
                if error is not None:
                    done(error.code, error.text, b"")

        expires_at = float("inf") if expires_at is None else expires_at
        withdraw: Callable[[], None] = _nothing
        if expires_at != float("inf"):
            withdraw = self.ring.at(expires_at, end, errors.CONTEXT_DEADLINE_EXCEEDED)
        task.add_done_callback(finished)
        return partial(end, None)


async def _undo(taking: asyncio.Task[TxnResponse], place: Place) -> None:
    with contextlib.suppress(Failed):  # then the lease ends it
        await taking
    await _given_back(place)


async def _given_back(place: Place) -> None:
    with contextlib.suppress(Failed):  # then the lease ends it
        await place.give_back()


def _report_fault(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (failure := task.exception()) is not None:
        faults.report(failure)


def _nothing() -> None:
    pass
