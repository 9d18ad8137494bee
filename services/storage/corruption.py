"""Do all members hold the same data? A question that goes through the log, so that all answer it at the same place.

The leader has a check ordered. Whoever applies it hashes its history as of that entry, on a reader thread, and has the
hash ordered as a report. The leader (and a member that wants to be sure of itself after a start) compares the reports:
members that differ from the majority are corrupt; without a majority nobody knows which, and the alarm names member 0,
as etcd's does. Asking over the log needs no connection between members of its own, and no waiting until all of them
have reached a revision.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from struct import Struct
from typing import Final

REPORT: Final = Struct("<QQI")  # log index of the check, member id, hash
SETTLE_SECONDS: Final = 10.0  # after the last report; who has not reported by then is compared another time
NOBODY_KNOWS: Final = 0  # the member id of an alarm when there is no majority


@dataclass(slots=True)
class Check:
    """One check and what was reported."""

    index: int
    heard_at: float
    hashes: dict[int, int] = field(default_factory=dict)


def corrupt_members(hashes: dict[int, int]) -> list[int]:
    """Those whose hash is not the majority's; [NOBODY_KNOWS] when none has one."""
    if len(set(hashes.values())) < 2:
        return []
    most_common, count = Counter(hashes.values()).most_common(1)[0]
    if 2 * count <= len(hashes):
        return [NOBODY_KNOWS]
    return sorted(member_id for member_id, value in hashes.items() if value != most_common)


class Corruption:
    """What this member knows of checks. `period_seconds` 0: none by the clock; `compaction_seconds` 0: none after
    compactions, else how often it is looked whether there was one."""

    def __init__(self, period_seconds: float, compaction_seconds: float, wants_initial: bool, now: float) -> None:
        self._started = now
        self._period = period_seconds
        self._compaction_period = compaction_seconds
        self._next_check = now + period_seconds
        self._next_look = now + compaction_seconds
        self._next_initial = now
        self._checked_compaction = -1
        self._check: Check | None = None
        self._wants_initial = wants_initial  # one check soon after the start, whoever leads
        self.is_unsure = wants_initial  # until it is over

    def is_due(self, now: float, compact_revision: int, is_leader: bool) -> bool:
        """Whether a check should be ordered now; never while the leader still waits for reports."""
        if self._wants_initial and now >= self._next_initial:
            self._next_initial = now + SETTLE_SECONDS
            return True
        if not is_leader or self._check is not None:
            return False
        if self._period and now >= self._next_check:
            self._next_check = now + self._period
            return True
        if self._compaction_period and now >= self._next_look:
            self._next_look = now + self._compaction_period
            if compact_revision > self._checked_compaction:
                self._checked_compaction = compact_revision
                return True
        return False

    def begun(self, index: int, now: float) -> None:
        """A check was applied: reports for it may come; those for an older one are late."""
        self._check = Check(index, now)
        if self._next_initial > self._started:
            self._wants_initial = False

    def report(self, body: bytes, now: float) -> None:
        """A report was applied."""
        index, member_id, value = REPORT.unpack(body)
        check = self._check
        if check is not None and check.index == index:
            check.hashes[member_id] = value
            check.heard_at = now

    def verdict(self, now: float) -> tuple[int, list[int]] | None:
        """(log index, corrupt members) of a check that is over; once."""
        check = self._check
        if check is None or now - check.heard_at < SETTLE_SECONDS:
            return None
        self._check = None
        return check.index, corrupt_members(check.hashes)
