"""The rules of rights: nobody is served without one that was given, and nobody is refused who has it.

A grant is about one prefix of keys, given once and perhaps taken away once, for good; so it has three times. Before it
was asked for and after it was surely taken away calls are refused, and between the answer to the giving and the
question for the taking they are served. While a change is under way either is right. An attempt to give of which
nobody knows what became of it may still do its work much later: after it nothing is said about the last time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

NEVER: int = 1 << 62


class Grant(NamedTuple):
    """A right to everything below a prefix, for one user, and when it was changed; times in nanoseconds."""

    prefix: bytes
    give_invoked_ns: int = NEVER
    given_ns: int = NEVER  # somebody answered that it is given
    take_invoked_ns: int = NEVER
    taken_ns: int = NEVER  # somebody answered that it is taken away
    is_settled: bool = True  # no attempt to give may come late


class Visit(NamedTuple):
    """One call of that user below the prefix, that was either served or refused for want of the right."""

    prefix: bytes
    call: str
    invoked_ns: int
    returned_ns: int
    served: bool


def check_rights(grants: Sequence[Grant], visits: Sequence[Visit]) -> Iterable[str]:
    """Calls that were served without a right, and calls that were refused in spite of one."""
    by_prefix = {grant.prefix: grant for grant in grants}
    for visit in visits:
        grant = by_prefix[visit.prefix]
        if not visit.served:
            if grant.given_ns < visit.invoked_ns and visit.returned_ns < grant.take_invoked_ns:
                yield f"refused in spite of a right: {visit}, {grant}"
        elif visit.returned_ns < grant.give_invoked_ns:
            yield f"served before there was a right: {visit}, {grant}"
        elif grant.is_settled and grant.taken_ns < visit.invoked_ns:
            yield f"served after the right was taken away: {visit}, {grant}"
