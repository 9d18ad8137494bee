"""The dumb twin of the store: one dictionary of pairs for every revision, and nothing shared between them."""

from __future__ import annotations

from typing import Any

from quorate.proto import kv_pb2, rpc_pb2
from quorate.wire import errors
from quorate.wire.errors import CallFailed

State = dict[bytes, kv_pb2.KeyValue]
Changes = list[tuple[bytes, kv_pb2.KeyValue | None, kv_pb2.KeyValue | None]]  # key, pair after and pair before


def within(key: bytes, start: bytes, range_end: bytes) -> bool:
    if not range_end:
        return key == start
    return key >= start and (range_end == b"\0" or key < range_end)


class Twin:
    """Answers as etcd's documentation says, by looking at everything."""

    def __init__(self) -> None:
        self.states: list[State] = [{}, {}]  # by revision; a fresh store is at 1
        self.history: list[Changes] = [[], []]  # by revision
        self.compact_revision = -1

    @property
    def revision(self) -> int:
        return len(self.states) - 1

    def apply(self, request: Any) -> Any:
        draft = dict(self.states[-1])
        changes: Changes = []
        response: Any
        match request:
            case rpc_pb2.PutRequest():
                self._check_put(draft, request, txn=False)
                response = self._put(draft, changes, request)
            case rpc_pb2.DeleteRangeRequest():
                response = self._delete(draft, changes, request)
            case rpc_pb2.TxnRequest():
                path = self._path(draft, request)
                self._check(draft, path, set())
                response = self._txn(draft, changes, path)
            case rpc_pb2.CompactionRequest():
                return self._compact(request)
        if changes:
            self.states.append(draft)
            self.history.append(changes)
        response.header.revision = self.revision
        return response

    def range(self, request: rpc_pb2.RangeRequest) -> rpc_pb2.RangeResponse:
        response = self._range(self.states[-1], self.revision, request)
        response.header.revision = self.revision
        return response

    def _compact(self, request: rpc_pb2.CompactionRequest) -> rpc_pb2.CompactionResponse:
        if request.revision <= self.compact_revision:
            raise CallFailed(errors.COMPACTED)
        if request.revision > self.revision:
            raise CallFailed(errors.FUTURE_REV)
        self.compact_revision = request.revision
        response = rpc_pb2.CompactionResponse()
        response.header.revision = self.revision
        return response

    # --- operations --------------------------------------------------------------------------------------------------

    def _check_put(self, now: State, request: rpc_pb2.PutRequest, txn: bool) -> None:
        missing = (request.ignore_value or request.ignore_lease) and request.key not in now
        if missing and txn:
            raise CallFailed(errors.KEY_NOT_FOUND)
        if request.lease:
            raise CallFailed(errors.LEASE_NOT_FOUND)
        if missing:
            raise CallFailed(errors.KEY_NOT_FOUND)

    def _put(self, draft: State, changes: Changes, request: rpc_pb2.PutRequest) -> rpc_pb2.PutResponse:
        main = self.revision + 1
        before = draft.get(request.key)
        pair = kv_pb2.KeyValue(key=request.key, mod_revision=main)
        pair.create_revision = before.create_revision if before else main
        pair.version = before.version + 1 if before else 1
        pair.value = before.value if before and request.ignore_value else request.value
        draft[request.key] = pair
        changes.append((request.key, pair, before))
        response = rpc_pb2.PutResponse()
        if request.prev_kv and before:
            response.prev_kv.CopyFrom(before)
        return response

    def _delete(
        self, draft: State, changes: Changes, request: rpc_pb2.DeleteRangeRequest
    ) -> rpc_pb2.DeleteRangeResponse:
        keys = sorted(key for key in draft if within(key, request.key, request.range_end))
        response = rpc_pb2.DeleteRangeResponse(deleted=len(keys))
        for key in keys:
            before = draft.pop(key)
            changes.append((key, None, before))
            if request.prev_kv:
                response.prev_kvs.append(before)
        return response

    def _range(self, now: State, seen: int, request: rpc_pb2.RangeRequest) -> rpc_pb2.RangeResponse:
        if request.revision > seen:
            raise CallFailed(errors.FUTURE_REV)
        if 0 < request.revision < self.compact_revision:
            raise CallFailed(errors.COMPACTED)
        state = now if request.revision <= 0 or request.revision == seen else self.states[request.revision]
        pairs = [state[key] for key in sorted(state) if within(key, request.key, request.range_end)]
        response = rpc_pb2.RangeResponse(count=len(pairs))
        if request.count_only:
            return response
        for low, high, field in (
            (request.min_mod_revision, request.max_mod_revision, "mod_revision"),
            (request.min_create_revision, request.max_create_revision, "create_revision"),
        ):
            pairs = [each for each in pairs if (not low or getattr(each, field) >= low)]
            pairs = [each for each in pairs if (not high or getattr(each, field) <= high)]
        filters = (request.min_mod_revision, request.max_mod_revision, request.min_create_revision)
        if request.limit > 0 and request.sort_order == 0 and not any((*filters, request.max_create_revision)):
            pairs = pairs[: request.limit + 1]  # an order is wanted of no more than that
        field = ("key", "version", "create_revision", "mod_revision", "value")[request.sort_target]
        pairs.sort(key=lambda each: getattr(each, field), reverse=request.sort_order == rpc_pb2.RangeRequest.DESCEND)
        if request.limit > 0:
            response.more = len(pairs) > request.limit
            pairs = pairs[: request.limit]
        for each in pairs:
            kept = response.kvs.add()
            kept.CopyFrom(each)
            if request.keys_only:
                kept.ClearField("value")
        return response

    # --- transactions ------------------------------------------------------------------------------------------------

    def _path(self, now: State, request: rpc_pb2.TxnRequest) -> Any:
        succeeded = all(self._holds(now, compare) for compare in request.compare)
        operations = request.success if succeeded else request.failure
        inner = [self._path(now, each.request_txn) if each.HasField("request_txn") else None for each in operations]
        return succeeded, operations, inner

    def _holds(self, now: State, compare: rpc_pb2.Compare) -> bool:
        pairs = [now[key] for key in now if within(key, compare.key, compare.range_end)]
        field = ("version", "create_revision", "mod_revision", "value", "lease")[compare.target]
        if not pairs and field == "value":
            return False
        wanted = getattr(compare, field)
        for pair in pairs or [kv_pb2.KeyValue()]:
            actual = getattr(pair, field)
            if not (actual == wanted, actual > wanted, actual < wanted, actual != wanted)[compare.result]:
                return False
        return True

    def _check(self, now: State, path: Any, gone: set[bytes]) -> None:
        _, operations, inner = path
        for operation, nested in zip(operations, inner, strict=True):
            if operation.HasField("request_put"):
                put = operation.request_put
                self._check_put(now, put, txn=True)
                if (put.ignore_value or put.ignore_lease) and put.key in gone:
                    raise CallFailed(errors.KEY_NOT_FOUND)
            elif operation.HasField("request_delete_range"):
                deletion = operation.request_delete_range
                gone |= {key for key in now if within(key, deletion.key, deletion.range_end)}
            elif operation.HasField("request_range"):
                if operation.request_range.revision > self.revision:
                    raise CallFailed(errors.FUTURE_REV)
                if operation.request_range.revision and operation.request_range.revision < self.compact_revision:
                    raise CallFailed(errors.COMPACTED)
            elif nested:
                self._check(now, nested, gone)

    def _txn(self, draft: State, changes: Changes, path: Any) -> rpc_pb2.TxnResponse:
        succeeded, operations, inner = path
        response = rpc_pb2.TxnResponse(succeeded=succeeded)
        response.header.SetInParent()
        for operation, nested in zip(operations, inner, strict=True):
            answer = response.responses.add()
            if operation.HasField("request_put"):
                answer.response_put.CopyFrom(self._put(draft, changes, operation.request_put))
                header = answer.response_put.header
            elif operation.HasField("request_delete_range"):
                answer.response_delete_range.CopyFrom(self._delete(draft, changes, operation.request_delete_range))
                header = answer.response_delete_range.header
            elif operation.HasField("request_range"):
                seen = self.revision + bool(changes)
                answer.response_range.CopyFrom(self._range(draft, seen, operation.request_range))
                header = answer.response_range.header
            else:
                answer.response_txn.CopyFrom(self._txn(draft, changes, nested))
                continue
            header.revision = self.revision + bool(changes)
        return response
