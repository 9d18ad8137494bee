"""The one catalogue of etcd errors: name, text, gRPC code; the HTTP status is computed from the code.

Clients compare the text first and the code second, so both are etcd 3.6's to the byte. On a local
socket an error is its `id`, one byte; an id is never given to another error. 0 means no error.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class Code(IntEnum):
    """The gRPC status codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @property
    def go_name(self) -> str:
        """The name as Go prints it, `InvalidArgument`; CANCELLED is `Canceled` there."""
        return _GO_NAMES[self]


_GO_NAMES: Final = {code: code.name.title().replace("_", "") for code in Code} | {
    Code.OK: "OK",
    Code.CANCELLED: "Canceled",
}

_HTTP_STATUS: Final[dict[int, int]] = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}


def http_status(code: int) -> int:
    """HTTP status for a gRPC code, as grpc-gateway maps it; 500 for a number that is no code."""
    return _HTTP_STATUS.get(code, 500)


@dataclass(frozen=True, slots=True)
class EtcdError:
    """One error a client can receive.

    `code` is the gRPC code sent. `declared` is set for the two errors that etcd's server maps through
    the wrong table and so sends as UNKNOWN: it is the code etcd's own list gives them.
    """

    id: int  # 1..255, fits the one byte it has on a local socket
    name: str  # the constant's name, for logs
    text: str
    code: Code
    declared: Code | None = None

    @property
    def http_status(self) -> int:
        """HTTP status the JSON gateway answers with."""
        return http_status(self.code)

    @property
    def go_text(self) -> str:
        """The text Go makes of it, used where etcd puts an error inside a message (`cancel_reason`)."""
        return f"rpc error: code = {self.code.go_name} desc = {self.text}"


class CallFailed(Exception):  # noqa: N818 - it names an outcome, the error itself is `error`
    """Raised where an error of the catalogue becomes known; translated once, in api."""

    def __init__(self, error: EtcdError) -> None:
        super().__init__(error.text)
        self.error = error


