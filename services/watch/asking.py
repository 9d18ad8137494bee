"""What an api worker says in a WATCH message, done to the hub."""

from __future__ import annotations

from quorate.watch.broadcaster import NO_GROUP, Hub
from quorate.watch.groups import Fan, Group, Worker
from quorate.wire.watching import (
    HANDLE_BYTES,
    JOIN,
    JOINED,
    OPEN,
    PROGRESS,
    PROGRESS_ASK,
    STREAM,
    Ask,
    Told,
)


def heed(hub: Hub, worker: Worker, body: bytes) -> None:
    """Do what `worker` asks."""
    match body[0]:
        case Ask.OPEN:
            _, handle, stream, first_revision, form, length = OPEN.unpack_from(body)
            middle = OPEN.size + length
            fan = Fan(worker, body[OPEN.size : middle], body[middle:], form)
            hub.open(worker, Group(handle, worker.stream(stream), fan, first_revision))
        case Ask.JOIN:
            _, handle, into = JOIN.unpack(body)
            joined = hub.join(worker, handle, into)
            worker.send(JOINED.pack(Told.JOINED, handle, into if joined else NO_GROUP))
        case Ask.CLOSE:
            for at in range(1, len(body), HANDLE_BYTES):
                hub.close(worker, int.from_bytes(body[at : at + HANDLE_BYTES], "little"))
        case Ask.HOLD:
            hub.hold(worker, STREAM.unpack(body)[1])
        case Ask.RESUME:
            hub.resume(worker, STREAM.unpack(body)[1])
        case Ask.PROGRESS:
            _, token = PROGRESS_ASK.unpack(body)
            worker.send(PROGRESS.pack(Told.PROGRESS, token, max(hub.revision, 0)))
        case Ask.FORGET:
            hub.forget_stream(worker, STREAM.unpack(body)[1])
        case unknown:
            raise AssertionError(f"an api worker asks {unknown}")
