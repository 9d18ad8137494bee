"""The options of the everyday calls, under etcd's own names, and the requests made of them."""

from __future__ import annotations

from typing import TypedDict, Unpack

from quorate.client.ranges import Key, as_bytes
from quorate.proto import rpc_pb2 as rpc
from quorate.proto.rpc_pb2 import RangeRequest, WatchCreateRequest


class GetOptions(TypedDict, total=False):
    """How to read; everything is optional."""

    limit: int  # at most so many keys; 0: all
    revision: int  # as of this revision; 0: now
    sort_order: RangeRequest.SortOrder.ValueType
    sort_target: RangeRequest.SortTarget.ValueType
    serializable: bool  # from whatever the asked member has, perhaps old
    keys_only: bool
    count_only: bool
    min_mod_revision: int
    max_mod_revision: int
    min_create_revision: int
    max_create_revision: int


class WatchOptions(TypedDict, total=False):
    """How to watch; everything is optional."""

    start_revision: int  # the first to be told; 0: from now on
    prev_kv: bool  # with the pair before each change
    progress_notify: bool  # with a response now and then although nothing happens
    filters: list[WatchCreateRequest.FilterType.ValueType]  # what not to be told


def range_request(key: Key, range_end: bytes, options: GetOptions) -> RangeRequest:
    """A read of a key or a range."""
    return RangeRequest(key=as_bytes(key), range_end=range_end, **options)


def watch_request(key: Key, range_end: bytes, options: WatchOptions) -> WatchCreateRequest:
    """A watcher of a key or a range."""
    return WatchCreateRequest(key=as_bytes(key), range_end=range_end, **options)


class PutOptions(TypedDict, total=False):
    """How to write; everything is optional."""

    lease: int  # id of the lease the key shall live on
    prev_kv: bool  # answer with the pair before
    ignore_value: bool  # keep the value
    ignore_lease: bool  # keep the lease


def put_request(key: Key, value: Key, **options: Unpack[PutOptions]) -> rpc.PutRequest:
    """A write of one key."""
    return rpc.PutRequest(key=as_bytes(key), value=as_bytes(value), **options)
