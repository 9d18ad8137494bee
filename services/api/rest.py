"""/v1: keys as text for people with curl: GET, PUT and DELETE on paths, conditions as If-Match, pages as links.

Each request is one call of etcd's KV service, so everything that holds there holds here: revisions, linearizable
reads, permissions, error texts. A key is the rest of the path, percent-encoding stands for any byte; a value is the
body as it is.
"""

from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, Response

from quorate.api import rest_models
from quorate.api.asgi import read_body
from quorate.api.calling import Calls, Failed, call
from quorate.api.gateway import metadata_of
from quorate.api.gateway_answers import FAILURE
from quorate.api.rest_keys import Cursor, KeyOfPath, prefix_end, text_of
from quorate.api.rest_models import Deleted, Error, Page, Pair, Stored
from quorate.proto import rpc_pb2
from quorate.wire.errors import Code

TAG: Final = "Keys"
LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 10_000

IfMatch = Annotated[
    str | None,
    Header(description='Only if the key was changed last at this revision, as in its ETag: `"7"`. `*`: if it exists.'),
]
IfNoneMatch = Annotated[str | None, Header(description="`*`: only if the key does not exist.")]
Revision = Annotated[int, Query(ge=0, description="Read the past: the state at this revision. 0: now.")]
Serializable = Annotated[bool, Query(description="Answer from this member's own, possibly stale state.")]
Prefix = Annotated[str, Query(description="Only keys that begin so.")]

_FAILURES: Final[dict[int | str, dict[str, object]]] = {
    "default": {"model": Error, "description": FAILURE},
}
_ABSENT: Final[dict[int | str, dict[str, object]]] = {404: {"model": Error, "description": "No such key."}}
_CONFLICT: Final[dict[int | str, dict[str, object]]] = {
    412: {"model": Error, "description": "The condition does not hold."}
}


def router(calls: Calls, value_bytes_max: int) -> APIRouter:
    """The pages below /v1."""
    pages = APIRouter(prefix="/v1", tags=[TAG], responses=_FAILURES)
    keys = Keys(calls)
    _add_reading(pages, keys)
    _add_writing(pages, keys, value_bytes_max)
    return pages


def _add_reading(pages: APIRouter, keys: "Keys") -> None:
    @pages.get("/keys", summary="List keys, a page at a time", response_model_exclude_none=True)
    async def list_keys(
        request: Request,
        prefix: Prefix = "",
        limit: Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Most keys on the page.")] = LIMIT_DEFAULT,
        cursor: Annotated[str, Query(description="`next` of the page before; keeps to its prefix and revision.")] = "",
        keys_only: Annotated[bool, Query(description="Leave the values out.")] = False,
        revision: Revision = 0,
        serializable: Serializable = False,
    ) -> Page:
        start = Cursor.parse(cursor) if cursor else Cursor(revision, prefix.encode(), prefix_end(prefix.encode()))
        wanted = rpc_pb2.RangeRequest(
            key=start.key or b"\0",
            range_end=start.range_end,
            limit=limit,
            revision=start.revision,
            keys_only=keys_only,
            serializable=serializable,
        )
        found = await keys.range(request, wanted)
        pairs = [Pair.of(kv, without_value=keys_only) for kv in found.kvs]
        at = start.revision or found.header.revision
        following = Cursor(at, found.kvs[-1].key + b"\0", start.range_end).text() if found.more else None
        return Page(keys=pairs, revision=at, next=following)

    @pages.get(
        "/keys/{key:path}",
        summary="Read one key",
        responses={**_ABSENT, 200: {"model": Pair, "content": {"application/octet-stream": {}}}},
    )
    async def read_key(
        request: Request,
        key: KeyOfPath,
        revision: Revision = 0,
        serializable: Serializable = False,
        raw: Annotated[bool, Query(description="Answer with the bytes of the value alone.")] = False,
    ) -> Response:
        found = await keys.range(request, rpc_pb2.RangeRequest(key=key, revision=revision, serializable=serializable))
        if not found.kvs:
            raise Failed(Code.NOT_FOUND, f"no key {text_of(key)}")
        kv = found.kvs[0]
        headers = {"ETag": f'"{kv.mod_revision}"'}
        if raw:
            return Response(kv.value, media_type="application/octet-stream", headers=headers)
        return JSONResponse(Pair.of(kv).model_dump(exclude_none=True), headers=headers)


