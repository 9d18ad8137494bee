"""Cluster calls: the members, the status, moving the leadership, and changes of the membership.

A change is judged and proposed by the leader alone; another member that is asked passes the call on and the answer
back. Calls that have to wait for something keep a condition that is looked at whenever the membership changes and at
every tick, until the caller has given up.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from google.protobuf.message import DecodeError, Message

from quorate.consensus import membership as format_of
from quorate.consensus.driver import Driver
from quorate.consensus.frames import Call, CallReply
from quorate.consensus.membership import Member, Membership, member_id
from quorate.consensus.raft.messages import NOBODY, ConfChange, ConfChangeKind, EntryKind, Refusal
from quorate.consensus.raft.messages import Role as RaftRole
from quorate.node import logs
from quorate.proto import rpc_pb2 as rpc
from quorate.wire import errors
from quorate.wire.errors import CallFailed, EtcdError
from quorate.wire.messages import CLUSTER_CALL, CLUSTER_REPLY, ClusterOp, Kind
from quorate.wire.sockets import Channel

log = logs.named("cluster")

ACTIVE_S: Final = 5.0  # etcd's HealthInterval: so long a member has to be connected to count as healthy
INDEX_BYTES: Final = 8  # of a question for an image, little-endian: the log index it has to reach at least
READY_SHARE: Final = 0.9  # of the leader's log a learner must have before it may vote
WAITING_MAX: Final = 10_000
_OPS: Final = frozenset(ClusterOp)

Answer = Callable[[Message | EtcdError], None]


class Condition(NamedTuple):
    """A call that waits: `check` does what is due and returns True when it has answered."""

    check: Callable[[], bool]
    answer: Answer
    deadline: float
    late: EtcdError


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that membership changes obey."""

    strict: bool
    learners_max: int


class Promotions:
    """How often this member, when it led, was asked to promote a learner, and with what outcome."""

    def __init__(self) -> None:
        self.succeeded = 0
        self.failed: Counter[str] = Counter()  # by the error's text

    def counting(self, answer: Answer) -> Answer:
        """The same, counted."""

        def counted(outcome: Message | EtcdError) -> None:
            if isinstance(outcome, EtcdError):
                self.failed[outcome.text] += 1
            else:
                self.succeeded += 1
            answer(outcome)

        return counted


