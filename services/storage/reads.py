"""Questions: they change nothing and see the state at the place where they stand in the stream.

Small ranges are answered on the spot. A large one is pinned to the revision it was asked at and answered later: the
main thread names its keys slice by slice between two batches, a reader thread fetches the pairs on a connection of its
own, and what was changed meanwhile is walked back to the pinned revision. A slice holds no transaction open, so that
checkpoints go on; compaction waits for the scans that need what it would drop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from heapq import merge
from itertools import islice
from typing import Final, Protocol

from google.protobuf.message import DecodeError, Message

from quorate.proto import rpc_pb2
from quorate.storage import hashkv, ranges, schema, snapshot, txn
from quorate.storage.apply import Applier
from quorate.storage.buckets import Buckets
from quorate.storage.database import DiskFull, read_blobs
from quorate.storage.headers import MALFORMED, UNKNOWN, OutOfSpace, answered, failed
from quorate.storage.mvcc import Store, walk_back
from quorate.storage.records import integer_field
from quorate.wire import errors
from quorate.wire.errors import CallFailed
from quorate.wire.identity import NODE, Caller
from quorate.wire.messages import MAIN_SHIFT, Chunk, Op, commands_of, pack_result

SLICE_KEYS: Final = 2000  # half a millisecond of the main thread
READER_THREADS: Final = 2  # one large read does not wait for another; more would only share the same two cores
FETCH_RECORDS: Final = 1000  # in one statement of a reader
STORAGE_VERSION: Final = "3.6.0"
RESPONSE_BYTES_MAX: Final = 2**31 - 1  # what gRPC can send

Deliver = Callable[[bytes], None]
Refuse = Callable[[], None]


class Work(Protocol):
    """Something to be read on a reader thread."""

    @property
    def revision(self) -> int:
        """Compaction waits while it would drop what is visible at this revision."""
        ...

    def read(self) -> bytes:
        """Runs on a reader thread, with everything committed that was applied before."""
        ...


class Task:
    """Work that is one function, and goes through everything there is."""

    def __init__(self, revision: int, read: Callable[[], bytes]) -> None:
        self.revision = revision
        self.read = read


class Scan:
    """One large range on its way: keys are named by the main thread, the rest is a reader's."""

    def __init__(self, store: Store, request: rpc_pb2.RangeRequest, revision: int, header: bytes) -> None:
        self.request = request
        self.revision = revision
        self.header = header
        self.is_named = False  # all keys are
        self._store = store
        self._bound = revision + 1 << MAIN_SHIFT
        self._behind: bytes | None = None
        self._records: list[int] = []
        self._walks: list[tuple[int, bytes]] = []  # positions in `_records` of what is newer than the bound, and keys
        is_now = revision == store.revision
        self._count = store.count(request.key, request.range_end) if is_now else 0
        self._wanted = ranges.records_wanted(request) if is_now and not request.count_only else 0

    def name_keys(self) -> None:
        """Take the next slice of keys."""
        request = self.request
        index = self._store.index
        keys = index.live_keys(request.key, request.range_end, self._behind)
        if index.dead_span(request.key, request.range_end):
            keys = merge(keys, index.dead_keys(request.key, request.range_end, self._behind))
        slice_ = list(islice(keys, SLICE_KEYS))
        newest = index.newest
        bound = self._bound
        records = self._records
        for key in slice_:
            record = newest[key]
            if record >= bound:
                self._walks.append((len(records), key))
            elif record & 1:
                continue
            records.append(record)
        self.is_named = len(slice_) < SLICE_KEYS or (0 < self._wanted <= len(records) - len(self._walks))
        self._behind = slice_[-1] if slice_ else None

    def read(self) -> bytes:
        """The answer; runs on a reader thread once all keys are named and everything they name is committed."""
        connection = schema.open_reader(self._store.database.path)
        try:
            for position, key in self._walks:
                self._records[position] = walk_back(connection, key, self._records[position], self._bound)
            records = (
                [record for record in self._records if record and not record & 1] if self._walks else self._records
            )
            count = self._count if self._count or self._wanted else len(records)

            is_joined = ranges.is_plain(self.request) and not self.request.keys_only

            def fetch(wanted: list[int]) -> list[bytes]:
                blobs: list[bytes] = []
                for start in range(0, len(wanted), FETCH_RECORDS):
                    piece = wanted[start : start + FETCH_RECORDS]
                    found = read_blobs(connection, piece)
                    if is_joined:  # a million small objects would leave memory in pieces
                        blobs.append(b"".join([found[record] for record in piece]))
                    else:
                        blobs += [found[record] for record in piece]
                return blobs

            return ranges.respond(self.request, records, count, self.header, fetch)
        finally:
            connection.close()


