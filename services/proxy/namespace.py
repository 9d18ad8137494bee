"""Keys below a prefix: what a client calls `k` is `prefix + k` in the cluster, and it can name nothing else. Pure.

The rules are those of etcd's client namespaces, and hold for locks and elections too. An empty key stays empty, for
the server to refuse, except in a watch, where it means the first key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from google.protobuf.message import Message

from quorate.client.ranges import FROM_KEY, prefix_end
from quorate.proto import rpc_pb2 as rpc
from quorate.proto import v3election_pb2 as election
from quorate.proto import v3lock_pb2 as lock
from quorate.proto.kv_pb2 import KeyValue

Rewrite = Callable[[bytes], bytes]
M = TypeVar("M", bound=Message)

FIRST_KEY: Final = b"\0"


@dataclass(frozen=True, slots=True)
class Rewriting:
    """What happens to the messages of one method, on the way in and on the way out."""

    request: Rewrite
    answer: Rewrite


def rewritings(prefix: bytes) -> dict[str, Rewriting]:
    """By method path, for every method that names keys."""
    space = Namespace(prefix)
    kv, lease = "/etcdserverpb.KV/", "/etcdserverpb.Lease/"
    locks, elections = "/v3lockpb.Lock/", "/v3electionpb.Election/"
    leader = Rewriting(_on(election.LeaderRequest, space.name), _on(election.LeaderResponse, space.leader_answer))
    return {
        f"{kv}Range": Rewriting(_on(rpc.RangeRequest, space.interval), _on(rpc.RangeResponse, space.range_answer)),
        f"{kv}RangeStream": Rewriting(
            _on(rpc.RangeRequest, space.interval),
            _on(rpc.RangeStreamResponse, lambda answer: space.range_answer(answer.range_response)),
        ),
        f"{kv}Put": Rewriting(_on(rpc.PutRequest, space.key), _on(rpc.PutResponse, space.put_answer)),
        f"{kv}DeleteRange": Rewriting(
            _on(rpc.DeleteRangeRequest, space.interval), _on(rpc.DeleteRangeResponse, space.delete_answer)
        ),
        f"{kv}Txn": Rewriting(_on(rpc.TxnRequest, space.txn), _on(rpc.TxnResponse, space.txn_answer)),
        "/etcdserverpb.Watch/Watch": Rewriting(
            _on(rpc.WatchRequest, space.watch), _on(rpc.WatchResponse, space.watch_answer)
        ),
        f"{lease}LeaseTimeToLive": Rewriting(bytes, _on(rpc.LeaseTimeToLiveResponse, space.lease_answer)),
        f"{locks}Lock": Rewriting(_on(lock.LockRequest, space.name), _on(lock.LockResponse, space.lock_answer)),
        f"{locks}Unlock": Rewriting(_on(lock.UnlockRequest, space.key), bytes),
        f"{elections}Campaign": Rewriting(
            _on(election.CampaignRequest, space.name), _on(election.CampaignResponse, space.campaign_answer)
        ),
        f"{elections}Proclaim": Rewriting(_on(election.ProclaimRequest, space.leader_key), bytes),
        f"{elections}Leader": leader,
        f"{elections}Observe": leader,
        f"{elections}Resign": Rewriting(_on(election.ResignRequest, space.leader_key), bytes),
    }


def _on(kind: type[M], change: Callable[[M], None]) -> Rewrite:
    """Decode, change in place, encode."""

    def rewrite(octets: bytes) -> bytes:
        message = kind.FromString(octets)
        change(message)
        return message.SerializeToString()

    return rewrite


@dataclass(frozen=True, slots=True)
class Namespace:
    """One prefix, put before keys and taken off again."""

    prefix: bytes

    # --- on the way in ---

    def key(self, request: rpc.PutRequest | lock.UnlockRequest) -> None:
        """One key."""
        if request.key:
            request.key = self.prefix + request.key

    def interval(
        self, request: rpc.RangeRequest | rpc.DeleteRangeRequest | rpc.Compare | rpc.WatchCreateRequest
    ) -> None:
        """A key and a range_end; "from this key on" ends with the prefix."""
        if not request.key:
            return
        request.key = self.prefix + request.key
        if request.range_end == FROM_KEY:
            request.range_end = prefix_end(self.prefix)
        elif request.range_end:
            request.range_end = self.prefix + request.range_end

    def txn(self, request: rpc.TxnRequest) -> None:
        """Comparisons and operations, nested ones included."""
        for comparison in request.compare:
            self.interval(comparison)
        for operation in (*request.success, *request.failure):
            match operation.WhichOneof("request"):
                case "request_range":
                    self.interval(operation.request_range)
                case "request_put":
                    self.key(operation.request_put)
                case "request_delete_range":
                    self.interval(operation.request_delete_range)
                case "request_txn":
                    self.txn(operation.request_txn)

    def watch(self, request: rpc.WatchRequest) -> None:
        """A new watcher; cancelling and progress name no key."""
        if request.WhichOneof("request_union") == "create_request":
            create = request.create_request
            create.key = create.key or FIRST_KEY
            self.interval(create)

    def name(self, request: lock.LockRequest | election.CampaignRequest | election.LeaderRequest) -> None:
        """The name of a lock or an election is the beginning of its keys."""
        request.name = self.prefix + request.name

    def leader_key(self, request: election.ProclaimRequest | election.ResignRequest) -> None:
        """What a candidate shows to prove that it leads."""
        request.leader.name = self.prefix + request.leader.name
        request.leader.key = self.prefix + request.leader.key

    # --- on the way out ---

    def own(self, key: bytes) -> bytes:
        """The key as the client calls it."""
        return key.removeprefix(self.prefix)

    def range_answer(self, answer: rpc.RangeResponse) -> None:
        self._kvs(answer.kvs)

    def put_answer(self, answer: rpc.PutResponse) -> None:
        if answer.HasField("prev_kv"):
            self._kvs([answer.prev_kv])

    def delete_answer(self, answer: rpc.DeleteRangeResponse) -> None:
        self._kvs(answer.prev_kvs)

    def txn_answer(self, answer: rpc.TxnResponse) -> None:
        for response in answer.responses:
            match response.WhichOneof("response"):
                case "response_range":
                    self.range_answer(response.response_range)
                case "response_put":
                    self.put_answer(response.response_put)
                case "response_delete_range":
                    self.delete_answer(response.response_delete_range)
                case "response_txn":
                    self.txn_answer(response.response_txn)

    def watch_answer(self, answer: rpc.WatchResponse) -> None:
        for event in answer.events:
            self._kvs([event.kv])
            if event.HasField("prev_kv"):
                self._kvs([event.prev_kv])

    def lease_answer(self, answer: rpc.LeaseTimeToLiveResponse) -> None:
        """Of the lease's keys those of this namespace."""
        kept = [self.own(key) for key in answer.keys if key.startswith(self.prefix)]
        del answer.keys[:]
        answer.keys.extend(kept)

    def lock_answer(self, answer: lock.LockResponse) -> None:
        answer.key = self.own(answer.key)

    def campaign_answer(self, answer: election.CampaignResponse) -> None:
        answer.leader.name = self.own(answer.leader.name)
        answer.leader.key = self.own(answer.leader.key)

    def leader_answer(self, answer: election.LeaderResponse) -> None:
        if answer.HasField("kv"):
            self._kvs([answer.kv])

    def _kvs(self, kvs: Iterable[KeyValue]) -> None:
        for kv in kvs:
            kv.key = self.own(kv.key)
