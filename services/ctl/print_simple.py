"""The format for people: keys and values on lines of their own, and sentences."""

import sys
from collections.abc import Sequence

from google.protobuf.message import Message

from quorate.client.ranges import prefix_end
from quorate.ctl import go_text
from quorate.ctl.print_table import hash_rows, health_text, member_rows, status_rows
from quorate.ctl.printers import EndpointHash, EndpointHealth, EndpointStatus, Printer, line, name_of
from quorate.proto import rpc_pb2 as rpc
from quorate.proto.auth_pb2 import Permission
from quorate.proto.kv_pb2 import Event, KeyValue


class Simple(Printer):
    """Keys and values raw, or as `\\xNN` with `--hex`."""

    name = "simple"
    is_simple = True

    def __init__(self, hex_wanted: bool, values_only: bool = False) -> None:
        self._shown = go_text.shown_as(hex_wanted)
        self._values_only = values_only

    def _pair(self, kv: KeyValue) -> None:
        if not self._values_only:
            line(self._shown(kv.key))
        line(self._shown(kv.value))

    def put(self, answer: rpc.PutResponse) -> None:
        line("OK")
        if answer.HasField("prev_kv"):
            self._pair(answer.prev_kv)

    def get(self, answer: rpc.RangeResponse) -> None:
        for kv in answer.kvs:
            self._pair(kv)

    def delete(self, answer: rpc.DeleteRangeResponse) -> None:
        line(str(answer.deleted))
        for kv in answer.prev_kvs:
            self._pair(kv)

    def txn(self, answer: rpc.TxnResponse) -> None:
        line("SUCCESS" if answer.succeeded else "FAILURE")
        for response in answer.responses:
            line("")
            self.operation(response)

    def watch(self, response: rpc.WatchResponse) -> None:
        if not response.events:
            print(f"progress notify: {response.header.revision}", file=sys.stdout, flush=True)
        for event in response.events:
            line(name_of(Event.EventType, event.type))
            if event.HasField("prev_kv"):
                self._pair(event.prev_kv)
            self._pair(event.kv)

    def grant(self, answer: rpc.LeaseGrantResponse) -> None:
        line(f"lease {answer.ID:016x} granted with TTL({answer.TTL}s)")

    def revoke(self, lease_id: int, answer: rpc.LeaseRevokeResponse) -> None:
        line(f"lease {lease_id:016x} revoked")

    def keep_alive(self, answer: rpc.LeaseKeepAliveResponse) -> None:
        line(f"lease {answer.ID:016x} keepalived with TTL({answer.TTL})")

    def time_to_live(self, answer: rpc.LeaseTimeToLiveResponse, keys: bool) -> None:
        if answer.TTL == -1:
            line(f"lease {answer.ID:016x} already expired")
            return
        shown = f"lease {answer.ID:016x} granted with TTL({answer.grantedTTL}s), remaining({answer.TTL}s)"
        if keys:
            shown += f", attached keys([{b' '.join(answer.keys).decode(errors='surrogateescape')}])"
        line(shown)

    def leases(self, answer: rpc.LeaseLeasesResponse) -> None:
        line(f"found {len(answer.leases)} leases")
        for lease in answer.leases:
            line(f"{lease.ID:016x}")

    def members(self, answer: rpc.MemberListResponse) -> None:
        for row in member_rows(answer.members):
            line(", ".join(row))

    def member_add(self, answer: rpc.MemberAddResponse) -> None:
        how = "added as learner to" if answer.member.isLearner else "added to"
        line(f"Member {answer.member.ID:16x} {how} cluster {answer.header.cluster_id:16x}")

    def member_change(self, done: str, member_id: int, answer: Message) -> None:
        header: rpc.ResponseHeader = answer.header  # type: ignore[attr-defined]
        line(f"Member {member_id:16x} {done} cluster {header.cluster_id:16x}")

    def alarms(self, answer: rpc.AlarmResponse) -> None:
        for alarm in answer.alarms:
            line(alarm_text(alarm))

    def move_leader(self, leader: int, target: int, answer: rpc.MoveLeaderResponse) -> None:
        line(f"Leadership transferred from {leader:x} to {target:x}")

    def done(self, text: str, answer: Message) -> None:
        line(text)

    def auth_status(self, answer: rpc.AuthStatusResponse) -> None:
        line(f"Authentication Status: {str(answer.enabled).lower()}")
        line(f"AuthRevision: {answer.authRevision}")

    def user_get(self, name: str, answer: rpc.AuthUserGetResponse) -> None:
        line(f"User: {name}")
        line(" ".join(("Roles:", *answer.roles)))

    def names(self, names: Sequence[str], answer: Message) -> None:
        for name in names:
            line(name)

    def role_get(self, name: str, answer: rpc.AuthRoleGetResponse) -> None:
        line(f"Role {name}")
        line("KV Read:")
        for permission in answer.perm:
            if permission.permType in (Permission.READ, Permission.READWRITE):
                line(f"\t{permission_text(permission)}")
        line("KV Write:")
        for permission in answer.perm:
            if permission.permType in (Permission.WRITE, Permission.READWRITE):
                line(f"\t{permission_text(permission)}")

    def health(self, endpoints: Sequence[EndpointHealth]) -> None:
        for one in endpoints:
            print(health_text(one), file=sys.stderr if one.error else sys.stdout, flush=True)

    def status(self, endpoints: Sequence[EndpointStatus]) -> None:
        for row in status_rows(endpoints):
            line(", ".join(row))

    def hashes(self, endpoints: Sequence[EndpointHash]) -> None:
        for row in hash_rows(endpoints):
            line(", ".join(row))


def alarm_text(alarm: rpc.AlarmMember) -> str:
    """An alarm in protobuf's text form, which ends with a space."""
    return f"memberID:{alarm.memberID} alarm:{name_of(rpc.AlarmType, alarm.alarm)} "


def permission_text(permission: Permission) -> str:
    """The keys of a permission as an interval, with the prefix it stands for."""
    key = permission.key.decode(errors="surrogateescape")
    if not permission.range_end:
        return key
    if permission.range_end == b"\0":
        return f"[{key}, <open ended>" + ("" if key else " (prefix )")
    end = permission.range_end.decode(errors="surrogateescape")
    is_prefix = prefix_end(permission.key) == permission.range_end
    return f"[{key}, {end})" + (f" (prefix {key})" if is_prefix else "")
