"""/debug/pprof/ with --enable-pprof: where this api worker spends its time, in the format `go tool pprof` reads.

Python has no profiler that runs inside and costs nothing, so a thread looks at the others' stacks a hundred times a
second while somebody waits for the profile. Heaps and the other parts of the node are for tools from outside.
"""

from __future__ import annotations

import asyncio
import gzip
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from types import FrameType
from typing import Final

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse, Response

from quorate.wire.varints import varint

INTERVAL_S: Final = 0.01
SECONDS_DEFAULT: Final = 30.0
SECONDS_MAX: Final = 300.0
INDEX: Final = """/debug/pprof/

profile?seconds=30  stacks of this api worker, for `go tool pprof`
goroutine           stacks of its threads now, as text
cmdline             its command line
"""

Place = tuple[str, str, int]  # function, file, line
Stack = tuple[Place, ...]  # the innermost first


def router() -> APIRouter:
    """The pages."""
    pages = APIRouter(prefix="/debug/pprof", include_in_schema=False)

    @pages.get("/")
    async def index() -> Response:
        return PlainTextResponse(INDEX)

    @pages.get("/cmdline")
    async def command_line() -> Response:
        return PlainTextResponse("\0".join(sys.orig_argv))

    @pages.get("/goroutine")
    @pages.get("/threadcreate")
    async def threads() -> Response:
        return PlainTextResponse(stacks_text())

    @pages.get("/profile")
    async def profile(seconds: float = Query(SECONDS_DEFAULT, gt=0, le=SECONDS_MAX)) -> Response:
        octets = await asyncio.to_thread(record, seconds)
        disposition = {"Content-Disposition": 'attachment; filename="profile"'}
        return Response(octets, media_type="application/octet-stream", headers=disposition)

    return pages


def stacks_text() -> str:
    """The stacks of all threads."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for number, frame in sys._current_frames().items():
        parts.append(f"thread {names.get(number, number)}\n{''.join(traceback.format_stack(frame))}")
    return "\n".join(parts)


def record(seconds: float) -> bytes:
    """A profile of the other threads over so many seconds; blocks."""
    seen: Counter[Stack] = Counter()
    own = threading.get_ident()
    began_ns = time.time_ns()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        seen.update(stack_of(frame) for number, frame in sys._current_frames().items() if number != own)
        time.sleep(INTERVAL_S)
    return gzip.compress(pack(seen, began_ns, int(seconds * 1e9)))


def stack_of(frame: FrameType | None) -> Stack:
    """The places a thread is at."""
    places = []
    while frame is not None:
        code = frame.f_code
        places.append((code.co_qualname, code.co_filename, frame.f_lineno))
        frame = frame.f_back
    return tuple(places)


# --- profile.proto of pprof: field numbers are facts of the format ---


def pack(seen: Counter[Stack], began_ns: int, duration_ns: int) -> bytes:
    """The message Profile: each stack with how often it was seen and how long that is."""
    strings = {"": 0}
    places: dict[Place, int] = {}

    def text(word: str) -> int:
        return strings.setdefault(word, len(strings))

    period_ns = int(INTERVAL_S * 1e9)
    types = [(text("samples"), text("count")), (text("wall"), text("nanoseconds"))]
    parts = [_inner(1, _number(1, kind) + _number(2, unit)) for kind, unit in types]
    for stack, count in seen.items():
        ids = [places.setdefault(place, len(places) + 1) for place in stack]
        parts.append(_inner(2, _packed(1, ids) + _packed(2, [count, count * period_ns])))
    for (function, file, line), number in places.items():
        parts.append(_inner(4, _number(1, number) + _inner(4, _number(1, number) + _number(2, line))))
        parts.append(_inner(5, _number(1, number) + _number(2, text(function)) + _number(4, text(file))))
    kind, unit = types[1]
    parts += [_number(9, began_ns), _number(10, duration_ns)]
    parts += [_inner(11, _number(1, kind) + _number(2, unit)), _number(12, period_ns)]
    parts += [_inner(6, word.encode()) for word in strings]
    return b"".join(parts)


def _number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def _inner(field: int, octets: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(octets)) + octets


def _packed(field: int, values: Iterable[int]) -> bytes:
    return _inner(field, b"".join(map(varint, values)))