# Declared by etcd (rpctypes).
EMPTY_KEY = EtcdError(1, "EMPTY_KEY", "etcdserver: key is not provided", Code.INVALID_ARGUMENT)
KEY_NOT_FOUND = EtcdError(2, "KEY_NOT_FOUND", "etcdserver: key not found", Code.INVALID_ARGUMENT)
VALUE_PROVIDED = EtcdError(3, "VALUE_PROVIDED", "etcdserver: value is provided", Code.INVALID_ARGUMENT)
LEASE_PROVIDED = EtcdError(4, "LEASE_PROVIDED", "etcdserver: lease is provided", Code.INVALID_ARGUMENT)
TOO_MANY_OPS = EtcdError(5, "TOO_MANY_OPS", "etcdserver: too many operations in txn request", Code.INVALID_ARGUMENT)
DUPLICATE_KEY = EtcdError(6, "DUPLICATE_KEY", "etcdserver: duplicate key given in txn request", Code.INVALID_ARGUMENT)
INVALID_CLIENT_API_VERSION = EtcdError(
    7, "INVALID_CLIENT_API_VERSION", "etcdserver: invalid client api version", Code.INVALID_ARGUMENT
)
INVALID_SORT_OPTION = EtcdError(8, "INVALID_SORT_OPTION", "etcdserver: invalid sort option", Code.INVALID_ARGUMENT)
COMPACTED = EtcdError(9, "COMPACTED", "etcdserver: mvcc: required revision has been compacted", Code.OUT_OF_RANGE)
FUTURE_REV = EtcdError(10, "FUTURE_REV", "etcdserver: mvcc: required revision is a future revision", Code.OUT_OF_RANGE)
NO_SPACE = EtcdError(11, "NO_SPACE", "etcdserver: mvcc: database space exceeded", Code.RESOURCE_EXHAUSTED)
LEASE_NOT_FOUND = EtcdError(12, "LEASE_NOT_FOUND", "etcdserver: requested lease not found", Code.NOT_FOUND)
LEASE_EXIST = EtcdError(13, "LEASE_EXIST", "etcdserver: lease already exists", Code.FAILED_PRECONDITION)
LEASE_TTL_TOO_LARGE = EtcdError(14, "LEASE_TTL_TOO_LARGE", "etcdserver: too large lease TTL", Code.OUT_OF_RANGE)
WATCH_CANCELED = EtcdError(15, "WATCH_CANCELED", "etcdserver: watch canceled", Code.CANCELLED)
MEMBER_EXIST = EtcdError(16, "MEMBER_EXIST", "etcdserver: member ID already exist", Code.FAILED_PRECONDITION)
PEER_URL_EXIST = EtcdError(17, "PEER_URL_EXIST", "etcdserver: Peer URLs already exists", Code.FAILED_PRECONDITION)
MEMBER_NOT_ENOUGH_STARTED = EtcdError(
    18,
    "MEMBER_NOT_ENOUGH_STARTED",
    "etcdserver: re-configuration failed due to not enough started members",
    Code.UNKNOWN,
    Code.FAILED_PRECONDITION,
)
MEMBER_BAD_URLS = EtcdError(19, "MEMBER_BAD_URLS", "etcdserver: given member URLs are invalid", Code.INVALID_ARGUMENT)
MEMBER_NOT_FOUND = EtcdError(20, "MEMBER_NOT_FOUND", "etcdserver: member not found", Code.NOT_FOUND)
MEMBER_NOT_LEARNER = EtcdError(
    21, "MEMBER_NOT_LEARNER", "etcdserver: can only promote a learner member", Code.FAILED_PRECONDITION
)
LEARNER_NOT_READY = EtcdError(
    22,
    "LEARNER_NOT_READY",
    "etcdserver: can only promote a learner member which is in sync with leader",
    Code.FAILED_PRECONDITION,
)
TOO_MANY_LEARNERS = EtcdError(
    23, "TOO_MANY_LEARNERS", "etcdserver: too many learner members in cluster", Code.FAILED_PRECONDITION
)
CLUSTER_ID_MISMATCH = EtcdError(24, "CLUSTER_ID_MISMATCH", "etcdserver: cluster ID mismatch", Code.FAILED_PRECONDITION)
REQUEST_TOO_LARGE = EtcdError(25, "REQUEST_TOO_LARGE", "etcdserver: request is too large", Code.INVALID_ARGUMENT)
TOO_MANY_REQUESTS = EtcdError(
    26, "TOO_MANY_REQUESTS", "etcdserver: too many requests", Code.UNKNOWN, Code.RESOURCE_EXHAUSTED
)
ROOT_USER_NOT_EXIST = EtcdError(
    27, "ROOT_USER_NOT_EXIST", "etcdserver: root user does not exist", Code.FAILED_PRECONDITION
)
ROOT_ROLE_NOT_EXIST = EtcdError(
    28, "ROOT_ROLE_NOT_EXIST", "etcdserver: root user does not have root role", Code.FAILED_PRECONDITION
)
USER_ALREADY_EXIST = EtcdError(
    29, "USER_ALREADY_EXIST", "etcdserver: user name already exists", Code.FAILED_PRECONDITION
)
USER_EMPTY = EtcdError(30, "USER_EMPTY", "etcdserver: user name is empty", Code.INVALID_ARGUMENT)
USER_NOT_FOUND = EtcdError(31, "USER_NOT_FOUND", "etcdserver: user name not found", Code.FAILED_PRECONDITION)
ROLE_ALREADY_EXIST = EtcdError(
    32, "ROLE_ALREADY_EXIST", "etcdserver: role name already exists", Code.FAILED_PRECONDITION
)
ROLE_NOT_FOUND = EtcdError(33, "ROLE_NOT_FOUND", "etcdserver: role name not found", Code.FAILED_PRECONDITION)
ROLE_EMPTY = EtcdError(34, "ROLE_EMPTY", "etcdserver: role name is empty", Code.INVALID_ARGUMENT)
AUTH_FAILED = EtcdError(
    35, "AUTH_FAILED", "etcdserver: authentication failed, invalid user ID or password", Code.INVALID_ARGUMENT
)
PERMISSION_NOT_GIVEN = EtcdError(36, "PERMISSION_NOT_GIVEN", "etcdserver: permission not given", Code.INVALID_ARGUMENT)
PERMISSION_DENIED = EtcdError(37, "PERMISSION_DENIED", "etcdserver: permission denied", Code.PERMISSION_DENIED)
ROLE_NOT_GRANTED = EtcdError(
    38, "ROLE_NOT_GRANTED", "etcdserver: role is not granted to the user", Code.FAILED_PRECONDITION
)
PERMISSION_NOT_GRANTED = EtcdError(
    39,
    "PERMISSION_NOT_GRANTED",
    "etcdserver: permission is not granted to the role",
    Code.FAILED_PRECONDITION,
)
AUTH_NOT_ENABLED = EtcdError(
    40, "AUTH_NOT_ENABLED", "etcdserver: authentication is not enabled", Code.FAILED_PRECONDITION
)
INVALID_AUTH_TOKEN = EtcdError(41, "INVALID_AUTH_TOKEN", "etcdserver: invalid auth token", Code.UNAUTHENTICATED)
INVALID_AUTH_MGMT = EtcdError(42, "INVALID_AUTH_MGMT", "etcdserver: invalid auth management", Code.INVALID_ARGUMENT)
AUTH_OLD_REVISION = EtcdError(
    43, "AUTH_OLD_REVISION", "etcdserver: revision of auth store is old", Code.INVALID_ARGUMENT
)
NO_LEADER = EtcdError(44, "NO_LEADER", "etcdserver: no leader", Code.UNAVAILABLE)
NOT_LEADER = EtcdError(45, "NOT_LEADER", "etcdserver: not leader", Code.FAILED_PRECONDITION)
LEADER_CHANGED = EtcdError(46, "LEADER_CHANGED", "etcdserver: leader changed", Code.UNAVAILABLE)
NOT_CAPABLE = EtcdError(47, "NOT_CAPABLE", "etcdserver: not capable", Code.FAILED_PRECONDITION)
STOPPED = EtcdError(48, "STOPPED", "etcdserver: server stopped", Code.UNAVAILABLE)
TIMEOUT = EtcdError(49, "TIMEOUT", "etcdserver: request timed out", Code.UNAVAILABLE)
TIMEOUT_DUE_TO_LEADER_FAIL = EtcdError(
    50,
    "TIMEOUT_DUE_TO_LEADER_FAIL",
    "etcdserver: request timed out, possibly due to previous leader failure",
    Code.UNAVAILABLE,
)
TIMEOUT_DUE_TO_CONNECTION_LOST = EtcdError(
    51,
    "TIMEOUT_DUE_TO_CONNECTION_LOST",
    "etcdserver: request timed out, possibly due to connection lost",
    Code.UNAVAILABLE,
)
TIMEOUT_WAIT_APPLIED_INDEX = EtcdError(
    52,
    "TIMEOUT_WAIT_APPLIED_INDEX",
    "etcdserver: request timed out, waiting for the applied index took too long",
    Code.UNAVAILABLE,
)
UNHEALTHY = EtcdError(53, "UNHEALTHY", "etcdserver: unhealthy cluster", Code.UNAVAILABLE)
CORRUPT = EtcdError(54, "CORRUPT", "etcdserver: corrupt cluster", Code.DATA_LOSS)
NOT_SUPPORTED_FOR_LEARNER = EtcdError(
    55, "NOT_SUPPORTED_FOR_LEARNER", "etcdserver: rpc not supported for learner", Code.FAILED_PRECONDITION
)
BAD_LEADER_TRANSFEREE = EtcdError(
    56, "BAD_LEADER_TRANSFEREE", "etcdserver: bad leader transferee", Code.FAILED_PRECONDITION
)
WRONG_DOWNGRADE_VERSION_FORMAT = EtcdError(
    57,
    "WRONG_DOWNGRADE_VERSION_FORMAT",
    "etcdserver: wrong downgrade target version format",
    Code.INVALID_ARGUMENT,
)
INVALID_DOWNGRADE_TARGET_VERSION = EtcdError(
    58,
    "INVALID_DOWNGRADE_TARGET_VERSION",
    "etcdserver: invalid downgrade target version",
    Code.INVALID_ARGUMENT,
)
CLUSTER_VERSION_UNAVAILABLE = EtcdError(
    59,
    "CLUSTER_VERSION_UNAVAILABLE",
    "etcdserver: cluster version not found during downgrade",
    Code.FAILED_PRECONDITION,
)
DOWNGRADE_IN_PROCESS = EtcdError(
    60,
    "DOWNGRADE_IN_PROCESS",
    "etcdserver: cluster has a downgrade job in progress",
    Code.FAILED_PRECONDITION,
)
NO_INFLIGHT_DOWNGRADE = EtcdError(
    61, "NO_INFLIGHT_DOWNGRADE", "etcdserver: no inflight downgrade job", Code.FAILED_PRECONDITION
)
CANCELED = EtcdError(62, "CANCELED", "etcdserver: request canceled", Code.CANCELLED)
DEADLINE_EXCEEDED = EtcdError(63, "DEADLINE_EXCEEDED", "etcdserver: context deadline exceeded", Code.DEADLINE_EXCEEDED)

