"""Everything of a running etcd, and what it is told meanwhile, into another cluster.

Whatever ends the command, and whenever: started again it goes on where it was (`import_mark`).
"""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from quorate.client import methods
from quorate.client.errors import CompactedError
from quorate.client.ranges import FROM_KEY
from quorate.ctl import import_mark, import_progress, import_users
from quorate.ctl.backup import say
from quorate.ctl.failures import Failure
from quorate.ctl.import_keys import EVERY_KEY, Keys
from quorate.ctl.import_leases import Leases
from quorate.ctl.import_mark import Destination, Mark, Phase, Side, anew
from quorate.ctl.settings import Settings, ask_password, signed_in
from quorate.proto import rpc_pb2 as rpc


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the flags say besides where."""

    follow: bool
    overwrite: bool
    users: bool
    passwords: Mapping[str, str | None]
    ask_passwords: bool
    keep_remaining: bool
    operations_max: int


class Import:
    """One run of an import, from wherever the mark in the destination says."""

    def __init__(self, source: Side, destination: Destination, wishes: Wishes) -> None:
        self._source = source
        self._destination = destination
        self._wishes = wishes
        self.keys = Keys(source, destination, wishes.operations_max)
        self.ending = asyncio.Event()  # set: the source is written no more, bring it to an end

    async def run(self) -> None:
        """To the end; Failure when one of the clusters refuses or gives no answer."""
        await self._begin()
        showing = asyncio.create_task(import_progress.show(self.keys))
        try:
            while not await self._import():
                mark = anew(self.keys.mark, await self.keys.head())
                await self._destination.write([], mark)
                say("the source has compacted what comes next, comparing all keys", revision=mark.revision)
        finally:
            showing.cancel()
            with suppress(asyncio.CancelledError):
                await showing

    async def _import(self) -> bool:
        """False when the source has compacted what is needed."""
        try:
            if self.keys.mark.phase is Phase.COPYING:
                await self.keys.copy()
                say("copied all keys", keys=self.keys.mark.keys, revision=self.keys.mark.revision)
            await self._follow()
            await self._finish()
        except CompactedError:
            return False
        return True

    async def _begin(self) -> None:
        source, destination = self._source, self._destination
        seen = await source.ask(methods.RANGE, rpc.RangeRequest(key=import_mark.KEY))
        if seen.kvs:
            raise Failure("the source is the destination of an import that has not ended")
        if self._wishes.users:
            for side in (source, destination):
                await import_users.names(side)  # better refused now than at the end
        found = await destination.read()
        mark = await self._first(seen.header) if found is None else self._next(found, seen.header)
        await destination.write([], mark)
        if (await source.ask(methods.RANGE, rpc.RangeRequest(key=import_mark.KEY))).kvs:
            await destination.remove_mark()
            raise Failure("source and destination are the same cluster")
        say("resuming" if found else "beginning", phase=mark.phase, revision=mark.revision, keys=mark.keys)

    async def _first(self, header: rpc.ResponseHeader) -> Mark:
        request = rpc.RangeRequest(key=EVERY_KEY, range_end=FROM_KEY, count_only=True)
        count = (await self._destination.ask(methods.RANGE, request)).count
        if count and not self._wishes.overwrite:
            raise Failure(f"the destination has {count} keys; --overwrite makes it equal to the source")
        run = secrets.token_hex(8)
        return Mark(run, header.cluster_id, Phase.COPYING, header.revision, compares=bool(count))

    def _next(self, found: Mark, header: rpc.ResponseHeader) -> Mark:
        if found.source != header.cluster_id:
            raise Failure(f"the destination is in the midst of an import from another cluster, {found.source:x}")
        mark = replace(found, run=secrets.token_hex(8))
        # Keys that were put on leases already may have ended with them, and a source may have been restored.
        is_behind = mark.phase is Phase.FINISHING or mark.revision > header.revision
        return anew(mark, header.revision) if is_behind else mark

    async def _follow(self) -> None:
        if not self._wishes.follow:
            self.ending.set()
        loop = asyncio.get_running_loop()
        signals = () if self.ending.is_set() else (signal.SIGINT, signal.SIGTERM)

        def end() -> None:
            self.ending.set()
            for number in signals:
                loop.remove_signal_handler(number)  # a second one ends the command at once

        for number in signals:
            loop.add_signal_handler(number, end)
        if signals:
            say("following; stop writing to the source and then interrupt this command to finish")
        try:
            await self.keys.follow(self.ending)
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    async def _finish(self) -> None:
        mark = replace(self.keys.mark, phase=Phase.FINISHING, part=0)
        await self._destination.write([], mark)
        wishes = self._wishes
        accounts = import_users.Accounts()
        if wishes.users:
            passwords = dict(wishes.passwords)
            if wishes.ask_passwords:
                for name in await import_users.names(self._source):
                    if name not in passwords:
                        passwords[name] = ask_password(f"Password of {name}: ") or None
            accounts = await import_users.copy_accounts(self._source, self._destination, passwords)
        leases = Leases(self._source, self._destination, wishes.operations_max, wishes.keep_remaining)
        await leases.attach()
        await self._destination.remove_mark()
        if accounts.without_password:
            say(
                "passwords cannot be read from a running cluster: nobody can sign in as these users before "
                "`quoratectl user passwd`",
                users=accounts.without_password,
            )
        say(
            "imported",
            revision=mark.revision,
            leases=len(leases.granted),
            users=accounts.users,
            roles=accounts.roles,
        )


async def run(source: Settings, destination: Settings, wishes: Wishes) -> None:
    """Sign in at both sides and import; Failure when one of them refuses."""
    async with source.client() as reading, destination.client() as writing:
        await signed_in(reading)
        await signed_in(writing)
        await Import(Side("source", reading), Destination(writing), wishes).run()
