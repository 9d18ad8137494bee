"""A member that says anything, to another member at work: its log on a disk, its storage, its calls.

What Raft cannot promise against such a member is said in `of_raft`. Here the other one goes on: its process does not
end, storage is handed every committed entry once and in order, the log and the membership can be read again.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

from quorate.consensus import frames, node
from quorate.consensus.calls import Calls, Rules
from quorate.consensus.driver import Driver
from quorate.consensus.frames import PeerMessage
from quorate.consensus.membership import (
    Member,
    Membership,
    Meta,
    membership_from_json,
    membership_json,
    pack_attributes,
    pack_cluster_version,
    pack_newcomer,
    pack_peer_urls,
)
from quorate.consensus.meta import MetaFiles
from quorate.consensus.neighbours import Times
from quorate.consensus.publisher import Publisher
from quorate.consensus.raft import confchange
from quorate.consensus.raft import messages as raft
from quorate.consensus.raft.core import RaftCore
from quorate.consensus.raft.messages import Entry, EntryKind, HardState, RaftConfig, Refusal
from quorate.consensus.wal import Wal
from quorate.proto import rpc_pb2 as rpc
from quorate.wire.errors import EtcdError
from quorate.wire.messages import (
    APPLIED,
    ENTRY,
    IMAGE,
    START,
    STORAGE_HELLO,
    ClusterOp,
    Kind,
    Origin,
    Part,
    pack_chunk,
    pack_command,
)
from quorate.wire.sockets import Address, Channel
from tests.consensus.fakes import NoCourier, NoNetwork
from tests.fuzzing import of_raft, scratch
from tests.fuzzing.octets import Octets, odd

OWN: Final = of_raft.OWN
FOUNDED: Final = Membership.founded([Member(number, (f"http://m{number}:2380",)) for number in (1, 2, 3)])
SEGMENT_BYTES: Final = 256 * 1024
ACTIONS_MAX: Final = 120
ATTRIBUTES: Final = (
    pack_attributes(2, "two", ["http://m2:2379"]),
    pack_peer_urls(3, ["http://m4:2380"]),
    pack_cluster_version("3.6.0"),
)
CHUNK: Final = pack_chunk(Origin(OWN, 1, 0), 1, [pack_command(2, b"\x0a\x01a")])


class QuietChannel:
    """A neighbour that takes everything."""

    peer_incarnation = 1

    def __init__(self, peer: Address, heard: list[tuple[Address, int, bytes]]) -> None:
        self.peer = peer
        self._heard = heard

    def send(self, kind: int, *parts: bytes) -> None:
        self._heard.append((self.peer, kind, b"".join(parts)))


class QuietEndpoint:
    """The node's ring without sockets."""

    address = Address(Part.CONSENSUS)
    is_drained = True
    incarnation = 1

    def __init__(self) -> None:
        self.channels: dict[Address, QuietChannel] = {}
        self.heard: list[tuple[Address, int, bytes]] = []
        self.said: list[tuple[QuietChannel, list[tuple[int, bytes]]]] = []

    def connect(self, peer: Address, _hello: Callable[[], bytes] = bytes) -> QuietChannel:
        return self.channels.setdefault(peer, QuietChannel(peer, self.heard))

    def when_opened(self, _opened: object) -> None:
        return

    def accept(self, _hello_for: object) -> None:
        return

    def fileno(self) -> int:
        return -1

    def receive(self, _frames_max: int) -> list[tuple[QuietChannel, list[tuple[int, bytes]]]]:
        said, self.said = self.said, []
        return said

    def flush(self) -> bool:
        return True


class QuietLoop:
    """A loop in which nothing happens by itself."""

    def time(self) -> float:
        return time.monotonic()

    def create_future(self) -> Future[None]:
        return Future()

    def add_reader(self, *_arguments: object) -> None:
        return

    remove_reader = call_at = call_later = call_soon = add_reader


class Courier(NoCourier):
    """Snapshots are whatever was said last."""

    def __init__(self) -> None:
        self.index = 0

    def send(self, number: int, index: int = 0) -> None:
        assert number
        assert index >= 0

    def image_taken(self, index: int, term: int, path: str) -> None:
        return

    def install_path(self, index: int) -> str | None:
        return "image" if index == self.index else None


