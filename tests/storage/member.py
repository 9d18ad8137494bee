"""A member without its ring: commands go straight to the applier, and a log of them survives its restarts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quorate.proto import rpc_pb2
from quorate.storage.apply import Applier
from quorate.storage.compaction import Compaction
from quorate.storage.headers import Headers, OutOfSpace, failed
from quorate.storage.reads import Deferred, Questions, Scan
from quorate.storage.state import State
from quorate.wire import errors
from quorate.wire.errors import CallFailed
from quorate.wire.messages import Op, Origin, chunks_of, pack_chunk, pack_command

CLUSTER_ID = 14841639068965178418
MEMBER_ID = 10276657743932975437
ORIGIN = Origin(MEMBER_ID, 7, 0)
RESPONSES: dict[int, Any] = {
    Op.RANGE: rpc_pb2.RangeResponse,
    Op.PUT: rpc_pb2.PutResponse,
    Op.DELETE_RANGE: rpc_pb2.DeleteRangeResponse,
    Op.TXN: rpc_pb2.TxnResponse,
    Op.COMPACT: rpc_pb2.CompactionResponse,
    Op.LEASE_GRANT: rpc_pb2.LeaseGrantResponse,
    Op.LEASE_REVOKE: rpc_pb2.LeaseRevokeResponse,
    Op.LEASE_KEEP_ALIVE: rpc_pb2.LeaseKeepAliveResponse,
    Op.LEASE_TIME_TO_LIVE: rpc_pb2.LeaseTimeToLiveResponse,
    Op.LEASE_LEASES: rpc_pb2.LeaseLeasesResponse,
    Op.ALARM: rpc_pb2.AlarmResponse,
    Op.STATUS: rpc_pb2.StatusResponse,
    Op.HASH: rpc_pb2.HashResponse,
    Op.HASH_KV: rpc_pb2.HashKVResponse,
}


class Member:
    """`apply` and `ask` return the response message, or raise CallFailed."""

    def __init__(self, path: Path, quota_bytes: int | None = None, term: int = 3) -> None:
        self.path = path
        self.quota_bytes = quota_bytes
        self.term = term
        self.now = 1000.0
        self.log: list[bytes] = []  # entry i has index i + 1
        self.open()

    def open(self) -> None:
        """Start, and replay what the database has not taken in."""
        self.state = State(self.path, 2, 300_000, self.now)
        self.headers = Headers()
        self.headers.identify(CLUSTER_ID, MEMBER_ID)
        self.headers.reach_term(self.term)
        self.applier = Applier(self.state, self.headers, self.quota_bytes)
        self.questions = Questions(self.applier)
        self.compaction = Compaction(self.state.store)
        for index in range(self.state.database.marks.applied_index, len(self.log)):
            self._apply_entry(index)

    def restart(self) -> None:
        """Lose what was not committed, as a crash does, and come back."""
        self.state.close()
        self.open()

    def close(self) -> None:
        self.state.close()

    def apply(self, op: int, request: Any) -> Any:
        body = request if isinstance(request, bytes) else request.SerializeToString()
        self.log.append(pack_chunk(ORIGIN, len(self.log), [pack_command(op, body)]))
        (result,) = self._apply_entry(len(self.log) - 1)
        return _response(op, result)

    def apply_all(self, commands: list[bytes], worker: int = 0) -> list[bytes]:
        """Apply packed commands as one entry, of a worker of the api or of storage itself: the bodies of the answers,
        none for a refusal."""
        origin = Origin(MEMBER_ID, ORIGIN.incarnation, worker)
        self.log.append(pack_chunk(origin, len(self.log), commands))
        return [result[5:] if not result[0] else b"" for result in self._apply_entry(len(self.log) - 1)]

    def ask(self, op: int, request: Any) -> Any:
        self.applier.now = self.now
        body = request if isinstance(request, bytes) else request.SerializeToString()
        (chunk,) = chunks_of(pack_chunk(ORIGIN, 0, [pack_command(op, body)]))
        (result,) = self.questions.chunk(chunk)
        if isinstance(result, Deferred):
            return RESPONSES[op].FromString(self.finish(result))
        assert isinstance(result, bytes)
        return _response(op, result)

    def finish(self, deferred: Deferred) -> bytes:
        """Do what the loop and a reader thread would."""
        if not isinstance(deferred.work, Scan):
            self.state.commit()
            return deferred.work.read()
        while not deferred.work.is_named:
            deferred.work.name_keys()
        self.state.commit()
        return deferred.work.read()

    def put(self, key: bytes, value: bytes = b"", **options: Any) -> rpc_pb2.PutResponse:
        response: rpc_pb2.PutResponse = self.apply(Op.PUT, rpc_pb2.PutRequest(key=key, value=value, **options))
        return response

    def delete(self, key: bytes, range_end: bytes = b"", **options: Any) -> rpc_pb2.DeleteRangeResponse:
        request = rpc_pb2.DeleteRangeRequest(key=key, range_end=range_end, **options)
        response: rpc_pb2.DeleteRangeResponse = self.apply(Op.DELETE_RANGE, request)
        return response

    def range(self, key: bytes, range_end: bytes = b"", **options: Any) -> rpc_pb2.RangeResponse:
        request = rpc_pb2.RangeRequest(key=key, range_end=range_end, **options)
        response: rpc_pb2.RangeResponse = self.ask(Op.RANGE, request)
        return response

    def compact(self, revision: int, physical: bool = False) -> rpc_pb2.CompactionResponse:
        request = rpc_pb2.CompactionRequest(revision=revision, physical=physical)
        response: rpc_pb2.CompactionResponse = self.apply(Op.COMPACT, request)
        while physical and self.compaction.is_due:
            self.compaction.advance()
        return response

    def _apply_entry(self, index: int) -> list[bytes]:
        self.applier.now = self.now
        marks = self.state.database.marks
        assert marks.applied_index == index
        self.applier.index = index + 1
        (chunk,) = chunks_of(self.log[index])
        results = self.applier.chunk(chunk)
        marks.applied_index = index + 1
        marks.applied_term = self.term
        return [failed(errors.NO_SPACE) if isinstance(each, OutOfSpace) else each for each in results]


def _response(op: int, result: bytes) -> Any:
    error_id, body = result[0], result[5:]
    assert len(body) == int.from_bytes(result[1:5], "little")
    if error_id:
        raise CallFailed(errors.by_id(error_id))
    return RESPONSES[op].FromString(body) if op in RESPONSES else body
