"""A store of plain keys behind the interface of `quorate.api.calling`, with calls that fail or wait on demand."""

import asyncio
from collections.abc import Callable

from quorate.api.calling import Cancel, Done, Metadata
from quorate.proto import kv_pb2, rpc_pb2
from quorate.wire import errors
from quorate.wire.errors import EtcdError

Handler = Callable[[bytes], bytes]


class FakeStream:
    """A stream that a test answers by hand."""

    def __init__(
        self, method: str, metadata: Metadata, respond: Callable[[bytes], None], done: Callable[[int, str], None]
    ) -> None:
        self.method = method
        self.metadata = metadata
        self.respond = respond
        self.done = done
        self.requests: list[bytes] = []
        self.half_closed = False
        self.cancelled = False
        self.paused = False

    def send(self, body: bytes) -> None:
        self.requests.append(body)

    def half_close(self) -> None:
        self.half_closed = True

    def cancel(self) -> None:
        self.cancelled = True

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


class FakeCalls:
    """Answers KV calls from a dictionary; `fail` makes a method fail, `wait` makes it never answer."""

    def __init__(self) -> None:
        self.revision = 1
        self.keys: dict[bytes, kv_pb2.KeyValue] = {}
        self.fail: dict[str, EtcdError] = {}
        self.wait: set[str] = set()
        self.status = rpc_pb2.StatusResponse(leader=7, dbSize=4096, version="3.6.14")
        self.seen: list[tuple[str, Metadata, float | None]] = []
        self.cancelled: list[str] = []
        self.streams: list[FakeStream] = []
        self._handlers: dict[str, Handler] = {
            "/etcdserverpb.KV/Put": self.put,
            "/etcdserverpb.KV/Range": self.range,
            "/etcdserverpb.KV/DeleteRange": self.delete_range,
            "/etcdserverpb.KV/Txn": self.txn,
            "/etcdserverpb.Maintenance/Status": lambda _: self.status.SerializeToString(),
        }

    def unary(
        self, method: str, body: bytes, metadata: Metadata, done: Done, deadline_s: float | None = None
    ) -> Cancel | None:
        self.seen.append((method, metadata, deadline_s))
        if method in self.wait:
            return lambda: self.cancelled.append(method)
        error = self.fail.get(method)
        loop = asyncio.get_running_loop()
        if error is not None:
            loop.call_soon(done, error.code, error.text, b"")
        elif method not in self._handlers:
            service, name = method[1:].split("/")
            loop.call_soon(done, 12, errors.unknown_method_text(service, name), b"")
        else:
            loop.call_soon(done, 0, "", self._handlers[method](body))
        return None

    def stream(
        self,
        method: str,
        metadata: Metadata,
        respond: Callable[[bytes], None],
        done: Callable[[int, str], None],
        deadline_s: float | None = None,
    ) -> FakeStream:
        self.streams.append(FakeStream(method, metadata, respond, done))
        return self.streams[-1]

    def header(self) -> rpc_pb2.ResponseHeader:
        return rpc_pb2.ResponseHeader(
            cluster_id=14841639068965178418, member_id=10276657743932975437, revision=self.revision, raft_term=2
        )

    def put(self, body: bytes) -> bytes:
        return self._put(rpc_pb2.PutRequest.FromString(body)).SerializeToString()

    def range(self, body: bytes) -> bytes:
        return self._range(rpc_pb2.RangeRequest.FromString(body)).SerializeToString()

    def delete_range(self, body: bytes) -> bytes:
        return self._delete_range(rpc_pb2.DeleteRangeRequest.FromString(body)).SerializeToString()

    def txn(self, body: bytes) -> bytes:
        """Compares of mod_revision and version, with EQUAL and GREATER."""
        request = rpc_pb2.TxnRequest.FromString(body)
        response = rpc_pb2.TxnResponse(succeeded=True)
        for compare in request.compare:
            present = self.keys.get(compare.key, kv_pb2.KeyValue())
            by_mod = compare.target == rpc_pb2.Compare.MOD
            actual = present.mod_revision if by_mod else present.version
            wanted = compare.mod_revision if by_mod else compare.version
            if not (actual > wanted if compare.result == rpc_pb2.Compare.GREATER else actual == wanted):
                response.succeeded = False
        for operation in request.success if response.succeeded else request.failure:
            answer = response.responses.add()
            match operation.WhichOneof("request"):
                case "request_put":
                    answer.response_put.CopyFrom(self._put(operation.request_put))
                case "request_range":
                    answer.response_range.CopyFrom(self._range(operation.request_range))
                case "request_delete_range":
                    answer.response_delete_range.CopyFrom(self._delete_range(operation.request_delete_range))
        response.header.CopyFrom(self.header())
        return response.SerializeToString()

    def _put(self, request: rpc_pb2.PutRequest) -> rpc_pb2.PutResponse:
        self.revision += 1
        before = self.keys.get(request.key)
        self.keys[request.key] = kv_pb2.KeyValue(
            key=request.key,
            value=request.value,
            lease=request.lease,
            create_revision=before.create_revision if before else self.revision,
            mod_revision=self.revision,
            version=before.version + 1 if before else 1,
        )
        return rpc_pb2.PutResponse(header=self.header(), prev_kv=before if request.prev_kv else None)

    def _range(self, request: rpc_pb2.RangeRequest) -> rpc_pb2.RangeResponse:
        found = self._selected(request.key, request.range_end)
        kvs = found[: request.limit] if request.limit else found
        return rpc_pb2.RangeResponse(header=self.header(), kvs=kvs, more=len(kvs) < len(found), count=len(found))

    def _delete_range(self, request: rpc_pb2.DeleteRangeRequest) -> rpc_pb2.DeleteRangeResponse:
        found = self._selected(request.key, request.range_end)
        self.revision += bool(found)
        for kv in found:
            del self.keys[kv.key]
        previous = found if request.prev_kv else []
        return rpc_pb2.DeleteRangeResponse(header=self.header(), deleted=len(found), prev_kvs=previous)

    def _selected(self, key: bytes, range_end: bytes) -> list[kv_pb2.KeyValue]:
        if not range_end:
            return [self.keys[key]] if key in self.keys else []
        return [
            self.keys[present]
            for present in sorted(self.keys)
            if key <= present and (range_end == b"\0" or present < range_end)
        ]
