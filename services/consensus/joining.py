"""How a new member learns of the cluster it was added to: from all it was told of, as one of them may lag.

etcd takes the list of the first that answers. A follower that is behind has not heard yet whom the operator added, or
still has a former member at the same address. Here all are asked, the newest list that has the new member counts, and
who does not know it is asked again for a few seconds, unless all agree.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from quorate.consensus.connections import Contexts, to_peer
from quorate.consensus.handshake import MEMBERSHIP_INDEX
from quorate.consensus.membership import Member
from quorate.node import logs
from quorate.node.lifecycle import OperatorError
from quorate.node.tls_failures import explain

log = logs.named("bootstrap")

FIRST_ANSWER_S: Final = 1.0  # nobody waits longer for one while others may answer
ANSWER_S: Final = 10.0  # etcd's: for each, when none was as quick
PATIENCE_S: Final = 5.0  # from the first answer on; an election and what follows are over by then
PAUSE_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Known:
    """The members of a cluster, as one of them knows them."""

    cluster_id: int
    members: list[Member]
    index: int = 0  # of the log, as of which this is; 0 of one that cannot tell whether it is up to date


# (url of a peer, timeout); raises OSError or ValueError
FetchMembers = Callable[[str, float], Known]


@dataclass(frozen=True, slots=True)
class Patience:
    """The time that asking takes."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    total_s: float = PATIENCE_S


def running_cluster(
    peers: Mapping[str, list[str]], fetch: FetchMembers, own: Callable[[Known], Member | None], patience: Patience
) -> Known:
    """The newest list that fits, or, when none came in time, the newest of all.

    `peers` are the urls of each of the others, and `own` says which member of a list the asking one is, None where the
    list does not fit. OperatorError when nobody answers, or members of different clusters do.
    """
    asking = _Asking(peers, fetch)
    asking.ask()
    if not asking.known and asking.was_late:
        asking.ask(ANSWER_S)
    if not asking.known:
        raise OperatorError(
            "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs"
        )
    deadline = patience.now() + patience.total_s
    is_told = False
    while True:
        refuse_two_clusters(asking.known)
        lists = asking.known.values()
        found = choice(lists, own)
        have_all_answered = len(asking.known) == len(peers)
        if found is not None:
            member = own(found)
            if have_all_answered or (member is not None and not member.is_started):
                return found
        elif have_all_answered and all(known.index for known in lists):
            return newest(lists)
        if patience.now() >= deadline:
            return found or newest(lists)
        if not is_told:
            is_told = True
            log.warn("the members that answer have not heard of this one; asking again", answered=list(asking.known))
        patience.sleep(PAUSE_S)
        asking.ask()


def newest(lists: Iterable[Known]) -> Known:
    """The first of those that are as of the highest index."""
    return max(lists, key=lambda known: known.index)


def choice(lists: Iterable[Known], own: Callable[[Known], Member | None]) -> Known | None:
    """The newest list that has the member, if no newer one is without it: then it was removed, and another may have got
    its address."""
    last = newest(lists)
    present = {member.id for member in last.members}
    best: tuple[tuple[int, bool], Known] | None = None
    for known in lists:
        member = own(known)
        if member is None or (member.id not in present and known.index < last.index):
            continue
        rank = known.index, not member.is_started
        if best is None or rank > best[0]:
            best = rank, known
    return best[1] if best is not None else None


def refuse_two_clusters(known: Mapping[str, Known]) -> None:
    """OperatorError when those that answered do not belong together."""
    if len({one.cluster_id for one in known.values()}) > 1:
        told = ", ".join(f"{name} of {one.cluster_id:x}" for name, one in known.items())
        raise OperatorError(f"--initial-cluster names members of different clusters: {told}")


class _Asking:
    """Asks everybody, and keeps the last answer of each."""

    def __init__(self, peers: Mapping[str, list[str]], fetch: FetchMembers) -> None:
        self.known: dict[str, Known] = {}
        self.was_late = False  # somebody may have answered later
        self._peers = peers
        self._fetch = fetch
        self._told: set[str] = set()

    def ask(self, timeout_s: float = FIRST_ANSWER_S) -> None:
        """All of them, each at its urls in turn; `timeout_s` is for the time until one has answered."""
        for name, urls in self._peers.items():
            for url in urls:
                try:
                    self.known[name] = self._fetch(url, FIRST_ANSWER_S if self.known else timeout_s)
                    break
                except (OSError, ValueError) as error:
                    self.was_late = self.was_late or isinstance(error, TimeoutError)
                    if url not in self._told:
                        self._told.add(url)
                        log.warn("failed to get cluster response", address=url, error=explain(error))


def fetch_members(context: Contexts) -> FetchMembers:
    """Asks `/members` of a peer port; `context` is for https."""

    def fetch(url: str, timeout_s: float) -> Known:
        with to_peer(url, timeout_s, context) as connection:
            connection.request("GET", "/members")
            response = connection.getresponse()
            body = response.read()
            if response.status != HTTPStatus.OK:
                raise ValueError(f"peer answered with status {response.status}")
            number = int(response.headers.get("X-Etcd-Cluster-ID", ""), 16)
            listed = json.loads(body)
            if not isinstance(listed, list):
                raise ValueError("peer answered with something else than its members")
            index = int(response.headers.get(MEMBERSHIP_INDEX, "0"))
            return Known(number, [Member.from_json(fields) for fields in listed], index)

    return fetch
