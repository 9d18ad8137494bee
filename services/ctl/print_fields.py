"""One line for each field, `"Name" : value`."""

from collections.abc import Sequence

from google.protobuf.message import Message

from quorate.ctl import go_text
from quorate.ctl.printers import EndpointHash, EndpointHealth, EndpointStatus, Printer, line, name_of
from quorate.proto import rpc_pb2 as rpc
from quorate.proto.auth_pb2 import Permission
from quorate.proto.kv_pb2 import Event, KeyValue


def _field(name: str, value: object) -> None:
    line(f'"{name}" : {value}')


def _quoted(name: str, value: str | bytes) -> None:
    _field(name, go_text.quote(value.encode(errors="surrogateescape") if isinstance(value, str) else value))


def _boolean(value: bool) -> str:
    return str(value).lower()


class Fields(Printer):
    """Texts quoted, identities in hexadecimal with `--hex`."""

    name = "fields"

    def __init__(self, hex_wanted: bool) -> None:
        self._hex = hex_wanted

    def _id(self, name: str, identity: int) -> None:
        _field(name, f"{identity:x}" if self._hex else identity)

    def _header(self, header: rpc.ResponseHeader) -> None:
        self._id("ClusterID", header.cluster_id)
        self._id("MemberID", header.member_id)
        if header.revision > 0:
            _field("Revision", header.revision)
        _field("RaftTerm", header.raft_term)

    def _pair(self, kv: KeyValue, prefix: str = "") -> None:
        _quoted(f"{prefix}Key", kv.key)
        _field(f"{prefix}CreateRevision", kv.create_revision)
        _field(f"{prefix}ModRevision", kv.mod_revision)
        _field(f"{prefix}Version", kv.version)
        _quoted(f"{prefix}Value", kv.value)
        _field(f"{prefix}Lease", f"{kv.lease:016x}" if self._hex else kv.lease)

    def put(self, answer: rpc.PutResponse) -> None:
        self._header(answer.header)
        if answer.HasField("prev_kv"):
            self._pair(answer.prev_kv, "Prev")

    def get(self, answer: rpc.RangeResponse) -> None:
        self._header(answer.header)
        for kv in answer.kvs:
            self._pair(kv)
        _field("More", _boolean(answer.more))
        _field("Count", answer.count)

    def delete(self, answer: rpc.DeleteRangeResponse) -> None:
        self._header(answer.header)
        _field("Deleted", answer.deleted)
        for kv in answer.prev_kvs:
            self._pair(kv, "Prev")

    def txn(self, answer: rpc.TxnResponse) -> None:
        self._header(answer.header)
        _field("Succeeded", _boolean(answer.succeeded))
        for response in answer.responses:
            self.operation(response)

    def watch(self, response: rpc.WatchResponse) -> None:
        self._header(response.header)
        for event in response.events:
            _field("Type", name_of(Event.EventType, event.type))
            if event.HasField("prev_kv"):
                self._pair(event.prev_kv, "Prev")
            self._pair(event.kv)

    def grant(self, answer: rpc.LeaseGrantResponse) -> None:
        self._header(answer.header)
        self._id("ID", answer.ID)
        _field("TTL", answer.TTL)

    def revoke(self, lease_id: int, answer: rpc.LeaseRevokeResponse) -> None:
        self._header(answer.header)

    def keep_alive(self, answer: rpc.LeaseKeepAliveResponse) -> None:
        self._header(answer.header)
        self._id("ID", answer.ID)
        _field("TTL", answer.TTL)

    def time_to_live(self, answer: rpc.LeaseTimeToLiveResponse, keys: bool) -> None:
        self._header(answer.header)
        self._id("ID", answer.ID)
        _field("TTL", answer.TTL)
        _field("GrantedTTL", answer.grantedTTL)
        for key in answer.keys:
            _quoted("Key", key)

    def leases(self, answer: rpc.LeaseLeasesResponse) -> None:
        self._header(answer.header)
        for lease in answer.leases:
            self._id("ID", lease.ID)

    def members(self, answer: rpc.MemberListResponse) -> None:
        self._header(answer.header)
        for member in answer.members:
            self._id("ID", member.ID)
            _quoted("Name", member.name)
            for url in member.peerURLs:
                _quoted("PeerURL", url)
            for url in member.clientURLs:
                _quoted("ClientURL", url)
            _field("IsLearner", _boolean(member.isLearner))
            line("")

    def member_add(self, answer: rpc.MemberAddResponse) -> None:
        self._member_header(answer)

    def member_change(self, done: str, member_id: int, answer: Message) -> None:
        self._member_header(answer)

    def _member_header(self, answer: Message) -> None:
        self._header(answer.header)  # type: ignore[attr-defined]

    def alarms(self, answer: rpc.AlarmResponse) -> None:
        self._header(answer.header)
        for alarm in answer.alarms:
            self._id("MemberID", alarm.memberID)
            _field("AlarmType", name_of(rpc.AlarmType, alarm.alarm))
            line("")

    def done(self, text: str, answer: Message) -> None:
        self._header(answer.header)  # type: ignore[attr-defined]

    def role_get(self, name: str, answer: rpc.AuthRoleGetResponse) -> None:
        self._header(answer.header)
        for permission in answer.perm:
            _field("PermType", f" {name_of(Permission.Type, permission.permType)}")
            _quoted("Key", permission.key)
            _quoted("RangeEnd", permission.range_end)

    def names(self, names: Sequence[str], answer: Message) -> None:
        if not isinstance(answer, rpc.AuthRoleListResponse):
            raise self.unsupported()
        self._header(answer.header)
        line('"Roles" :' + "".join(f" {go_text.quote(name.encode())}" for name in names))

    def health(self, endpoints: Sequence[EndpointHealth]) -> None:
        for one in endpoints:
            _quoted("Endpoint", one.endpoint)
            _field("Health", _boolean(one.health))
            _field("Took", one.took)
            _field("Error", one.error)
            line("")

    def status(self, endpoints: Sequence[EndpointStatus]) -> None:
        for one in endpoints:
            status = one.status
            self._header(status.header)
            _quoted("Version", status.version)
            _quoted("StorageVersion", status.storageVersion)
            _field("DBSize", status.dbSize)
            _field("DBSizeInUse", status.dbSizeInUse)
            _field("DBSizeQuota", status.dbSizeQuota)
            self._id("Leader", status.leader)
            _field("IsLearner", _boolean(status.isLearner))
            _field("RaftIndex", status.raftIndex)
            _field("RaftTerm", status.raftTerm)
            _field("RaftAppliedIndex", status.raftAppliedIndex)
            _field("Errors", f"[{' '.join(status.errors)}]")
            _quoted("Endpoint", one.endpoint)
            _quoted("DowngradeTargetVersion", status.downgradeInfo.targetVersion)
            _field("DowngradeEnabled", _boolean(status.downgradeInfo.enabled))
            line("")

    def hashes(self, endpoints: Sequence[EndpointHash]) -> None:
        for one in endpoints:
            self._header(one.hash.header)
            _quoted("Endpoint", one.endpoint)
            _field("Hash", one.hash.hash)
            _field("HashRevision", one.hash.hash_revision)
            line("")
