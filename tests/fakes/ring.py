"""A consensus and a storage of one member on real local sockets, in the event loop of the test.

Consensus orders at once; storage is the dictionary of `FakeCalls`. Either may be stopped and started again: what was
ordered is replayed to the next storage, what was read meanwhile is lost, as with the real ones.
"""

import asyncio
from pathlib import Path

from google.protobuf.message import Message

from quorate.proto import rpc_pb2
from quorate.wire import errors, messages
from quorate.wire.errors import EtcdError
from quorate.wire.identity import AuthState, Caller
from quorate.wire.messages import Chunk, ClusterOp, Kind, Op, Part, Role
from quorate.wire.sockets import Address, Channel, Endpoint
from tests.fakes.calls import FakeCalls

LEADER = Role(
    cluster_id=14841639068965178418,
    member_id=10276657743932975437,
    term=2,
    leader_id=10276657743932975437,
    commit_index=5,
    is_leader=True,
    is_learner=False,
)


class FakeRing:
    """Attributes may be changed between calls: `role`, `refuse`, `holds`, `drops_reads`."""

    def __init__(self, run_directory: Path) -> None:
        self.run_directory = run_directory
        self.role = LEADER
        self.store = FakeCalls()
        self.refuse: EtcdError | None = None  # consensus refuses every chunk with it
        self.holds = False  # storage keeps its answers until `release`
        self.version = "3.6.0"  # of the cluster
        self.auth = AuthState(False, 1)
        self.tokens: dict[str, str] = {}  # token: user, once auth is on
        self.new_tokens: dict[str, str] = {}  # that storage knows only behind what is ordered
        self.identities: list[bytes] = []  # of the commands that storage took
        self.read_error: EtcdError | None = None  # storage answers every range with it
        self.is_silent = False  # consensus drops what it is asked, as if it had no leader
        self.export: Path | None = Path("/nonexistent")  # what storage answers a snapshot with; None: it has no room
        self.seen: list[tuple[int, int]] = []  # (message kind, op) of every command that storage took
        self.chunks: list[int] = []  # commands of each chunk that storage took
        self._held: list[tuple[Chunk, list[bytes]]] = []
        self._unapplied: list[bytes] = []  # ordered while storage was away
        self._consensus: Endpoint | None = None
        self._storage: Endpoint | None = None
        self.start_consensus()
        self.start_storage()

    def start_consensus(self) -> None:
        self._consensus = self._started(Part.CONSENSUS)

    def start_storage(self) -> None:
        self._storage = self._started(Part.STORAGE)

    def stop_consensus(self) -> None:
        self._stop(self._consensus)
        self._consensus = None

    def stop_storage(self) -> None:
        self._held.clear()
        self._stop(self._storage)
        self._storage = None

    def close(self) -> None:
        if self._consensus is not None:
            self.stop_consensus()
        if self._storage is not None:
            self.stop_storage()

    def say_role(self, role: Role) -> None:
        """Tell the workers of a change."""
        self.role = role
        assert self._consensus is not None
        for channel in self._consensus.channels.values():
            channel.send(Kind.ROLE, role.pack())
        self._consensus.flush()

    def say_auth(self, enabled: bool, revision: int) -> None:
        """Tell the workers that users or roles have changed."""
        self.auth = AuthState(enabled, revision)
        assert self._storage is not None
        for channel in self._storage.channels.values():
            channel.send(Kind.AUTH, self.auth.pack())
        self._storage.flush()

    def release(self) -> None:
        """Answer what was held."""
        self.holds = False
        for chunk, results in self._held:
            self._answer(chunk, results)
        self._held.clear()

    @property
    def held(self) -> int:
        """Commands whose answers are held."""
        return sum(len(results) for _, results in self._held)

    # --- processes ---------------------------------------------------------------------------------------------------

    def _started(self, part: Part) -> Endpoint:
        endpoint = Endpoint(self.run_directory, Address(part))

        def hello() -> bytes:
            return self.auth.pack() if part is Part.STORAGE else b""

        endpoint.accept(lambda address: hello if address.part is Part.API else None)

        def when_opened(channel: Channel, _hello: bytes) -> None:
            if part is Part.CONSENSUS:
                channel.send(Kind.ROLE, self.role.pack())
            else:
                channel.send(Kind.AUTH, self.auth.pack())
                unapplied, self._unapplied = self._unapplied, []
                for payload in unapplied:
                    self._apply(Kind.PROPOSE, payload)
            endpoint.flush()

        def on_readable() -> None:
            while batches := endpoint.receive():
                for channel, said in batches:
                    for kind, body in said:
                        if part is Part.CONSENSUS:
                            self._order(channel, kind, body)
                        elif kind in (Kind.READ, Kind.LOCAL, Kind.PROPOSE):
                            self._apply(kind, body)
            endpoint.flush()

        endpoint.when_opened(when_opened)
        endpoint.connect(Address(Part.API), hello)
        loop = asyncio.get_running_loop()
        loop.add_reader(endpoint.fileno(), on_readable)
        loop.call_soon(lambda: on_readable() if not endpoint.context.closed else None)
        return endpoint

    def _stop(self, endpoint: Endpoint | None) -> None:
        assert endpoint is not None, "it runs"
        asyncio.get_running_loop().remove_reader(endpoint.fileno())
        endpoint.close()

    # --- consensus ---------------------------------------------------------------------------------------------------

    def _order(self, channel: Channel, kind: int, body: bytes) -> None:
        if kind == Kind.STATS_READ:
            channel.send(Kind.STATS, body, b"# TYPE etcd_server_has_leader gauge\netcd_server_has_leader 1\n")
            return
        if kind == Kind.CLUSTER_CALL:
            self._reply(channel, body)
            return
        if self.is_silent:
            return
        if self.refuse is not None:
            for chunk in messages.chunks_of(body):
                refusal = messages.REFUSE.pack(chunk.number, chunk.origin.incarnation, self.refuse.id)
                channel.send(Kind.REFUSE, refusal)
        elif self._storage is not None and any(side.opened for side in self._storage.channels.values()):
            self._apply(kind, body)
        elif kind == Kind.PROPOSE:
            self._unapplied.append(body)

    def _reply(self, channel: Channel, body: bytes) -> None:
        number, op = messages.CLUSTER_CALL.unpack_from(body)
        answer: Message
        if op == ClusterOp.STATUS:
            answer = rpc_pb2.StatusResponse(
                leader=self.role.leader_id, raftIndex=9, raftTerm=self.role.term, isLearner=self.role.is_learner
            )
        elif op == ClusterOp.MEMBER_LIST:
            member = rpc_pb2.Member(ID=self.role.member_id, name="default", peerURLs=["http://localhost:2380"])
            answer = rpc_pb2.MemberListResponse(members=[member])
        elif op == ClusterOp.VERSION:
            answer = rpc_pb2.DowngradeResponse(version=self.version)
        else:
            return
        channel.send(Kind.CLUSTER_REPLY, messages.CLUSTER_REPLY.pack(number, 0), answer.SerializeToString())

    # --- storage -----------------------------------------------------------------------------------------------------

    def _apply(self, kind: int, payload: bytes) -> None:
        for chunk in messages.chunks_of(payload):
            results = []
            for op, identity, body in messages.commands_of(chunk.commands):
                self.seen.append((kind, op))
                self.identities.append(identity)
                results.append(self._token(kind, body) if op == Op.TOKEN else self._result(op, body))
            self.chunks.append(len(results))
            if self.holds:
                self._held.append((chunk, results))
            else:
                self._answer(chunk, results)

    def _token(self, kind: int, body: bytes) -> bytes:
        known = self.tokens if kind == Kind.LOCAL else self.tokens | self.new_tokens
        if not self.auth.enabled:
            return messages.pack_result(0, b"")
        name = known.get(body.decode())
        if name is None:
            return messages.pack_result(errors.INVALID_AUTH_TOKEN.id, b"")
        return messages.pack_result(0, Caller(name, self.auth.revision).pack())

    def _result(self, op: int, body: bytes) -> bytes:
        store = self.store
        match op:
            case Op.PUT:
                answer = store.put(body)
            case Op.RANGE if self.read_error is not None:
                return messages.pack_result(self.read_error.id, b"")
            case Op.RANGE:
                answer = store.range(body)
            case Op.DELETE_RANGE:
                answer = store.delete_range(body)
            case Op.TXN:
                answer = store.txn(body)
            case Op.STATUS:
                answer = rpc_pb2.StatusResponse(header=store.header(), dbSize=4096).SerializeToString()
            case Op.SNAPSHOT:
                answer = bytes(self.export) if self.export else b""
            case _:
                answer = b""
        return messages.pack_result(0, answer)

    def _answer(self, chunk: Chunk, results: list[bytes]) -> None:
        assert self._storage is not None
        channel = self._storage.channels.get(Address(Part.API, chunk.origin.worker))
        if channel is not None:
            body = messages.pack_results(chunk.number, chunk.origin.incarnation, 0, results)
            channel.send(Kind.RESULTS, body)
            asyncio.get_running_loop().call_soon(self._flush_storage)

    def _flush_storage(self) -> None:
        if self._storage is not None and not self._storage.flush():
            asyncio.get_running_loop().call_later(0.001, self._flush_storage)
