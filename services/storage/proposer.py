"""What storage has ordered of its own accord: expired leases, alarms, compactions and comparisons of the members' data.

Nobody waits for an answer to these, and a proposal may get lost. Whatever is still true is proposed again later.
"""

from __future__ import annotations

from typing import Final

from quorate.node.lifecycle import OperatorError
from quorate.node.logs import Log
from quorate.proto import rpc_pb2
from quorate.storage.apply import CHECKPOINT, EXPIRE, Applier
from quorate.storage.auto_compaction import Policy
from quorate.storage.corruption import Corruption
from quorate.wire.messages import Op, pack_command

LEASE_CHECK_SECONDS: Final = 0.5
LEASES_AT_ONCE: Final = 500  # etcd's rate: a thousand expiries a second (contract 7.6)
CHECKPOINTS_AT_ONCE: Final = 1000  # leases in one command, as etcd
ALARM_RETRY_SECONDS: Final = 7.0


class Proposer:
    """Asked in every turn of the loop; remembers what was proposed lately."""

    def __init__(self, applier: Applier, compaction: Policy, corruption: Corruption, log: Log) -> None:
        self.reports: list[bytes] = []  # of this member's data, to be ordered
        self._applier = applier
        self._compaction = compaction
        self._corruption = corruption
        self._log = log
        self._next_look = 0.0
        self._space_alarm_proposed = -ALARM_RETRY_SECONDS

    def commands(self, now: float, is_leader: bool) -> list[bytes]:
        """What is to be ordered now."""
        commands: list[bytes] = []
        if now >= self._next_look:
            self._next_look = now + LEASE_CHECK_SECONDS
            if is_leader:
                self._expire_leases(now, commands)
            self._compact(now, is_leader, commands)
            self._check_data(now, is_leader, commands)
        if self.reports:
            commands += [pack_command(Op.CORRUPT_REPORT, report) for report in self.reports]
            self.reports.clear()
        if self._applier.wants_space_alarm or self._applier.alarms.active:
            self._raise_space_alarm(now, commands)
        return commands

    def _expire_leases(self, now: float, commands: list[bytes]) -> None:
        lessor = self._applier.lessor
        for lease in lessor.overdue(now, LEASES_AT_ONCE):
            commands.append(pack_command(Op.LEASE_EXPIRE, EXPIRE.pack(lease.lease_id, lease.renewed_index)))
        if long_ones := lessor.checkpoints(now, CHECKPOINTS_AT_ONCE):
            body = b"".join(CHECKPOINT.pack(*each) for each in long_ones)
            commands.append(pack_command(Op.LEASE_CHECKPOINT, body))

    def _compact(self, now: float, is_leader: bool, commands: list[bytes]) -> None:
        store = self._applier.store
        revision = self._compaction.due(now, store.revision, store.compact_revision, is_leader)
        if revision:
            self._log.info("starting auto compaction", revision=revision)
            commands.append(pack_command(Op.COMPACT, rpc_pb2.CompactionRequest(revision=revision).SerializeToString()))

    def _check_data(self, now: float, is_leader: bool, commands: list[bytes]) -> None:
        corruption = self._corruption
        if corruption.is_due(now, self._applier.store.compact_revision, is_leader):
            commands.append(pack_command(Op.CORRUPT_CHECK, b""))
        verdict = corruption.verdict(now)
        if verdict is None:
            return
        own_id = self._applier.headers.member_id
        if corruption.is_unsure and own_id in verdict[1]:
            raise OperatorError(f"{own_id:x} found data inconsistency with peers")
        corruption.is_unsure = False
        for member_id in verdict[1]:
            self._log.error("found data inconsistency with peers", remote_member_id=f"{member_id:x}")
            if is_leader:
                commands.append(alarm(rpc_pb2.CORRUPT, member_id))

    def _raise_space_alarm(self, now: float, commands: list[bytes]) -> None:
        applier = self._applier
        if applier.space_alarm_is_on:
            applier.wants_space_alarm = False
            self._space_alarm_proposed = -ALARM_RETRY_SECONDS  # it was not lost; the next one need not wait
        elif applier.wants_space_alarm and now - self._space_alarm_proposed >= ALARM_RETRY_SECONDS:
            applier.wants_space_alarm = False
            self._space_alarm_proposed = now
            commands.append(alarm(rpc_pb2.NOSPACE, applier.headers.member_id))


def alarm(kind: rpc_pb2.AlarmType.ValueType, member_id: int) -> bytes:
    """The command that turns an alarm on."""
    request = rpc_pb2.AlarmRequest(action=rpc_pb2.AlarmRequest.ACTIVATE, memberID=member_id, alarm=kind)
    return pack_command(Op.ALARM, request.SerializeToString())
