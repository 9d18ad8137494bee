"""What a caller of the library may have to catch."""

from typing import Final

CANCELLED: Final = 1
UNKNOWN: Final = 2
DEADLINE_EXCEEDED: Final = 4
OUT_OF_RANGE: Final = 11
UNAVAILABLE: Final = 14

COMPACTED_TEXT: Final = "etcdserver: mvcc: required revision has been compacted"
LEASE_NOT_FOUND_TEXT: Final = "etcdserver: requested lease not found"
AUTH_NOT_ENABLED_TEXT: Final = "etcdserver: authentication is not enabled"
INVALID_TOKEN_TEXT: Final = "etcdserver: invalid auth token"  # noqa: S105 - an error text
OLD_REVISION_TEXT: Final = "etcdserver: revision of auth store is old"
USER_EMPTY_TEXT: Final = "etcdserver: user name is empty"
ROLE_EXISTS_TEXT: Final = "etcdserver: role name already exists"
NO_LEADER_TEXT: Final = "etcdserver: no leader"


class EtcdError(Exception):
    """A call that failed: `code` is the gRPC status code, `text` the server's (or the transport's) message.

    Compare `text` first, as etcd's own clients do: several errors share a code.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class NoEndpointsError(EtcdError):
    """There is no endpoint to call."""

    def __init__(self) -> None:
        super().__init__(UNAVAILABLE, "etcdclient: no available endpoints")


class OutcomeUnknownError(EtcdError):
    """A write was sent and its answer was lost: it may have happened, may yet happen, or not.

    The library never repeats such a call. Read the state, or guard the write with a txn so that repeating is harmless.
    """


class CompactedError(EtcdError):
    """The revision asked for is gone; `compact_revision` is the oldest there is, 0 when the server does not say."""

    def __init__(self, compact_revision: int = 0) -> None:
        super().__init__(OUT_OF_RANGE, COMPACTED_TEXT)
        self.compact_revision = compact_revision


class LeaseExpiredError(EtcdError):
    """The lease of a session, lock or election is gone, and with it all its keys."""

    def __init__(self, text: str = LEASE_NOT_FOUND_TEXT) -> None:
        super().__init__(UNKNOWN, text)


class NotLeaderError(EtcdError):
    """This candidate does not lead, or no longer."""

    def __init__(self) -> None:
        super().__init__(UNKNOWN, "election: not leader")