# Texts that etcd's server sends without a mapping, so with the code UNKNOWN.
REQUEST_CANCELLED = EtcdError(100, "REQUEST_CANCELLED", "etcdserver: request cancelled", Code.UNKNOWN)
TIMEOUT_LEADER_TRANSFER = EtcdError(
    101,
    "TIMEOUT_LEADER_TRANSFER",
    "etcdserver: request timed out, leader transfer took too long",
    Code.UNKNOWN,
)
UNKNOWN_METHOD = EtcdError(102, "UNKNOWN_METHOD", "etcdserver: unknown method", Code.UNKNOWN)
NOT_PRIMARY_LESSOR = EtcdError(103, "NOT_PRIMARY_LESSOR", "not a primary lessor", Code.UNKNOWN)
NO_PASSWORD_USER = EtcdError(
    104,
    "NO_PASSWORD_USER",
    "auth: authentication failed, password was given for no password user",
    Code.UNKNOWN,
)
VERIFY_ONLY = EtcdError(105, "VERIFY_ONLY", "auth: token signing attempted with verify-only key", Code.UNKNOWN)
PASSWORD_TOO_LONG = EtcdError(106, "PASSWORD_TOO_LONG", "bcrypt: password length exceeds 72 bytes", Code.UNKNOWN)
ELECTION_NO_LEADER = EtcdError(107, "ELECTION_NO_LEADER", "election: no leader", Code.UNKNOWN)
ELECTION_NOT_LEADER = EtcdError(108, "ELECTION_NOT_LEADER", "election: not leader", Code.UNKNOWN)
LEADER_KEY_MISSING = EtcdError(109, "LEADER_KEY_MISSING", '"leader" field must be provided', Code.UNKNOWN)
SESSION_EXPIRED = EtcdError(110, "SESSION_EXPIRED", "mutex: session is expired", Code.UNKNOWN)
LOST_WATCHER = EtcdError(111, "LOST_WATCHER", "lost watcher waiting for delete", Code.UNKNOWN)