class World:
    """One member: what is around its driver, and what storage has."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        meta = Meta(OWN, FOUNDED)
        files = MetaFiles(directory)
        files.write(meta)
        self.wal = Wal.create(directory, FOUNDED.cluster_id, OWN, SEGMENT_BYTES, fsync=False)
        core = RaftCore(
            RaftConfig(id=OWN), random.Random(1), hard_state=HardState(), conf_state=FOUNDED.conf, storage=self.wal
        )
        self.endpoint = QuietEndpoint()
        loop, times = cast("Any", QuietLoop()), Times(0.1, 1.0)
        self.driver = driver = Driver(loop, cast("Any", self.endpoint), core, self.wal, meta, files, 0, times, 10)
        self.network, self.courier = NoNetwork(), Courier()
        driver.network, driver.courier = self.network, self.courier
        self.calls = Calls(driver, Rules(strict=True, learners_max=1))
        publisher = Publisher(driver, "one", ["http://m1:2379"])
        driver.on_call, driver.on_peer_call, driver.on_tick = self.calls.take, self.calls.take_peer, publisher.look
        self.applied_index = 0
        driver.start(hasten=False)
        self._say_hello(Address(Part.STORAGE), STORAGE_HELLO.pack(0, 0))

    def _say_hello(self, address: Address, hello: bytes) -> None:
        self.driver._opened(cast("Channel", self.endpoint.channels[address]), hello)

    def turn(self) -> None:
        """The driver works; storage applies what it is handed."""
        self.driver.turn()
        self.check()
        heard = list(self.endpoint.heard)
        self.endpoint.heard.clear()
        storage = self.endpoint.channels[Address(Part.STORAGE)]
        replies: list[tuple[int, bytes]] = []
        for peer, kind, body in heard:
            if peer.part is Part.STORAGE:
                replies += self._apply(kind, body)
        if replies:
            self.endpoint.said.append((storage, replies))
        sent, self.network.sent = self.network.sent, []
        for message in sent:
            frames.encode(FOUNDED.cluster_id, message)

    def _apply(self, kind: int, body: bytes) -> list[tuple[int, bytes]]:
        match kind:
            case Kind.START:
                assert START.unpack(body)[2] == self.applied_index + 1
            case Kind.ENTRY:
                index, _, _ = ENTRY.unpack_from(body)
                assert index == self.applied_index + 1, "a hole in what storage is handed"
                self.applied_index = index
                return [(Kind.APPLIED, APPLIED.pack(index, index))]
            case Kind.IMAGE_INSTALL:
                (index, _) = IMAGE.unpack_from(body)
                assert index > self.applied_index, "an image takes applied entries back"
                self.applied_index = index
                self._say_hello(Address(Part.STORAGE), STORAGE_HELLO.pack(index, index & 1))
        return []

    def check(self) -> None:
        """Nothing has ended the process, and everybody can be told who the members are."""
        failure = cast("Future[None]", self.driver.failure)
        if failure.done():
            error = failure.exception()
            assert error is None, f"the process ended: {error!r}"
        found = self.driver.membership
        assert membership_from_json(json.loads(json.dumps(membership_json(found)))) == found
        answers: list[object] = []
        for op in (ClusterOp.MEMBER_LIST, ClusterOp.STATUS, ClusterOp.VERSION):
            self.calls.perform(op, b"", answers.append)
        assert len(answers) == 3
        for answer in answers:
            assert isinstance(answer, EtcdError) or isinstance(cast("Any", answer).SerializeToString(), bytes)

    def check_recovery(self) -> None:
        """Of a log that is closed: it leads to the same membership."""
        driver = self.driver
        membership, seen = driver.membership, driver.seen_index
        meta = MetaFiles(self.directory).read()
        assert meta is not None
        kinds = frozenset((int(EntryKind.CONF), int(EntryKind.ATTR)))
        wal = Wal.recover(self.directory, SEGMENT_BYTES, fsync=False, keep_kinds=kinds)
        again = node.known_membership(meta.membership, wal.recovered, seen)
        wal.abandon()
        assert again.members == membership.members
        assert again.conf == membership.conf


@contextmanager
def world() -> Iterator[None]:
    """A directory for the log, and no lines of ours."""
    logging.disable()
    try:
        with scratch.world():
            yield
    finally:
        logging.disable(logging.NOTSET)


def seeds() -> list[bytes]:
    """Those of the core, and calls of every kind."""
    calls = b"".join(bytes((9, op, 3)) + b"abc" for op in range(12))
    honest = b"".join(bytes((6, 0, kind, 2, 8)) for kind in range(4))
    return [
        *of_raft.seeds(),
        bytes((1,)) + honest * 4,
        bytes((0,)) + honest * 4 + bytes((9, 1, 8, 10, 20)),
        bytes((1,)) + calls * 3,
        bytes((0,)) + calls,
    ]


def run(data: bytes) -> bool:
    """The member goes on, whatever is said to it."""
    scratch.clear()
    octets = Octets(data)
    member = World(scratch.directory())
    try:
        if octets.number() % 2:
            lead(member)
        count = 0
        while not octets.is_empty and count < ACTIONS_MAX:
            count += 1
            act(octets, member)
        member.turn()
        member.turn()
    finally:
        member.wal.abandon()
    member.check_recovery()
    return not member.driver.impossible_messages


def lead(member: World) -> None:
    """Have the member elected."""
    core = member.driver.core
    core.campaign()
    member.turn()
    for answer in (raft.PreVoteResp(2, OWN, core.term + 1, True), raft.VoteResp(2, OWN, core.term + 1, True)):
        member.driver.hear([answer])
        member.turn()
    member.driver.hear([raft.AppendAck(2, OWN, core.term, core.last_index)])
    member.turn()


def act(octets: Octets, member: World) -> None:
    """Something happens: most of the time a peer says something."""
    driver = member.driver
    match octets.number() % 16:
        case 4 | 5 | 6:
            message = of_raft.honest(octets, driver.core)
            if isinstance(message, raft.Append):
                first, *others = message.entries
                kind = octets.choice((EntryKind.BATCH, EntryKind.BATCH, EntryKind.ATTR, EntryKind.CONF))
                first = _entry(Octets(b"\0\1"), first._replace(kind=kind))
                message = message._replace(entries=[first, *others])
            driver.hear([message])
        case 7 | 8:
            member.turn()
        case 9:
            body = octets.choice((octets.some(), call_body(octets)))
            driver.hear([frames.Call(octets.choice((2, 3)), OWN, driver.core.term, 1, octets.number() % 14, body)])
        case 10:
            for _ in range(octets.number() % 25):
                driver._pass_time(time.monotonic())
                driver._work()
                member.check()
        case 11:
            api = member.endpoint.connect(Address(Part.API))
            member.endpoint.said.append((api, [(octets.choice((Kind.PROPOSE, Kind.READ)), CHUNK)]))
        case 12:
            driver.hear([frames.CallReply(2, OWN, driver.core.term, 1, octets.number(), octets.some())])
        case 13:
            member.turn()
            install = of_raft.snapshot(octets, driver.core, _way(octets, driver))
            conf = install.snapshot.conf_state
            fields = odd(octets, membership_json(Membership(FOUNDED.cluster_id, 1, conf, FOUNDED.members)))
            try:
                arriving = membership_from_json(cast("Any", fields))
            except (ValueError, AttributeError):
                return
            member.courier.index = install.snapshot.index
            snapshot = install.snapshot._replace(conf_state=arriving.conf)
            driver.install_snapshot(install._replace(snapshot=snapshot), arriving)
            member.turn()
        case _:
            driver.hear([said(octets, driver)])


def _way(octets: Octets, driver: Driver) -> tuple[int, int, int]:
    return octets.choice((2, 3)), OWN, of_raft.near(octets, driver.core.term)


def call_body(octets: Octets) -> bytes:
    """A request for a change of the membership."""
    number = octets.choice((1, 2, 3, 4))
    return octets.choice(
        (
            rpc.MemberAddRequest(peerURLs=["http://m4:1"], isLearner=octets.number() % 2 == 0).SerializeToString(),
            rpc.MemberRemoveRequest(ID=number).SerializeToString(),
            rpc.MemberUpdateRequest(ID=number, peerURLs=["http://m5:1"]).SerializeToString(),
            rpc.MoveLeaderRequest(targetID=number).SerializeToString(),
        )
    )


def said(octets: Octets, driver: Driver) -> PeerMessage:
    """A message of a peer, with changes of the membership that are nearly right."""
    message = of_raft.said(octets, driver.core)
    match message:
        case raft.Append(entries=entries) if entries and octets.number() % 2:
            return message._replace(entries=[_entry(octets, one) for one in entries])
        case raft.Forward(kind=EntryKind.ATTR):
            return message._replace(payload=_attributes(octets))
        case raft.InstallSnapshot():
            return raft.ForwardRefused(message.from_id, OWN, 0, 1, Refusal.OVERLOADED)
    return message


def _entry(octets: Octets, entry: Entry) -> Entry:
    match entry.kind:
        case EntryKind.CONF:
            fields = json.loads(pack_newcomer(Member(octets.number() % 6, ("http://m4:2380",))))
            context = b"" if octets.number() % 2 else json.dumps(odd(octets, fields)).encode()
            return entry._replace(payload=confchange.encode(octets.choice(of_raft.CONFS), context))
        case EntryKind.ATTR:
            return entry._replace(payload=_attributes(octets))
    return entry


def _attributes(octets: Octets) -> bytes:
    return json.dumps(odd(octets, json.loads(octets.choice(ATTRIBUTES)))).encode()