class Calls:
    """Answers CLUSTER_CALL of the api workers and the calls other members pass on."""

    def __init__(self, driver: Driver, rules: Rules) -> None:
        self._driver = driver
        self._rules = rules
        self.promotions = Promotions()
        self._waiting: list[Condition] = []
        self._passed_on: dict[int, tuple[Answer, float]] = {}
        self._number = driver.first_number  # an answer may come after a restart of this member

    # --- coming in ---

    def take(self, channel: Channel, body: bytes) -> None:
        """A call of an api worker."""
        number, op = CLUSTER_CALL.unpack_from(body)

        def answer(outcome: Message | EtcdError) -> None:
            if isinstance(outcome, EtcdError):
                channel.send(Kind.CLUSTER_REPLY, CLUSTER_REPLY.pack(number, outcome.id))
            else:
                packed = outcome.SerializeToString()
                channel.send(Kind.CLUSTER_REPLY, CLUSTER_REPLY.pack(number, 0), packed)
            self._driver.schedule()

        self.perform(ClusterOp(op), body[CLUSTER_CALL.size :], answer)

    def take_peer(self, message: Call | CallReply) -> None:
        """A call that another member passes on, or the answer to one of ours."""
        driver = self._driver
        if isinstance(message, CallReply):
            answer, _ = self._passed_on.pop(message.number, (None, 0.0))
            if answer is not None:
                answer(self._received(message))
            return

        def reply(outcome: Message | EtcdError) -> None:
            if isinstance(outcome, EtcdError):
                error_id, body = outcome.id, b""
            else:
                error_id, body = 0, outcome.SerializeToString()
            driver.network.send(
                CallReply(driver.member_id, message.from_id, driver.core.term, message.number, error_id, body)
            )
            driver.schedule()

        if message.op == ClusterOp.IMAGE:
            if driver.core.role is RaftRole.LEADER:
                log.info("a member needs an image", member_id=f"{message.from_id:x}")
                driver.courier.send(message.from_id, int.from_bytes(message.body[:INDEX_BYTES], "little"))
        elif message.op not in _OPS:
            reply(errors.MALFORMED_REQUEST)
        elif driver.core.role is RaftRole.LEADER:
            self.perform(ClusterOp(message.op), message.body, reply)
        else:
            reply(errors.NOT_LEADER)

    def _received(self, reply: CallReply) -> Message | EtcdError:
        try:
            if reply.error_id:
                return errors.by_id(reply.error_id)
            response = rpc.MemberAddResponse.FromString(reply.body)  # a superset of the other answers to a change
        except (KeyError, DecodeError):
            return errors.MALFORMED_REQUEST
        response.header.member_id = self._driver.member_id
        return response

    def perform(self, op: ClusterOp, body: bytes, answer: Answer) -> None:
        """Does what is asked, here or by way of the leader; `answer` is called now or later, in the loop."""
        try:
            self._dispatch(op, body, answer)
        except CallFailed as failed:
            answer(failed.error)
        except DecodeError:
            answer(errors.MALFORMED_REQUEST)

    def _dispatch(self, op: ClusterOp, body: bytes, answer: Answer) -> None:
        match op:
            case ClusterOp.MEMBER_LIST:
                self._member_list(rpc.MemberListRequest.FromString(body), answer)
            case ClusterOp.STATUS:
                answer(self._status())
            case ClusterOp.MOVE_LEADER:
                self._move_leader(rpc.MoveLeaderRequest.FromString(body).targetID, answer)
            case ClusterOp.VERSION:
                answer(rpc.DowngradeResponse(version=self._driver.membership.cluster_version))
            case ClusterOp.IMAGE:
                answer(errors.MALFORMED_REQUEST)
            case ClusterOp.DOWNGRADE:
                answer(self._downgrade(rpc.DowngradeRequest.FromString(body)))
            case _:
                self._change(op, body, answer)

    # --- questions ---

    def header(self) -> rpc.ResponseHeader:
        """As etcd's cluster calls have it: without a revision."""
        driver = self._driver
        return rpc.ResponseHeader(
            cluster_id=driver.membership.cluster_id, member_id=driver.member_id, raft_term=driver.core.term
        )

    def _member_list(self, request: rpc.MemberListRequest, answer: Answer) -> None:
        def reply() -> None:
            answer(rpc.MemberListResponse(header=self.header(), members=self._members()))

        if request.linearizable:
            self._driver.reads.when_current(reply, time.monotonic())
            self._driver.schedule()
        else:
            reply()

    def _members(self) -> list[rpc.Member]:
        return [as_proto(member) for member in self._driver.membership.ordered()]

    def _status(self) -> rpc.StatusResponse:
        driver = self._driver
        core = driver.core
        own = driver.membership.members.get(driver.member_id)
        return rpc.StatusResponse(
            header=self.header(),
            leader=core.leader_id,
            raftIndex=core.commit_index,
            raftTerm=core.term,
            raftAppliedIndex=driver.stream.applied_index,
            isLearner=own is not None and own.is_learner,
            errors=([errors.NO_LEADER.text] if core.leader_id == NOBODY else []) + driver.ailments(),
        )

    def _downgrade(self, request: rpc.DowngradeRequest) -> rpc.DowngradeResponse:
        """There is no older version to go to. To cancel what was not begun is no error, as in etcd."""
        actions = rpc.DowngradeRequest.DowngradeAction
        version = self._driver.membership.cluster_version
        if request.action == actions.CANCEL:
            return rpc.DowngradeResponse(header=self.header(), version=".".join(version.split(".")[:2]))
        if request.action not in actions.values():
            raise CallFailed(errors.UNKNOWN_METHOD)
        parts = request.version.split(".")
        if len(parts) < 2 or not all(part.isdigit() for part in parts):
            raise CallFailed(errors.WRONG_DOWNGRADE_VERSION_FORMAT)
        if not version:
            raise CallFailed(errors.CLUSTER_VERSION_UNAVAILABLE)
        raise CallFailed(errors.INVALID_DOWNGRADE_TARGET_VERSION)

    # --- the leader ---

    def _move_leader(self, target: int, answer: Answer) -> None:
        driver = self._driver
        core = driver.core
        if core.role is not RaftRole.LEADER:
            raise CallFailed(errors.NOT_LEADER)
        member = driver.membership.members.get(target)
        if member is None or member.is_learner:
            raise CallFailed(errors.BAD_LEADER_TRANSFEREE)
        if target != driver.member_id and core.transfer_leader(target) is not None:
            raise CallFailed(errors.BAD_LEADER_TRANSFEREE)

        def moved() -> bool:
            if core.leader_id == target:
                answer(rpc.MoveLeaderResponse(header=self.header()))
            return core.leader_id == target

        self._wait(moved, answer, driver.times.election_s * 2, errors.TIMEOUT_LEADER_TRANSFER)

    # --- changes ---

    def _change(self, op: ClusterOp, body: bytes, answer: Answer) -> None:
        driver = self._driver
        core = driver.core
        if core.role is not RaftRole.LEADER:
            self._pass_on(op, body, answer)
            return
        match op:
            case ClusterOp.MEMBER_ADD:
                self._add(rpc.MemberAddRequest.FromString(body), answer)
            case ClusterOp.MEMBER_REMOVE:
                self._remove(rpc.MemberRemoveRequest.FromString(body).ID, answer)
            case ClusterOp.MEMBER_UPDATE:
                self._update(rpc.MemberUpdateRequest.FromString(body), answer)
            case _:
                counted = self.promotions.counting(answer)
                try:
                    self._promote(rpc.MemberPromoteRequest.FromString(body).ID, counted)
                except CallFailed as failed:
                    counted(failed.error)

    def _pass_on(self, op: ClusterOp, body: bytes, answer: Answer) -> None:
        driver = self._driver

        def try_now() -> bool:
            core = driver.core
            if core.role is RaftRole.LEADER:
                self.perform(op, body, answer)
                return True
            if core.leader_id == NOBODY:
                return False
            self._number += 1
            deadline = time.monotonic() + driver.times.request_s
            self._passed_on[self._number] = (answer, deadline)
            driver.network.send(Call(driver.member_id, core.leader_id, core.term, self._number, op, body))
            driver.schedule()
            return True

        if not try_now():
            self._wait(try_now, answer, driver.times.request_s, errors.TIMEOUT)

    def _add(self, request: rpc.MemberAddRequest, answer: Answer) -> None:
        urls = checked_urls(request.peerURLs)
        number = member_id(urls, "", int(time.time()))

        def check(now: Membership) -> None:
            check_add(now, urls, request.isLearner, self._rules, self.active_members())
            if number in now.members or number in now.removed:
                raise CallFailed(errors.MEMBER_EXIST)

        membership = self._driver.membership
        # With a second vote nothing is committed until its member is there, not even that it has one. So the second
        # voter gets its vote when it has the log, and whoever adds it has the answer at once, as from etcd.
        is_joining = not request.isLearner and len(membership.conf.voters) == 1
        newcomer = Member(number, tuple(sorted(urls)), is_learner=request.isLearner, is_joining=is_joining)
        has_vote = not request.isLearner and not is_joining
        kind = ConfChangeKind.ADD_VOTER if has_vote else ConfChangeKind.ADD_LEARNER

        def is_in(now: Membership) -> bool:
            return number in now.members

        def response() -> Message:
            return rpc.MemberAddResponse(header=self.header(), member=as_proto(newcomer), members=self._members())

        context = format_of.pack_newcomer(newcomer)
        self.change_conf([ConfChange(kind, number)], context, is_in, response, answer, check)

    def _remove(self, number: int, answer: Answer) -> None:
        def check(now: Membership) -> None:
            check_remove(now, number, self._rules, self.active_members())

        def is_out(now: Membership) -> bool:
            return number not in now.members

        def response() -> Message:
            return rpc.MemberRemoveResponse(header=self.header(), members=self._members())

        self.change_conf([ConfChange(ConfChangeKind.REMOVE, number)], b"", is_out, response, answer, check)

    def _promote(self, number: int, answer: Answer) -> None:
        def check(now: Membership) -> None:
            member = now.members.get(number)
            if member is None:
                raise CallFailed(errors.MEMBER_NOT_FOUND)
            if not member.is_learner:
                raise CallFailed(errors.MEMBER_NOT_LEARNER)
            if not self._has_log(number):
                raise CallFailed(errors.LEARNER_NOT_READY)

        def votes(now: Membership) -> bool:
            return number in now.members and not now.members[number].is_learner

        def response() -> Message:
            return rpc.MemberPromoteResponse(header=self.header(), members=self._members())

        self.change_conf([ConfChange(ConfChangeKind.ADD_VOTER, number)], b"", votes, response, answer, check)

    def _has_log(self, number: int) -> bool:
        """The member has nearly all of the log, as far as its leader knows."""
        core = self._driver.core
        progress = core.progress()
        match_index = progress[number].match_index if number in progress else 0
        return match_index >= core.last_index * READY_SHARE

    def _give_votes(self) -> None:
        """The leader gives those who are joining their vote, one after the other."""
        core = self._driver.core
        if core.role is not RaftRole.LEADER:
            return
        for member in self._driver.membership.members.values():
            if member.is_joining and self._has_log(member.id):
                if core.propose_conf_change([ConfChange(ConfChangeKind.ADD_VOTER, member.id)]) is None:
                    log.info("a member that was added has the log and gets its vote", member_id=f"{member.id:x}")
                    self._driver.schedule()
                return

    def _update(self, request: rpc.MemberUpdateRequest, answer: Answer) -> None:
        driver = self._driver
        number, urls = request.ID, tuple(request.peerURLs)
        if number not in driver.membership.members:
            raise CallFailed(errors.MEMBER_NOT_FOUND)
        check_urls_free(driver.membership, urls, number)
        if driver.core.propose(format_of.pack_peer_urls(number, urls), kind=EntryKind.ATTR) is not None:
            raise CallFailed(errors.TOO_MANY_REQUESTS)
        driver.schedule()

        def is_updated() -> bool:
            member = driver.membership.members.get(number)
            done = member is None or member.peer_urls == urls
            if done:
                answer(rpc.MemberUpdateResponse(header=self.header(), members=self._members()))
            return done

        self._wait(is_updated, answer, driver.times.request_s, errors.TIMEOUT)

    def change_conf(
        self,
        changes: Sequence[ConfChange],
        context: bytes,
        is_done: Callable[[Membership], bool],
        response: Callable[[], Message],
        answer: Answer,
        check: Callable[[Membership], None] = lambda _now: None,
    ) -> None:
        """Proposes when the change before is finished, answers when this one is. `check` raises CallFailed for what
        may not be proposed, also when the change before has made it so."""
        driver = self._driver
        proposed = False

        def advance() -> bool:
            nonlocal proposed
            if proposed:
                done = is_done(driver.membership) and not driver.membership.conf.is_joint
                if done:
                    answer(response())
                return done
            try:
                check(driver.membership)
            except CallFailed as failed:
                answer(failed.error)
                return True
            refusal = driver.core.propose_conf_change(changes, context)
            if refusal in (Refusal.CONF_CHANGE_PENDING, Refusal.NOT_READY, Refusal.TRANSFERRING):
                return False
            if refusal is not None:
                answer(errors.MEMBER_NOT_ENOUGH_STARTED if refusal is Refusal.INVALID_CONF_CHANGE else errors.UNHEALTHY)
                return True
            proposed = True
            driver.schedule()
            return False

        if not advance():
            self._wait(advance, answer, driver.times.request_s, errors.TIMEOUT)

    def active_members(self) -> set[int]:
        """Members connected for long enough to count on, this one included."""
        driver = self._driver
        limit = time.monotonic() - ACTIVE_S
        active = {driver.member_id}
        for number in driver.membership.members:
            since = driver.network.active_since(number)
            if since is not None and since <= limit:
                active.add(number)
        return active

    # --- waiting ---

    def _wait(self, check: Callable[[], bool], answer: Answer, timeout_s: float, late: EtcdError) -> None:
        if len(self._waiting) >= WAITING_MAX:
            answer(errors.TOO_MANY_REQUESTS)
            return
        self._waiting.append(Condition(check, answer, time.monotonic() + timeout_s, late))
        self._driver.schedule()

    def look(self, now: float) -> None:
        """Looks at what waits, and gives up what nobody waits for any more."""
        self._give_votes()
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for condition in waiting:
                if condition.check():
                    continue
                if condition.deadline < now:
                    condition.answer(condition.late)
                else:
                    self._waiting.append(condition)
        for number in [n for n, (_, deadline) in self._passed_on.items() if deadline < now]:
            answer, _ = self._passed_on.pop(number)
            answer(errors.TIMEOUT)


