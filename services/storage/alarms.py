"""Alarms and quota: when writes are refused, and who says so (contract 5.8).

Which alarms are on is replicated state. Whether this member is out of space is its own affair; it then raises the alarm
by a command of its own, and from there on all members refuse alike.
"""

from __future__ import annotations

from collections.abc import Iterable

from quorate.proto import rpc_pb2
from quorate.wire import errors
from quorate.wire.errors import CallFailed

Alarm = tuple[int, int]  # AlarmType, member id


class Alarms:
    """The alarms that are on; `changes` collects (alarm, is on) to be written."""

    def __init__(self, active: Iterable[Alarm] = ()) -> None:
        self.active: set[Alarm] = set(active)
        self.changes: list[tuple[Alarm, bool]] = []
        self.is_out_of_space = False
        self.is_corrupt = False
        self._judge()

    def get(self, kind: int) -> list[Alarm]:
        """Alarms of a kind, or all for NONE, by kind and member."""
        return sorted(alarm for alarm in self.active if kind in (rpc_pb2.NONE, alarm[0]))

    def activate(self, member_id: int, kind: int) -> list[Alarm]:
        """Turn an alarm on; what is on after it, nothing for the kind NONE. CallFailed for a kind that is none: etcd's
        members all end at it."""
        if kind == rpc_pb2.NONE:
            return []
        if kind not in (rpc_pb2.NOSPACE, rpc_pb2.CORRUPT):
            raise CallFailed(errors.UNKNOWN_ALARM)
        alarm = (kind, member_id)
        if alarm not in self.active:
            self.active.add(alarm)
            self.changes.append((alarm, True))
            self._judge()
        return [alarm]

    def deactivate(self, member_id: int, kind: int) -> list[Alarm]:
        """Turn an alarm off; the alarm if it was on."""
        alarm = (kind, member_id)
        if alarm not in self.active:
            return []
        self.active.remove(alarm)
        self.changes.append((alarm, False))
        self._judge()
        return [alarm]

    def check_write(self, cost: int) -> None:
        """CallFailed while an alarm forbids a change that would add `cost` bytes."""
        if self.is_corrupt:
            raise CallFailed(errors.CORRUPT)
        if cost and self.is_out_of_space:
            raise CallFailed(errors.NO_SPACE)

    def _judge(self) -> None:
        kinds = {kind for kind, _ in self.active}
        self.is_out_of_space = rpc_pb2.NOSPACE in kinds
        self.is_corrupt = rpc_pb2.CORRUPT in kinds
