"""The mark of an unfinished import: one key of the destination that says how far it is, written with what it is about.

Every transaction of an import carries the next mark and is done only if the mark is still the one that was read. So
whatever is killed, and whenever: a change and the note that it was made are there together or not at all, an answer
that was lost is looked up instead of guessed, and of two imports that run at once one stops.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Final

from quorate.client import methods
from quorate.client.aio import AsyncClient
from quorate.client.connection import LOST_CODES
from quorate.client.errors import CompactedError, EtcdError
from quorate.client.methods import A, Method, Q
from quorate.client.txn import Txn, delete, mod_revision, put
from quorate.ctl.failures import Failure
from quorate.proto.rpc_pb2 import RangeRequest, RequestOp, TxnRequest

KEY: Final = b"_quorate/import"
WITHOUT_ANSWER_S: Final = 60.0  # a destination that gives no verdict for so long ends the command


class Phase(StrEnum):
    """What an import is at."""

    COPYING = "copying"
    FOLLOWING = "following"
    FINISHING = "finishing"


@dataclass(frozen=True, slots=True)
class Mark:
    """How far an import is. Everything before it was done exactly once."""

    run: str  # who writes it; each start of the command has its own
    source: int  # cluster id
    phase: Phase
    revision: int  # of the source: the listed one while copying, else the last one whose changes are all there
    after: bytes = b""  # copying: keys up to this one are there
    keys: int = 0  # copying: how many that were
    part: int = 0  # following: so many changes of the revision after `revision` are there
    compares: bool = False  # copying: the destination may have keys already

    def pack(self) -> bytes:
        """As it is stored."""
        return json.dumps(asdict(self) | {"after": base64.b64encode(self.after).decode()}).encode()

    @classmethod
    def unpack(cls, data: bytes) -> Mark:
        """Failure when the key holds something else."""
        try:
            fields = json.loads(data)
            return cls(**fields | {"after": base64.b64decode(fields["after"]), "phase": Phase(fields["phase"])})
        except (ValueError, KeyError, TypeError):
            raise Failure(f"the key {KEY.decode()} of the destination is not of an import") from None


class Side:
    """One of the two clusters; what it refuses becomes a Failure that says which of them did."""

    def __init__(self, name: str, client: AsyncClient) -> None:
        self.name = name
        self.client = client

    async def call(self, method: Method[Q, A], request: Q, unless: Sequence[str] = ()) -> A | None:
        """The answer; None when the refusal is one of these texts. CompactedError is passed on."""
        try:
            return await self.client.call(method, request)
        except CompactedError:
            raise
        except EtcdError as error:
            if error.text in unless:
                return None
            raise self.failed(error) from error

    async def ask(self, method: Method[Q, A], request: Q) -> A:
        """The answer."""
        answer = await self.call(method, request)
        assert answer is not None
        return answer

    def failed(self, error: EtcdError) -> Failure:
        """The Failure for an error of this side."""
        return Failure(f"{self.name} {','.join(self.client.connection.endpoints)}: {error.text}")


class Destination(Side):
    """The cluster that is written, and the mark in it."""

    def __init__(self, client: AsyncClient) -> None:
        super().__init__("destination", client)
        self._held = 0  # mod_revision of the mark as this run knows it
        self.mark: Mark | None = None

    async def read(self) -> Mark | None:
        """The mark that is there, of whatever run."""
        kvs = (await self.ask(methods.RANGE, RangeRequest(key=KEY))).kvs
        self._held = kvs[0].mod_revision if kvs else 0
        return Mark.unpack(kvs[0].value) if kvs else None

    async def write(self, operations: Sequence[RequestOp], mark: Mark) -> None:
        """Do these and move the mark, both or neither, once."""
        value = mark.pack()
        await self._commit(Txn().then(*operations, put(KEY, value)).request, value)
        self.mark = mark

    async def remove_mark(self) -> None:
        """The import is over."""
        await self._commit(Txn().then(delete(KEY)).request, None)
        self.mark = None

    async def _commit(self, request: TxnRequest, value: bytes | None) -> None:
        """Until it is known to have happened; the mark is `value` then."""
        deadline = time.monotonic() + WITHOUT_ANSWER_S
        while True:
            request.ClearField("compare")
            request.compare.append(mod_revision(KEY).equals(self._held))
            try:
                answer = await self.client.call(methods.TXN, request)
                if answer.succeeded:
                    self._held = answer.header.revision if value is not None else 0
                    return
            except EtcdError as error:
                if error.code not in LOST_CODES or time.monotonic() > deadline:
                    raise self.failed(error) from error
            held = self._held
            found = await self.read()
            if (found.pack() if found else None) == value:
                return
            if self._held != held:
                raise Failure("another import into this destination goes on; this one stops")


def anew(mark: Mark, revision: int) -> Mark:
    """The mark of listing once more from the beginning, over what is there."""
    return replace(mark, phase=Phase.COPYING, revision=revision, after=b"", keys=0, part=0, compares=True)