def as_proto(member: Member) -> rpc.Member:
    """etcd's message for a member."""
    return rpc.Member(
        ID=member.id,
        name=member.name,
        peerURLs=member.peer_urls,
        clientURLs=member.client_urls,
        isLearner=member.is_learner,
    )


def checked_urls(urls: Iterable[str]) -> list[str]:
    """Peer urls of a member to be added; MEMBER_BAD_URLS unless each is scheme://host:port."""
    checked = list(urls)
    for url in checked:
        try:
            parts = urlsplit(url)
            is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port is not None
        except ValueError:
            is_good = False
        else:
            is_good = (is_good and not parts.path) or (parts.scheme in ("unix", "unixs") and bool(parts.netloc))
        if not is_good:
            raise CallFailed(errors.MEMBER_BAD_URLS)
    if not checked:
        raise CallFailed(errors.MEMBER_BAD_URLS)
    return checked


def check_urls_free(membership: Membership, urls: Iterable[str], but: int = NOBODY) -> None:
    """No other member has one of `urls`."""
    taken = {url for member in membership.members.values() if member.id != but for url in member.peer_urls}
    if not taken.isdisjoint(urls):
        raise CallFailed(errors.PEER_URL_EXIST)


def check_add(membership: Membership, urls: Iterable[str], is_learner: bool, rules: Rules, active: set[int]) -> None:
    """etcd's conditions for a new member, in its order."""
    voters = [member for member in membership.members.values() if not member.is_learner]
    started = sum(member.is_started for member in voters)
    quorum = (len(voters) + 1) // 2 + 1
    if rules.strict and not is_learner:
        grows_from_one = started == 1 and len(voters) == 1
        if started < quorum and not grows_from_one:
            raise CallFailed(errors.MEMBER_NOT_ENOUGH_STARTED)
        connected = sum(member.id in active for member in voters)
        if len(voters) > 1 and connected < quorum:
            raise CallFailed(errors.UNHEALTHY)
    check_urls_free(membership, urls)
    learners = len(membership.members) - len(voters)
    if is_learner and learners >= rules.learners_max:
        raise CallFailed(errors.TOO_MANY_LEARNERS)


def check_remove(membership: Membership, number: int, rules: Rules, active: set[int]) -> None:
    """etcd's conditions for a removal."""
    member = membership.members.get(number)
    if member is None:
        raise CallFailed(errors.MEMBER_NOT_FOUND)
    if not rules.strict or member.is_learner:
        return
    voters = [other for other in membership.members.values() if not other.is_learner]
    rest = [other for other in voters if other.id != number]
    if sum(other.is_started for other in rest) < len(rest) // 2 + 1:
        raise CallFailed(errors.MEMBER_NOT_ENOUGH_STARTED)
    connected = sum(other.id in active for other in voters)
    if number in active and connected - 1 < 1 + (len(voters) - 1) // 2:
        raise CallFailed(errors.UNHEALTHY)