class Deferred:
    """An answer that a reader thread owes."""

    __slots__ = ("work",)

    def __init__(self, work: Work) -> None:
        self.work = work


class Defragment:
    """An answer that is due when all free space was given back."""

    __slots__ = ()


class Compacting:
    """An answer that is due when what was compacted up to `revision` is gone from the disk."""

    __slots__ = ("revision",)

    def __init__(self, revision: int) -> None:
        self.revision = revision


Answer = bytes | OutOfSpace | Deferred | Defragment | Compacting


class Questions:
    """Answers chunks of questions: results in order, or Deferred in the place of one that comes later."""

    def __init__(self, applier: Applier) -> None:
        self._applier = applier
        self._store = applier.store
        self._headers = applier.headers
        self.hash_times = hashkv.HashTimes()
        self._operations_max: int | None = None
        self._commands: dict[int, Callable[[bytes], Answer]] = {
            Op.RANGE: self.range,
            Op.TXN: self.txn,
            Op.LEASE_TIME_TO_LIVE: self.time_to_live,
            Op.LEASE_LEASES: self.leases,
            Op.ALARM: self.alarms,
            Op.STATUS: self.status,
            Op.HASH: self.hash,
            Op.HASH_KV: self.hash_kv,
            Op.DEFRAGMENT: self.defragment,
            Op.COMPACTED: lambda body: Compacting(int.from_bytes(body, "little")),
            Op.SNAPSHOT: self.snapshot,
            Op.CREDENTIALS: self.credentials,
            Op.TOKEN: self.token,
            Op.PERMISSION: lambda _body: b"",
            Op.OUT_OF_SPACE: self.out_of_space,
        }
        auth = applier.auth
        self._auth_questions: dict[int, Callable[[Caller | None, bytes], Message]] = {
            Op.AUTH_STATUS: lambda caller, _body: auth.status(caller),
            Op.USER_GET: auth.user,
            Op.USER_LIST: lambda caller, _body: auth.users(caller),
            Op.ROLE_GET: auth.role,
            Op.ROLE_LIST: lambda caller, _body: auth.roles(caller),
        }

    def chunk(self, chunk: Chunk) -> list[Answer]:
        """Answer the commands of a chunk in order."""
        commands = self._commands
        applier = self._applier
        judged = applier.auth.enabled
        results: list[Answer] = []
        for op, identity, body in commands_of(chunk.commands):
            command = commands.get(op)
            try:
                if judged and identity != NODE:
                    applier.judge.check(op, identity, body)
                if command is not None:
                    answer = command(body)
                elif op in self._auth_questions:
                    answer = self._ask_auth(op, identity, body)
                else:
                    results.append(UNKNOWN)
                    continue
            except CallFailed as failure:
                results.append(failed(failure.error))
            except DecodeError:
                results.append(MALFORMED)
            except DiskFull:  # what is not written yet could not be read
                results.append(self.out_of_space(b""))
            else:
                results.append(answered(answer) if isinstance(answer, bytes) else answer)
        return results

    def range(self, body: bytes) -> bytes | Deferred:
        """Range; one key with no option, serializable or not, is read without a protobuf message."""
        size = len(body)
        if size > 2 and body[0] == 0x0A and body[1] < 0x80:
            end = body[1] + 2
            if end == size or (end + 2 == size and body.endswith(b"\x38\x01")):
                store = self._store
                self._applier.counts["range"] += 1
                record = store.index.newest.get(body[2:end], 1)
                header = self._headers.at(store.revision)
                if record & 1:
                    return header if body[1] else self._range_message(body)
                return header + store.blob(record) + b"\x20\x01"
        return self._range_message(body)

    def _range_message(self, body: bytes) -> bytes | Deferred:
        request = rpc_pb2.RangeRequest.FromString(body)
        store = self._store
        revision = store.check_revision(request.revision)
        self._applier.counts["range"] += 1
        header = self._headers.at(store.revision)
        if ranges.is_large(store, request, revision):
            return Deferred(Scan(store, request, revision, header))
        try:
            return ranges.answer(store, request, revision, header, ranges.fetch_inline(store))
        except ranges.TooMuch:
            return Deferred(Scan(store, request, revision, header))

    def txn(self, body: bytes) -> bytes:
        """A transaction of compares and ranges."""
        request = rpc_pb2.TxnRequest.FromString(body)
        store = self._store
        fields = txn.run(store, self._applier.lessor, request)
        assert not store.sub, "a transaction that writes has its place in the log"
        self._applier.counts["txn"] += 1
        return self._headers.at(store.revision) + fields

    # --- auth --------------------------------------------------------------------------------------------------------

    def credentials(self, body: bytes) -> bytes:
        """What api needs to check a password."""
        return self._applier.auth.credentials(body.decode()).pack()

    def token(self, body: bytes) -> bytes:
        """Whom a token stands for; nothing while auth is off."""
        caller = self._applier.auth.caller_of(body.decode(), int(self._applier.now * 1000))
        return caller.pack() if caller else b""

    def _ask_auth(self, op: int, identity: bytes, body: bytes) -> bytes:
        response = self._auth_questions[op](self._applier.judge.caller(identity), body)
        return self._headers.at(self._store.revision) + response.SerializeToString()

    # --- leases and alarms -------------------------------------------------------------------------------------------

    def time_to_live(self, body: bytes) -> bytes:
        """LeaseTimeToLive, by this member's clock."""
        request = rpc_pb2.LeaseTimeToLiveRequest.FromString(body)
        header = self._headers.at(self._store.revision)
        lessor = self._applier.lessor
        lease = lessor.leases.get(request.ID)
        response = rpc_pb2.LeaseTimeToLiveResponse(ID=request.ID, TTL=-1)
        if lease is not None:
            response.TTL = max(0, int(lease.remaining(self._applier.now)))
            response.grantedTTL = lease.granted_ttl
            if request.keys:
                response.keys.extend(lessor.keys_of(request.ID))
        return header + response.SerializeToString()

    def leases(self, _body: bytes) -> bytes:
        """LeaseLeases."""
        response = rpc_pb2.LeaseLeasesResponse()
        for lease_id in self._applier.lessor.by_remaining_time():
            response.leases.add(ID=lease_id)
        return self._headers.at(self._store.revision) + response.SerializeToString()

    def alarms(self, body: bytes) -> bytes:
        """Alarm GET; the others are commands."""
        if rpc_pb2.AlarmRequest.FromString(body).action != rpc_pb2.AlarmRequest.GET:
            raise CallFailed(errors.UNKNOWN_METHOD)
        return self._applier.alarm(body)

    def out_of_space(self, _body: bytes) -> OutOfSpace:
        """A worker refuses a change that does not fit."""
        self._applier.wants_space_alarm = True
        return OutOfSpace()

    # --- maintenance -------------------------------------------------------------------------------------------------

    def status(self, _body: bytes) -> bytes:
        """Storage's share of Status."""
        database = self._store.database
        response = rpc_pb2.StatusResponse(
            dbSize=database.size_bytes,
            dbSizeInUse=database.size_in_use_bytes,
            storageVersion=STORAGE_VERSION,
            dbSizeQuota=self._applier.quota_bytes or 0,
            raftAppliedIndex=database.marks.applied_index,
        )
        for kind, member_id in self._applier.alarms.get(rpc_pb2.NONE):
            response.errors.append(f"memberID:{member_id} alarm:{rpc_pb2.AlarmType.Name(kind)} ")  # type: ignore[arg-type]
        return self._headers.at(self._store.revision) + response.SerializeToString()

    def defragment(self, _body: bytes) -> Defragment:
        """Defragment: answered when no page is free."""
        return Defragment()

    def snapshot(self, _body: bytes) -> Deferred:
        """Snapshot: the path of a file that holds everything, for the api worker that asks; empty when it cannot be."""
        database = self._store.database

        def work() -> bytes:
            try:
                return bytes(snapshot.export(database))
            except snapshot.NoCopy:
                return b""

        return Deferred(Task(max(0, self._store.compact_revision), work))

    def hash(self, _body: bytes) -> Deferred:
        """Hash: over everything in the history table."""
        header = self._headers.at(self._store.revision)
        path = self._store.database.path
        end = self._store.main << MAIN_SHIFT

        def work() -> bytes:
            value = hashkv.timed(lambda: hashkv.hash_kv(path, -1, end), self.hash_times.whole_seconds)
            return header + integer_field(b"\x10", value)

        return Deferred(Task(0, work))

    def hash_kv(self, body: bytes) -> Deferred:
        """HashKV of the state at a revision."""
        request = rpc_pb2.HashKVRequest.FromString(body)
        store = self._store
        revision = store.check_revision(request.revision)
        header = self._headers.at(store.revision)
        compact_revision = store.compact_revision
        path = store.database.path

        def work() -> bytes:
            end = revision + 1 << MAIN_SHIFT
            seconds = self.hash_times.revision_seconds
            value = hashkv.timed(lambda: hashkv.hash_kv(path, compact_revision, end), seconds)
            response = rpc_pb2.HashKVResponse(hash=value, compact_revision=compact_revision, hash_revision=revision)
            return header + response.SerializeToString()

        return Deferred(Task(max(0, compact_revision), work))


