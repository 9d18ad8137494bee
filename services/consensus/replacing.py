"""A member that lost its log asks to come back under a new id: what it says, and the leader's side of it.

It asks with a plain POST on the peer port, as it belongs to no stream while it knows nothing. Only the leader can grant
it; the others say where the leader is, which may be a member the asking one never heard of. Why it gets a new id:
`raft.confchange.replacement`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from google.protobuf.message import Message

from quorate.consensus.calls import Calls
from quorate.consensus.connections import Contexts, to_peer
from quorate.consensus.driver import Driver
from quorate.consensus.handshake import REPLACE_PATH, BadRequest, Request, pack_response
from quorate.consensus.membership import Member, Membership, member_id, pack_newcomer
from quorate.consensus.raft.confchange import replacement
from quorate.consensus.raft.messages import Role as RaftRole
from quorate.node import logs
from quorate.proto import rpc_pb2 as rpc
from quorate.wire.errors import MEMBER_NOT_FOUND, CallFailed, EtcdError

log = logs.named("cluster")

ANSWER_TIMEOUT_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Claim:
    """Who asks. Without an id (it was damaged, too) the peer urls tell."""

    cluster_id: int  # 0 if that is lost
    lost_id: int  # 0 if that is lost
    peer_urls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grant:
    """What the leader gives."""

    cluster_id: int
    member_id: int
    votes: bool  # the former self did, so this one is to
    members: tuple[Member, ...]


Ask = Callable[[str, Claim], Grant]


class NotGranted(Exception):  # noqa: N818 - it names an outcome
    """The member that was asked cannot grant it now; the text says why, and `leader_urls` who can."""

    def __init__(self, text: str, leader_urls: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.leader_urls = tuple(leader_urls)


def asking(context: Contexts, timeout_s: float = ANSWER_TIMEOUT_S) -> Ask:
    """Asks at a peer url; NotGranted, OSError or ValueError. `context` is for https."""

    def ask(url: str, claim: Claim) -> Grant:
        with to_peer(url, timeout_s, context) as connection:
            connection.request("POST", REPLACE_PATH, headers=_headers(claim))
            response = connection.getresponse()
            body = response.read()
            if response.status != HTTPStatus.OK:
                raise refusal(url, HTTPStatus(response.status), body)
            return _unpack(json.loads(body))

    return ask


def refusal(url: str, status: HTTPStatus, body: bytes) -> NotGranted:
    """What an answer other than a grant says. ValueError for one that says nothing."""
    if status is not HTTPStatus.MISDIRECTED_REQUEST:
        return NotGranted(f"{url} answered {status.value}: {body.decode(errors='replace').strip()}")
    fields = json.loads(body)
    try:
        urls = [str(one) for one in fields["leader"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{url} does not say who leads") from error
    return NotGranted(f"{url} says that the leader is at {', '.join(urls)}", urls)


def _headers(claim: Claim) -> dict[str, str]:
    return {
        "X-Etcd-Cluster-ID": f"{claim.cluster_id:x}",
        "X-Server-From": f"{claim.lost_id:x}",
        "X-PeerURLs": ",".join(claim.peer_urls),
        "Content-Length": "0",
    }


def parse_claim(request: Request) -> Claim:
    """BadRequest for headers that are none."""
    try:
        cluster, lost = (int(request.headers[name], 16) for name in ("x-etcd-cluster-id", "x-server-from"))
        urls = request.headers["x-peerurls"]
    except (KeyError, ValueError) as error:
        raise BadRequest("the headers of a claim are incomplete") from error
    return Claim(cluster, lost, tuple(url for url in urls.split(",") if url))


def _unpack(fields: Any) -> Grant:
    """ValueError for what is no grant."""
    try:
        members = tuple(Member.from_json(one) for one in fields["members"])
        return Grant(int(fields["cluster"]), int(fields["id"]), bool(fields["votes"]), members)
    except (KeyError, TypeError) as error:
        raise ValueError("the answer is no grant") from error


class Replacing:
    """The leader's side, called from handshake threads; it decides in the loop."""

    def __init__(self, driver: Driver, calls: Calls) -> None:
        self._driver = driver
        self._calls = calls
        self._loop_thread = threading.get_ident()
        self._votes: dict[int, bool] = {}  # of ids that were given here: whether their former self voted

    def answer(self, request: Request, call_in_loop: Callable[..., object]) -> bytes:
        """The whole response; blocks."""
        assert threading.get_ident() != self._loop_thread
        done: Future[tuple[HTTPStatus, bytes]] = Future()
        if request.method != "POST":
            done.set_result((HTTPStatus.METHOD_NOT_ALLOWED, b"Method Not Allowed\n"))
        else:
            call_in_loop(self._decide, parse_claim(request), done)
        try:
            status, body = done.result(ANSWER_TIMEOUT_S)
        except TimeoutError:
            status, body = HTTPStatus.GATEWAY_TIMEOUT, b"no majority agreed in time\n"
        kind = "application/json" if status is HTTPStatus.OK else "text/plain; charset=utf-8"
        return pack_response(status, body, kind, self._driver.membership.cluster_id)

    def _decide(self, claim: Claim, done: Future[tuple[HTTPStatus, bytes]]) -> None:
        driver = self._driver
        membership = driver.membership
        lost = self._find(claim)
        if claim.cluster_id not in (0, membership.cluster_id):
            done.set_result((HTTPStatus.PRECONDITION_FAILED, b"another cluster\n"))
        elif driver.core.role is not RaftRole.LEADER:
            done.set_result(self._elsewhere())
        elif lost is None:
            done.set_result((HTTPStatus.NOT_FOUND, b"no such member\n"))
        elif lost.id == driver.member_id or driver.network.active_since(lost.id) is not None:
            done.set_result((HTTPStatus.CONFLICT, b"the member is connected\n"))
        else:
            self._replace(lost, claim, done)

    def _elsewhere(self) -> tuple[HTTPStatus, bytes]:
        """Who should be asked instead."""
        leader = self._driver.membership.members.get(self._driver.core.leader_id)
        if leader is None or leader.id == self._driver.member_id:
            return HTTPStatus.SERVICE_UNAVAILABLE, b"no leader\n"
        return HTTPStatus.MISDIRECTED_REQUEST, json.dumps({"leader": list(leader.peer_urls)}).encode()

    def _find(self, claim: Claim) -> Member | None:
        members = self._driver.membership.members
        if claim.lost_id in members:
            return members[claim.lost_id]
        urls = set(claim.peer_urls)
        same = [member for member in members.values() if not urls.isdisjoint(member.peer_urls)]
        return max(same, key=lambda member: member.id) if same else None

    def _replace(self, lost: Member, claim: Claim, done: Future[tuple[HTTPStatus, bytes]]) -> None:
        driver = self._driver
        membership = driver.membership
        second = int(time.time())
        while (fresh := member_id(lost.peer_urls, "", second)) in membership.members or fresh in membership.removed:
            second += 1
        newcomer = Member(fresh, lost.peer_urls, is_learner=True)
        # Who asks as somebody who is gone was replaced already and has not taken what it got: its answer was lost.
        votes = not lost.is_learner or self._votes.get(lost.id, claim.lost_id in membership.removed)
        self._votes[fresh] = votes
        log.warn("replacing a member that lost its log", lost_member_id=f"{lost.id:x}", member_id=f"{fresh:x}")

        def answer(outcome: Message | EtcdError) -> None:
            if isinstance(outcome, EtcdError):
                done.set_result((HTTPStatus.SERVICE_UNAVAILABLE, f"{outcome.text}\n".encode()))
                return
            members = [member.as_json() for member in driver.membership.ordered()]
            fields = {
                "cluster": membership.cluster_id,
                "id": fresh,
                "votes": votes,
                "members": members,
            }
            done.set_result((HTTPStatus.OK, json.dumps(fields).encode()))

        def check(now: Membership) -> None:
            if lost.id not in now.members:  # replaced by what an earlier leader began; it asks again, and that one goes
                raise CallFailed(MEMBER_NOT_FOUND)

        self._calls.change_conf(
            replacement(lost.id, fresh),
            pack_newcomer(newcomer),
            lambda now: fresh in now.members and lost.id not in now.members,
            rpc.MemberAddResponse,
            answer,
            check,
        )
