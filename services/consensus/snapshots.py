"""Images of storage on their way to members whose next entry is gone from the log.

Sending and receiving run in threads with plain blocking sockets, on a connection of their own, so that a gigabyte on
its way delays no heartbeat and no entry. A stream goes in checksummed chunks with a window and a limit of speed, and
resumes where it was cut. The receiver writes a partial file, and has the disk write it while more arrives. At the end
it compares the whole with the checksum that the sender made while it sent, makes the file durable under its name, and
only then lets Raft and storage take it over; only then does it acknowledge the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import threading
import time
import uuid
from bisect import bisect_left
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, Final

import google_crc32c

from quorate.consensus.connections import Refused
from quorate.consensus.driver import Driver
from quorate.consensus.frames import (
    Decoder,
    FrameDamaged,
    PeerMessage,
    SnapshotAck,
    SnapshotChunk,
    SnapshotEnd,
    SnapshotMeta,
    encode,
)
from quorate.consensus.handshake import SNAPSHOT, BadRequest, Hello
from quorate.consensus.membership import Membership, json_object, membership_from_json, membership_json
from quorate.consensus.peers import PeerSettings
from quorate.consensus.pins import Pins
from quorate.consensus.raft import messages as raft
from quorate.consensus.raft.messages import Role
from quorate.consensus.segments import FILE_MODE
from quorate.node import logs
from quorate.node.directories import sync_directory
from quorate.node.tls import PeerRefused
from quorate.node.tls_failures import explain

log = logs.named("snapshot")

CHUNK_BYTES: Final = 512 * 1024
WINDOW_CHUNKS: Final = 16
BYTES_PER_SECOND_MAX: Final = 1024 * 1024 * 1024
SYNC_BYTES: Final = 8 * 1024 * 1024  # the disk writes so much at a time, while more arrives
STALL_TIMEOUT_S: Final = 30.0  # a stream that does not move for so long is given up
RETRY_S: Final = 1.0  # after a failure
IMAGE_LIFETIME_S: Final = 20.0  # an image serves other members and resumed streams for so long
PART_LIFETIME_S: Final = 3600.0  # nobody resumes what is older
SAVE_BUCKETS: Final = tuple(0.1 * 2**power for power in range(10))  # seconds, etcd's
SYNC_BUCKETS: Final = tuple(0.001 * 2**power for power in range(14))
SUFFIX: Final = ".snap.db"
IMAGES: Final = "*.image.db"  # of storage, for other members


class Durations:
    """How long something took each time."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """Once more."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.seconds += seconds


@dataclass(slots=True)
class Image:
    """A file of storage that stands at an index."""

    index: int
    term: int
    path: Path
    membership: Membership
    needed_at: float  # when it was taken, or when a stream of it was cut
    size: int
    name: str = field(default_factory=lambda: uuid.uuid4().hex)  # tells it from another of the same index
    is_wanted: bool = True  # a member comes for it; False when the last one that did has it


@dataclass(frozen=True, slots=True)
class Described:
    """What a sender says of its image."""

    index: int
    term: int
    size: int  # bytes
    name: str  # 32 hexadecimal digits
    membership: Membership

    def pack(self) -> bytes:
        fields = {
            "index": self.index,
            "term": self.term,
            "size": self.size,
            "image": self.name,
            "membership": membership_json(self.membership),
        }
        return json.dumps(fields).encode()

    @classmethod
    def unpack(cls, body: bytes) -> Described:
        """Raises ValueError for anything `pack` did not make: index and name become a file's name."""
        fields = json_object(body)
        index, term, size = (_count(fields.get(name)) for name in ("index", "term", "size"))
        name, membership = fields.get("image"), fields.get("membership")
        if not isinstance(name, str) or not isinstance(membership, dict):
            raise ValueError("the snapshot has no name or no membership")
        return cls(index, term, size, uuid.UUID(name).hex, membership_from_json(membership))


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value <= raft.INDEX_MAX:
        raise ValueError("the snapshot has no index, term or size")
    return value


def checksum_of(file: Any, size: int) -> int:
    """CRC-32C of the next `size` bytes of an open file; ValueError when it is shorter."""
    crc = 0
    while size:
        block = file.read(min(size, CHUNK_BYTES))
        if not block:
            raise ValueError("the image became shorter")
        crc = google_crc32c.extend(crc, block)
        size -= len(block)
    return crc


def _sync(sync: Callable[[int], None], descriptor: int, part: Path) -> None:
    """Have the disk write a file. One that it did not take is gone: what it holds is unknown, and a later sync may
    well succeed."""
    try:
        sync(descriptor)
    except OSError:
        part.unlink(missing_ok=True)
        raise