def result_of(body: bytes) -> bytes:
    """A deferred answer as a result."""
    if len(body) > RESPONSE_BYTES_MAX:
        text = f"grpc: trying to send message larger than max ({len(body)} vs. {RESPONSE_BYTES_MAX})"
        return pack_result(errors.TOO_MANY_REQUESTS.id, text.encode())
    return answered(body)


class Readers:
    """Deferred answers on their way: a few at a time, the others wait in order. Of tasks there is one at a time, as
    they may take minutes and ranges and history must not wait for them. `wake` is called from a reader thread when
    there is something to collect."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.image_seconds = Buckets(0.01, 2, 17)
        self._wake = wake
        self._pool = ThreadPoolExecutor(READER_THREADS, "reader")
        self._waiting: deque[tuple[Deliver, Work, Refuse | None]] = deque()
        self._tasks: deque[tuple[Deliver, Work, Refuse | None]] = deque()
        self._naming: tuple[Deliver, Scan, Refuse | None] | None = None
        self._reading: dict[Future[bytes], tuple[Deliver, Work]] = {}

    def submit(self, deliver: Deliver, work: Work, refuse: Refuse | None = None) -> None:
        """Take a deferred answer; `deliver` is given the result.

        Where the disk has no room for what was applied before, `refuse` is called instead; without one it waits.
        """
        (self._tasks if isinstance(work, Task) else self._waiting).append((deliver, work, refuse))

    @property
    def running(self) -> int:
        """Reads on a thread now."""
        return len(self._reading)

    @property
    def wants_turn(self) -> bool:
        """Whether the main thread has something to do for a scan now."""
        return self._naming is not None or self._startable is not None

    @property
    def _startable(self) -> deque[tuple[Deliver, Work, Refuse | None]] | None:
        """Where the next to start waits."""
        if len(self._reading) >= READER_THREADS:
            return None
        if self._tasks and not any(isinstance(work, Task) for _, work in self._reading.values()):
            return self._tasks
        return self._waiting or None

    def revisions(self) -> Iterator[int]:
        """The revisions that must not be compacted away yet."""
        for _, work, _ in (*self._waiting, *self._tasks):
            yield work.revision
        for _, work in self._reading.values():
            yield work.revision
        if self._naming:
            yield self._naming[1].revision

    def advance(self, commit: Callable[[], bool]) -> None:
        """Give one slice to the scan in front; `commit` writes what is pending before a reader starts, and says whether
        it could."""
        if self._naming is None:
            startable = self._startable
            if startable is None:
                return
            deliver, work, refuse = startable.popleft()
            if not isinstance(work, Scan):
                self._start(deliver, work, refuse, commit)
                return
            self._naming = (deliver, work, refuse)
        deliver, scan, refuse = self._naming
        if not scan.is_named:
            scan.name_keys()
        if scan.is_named:
            self._naming = None
            self._start(deliver, scan, refuse, commit)

    def collect(self) -> None:
        """Deliver the results of the reads that are done."""
        if not self._reading:
            return
        for future in [future for future in self._reading if future.done()]:
            deliver, _ = self._reading.pop(future)
            deliver(future.result())

    def without_room(self) -> None:
        """Refuse those who can be, as what was applied before them cannot be written."""
        if self._naming is not None:
            self._waiting.appendleft(self._naming)
            self._naming = None
        waiting = (*self._waiting, *self._tasks)
        self._waiting.clear()
        self._tasks.clear()
        for deliver, work, refuse in waiting:
            if refuse is None:
                self.submit(deliver, work)
            else:
                refuse()

    def close(self) -> None:
        """Wait for the reads under way and forget the rest."""
        self._waiting.clear()
        self._tasks.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _start(self, deliver: Deliver, work: Work, refuse: Refuse | None, commit: Callable[[], bool]) -> None:
        if not commit():
            (self._tasks if isinstance(work, Task) else self._waiting).appendleft((deliver, work, refuse))
            self.without_room()
            return
        future = self._pool.submit(work.read)
        self._reading[future] = (deliver, work)
        future.add_done_callback(lambda _: self._wake())