def _add_writing(pages: APIRouter, keys: "Keys", value_bytes_max: int) -> None:
    @pages.put(
        "/keys/{key:path}",
        summary="Store a value",
        responses={**_CONFLICT, 200: {"model": Stored}, 201: {"model": Stored, "description": "The key is new."}},
        openapi_extra=rest_models.VALUE_BODY,
    )
    async def store_key(
        request: Request,
        key: KeyOfPath,
        if_match: IfMatch = None,
        if_none_match: IfNoneMatch = None,
        lease: Annotated[str, Query(pattern="^[0-9a-fA-F]{1,16}$", description="Lease, hexadecimal.")] = "0",
    ) -> Response:
        value = await read_body(request.receive, value_bytes_max)
        put = rpc_pb2.PutRequest(key=key, value=value, lease=_signed(int(lease, 16)), prev_kv=True)
        conditions = _conditions(put.key, if_match, if_none_match)
        if conditions:
            answer = await keys.guarded(request, conditions, rpc_pb2.RequestOp(request_put=put))
            stored, revision = answer.responses[0].response_put, answer.header.revision
        else:
            stored = await keys.put(request, put)
            revision = stored.header.revision
        body = Stored(key=text_of(put.key), mod_revision=revision, created=not stored.HasField("prev_kv"))
        return JSONResponse(body.model_dump(), 201 if body.created else 200, {"ETag": f'"{revision}"'})

    @pages.delete("/keys/{key:path}", summary="Delete one key", responses={**_ABSENT, **_CONFLICT})
    async def delete_key(request: Request, key: KeyOfPath, if_match: IfMatch = None) -> Deleted:
        delete = rpc_pb2.DeleteRangeRequest(key=key)
        conditions = _conditions(delete.key, if_match, None)
        if conditions:
            answer = await keys.guarded(request, conditions, rpc_pb2.RequestOp(request_delete_range=delete))
            deleted, revision = answer.responses[0].response_delete_range.deleted, answer.header.revision
        else:
            gone = await keys.delete(request, delete)
            deleted, revision = gone.deleted, gone.header.revision
        if not deleted:
            raise Failed(Code.NOT_FOUND, f"no key {text_of(delete.key)}")
        return Deleted(deleted=deleted, revision=revision)

    @pages.delete("/keys", summary="Delete all keys with a prefix")
    async def delete_keys(
        request: Request, prefix: Annotated[str, Query(min_length=1, description="Prefix of the keys to delete.")]
    ) -> Deleted:
        first = prefix.encode()
        gone = await keys.delete(request, rpc_pb2.DeleteRangeRequest(key=first, range_end=prefix_end(first)))
        return Deleted(deleted=gone.deleted, revision=gone.header.revision)


class Keys:
    """The KV calls behind the pages, with the metadata of the HTTP request; each raises Failed."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def range(self, request: Request, wanted: rpc_pb2.RangeRequest) -> rpc_pb2.RangeResponse:
        return rpc_pb2.RangeResponse.FromString(await self._call(request, "Range", wanted.SerializeToString()))

    async def put(self, request: Request, wanted: rpc_pb2.PutRequest) -> rpc_pb2.PutResponse:
        return rpc_pb2.PutResponse.FromString(await self._call(request, "Put", wanted.SerializeToString()))

    async def delete(self, request: Request, wanted: rpc_pb2.DeleteRangeRequest) -> rpc_pb2.DeleteRangeResponse:
        answer = await self._call(request, "DeleteRange", wanted.SerializeToString())
        return rpc_pb2.DeleteRangeResponse.FromString(answer)

    async def guarded(
        self, request: Request, conditions: list[rpc_pb2.Compare], operation: rpc_pb2.RequestOp
    ) -> rpc_pb2.TxnResponse:
        """The operation if all conditions hold; raises PreconditionFailed if one does not."""
        txn = rpc_pb2.TxnRequest(compare=conditions, success=[operation])
        answer = rpc_pb2.TxnResponse.FromString(await self._call(request, "Txn", txn.SerializeToString()))
        if not answer.succeeded:
            raise PreconditionFailed(conditions)
        return answer

    async def _call(self, request: Request, name: str, body: bytes) -> bytes:
        metadata, deadline_s = metadata_of(request.headers.raw)
        return await call(self._calls, f"/etcdserverpb.KV/{name}", body, metadata, deadline_s)


class PreconditionFailed(Exception):  # noqa: N818 - it is the name of the HTTP status
    """If-Match or If-None-Match does not hold."""

    def __init__(self, conditions: list[rpc_pb2.Compare]) -> None:
        super().__init__(" and ".join(_wanted(condition) for condition in conditions) + "; that does not hold")


def _wanted(condition: rpc_pb2.Compare) -> str:
    if condition.target == rpc_pb2.Compare.MOD:
        return f"If-Match asks that the key was changed last at revision {condition.mod_revision}"
    if condition.result == rpc_pb2.Compare.GREATER:
        return "If-Match asks that the key exists"
    return "If-None-Match asks that the key does not exist"


def _conditions(key: bytes, if_match: str | None, if_none_match: str | None) -> list[rpc_pb2.Compare]:
    compare = rpc_pb2.Compare
    conditions = []
    if if_match == "*":
        conditions.append(compare(key=key, target=compare.VERSION, result=compare.GREATER, version=0))
    elif if_match is not None:
        conditions.append(compare(key=key, target=compare.MOD, mod_revision=_revision("If-Match", if_match)))
    if if_none_match == "*":
        conditions.append(compare(key=key, target=compare.VERSION, version=0))
    elif if_none_match is not None:
        raise Failed(Code.INVALID_ARGUMENT, f"If-None-Match can only be *, not {if_none_match}")
    return conditions


def _revision(header: str, text: str) -> int:
    digits = text.removeprefix('"').removesuffix('"')
    if not (digits.isascii() and digits.isdigit() and len(digits) < 19):
        raise Failed(Code.INVALID_ARGUMENT, f"{header} has to be a revision or *, not {text}")
    return int(digits)


def _signed(lease_id: int) -> int:
    """A lease id as the 64-bit integer it is in protobuf; hexadecimal shows it without a sign."""
    return lease_id - 2**64 if lease_id >= 2**63 else lease_id