class FrameSocket:
    """Frames over a blocking socket."""

    def __init__(self, connection: socket.socket, cluster_id: int, own_id: int, peer_id: int) -> None:
        connection.settimeout(STALL_TIMEOUT_S)
        self._connection = connection
        self._cluster_id = cluster_id
        self._decoder = Decoder(cluster_id, peer_id, own_id)
        self._arrived: list[PeerMessage] = []

    def send(self, message: PeerMessage) -> None:
        self._connection.sendall(encode(self._cluster_id, message))

    def receive(self) -> PeerMessage:
        """The next message; OSError when the other side is gone or silent."""
        while not self._arrived:
            data = self._connection.recv(CHUNK_BYTES)
            if not data:
                raise ConnectionResetError("the stream was cut")
            self._arrived = self._decoder.feed(data)
        return self._arrived.pop(0)


class Snapshots:
    """Sends images to members and receives those meant for this one."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, driver: Driver, settings: PeerSettings, directory: Path
    ) -> None:
        self.sent = self.send_failures = self.received = 0
        self.saves, self.syncs = Durations(SAVE_BUCKETS), Durations(SYNC_BUCKETS)
        self._loop = loop
        self._driver = driver
        self._settings = settings
        self._directory = directory
        self._image: Image | None = None
        self._targets: set[int] = set()  # wait for an image
        self._streaming: dict[int, int] = {}  # member: index of the image on its way
        self._known: frozenset[int] = frozenset()  # members
        self._asked_of = 0  # incarnation of the storage that was asked for an image; 0: none
        self._asked_index = 0  # that image will stand there or later
        self._pins = Pins()
        self._receiving = threading.Lock()
        self._closed = False
        for leftover in directory.glob("*.part"):
            if time.time() - leftover.stat().st_mtime > PART_LIFETIME_S:
                leftover.unlink()
        for image in directory.glob(IMAGES):  # nobody else knows of it
            image.unlink(missing_ok=True)

    # --- the driver's side ---

    def send(self, number: int, index: int = 0) -> None:
        """A member needs a snapshot, and one before `index` is of no use to it."""
        if number in self._streaming:
            return  # one is on its way; if it is of no use, the member asks again
        self._targets.add(number)
        image = self._fresh_image()
        if image is not None and image.index >= index:
            self._start_streams(image)
        else:
            self._ask()

    def image_taken(self, index: int, term: int, path: str) -> None:
        """Storage wrote an image."""
        self._asked_of = 0
        driver = self._driver
        membership = driver.membership_at(index)
        if membership is None:
            Path(path).unlink(missing_ok=True)
            self._try_later()
            return
        image = Path(path)
        if self._image is not None and self._image.path != image:  # one at the same index has taken its place
            self._drop_image()
        try:
            size = image.stat().st_size
        except FileNotFoundError:
            self._ask()
            return
        known_term = driver.core.term_at(index)
        self._image = Image(index, known_term or term, image, membership, time.monotonic(), size)
        self._start_streams(self._image)

    def install_path(self, index: int) -> str | None:
        """The durable file of the snapshot at `index`, if it is here."""
        path = self._directory / f"{index:016x}{SUFFIX}"
        return str(path) if path.exists() else None

    def installed(self, index: int) -> None:
        """Storage has everything up to `index`: older files are of no use, but for the one that others are sent."""
        served = self._image.path if self._image is not None else None
        for path in self._directory.glob(f"*{SUFFIX}"):
            with contextlib.suppress(ValueError):
                if path != served and int(path.name.removesuffix(SUFFIX), 16) <= index:
                    path.unlink(missing_ok=True)

    def held_index(self) -> int | None:
        """The log behind this index is needed by members with an image, or with one that is being made."""
        needed = [*self._streaming.values()]
        if self._image is not None and self._image.is_wanted:
            needed.append(self._image.index)
        if self._is_asked():
            needed.append(self._asked_index)
        if (pinned := self._pins.lowest()) is not None:
            needed.append(pinned)
        return min(needed, default=None)

    def look(self, now: float) -> None:
        """Asks a restarted storage again, and lets an old image go."""
        if self._targets and self._asked_of not in (0, self._driver.stream.incarnation):
            self._ask()
        image = self._image
        is_idle = not self._streaming and not self._is_asked()  # the one that was asked for may have the same name
        if image is not None and is_idle and now - image.needed_at > IMAGE_LIFETIME_S:
            self._drop_image()
        self._pins.look(now, self._driver.core.progress())
        self._expect_newcomers()

    def close(self) -> None:
        """Threads end by themselves at the next deadline; nothing they do is acted on."""
        self._closed = True
        self._drop_image()

    def _expect_newcomers(self) -> None:
        """A member that was added starts in a moment, and the log does not begin at the beginning any more."""
        core, members = self._driver.core, self._driver.membership.members
        if members.keys() == self._known:
            return
        has_newcomers = bool(self._known and members.keys() - self._known)
        self._known = frozenset(members)
        if has_newcomers and core.role is Role.LEADER and core.first_index > 1 and self._fresh_image() is None:
            self._ask()

    def _fresh_image(self) -> Image | None:
        image = self._image
        if image is None or time.monotonic() - image.needed_at > IMAGE_LIFETIME_S:
            return None
        return image if image.index >= self._driver.core.first_index - 1 else None

    def _is_asked(self) -> bool:
        return self._asked_of != 0 and self._asked_of == self._driver.stream.incarnation

    def _ask(self) -> None:
        if self._is_asked():
            return
        stream = self._driver.stream
        if stream.take_image():
            self._driver.schedule()
            self._asked_of, self._asked_index = stream.incarnation, stream.durable_index
        else:
            self._try_later()

    def _try_later(self) -> None:
        targets, self._targets = self._targets, set()
        for number in targets:
            self._loop.call_later(RETRY_S, self._report, number, False, 0)

    def _drop_image(self) -> None:
        if self._image is not None:
            self._image.path.unlink(missing_ok=True)
            self._image = None

    def _start_streams(self, image: Image) -> None:
        targets, self._targets = self._targets, set()
        for number in targets - self._streaming.keys():
            member = self._driver.member(number)
            if member is None:
                self._loop.call_later(RETRY_S, self._report, number, False, 0)
                continue
            self._streaming[number] = image.index
            arguments = (number, member.peer_urls, image, self._driver.core.term)
            threading.Thread(target=self._stream, args=arguments, name="snapshot-send", daemon=True).start()

    def _report(self, number: int, ok: bool, index: int) -> None:
        if not self._closed:
            self._driver.core.report_snapshot(number, ok, index)
            self._driver.schedule()

    def _finished(self, number: int, ok: bool, index: int) -> None:
        self._streaming.pop(number, None)
        now = time.monotonic()
        image = self._image if self._image is not None and self._image.index == index else None
        if ok:
            self.sent += 1
            if image is not None:
                image.is_wanted = False
            self._pins.add(number, index, self._driver.core.last_index, now)
            self._report(number, ok, index)
        else:
            self.send_failures += 1
            if image is not None:
                image.needed_at, image.is_wanted = now, True  # the next stream goes on where this one was cut
            self._loop.call_later(RETRY_S, self._report, number, ok, index)

    # --- sending, in a thread ---

    def _stream(self, number: int, urls: tuple[str, ...], image: Image, term: int) -> None:
        started = time.monotonic()
        ok = False
        try:
            connection = self._dial(number, urls)
            with connection:
                frames = FrameSocket(connection, image.membership.cluster_id, self._settings.member_id, number)
                self._send_image(frames, number, image, term)
            ok = True
            took = f"{time.monotonic() - started:.3f}s"
            log.info("sent snapshot", to=f"{number:x}", index=image.index, bytes=image.size, took=took)
        except (OSError, BadRequest, Refused, PeerRefused, FrameDamaged, ValueError) as error:
            log.warn("failed to send snapshot", to=f"{number:x}", index=image.index, error=explain(error))
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(self._finished, number, ok, image.index)

    def _dial(self, number: int, urls: tuple[str, ...]) -> socket.socket:
        settings = self._settings
        hello = Hello(SNAPSHOT, self._driver.membership.cluster_id, settings.member_id, number)
        failure: Exception = OSError("the member has no urls")
        for url in urls:
            try:
                return settings.dial(url, hello)
            except (OSError, ValueError, BadRequest, Refused, PeerRefused) as error:
                failure = error
        raise failure

    def _send_image(self, frames: FrameSocket, number: int, image: Image, term: int) -> None:
        way = (self._settings.member_id, number, term)
        described = Described(image.index, image.term, image.size, image.name, image.membership)
        frames.send(SnapshotMeta(*way, described.pack()))
        position = acknowledged = self._acknowledged(frames)
        started, begun_at = time.monotonic(), position
        with image.path.open("rb") as file:
            crc = checksum_of(file, position)
            while position < image.size:
                data = file.read(CHUNK_BYTES)
                if not data:
                    raise ValueError("the image became shorter")
                frames.send(SnapshotChunk(*way, position, google_crc32c.value(data), data))
                crc = google_crc32c.extend(crc, data)
                position += len(data)
                ahead = (position - begun_at) / BYTES_PER_SECOND_MAX - (time.monotonic() - started)
                if ahead > 0:
                    time.sleep(ahead)
                while position - acknowledged > WINDOW_CHUNKS * CHUNK_BYTES:
                    acknowledged = self._acknowledged(frames)
        frames.send(SnapshotEnd(*way, crc))
        while self._acknowledged(frames) < image.size:
            pass

    @staticmethod
    def _acknowledged(frames: FrameSocket) -> int:
        message = frames.receive()
        if not isinstance(message, SnapshotAck):
            raise ValueError("the receiver said something else")
        return message.offset

    # --- receiving, in a thread ---

    def receive(self, connection: socket.socket, hello: Hello) -> None:
        """Takes a snapshot from an accepted connection; returns when it is installed or has failed."""
        if not self._receiving.acquire(blocking=False):
            connection.close()
            return
        try:
            with connection:
                frames = FrameSocket(connection, hello.cluster_id, hello.to_id, hello.from_id)
                self._receive_image(frames, hello)
        except (OSError, FrameDamaged, ValueError) as error:
            log.warn("failed to receive snapshot", sender=f"{hello.from_id:x}", error=str(error))
        finally:
            self._receiving.release()

    def _receive_image(self, frames: FrameSocket, hello: Hello) -> None:
        meta = frames.receive()
        if not isinstance(meta, SnapshotMeta):
            raise ValueError("the stream does not begin with what it holds")
        described = Described.unpack(meta.body)
        index, size, membership = described.index, described.size, described.membership
        if membership.cluster_id != hello.cluster_id:
            raise ValueError("it is of another cluster")
        part = self._directory / f"{index:016x}-{described.name}.part"
        for other in self._directory.glob("*.part"):
            if other != part:
                other.unlink()
        way = (hello.to_id, hello.from_id, meta.term)
        began = time.monotonic()
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        with os.fdopen(descriptor, "r+b", buffering=0) as file, ThreadPoolExecutor(1, "snapshot-sync") as disk:
            self._receive_chunks(frames, file, size, way, part, disk)
            sync_began = time.monotonic()
            _sync(os.fsync, file.fileno(), part)
            self.syncs.add(time.monotonic() - sync_began)
        whole = self._directory / f"{index:016x}{SUFFIX}"
        part.rename(whole)
        sync_directory(self._directory)
        self.saves.add(time.monotonic() - began)
        snapshot = raft.SnapshotMeta(index, described.term, membership.conf)
        message = raft.InstallSnapshot(hello.from_id, hello.to_id, meta.term, snapshot)
        done: Future[None] = Future()
        self._loop.call_soon_threadsafe(self._install, message, membership, done)
        done.result(STALL_TIMEOUT_S)
        self.received += 1
        log.info("received and saved snapshot", sender=f"{hello.from_id:x}", index=index, bytes=size)
        frames.send(SnapshotAck(*way, size))

    def _receive_chunks(
        self,
        frames: FrameSocket,
        file: FileIO,
        size: int,
        way: tuple[int, int, int],
        part: Path,
        disk: ThreadPoolExecutor,
    ) -> None:
        position = min(os.fstat(file.fileno()).st_size, size)
        crc = checksum_of(file, position)
        frames.send(SnapshotAck(*way, position))
        synced, syncing = position, None
        while position < size:
            chunk = frames.receive()
            if not isinstance(chunk, SnapshotChunk) or chunk.offset != position:
                raise ValueError("a chunk is missing")
            data = memoryview(chunk.data)
            crc = google_crc32c.extend(crc, chunk.data)
            while data:
                data = data[file.write(data) :]
            position += len(chunk.data)
            if position < size:
                frames.send(SnapshotAck(*way, position))
            if position - synced >= SYNC_BYTES and (syncing is None or syncing.done()):
                synced, syncing = position, disk.submit(_sync, os.fdatasync, file.fileno(), part)
        end = frames.receive()
        if not isinstance(end, SnapshotEnd) or end.crc != crc or position != size:
            part.unlink()
            raise ValueError("the snapshot is not what was sent")

    def _install(self, message: raft.InstallSnapshot, membership: Membership, done: Future[None]) -> None:
        if not self._closed:
            self._driver.install_snapshot(message, membership)
            self._driver.turn()
            done.set_result(None)
