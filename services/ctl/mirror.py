"""`make-mirror`: what is under a prefix, copied to another cluster, and then every change."""

import asyncio
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from typing import Final

from quorate.client.aio import AsyncClient
from quorate.client.ranges import FROM_KEY, prefix_range
from quorate.client.txn import Txn, delete, put
from quorate.ctl.commands import command
from quorate.ctl.failures import bad_arguments
from quorate.ctl.flags import Switch, number, text
from quorate.ctl.printers import line
from quorate.ctl.settings import Settings, complete, signed_in
from quorate.proto.kv_pb2 import Event, KeyValue
from quorate.proto.rpc_pb2 import RequestOp

PAGE: Final = 1000
TELL_S: Final = 30.0
TXN_OPS: Final = 128
TXN_BYTES: Final = 512 * 1024  # a member takes 1.5 MiB unless it was told otherwise


@command(
    "<destination>",
    text("--prefix", help="Key-value prefix to mirror"),
    text("--dest-prefix", help="destination prefix to mirror a prefix to a different prefix"),
    Switch("--no-dest-prefix", help="mirror key-values to the root of the destination cluster"),
    number("--rev", help="Specify the kv revision to start to mirror"),
    number("--max-txn-ops", default=TXN_OPS, help="Maximum number of operations permitted in a transaction"),
    text("--dest-cert", help="certificate for the destination, PEM"),
    text("--dest-key", help="key of that certificate, PEM"),
    text("--dest-cacert", help="authorities to trust at the destination, PEM"),
    Switch("--dest-insecure-transport", default=True, help="no TLS unless the destination says https [true]"),
    text("--dest-user", help="name[:password] at the destination"),
    text("--dest-password", help="password at the destination"),
)
def make_mirror(
    settings: Settings,
    words: tuple[str, ...],
    prefix: str,
    dest_prefix: str,
    no_dest_prefix: bool,
    rev: int,
    max_txn_ops: int,
    dest_cert: str,
    dest_key: str,
    dest_cacert: str,
    dest_insecure_transport: bool,
    dest_user: str,
    dest_password: str,
) -> None:
    """Copy keys to another cluster and keep the copy up to date, until something fails.

    Every 30 seconds the number of keys written so far is printed. With a revision only what happened from it on is
    copied.
    """
    if len(words) != 1:
        raise bad_arguments("make-mirror takes one destination argument")
    if max_txn_ops < 1:
        raise bad_arguments("`--max-txn-ops` has to be at least 1")
    if dest_prefix and no_dest_prefix:
        raise bad_arguments("`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one")
    target = "" if no_dest_prefix else dest_prefix or prefix
    destination = replace(
        settings,
        endpoints=(words[0],),
        cert=dest_cert,
        key=dest_key,
        cacert=dest_cacert,
        insecure_transport=dest_insecure_transport,
        user=dest_user,
        password=dest_password,
        discovery_srv="",
        prompt="Destination Password: ",
    )

    async def work() -> None:
        async with settings.client(unlimited=True) as source, destination.client(unlimited=True) as copy:
            await signed_in(source)
            await signed_in(copy)
            mirror = Mirror(source, copy, os.fsencode(prefix), os.fsencode(target), max_txn_ops)
            telling = asyncio.create_task(mirror.tell())
            try:
                await mirror.run(rev)
            finally:
                telling.cancel()

    complete(work())


def _by_size(kvs: Iterable[KeyValue]) -> Iterator[list[KeyValue]]:
    """Pairs in pieces that a member takes as one request; a pair that is larger than a piece alone."""
    piece: list[KeyValue] = []
    held = 0
    for kv in kvs:
        size = len(kv.key) + len(kv.value)
        if piece and held + size > TXN_BYTES:
            yield piece
            piece, held = [], 0
        piece.append(kv)
        held += size
    yield piece


class Mirror:
    """One prefix of one cluster on its way to another."""

    def __init__(self, source: AsyncClient, copy: AsyncClient, prefix: bytes, target: bytes, ops_max: int) -> None:
        self._source = source
        self._copy = copy
        self._prefix = prefix
        self._target = target
        self._ops_max = ops_max
        self.total = 0  # keys written or deleted so far

    async def tell(self) -> None:
        """Print the total now and then."""
        while True:
            await asyncio.sleep(TELL_S)
            line(str(self.total))

    async def run(self, rev: int = 0) -> None:
        """Copy and follow; ends only by an error."""
        following = rev - 1 if rev > 1 else await self.copy_all()
        async with self._source.watch(*prefix_range(self._prefix), start_revision=following + 1) as watch:
            async for response in watch:
                await self.apply(response.events)

    async def copy_all(self) -> int:
        """Copy what there is; the revision it is of."""
        key, range_end = prefix_range(self._prefix)
        revision = 0
        while True:
            page = await self._source.get(key, range_end, limit=PAGE, revision=revision)
            revision = revision or page.header.revision
            for kvs in _by_size(page.kvs):
                await self._write([put(self._moved(kv.key), kv.value) for kv in kvs])
            if not page.more:
                return revision
            key, range_end = page.kvs[-1].key + b"\0", range_end or FROM_KEY

    async def apply(self, events: Iterable[Event]) -> None:
        """Do what happened, the changes of one revision in one transaction as far as that is permitted."""
        for _, changes in groupby(events, key=lambda event: event.kv.mod_revision):
            await self._write(
                [
                    delete(self._moved(event.kv.key))
                    if event.type == Event.DELETE
                    else put(self._moved(event.kv.key), event.kv.value)
                    for event in changes
                ]
            )

    async def _write(self, operations: list[RequestOp]) -> None:
        for start in range(0, len(operations), self._ops_max):
            some = operations[start : start + self._ops_max]
            await self._copy.commit(Txn().then(*some))
            self.total += len(some)

    def _moved(self, key: bytes) -> bytes:
        return self._target + key[len(self._prefix) :]
