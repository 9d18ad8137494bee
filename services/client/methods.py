"""Every unary call of etcd's API: its path, its message types, and whether it may be repeated."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from google.protobuf.message import Message

from quorate.proto import rpc_pb2 as rpc

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


@dataclass(frozen=True, slots=True)
class Method(Generic[Q, A]):
    """One call. A read changes nothing, so it may be sent again to another endpoint when its answer was lost."""

    path: str
    request: type[Q]
    decode: Callable[[bytes], A]
    is_read: bool = False


RANGE: Final = Method("/etcdserverpb.KV/Range", rpc.RangeRequest, rpc.RangeResponse.FromString, is_read=True)
PUT: Final = Method("/etcdserverpb.KV/Put", rpc.PutRequest, rpc.PutResponse.FromString)
DELETE_RANGE: Final = Method("/etcdserverpb.KV/DeleteRange", rpc.DeleteRangeRequest, rpc.DeleteRangeResponse.FromString)
TXN: Final = Method("/etcdserverpb.KV/Txn", rpc.TxnRequest, rpc.TxnResponse.FromString)
COMPACT: Final = Method("/etcdserverpb.KV/Compact", rpc.CompactionRequest, rpc.CompactionResponse.FromString)
LEASE_GRANT: Final = Method("/etcdserverpb.Lease/LeaseGrant", rpc.LeaseGrantRequest, rpc.LeaseGrantResponse.FromString)
LEASE_REVOKE: Final = Method(
    "/etcdserverpb.Lease/LeaseRevoke", rpc.LeaseRevokeRequest, rpc.LeaseRevokeResponse.FromString
)
LEASE_TIME_TO_LIVE: Final = Method(
    "/etcdserverpb.Lease/LeaseTimeToLive",
    rpc.LeaseTimeToLiveRequest,
    rpc.LeaseTimeToLiveResponse.FromString,
    is_read=True,
)
LEASE_LEASES: Final = Method(
    "/etcdserverpb.Lease/LeaseLeases", rpc.LeaseLeasesRequest, rpc.LeaseLeasesResponse.FromString, is_read=True
)
MEMBER_ADD: Final = Method("/etcdserverpb.Cluster/MemberAdd", rpc.MemberAddRequest, rpc.MemberAddResponse.FromString)
MEMBER_REMOVE: Final = Method(
    "/etcdserverpb.Cluster/MemberRemove", rpc.MemberRemoveRequest, rpc.MemberRemoveResponse.FromString
)
MEMBER_UPDATE: Final = Method(
    "/etcdserverpb.Cluster/MemberUpdate", rpc.MemberUpdateRequest, rpc.MemberUpdateResponse.FromString
)
MEMBER_LIST: Final = Method(
    "/etcdserverpb.Cluster/MemberList", rpc.MemberListRequest, rpc.MemberListResponse.FromString, is_read=True
)
MEMBER_PROMOTE: Final = Method(
    "/etcdserverpb.Cluster/MemberPromote", rpc.MemberPromoteRequest, rpc.MemberPromoteResponse.FromString
)
ALARM: Final = Method("/etcdserverpb.Maintenance/Alarm", rpc.AlarmRequest, rpc.AlarmResponse.FromString)
STATUS: Final = Method(
    "/etcdserverpb.Maintenance/Status", rpc.StatusRequest, rpc.StatusResponse.FromString, is_read=True
)
DEFRAGMENT: Final = Method(
    "/etcdserverpb.Maintenance/Defragment", rpc.DefragmentRequest, rpc.DefragmentResponse.FromString
)
HASH: Final = Method("/etcdserverpb.Maintenance/Hash", rpc.HashRequest, rpc.HashResponse.FromString, is_read=True)
HASH_KV: Final = Method(
    "/etcdserverpb.Maintenance/HashKV", rpc.HashKVRequest, rpc.HashKVResponse.FromString, is_read=True
)
MOVE_LEADER: Final = Method(
    "/etcdserverpb.Maintenance/MoveLeader", rpc.MoveLeaderRequest, rpc.MoveLeaderResponse.FromString
)
DOWNGRADE: Final = Method("/etcdserverpb.Maintenance/Downgrade", rpc.DowngradeRequest, rpc.DowngradeResponse.FromString)
AUTH_ENABLE: Final = Method("/etcdserverpb.Auth/AuthEnable", rpc.AuthEnableRequest, rpc.AuthEnableResponse.FromString)
AUTH_DISABLE: Final = Method(
    "/etcdserverpb.Auth/AuthDisable", rpc.AuthDisableRequest, rpc.AuthDisableResponse.FromString
)
AUTH_STATUS: Final = Method(
    "/etcdserverpb.Auth/AuthStatus", rpc.AuthStatusRequest, rpc.AuthStatusResponse.FromString, is_read=True
)
AUTHENTICATE: Final = Method(
    "/etcdserverpb.Auth/Authenticate", rpc.AuthenticateRequest, rpc.AuthenticateResponse.FromString, is_read=True
)
USER_ADD: Final = Method("/etcdserverpb.Auth/UserAdd", rpc.AuthUserAddRequest, rpc.AuthUserAddResponse.FromString)
USER_GET: Final = Method(
    "/etcdserverpb.Auth/UserGet", rpc.AuthUserGetRequest, rpc.AuthUserGetResponse.FromString, is_read=True
)
USER_LIST: Final = Method(
    "/etcdserverpb.Auth/UserList", rpc.AuthUserListRequest, rpc.AuthUserListResponse.FromString, is_read=True
)
USER_DELETE: Final = Method(
    "/etcdserverpb.Auth/UserDelete", rpc.AuthUserDeleteRequest, rpc.AuthUserDeleteResponse.FromString
)
USER_CHANGE_PASSWORD: Final = Method(
    "/etcdserverpb.Auth/UserChangePassword",
    rpc.AuthUserChangePasswordRequest,
    rpc.AuthUserChangePasswordResponse.FromString,
)
USER_GRANT_ROLE: Final = Method(
    "/etcdserverpb.Auth/UserGrantRole", rpc.AuthUserGrantRoleRequest, rpc.AuthUserGrantRoleResponse.FromString
)
USER_REVOKE_ROLE: Final = Method(
    "/etcdserverpb.Auth/UserRevokeRole", rpc.AuthUserRevokeRoleRequest, rpc.AuthUserRevokeRoleResponse.FromString
)
ROLE_ADD: Final = Method("/etcdserverpb.Auth/RoleAdd", rpc.AuthRoleAddRequest, rpc.AuthRoleAddResponse.FromString)
ROLE_GET: Final = Method(
    "/etcdserverpb.Auth/RoleGet", rpc.AuthRoleGetRequest, rpc.AuthRoleGetResponse.FromString, is_read=True
)
ROLE_LIST: Final = Method(
    "/etcdserverpb.Auth/RoleList", rpc.AuthRoleListRequest, rpc.AuthRoleListResponse.FromString, is_read=True
)
ROLE_DELETE: Final = Method(
    "/etcdserverpb.Auth/RoleDelete", rpc.AuthRoleDeleteRequest, rpc.AuthRoleDeleteResponse.FromString
)
ROLE_GRANT_PERMISSION: Final = Method(
    "/etcdserverpb.Auth/RoleGrantPermission",
    rpc.AuthRoleGrantPermissionRequest,
    rpc.AuthRoleGrantPermissionResponse.FromString,
)
ROLE_REVOKE_PERMISSION: Final = Method(
    "/etcdserverpb.Auth/RoleRevokePermission",
    rpc.AuthRoleRevokePermissionRequest,
    rpc.AuthRoleRevokePermissionResponse.FromString,
)

# The calls that stream.
WATCH_PATH: Final = "/etcdserverpb.Watch/Watch"
LEASE_KEEP_ALIVE_PATH: Final = "/etcdserverpb.Lease/LeaseKeepAlive"
SNAPSHOT_PATH: Final = "/etcdserverpb.Maintenance/Snapshot"
