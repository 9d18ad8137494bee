"""Tables of members and endpoints, and the cells the simple format shares with them."""

from collections.abc import Iterable, Sequence
from typing import Final

from quorate.ctl import go_text
from quorate.ctl.printers import EndpointHash, EndpointHealth, EndpointStatus, Printer, line
from quorate.proto import rpc_pb2 as rpc

MEMBER_HEADER: Final = ("ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner")
HEALTH_HEADER: Final = ("endpoint", "health", "took", "error")
HASH_HEADER: Final = ("endpoint", "hash", "hash revision")
STATUS_HEADER: Final = (
    "endpoint",
    "ID",
    "version",
    "storage version",
    "db size",
    "in use",
    "percentage not in use",
    "quota",
    "is leader",
    "is learner",
    "raft term",
    "raft index",
    "raft applied index",
    "errors",
    "downgrade target version",
    "downgrade enabled",
)


class Table(Printer):
    """Boxes of ASCII."""

    name = "table"

    def members(self, answer: rpc.MemberListResponse) -> None:
        box(MEMBER_HEADER, member_rows(answer.members))

    def health(self, endpoints: Sequence[EndpointHealth]) -> None:
        box(HEALTH_HEADER, [(one.endpoint, str(one.health).lower(), one.took, one.error) for one in endpoints])

    def status(self, endpoints: Sequence[EndpointStatus]) -> None:
        box(STATUS_HEADER, status_rows(endpoints))

    def hashes(self, endpoints: Sequence[EndpointHash]) -> None:
        box(HASH_HEADER, hash_rows(endpoints))


def box(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a header."""
    titles = [title.upper() for title in header]
    widths = [max(len(cell) for cell in column) for column in zip(titles, *rows, strict=True)]
    border = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    line(border)
    line(_row(_centred(title, width) for title, width in zip(titles, widths, strict=True)))
    line(border)
    for row in rows:
        line(_row(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    line(border)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _centred(text: str, width: int) -> str:
    gap = width - len(text)
    left = (gap + 1) // 2
    return " " * left + text + " " * (gap - left)


def _boolean(value: bool) -> str:
    return str(value).lower()


def member_rows(members: Iterable[rpc.Member]) -> list[tuple[str, ...]]:
    """One row for each member."""
    return [
        (
            f"{member.ID:x}",
            "started" if member.name else "unstarted",
            member.name,
            ",".join(member.peerURLs),
            ",".join(member.clientURLs),
            _boolean(member.isLearner),
        )
        for member in members
    ]


def status_rows(endpoints: Iterable[EndpointStatus]) -> list[tuple[str, ...]]:
    """One row for each endpoint."""
    return [
        (
            one.endpoint,
            f"{one.status.header.member_id:x}",
            one.status.version,
            one.status.storageVersion,
            go_text.human_bytes(one.status.dbSize),
            go_text.human_bytes(one.status.dbSizeInUse),
            f"{_percent_free(one.status)}%",
            go_text.human_bytes(one.status.dbSizeQuota),
            _boolean(one.status.leader == one.status.header.member_id),
            _boolean(one.status.isLearner),
            str(one.status.raftTerm),
            str(one.status.raftIndex),
            str(one.status.raftAppliedIndex),
            ", ".join(one.status.errors),
            one.status.downgradeInfo.targetVersion,
            _boolean(one.status.downgradeInfo.enabled),
        )
        for one in endpoints
    ]


def _percent_free(status: rpc.StatusResponse) -> int:
    return 100 - status.dbSizeInUse * 100 // status.dbSize if status.dbSize else 0


def hash_rows(endpoints: Iterable[EndpointHash]) -> list[tuple[str, ...]]:
    """One row for each endpoint."""
    return [(one.endpoint, str(one.hash.hash), str(one.hash.hash_revision)) for one in endpoints]


def health_text(one: EndpointHealth) -> str:
    """A sentence about one endpoint."""
    if one.error:
        return f"{one.endpoint} is unhealthy: failed to commit proposal: {one.error}"
    return f"{one.endpoint} is healthy: successfully committed proposal: took = {one.took}"
