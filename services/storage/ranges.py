"""The options of a range: what is read, filtered, sorted, cut and sent (contract 5.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from quorate.proto import kv_pb2, rpc_pb2
from quorate.storage.mvcc import REWOUND_REVISIONS_MIN, Store
from quorate.storage.records import integer_field, parsed, without_value
from quorate.wire.messages import MAIN_SHIFT

INLINE_KEYS_MAX: Final = 500  # above this a range leaves the main thread: half a millisecond of fetching
INLINE_BYTES_MAX: Final = 1024 * 1024
MORE_FIELD: Final = b"\x18\x01"
COUNT_TAG: Final = b"\x20"

Fetch = Callable[[list[int]], list[bytes]]
RangeRequest = rpc_pb2.RangeRequest

_SORT_VALUES: Final[dict[int, Callable[[kv_pb2.KeyValue], int | bytes]]] = {
    RangeRequest.VERSION: lambda pair: pair.version,
    RangeRequest.CREATE: lambda pair: pair.create_revision,
    RangeRequest.VALUE: lambda pair: pair.value,
}


class TooMuch(Exception):  # noqa: N818 - not an error: the range goes to a reader thread
    """The pairs of an inline range turned out to be large."""


def is_plain(request: RangeRequest) -> bool:
    """In key order and unfiltered, so that the limit may cut before anything is read."""
    return (
        request.sort_order != RangeRequest.DESCEND
        and (request.sort_target == RangeRequest.KEY)
        and not has_filters(request)
    )


def has_filters(request: RangeRequest) -> bool:
    """Whether keys may be left out for their revisions."""
    return bool(
        request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )


def limit_of(request: RangeRequest) -> int:
    """The limit, 0 for none."""
    return max(0, request.limit)


def records_wanted(request: RangeRequest) -> int:
    """How many keys are looked at in key order, 0 for all.

    With a target but no order etcd sorts no more than one key beyond the limit.
    """
    limit = limit_of(request)
    if not limit or is_plain(request):
        return limit
    return limit + 1 if request.sort_order == RangeRequest.NONE and not has_filters(request) else 0


def is_large(store: Store, request: RangeRequest, revision: int) -> bool:
    """Whether reading this range would hold up what comes behind it."""
    if not request.range_end:
        return False
    span = store.count(request.key, request.range_end)
    if revision != store.seen_revision:
        behind = store.seen_revision - revision
        if behind > max(REWOUND_REVISIONS_MIN, span // 4):
            dead = store.index.dead_span(request.key, request.range_end)
            if span + dead > INLINE_KEYS_MAX:
                return True
        elif behind > 20 * INLINE_KEYS_MAX:
            return True
    if request.count_only:
        return False
    return min(records_wanted(request) or span, span) > INLINE_KEYS_MAX


def answer(store: Store, request: RangeRequest, revision: int, header: bytes, fetch: Fetch) -> bytes:
    """The RangeResponse, read here and now."""
    limit = 1 if request.count_only else records_wanted(request)
    selected = store.select(request.key, request.range_end, revision, limit)
    return respond(request, selected.records, selected.count, header, fetch)


def respond(request: RangeRequest, records: list[int], count: int, header: bytes, fetch: Fetch) -> bytes:
    """The RangeResponse from the selected records, which are no fewer than `records_wanted`."""
    if request.count_only:
        return header + integer_field(COUNT_TAG, count)
    limit = limit_of(request)
    if is_plain(request):
        more = bool(limit) and count > limit
        blobs = fetch(records[:limit] if limit else records)
    else:
        blobs, more = _sorted_and_cut(request, records, limit, fetch)
    if request.keys_only:
        blobs = [without_value(blob) for blob in blobs]
    return b"".join((header, *blobs, MORE_FIELD if more else b"", integer_field(COUNT_TAG, count)))


def _sorted_and_cut(request: RangeRequest, records: list[int], limit: int, fetch: Fetch) -> tuple[list[bytes], bool]:
    descending = request.sort_order == RangeRequest.DESCEND
    if wanted := records_wanted(request):
        records = records[:wanted]
    if request.min_mod_revision:
        records = [record for record in records if record >> MAIN_SHIFT >= request.min_mod_revision]
    if request.max_mod_revision:
        records = [record for record in records if record >> MAIN_SHIFT <= request.max_mod_revision]
    filters_creation = request.min_create_revision or request.max_create_revision
    sort_value = _SORT_VALUES.get(request.sort_target)
    if not filters_creation and not sort_value:
        if request.sort_target == RangeRequest.MOD:
            records = sorted(records, key=_main, reverse=descending)
        elif descending:
            records = records[::-1]
        return fetch(records[:limit] if limit else records), bool(limit) and len(records) > limit
    pairs = [(parsed(blob), record, blob) for record, blob in zip(records, fetch(records), strict=True)]
    if request.min_create_revision:
        pairs = [each for each in pairs if each[0].create_revision >= request.min_create_revision]
    if request.max_create_revision:
        pairs = [each for each in pairs if each[0].create_revision <= request.max_create_revision]
    if sort_value:
        pairs.sort(key=lambda each: sort_value(each[0]), reverse=descending)
    elif request.sort_target == RangeRequest.MOD:
        pairs.sort(key=lambda each: _main(each[1]), reverse=descending)
    elif descending:
        pairs.reverse()
    blobs = [blob for _, _, blob in (pairs[:limit] if limit else pairs)]
    return blobs, bool(limit) and len(pairs) > limit


def _main(record: int) -> int:
    return record >> MAIN_SHIFT


def fetch_inline(store: Store) -> Fetch:
    """Fetch on the main thread; TooMuch as soon as the pairs are too large for that."""

    def fetch(records: list[int]) -> list[bytes]:
        if len(records) <= 16:
            return store.blobs(records)
        blobs: list[bytes] = []
        size = 0
        for start in range(0, len(records), 64):
            piece = store.blobs(records[start : start + 64])
            size += sum(map(len, piece))
            blobs += piece
            if size > INLINE_BYTES_MAX and len(blobs) < len(records):
                raise TooMuch
        return blobs

    return fetch