# Texts of a watcher that is refused; its stream stays open, so they are only ever a `cancel_reason`.
DUPLICATE_WATCH_ID = EtcdError(
    120, "DUPLICATE_WATCH_ID", "mvcc: duplicate watch ID provided on the WatchStream", Code.UNKNOWN
)
EMPTY_WATCHER_RANGE = EtcdError(121, "EMPTY_WATCHER_RANGE", "mvcc: watcher range is empty", Code.UNKNOWN)

# Errors of the gRPC and HTTP layers.
CONTEXT_CANCELED = EtcdError(130, "CONTEXT_CANCELED", "context canceled", Code.CANCELLED)
CONTEXT_DEADLINE_EXCEEDED = EtcdError(
    131, "CONTEXT_DEADLINE_EXCEEDED", "context deadline exceeded", Code.DEADLINE_EXCEEDED
)
HEALTH_UNKNOWN_SERVICE = EtcdError(132, "HEALTH_UNKNOWN_SERVICE", "unknown service", Code.NOT_FOUND)
PATH_NOT_FOUND = EtcdError(133, "PATH_NOT_FOUND", "Not Found", Code.NOT_FOUND)
METHOD_NOT_ALLOWED = EtcdError(134, "METHOD_NOT_ALLOWED", "Method Not Allowed", Code.UNIMPLEMENTED)
RANGE_STREAM_SORT = EtcdError(
    135, "RANGE_STREAM_SORT", "RangeStream does not support custom sort orders", Code.UNIMPLEMENTED
)
RANGE_STREAM_FILTER = EtcdError(
    136, "RANGE_STREAM_FILTER", "RangeStream does not support revision filters", Code.UNIMPLEMENTED
)
MALFORMED_REQUEST = EtcdError(
    137,
    "MALFORMED_REQUEST",
    "grpc: error unmarshalling request: proto: cannot parse invalid wire-format data",
    Code.INTERNAL,
)
INTERNAL_FAULT = EtcdError(
    138, "INTERNAL_FAULT", "quorate: the call failed by a fault of this member; its log says more", Code.INTERNAL
)
UNKNOWN_ALARM = EtcdError(
    139,
    "UNKNOWN_ALARM",
    "etcdserver: unknown alarm: NOSPACE (1) and CORRUPT (2) are those that can be activated",
    Code.INVALID_ARGUMENT,
)

CATALOGUE: Final = {
    definition.id: definition for definition in list(globals().values()) if isinstance(definition, EtcdError)
}


def by_id(error_id: int) -> EtcdError:
    """The error with this id; KeyError for a number that is none, which only a broken peer sends."""
    return CATALOGUE[error_id]


def unknown_method_text(service: str, method: str) -> str:
    """Message of UNIMPLEMENTED for a method the service does not have."""
    return f"unknown method {method} for service {service}"


def unknown_service_text(service: str) -> str:
    """Message of UNIMPLEMENTED for a service that is not served."""
    return f"unknown service {service}"


def message_too_large_text(received_bytes: int, received_bytes_max: int) -> str:
    """Message of RESOURCE_EXHAUSTED for a message above the receive limit."""
    return f"grpc: received message larger than max ({received_bytes} vs. {received_bytes_max})"
