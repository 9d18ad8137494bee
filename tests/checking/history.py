"""What clients did and saw, and what the store says happened."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Kind(IntEnum):
    """The calls that are checked."""

    PUT = 1
    DELETE = 2
    GET = 3  # linearizable
    STALE_GET = 4  # serializable
    CAS = 5  # put if the key's mod_revision is `expected`, else get
    PAST_GET = 6  # linearizable, of the revision `expected`


class Fate(IntEnum):
    """What the client knows about its call."""

    DONE = 1
    REFUSED = 2  # surely without effect
    UNKNOWN = 3  # timed out or cut off: may have happened, or may yet happen


class Operation(NamedTuple):
    """One call, or one of several puts of one transaction: same client, same moment of invocation.

    Times are nanoseconds of one clock; `value` is unique among all writes of a history.
    """

    client: int
    kind: Kind
    key: bytes
    value: bytes  # what is written (PUT, CAS)
    expected: int  # CAS: mod_revision asked for, 0: absent; PAST_GET: the revision asked for
    invoked_ns: int
    returned_ns: int
    fate: Fate
    revision: int = 0  # header revision of the answer
    succeeded: bool = False  # CAS: the put happened; DELETE: a key was deleted
    seen_value: bytes | None = None  # GET, failed CAS: None is absent
    seen_mod_revision: int = 0


class Change(NamedTuple):
    """One committed change of one key: None is a deletion."""

    revision: int
    key: bytes
    value: bytes | None


class Txn(NamedTuple):
    """A transaction over several keys: if each of `compares` stands at the mod_revision named (0: absent), it writes,
    then it reads; else it only reads. Nothing is both written and read, and nothing is written twice."""

    client: int
    compares: tuple[tuple[bytes, int], ...]
    writes: tuple[tuple[bytes, bytes | None], ...]  # None deletes; each value is unique in the history
    reads: tuple[bytes, ...]
    invoked_ns: int
    returned_ns: int
    fate: Fate
    revision: int = 0
    succeeded: bool = False
    seen: tuple[tuple[bytes | None, int], ...] = ()  # (value, mod_revision) of each of `reads`
    changed: bool = False  # it succeeded, and put something or deleted what was there
