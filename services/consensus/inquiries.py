"""What programs ask the peer port that the membership alone cannot answer: etcd's /members/hashkv and /members/promote.

A request is answered in a thread of its own, which waits here until the loop, or storage, has said what it needs. The
questions have the node's own rights: who reaches the peer port is a member, or has a member's certificate.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from http import HTTPStatus
from typing import Final

from google.protobuf.message import Message

from quorate.consensus.driver import Driver
from quorate.consensus.handshake import Request, answer, pack_response
from quorate.proto import rpc_pb2 as rpc
from quorate.wire import errors
from quorate.wire.errors import EtcdError
from quorate.wire.identity import NODE
from quorate.wire.messages import (
    CONSENSUS_WORKER,
    ClusterOp,
    Op,
    Origin,
    pack_chunk,
    pack_command,
    unpack_results,
)

HASH_KV: Final = "/members/hashkv"
PROMOTE: Final = "/members/promote/"
TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"
ETCD: Final = "etcdserver: "

Outcome = Message | EtcdError
Perform = Callable[[ClusterOp, bytes, Callable[[Outcome], None]], None]


class Inquiries:
    """Answers to plain HTTP requests of the peer port."""

    def __init__(self, loop: asyncio.AbstractEventLoop, driver: Driver, perform: Perform, incarnation: int) -> None:
        """`perform` does a call of the cluster, in the loop."""
        self._loop = loop
        self._driver = driver
        self._perform = perform
        self._incarnation = incarnation
        self._number = 0
        self._asked: dict[int, Future[Outcome]] = {}  # of storage, by chunk number
        driver.on_results = self._results

    def answer(self, request: Request, body: bytes) -> bytes:
        """The response to a request that opens no stream; blocks, and is not for the loop's thread."""
        if request.path == HASH_KV:
            return self._hash_kv(request, body)
        if request.path.startswith(PROMOTE):
            return self._promote(request)
        driver = self._driver
        has_leader = driver.network.has_leader
        seen_index = (
            driver.seen_index if has_leader and not driver.core.awaits_commit else 0
        )  # never more than the membership is of
        return answer(request, driver.membership, has_leader, seen_index)

    def _hash_kv(self, request: Request, body: bytes) -> bytes:
        cluster = self._driver.membership.cluster_id
        if request.method != "GET":
            return self._refused(HTTPStatus.METHOD_NOT_ALLOWED, "Method Not Allowed")
        if request.headers.get("x-etcd-cluster-id", f"{cluster:x}") != f"{cluster:x}":
            return self._refused(HTTPStatus.PRECONDITION_FAILED, "cluster ID mismatch")
        try:
            revision = int(json.loads(body).get("revision", 0))
        except (ValueError, TypeError, AttributeError):
            return self._refused(HTTPStatus.BAD_REQUEST, "error unmarshalling request")
        outcome = self._wait(partial(self._ask_storage, rpc.HashKVRequest(revision=revision)))
        if isinstance(outcome, EtcdError):
            return self._refused(HTTPStatus.BAD_REQUEST, outcome.text.removeprefix(ETCD))
        assert isinstance(outcome, rpc.HashKVResponse)
        header = outcome.header
        place = {
            "cluster_id": header.cluster_id,
            "member_id": header.member_id,
            "revision": header.revision,
            "raft_term": header.raft_term,
        }
        found = {
            "hash": outcome.hash,
            "compact_revision": outcome.compact_revision,
            "hash_revision": outcome.hash_revision,
        }
        return self._packed({"header": _without_zeros(place), **_without_zeros(found)})

    def _promote(self, request: Request) -> bytes:
        if request.method != "POST":
            return self._refused(HTTPStatus.METHOD_NOT_ALLOWED, "Method Not Allowed")
        text = request.path.removeprefix(PROMOTE)
        if not text.isdigit() or int(text) >= 1 << 64:
            return self._refused(HTTPStatus.NOT_FOUND, f"member {text} not found in cluster")
        body = rpc.MemberPromoteRequest(ID=int(text)).SerializeToString()
        outcome = self._wait(lambda done: self._perform(ClusterOp.MEMBER_PROMOTE, body, done))
        if isinstance(outcome, EtcdError):
            if outcome == errors.MEMBER_NOT_FOUND:
                return self._refused(HTTPStatus.NOT_FOUND, "membership: ID not found")
            statuses = {
                errors.MEMBER_NOT_LEARNER: HTTPStatus.PRECONDITION_FAILED,
                errors.LEARNER_NOT_READY: HTTPStatus.PRECONDITION_FAILED,
            }
            return self._refused(statuses.get(outcome, HTTPStatus.INTERNAL_SERVER_ERROR), outcome.text)
        return self._packed([member.as_json() for member in self._driver.membership.ordered()])

    def _wait(self, begin: Callable[[Callable[[Outcome], None]], None]) -> Outcome:
        """What `begin`, called in the loop, hears; TIMEOUT when that takes longer than a request may."""
        future: Future[Outcome] = Future()

        def done(outcome: Outcome) -> None:
            if not future.done():
                future.set_result(outcome)

        def started() -> None:
            begin(done)
            self._driver.schedule()

        self._loop.call_soon_threadsafe(started)
        try:
            return future.result(self._driver.times.request_s)
        except TimeoutError:
            return errors.TIMEOUT

    def _ask_storage(self, request: rpc.HashKVRequest, done: Callable[[Outcome], None]) -> None:
        self._number += 1
        future: Future[Outcome] = Future()
        future.add_done_callback(lambda finished: done(finished.result()))
        self._asked[self._number] = future
        origin = Origin(self._driver.member_id, self._incarnation, CONSENSUS_WORKER)
        command = pack_command(Op.HASH_KV, request.SerializeToString(), NODE)
        self._driver.ask_storage(pack_chunk(origin, self._number, [command]))

    def _results(self, body: bytes) -> None:
        number, incarnation, _first, ((error_id, answered),) = unpack_results(body)
        future = self._asked.pop(number, None) if incarnation == self._incarnation else None
        if future is not None:
            future.set_result(errors.by_id(error_id) if error_id else rpc.HashKVResponse.FromString(answered))

    def _refused(self, status: HTTPStatus, sentence: str) -> bytes:
        return pack_response(status, f"{sentence}\n".encode(), TEXT, self._driver.membership.cluster_id)

    def _packed(self, content: object) -> bytes:
        body = json.dumps(content, separators=(",", ":")).encode()
        return pack_response(HTTPStatus.OK, body, JSON, self._driver.membership.cluster_id)


def _without_zeros(numbers: dict[str, int]) -> dict[str, int]:
    """As Go writes a message: what is zero is not said."""
    return {name: value for name, value in numbers.items() if value}
