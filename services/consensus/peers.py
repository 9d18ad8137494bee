"""The other members: who is connected, which stream a message takes, and who may come in.

A member dials every other one twice and sends on what it dialled: an *urgent* stream for heartbeats, votes and
acknowledgements, and a *bulk* stream for entries and proposals, so that a mebibyte of entries never delays a
heartbeat. While it cannot dial it answers on what the other side dialled: in a cluster that is given TLS member by
member, those without certificates cannot connect to those with, and are still reached by them. So does a member that
was away while others were added: it is found by them, answers them, and learns from them who they are. Snapshots have
connections of their own (`snapshots`). What cannot be sent is dropped: Raft says it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Final

from quorate.consensus.connections import (
    Contexts,
    Judge,
    Refused,
    Stream,
    dial,
    read_body,
    read_head,
    shake_hands,
    tune,
)
from quorate.consensus.frames import Call, CallReply, Decoder, PeerMessage, encode
from quorate.consensus.handshake import (
    BULK,
    REPLACE_PATH,
    SNAPSHOT,
    URGENT,
    BadRequest,
    Hello,
    Request,
    answer,
    judge_hello,
    pack_response,
    parse_hello,
    parse_request,
)
from quorate.consensus.membership import Membership
from quorate.consensus.raft.messages import Append, Forward
from quorate.node import logs
from quorate.node.tls import PeerRefused
from quorate.node.tls_failures import Refusals, explain

log = logs.named("peers")

URGENT_BUFFER_BYTES_MAX: Final = 1024 * 1024
BULK_BUFFER_BYTES_MAX: Final = 64 * 1024 * 1024  # Raft's window per follower is far below; forwarded proposals are not
RETRY_S: Final = 0.1
RETRY_S_MAX: Final = 1.0
COMPLAINTS_MAX: Final = 16  # more than there are reasons
HANDSHAKES_MAX: Final = 16  # of others with us, at once; snapshots that arrive count
HANDSHAKE_TIMEOUT_S: Final = 5.0

_BULKY = (Append, Forward, Call, CallReply)

# Answers a member that lost its log (`replacing`); called in a handshake thread with what calls in the loop.
ReplaceAnswer = Callable[[Request, Callable[..., object]], bytes]

# Takes a verified snapshot connection over; called in a handshake thread, which it may use as long as it needs.
SnapshotReceiver = Callable[[socket.socket, Hello], None]


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """What the peers need of the node's settings."""

    member_id: int
    dial_timeout_s: float
    silence_ms: int  # after which a connection is given up
    client_context: Contexts  # to dial https
    server_context: ssl.SSLContext | None = None
    judge: Judge = lambda _connection, _address: None
    local_host: str = ""  # the address connections come from; empty: as the system routes

    def dial(self, url: str, hello: Hello) -> socket.socket:
        """See `connections.dial`."""
        return dial(url, hello, self.client_context, self.judge, self.dial_timeout_s, self.local_host)


@dataclass(slots=True)
class Link:
    """One stream to one member, connected or not."""

    kind: str
    buffer_bytes_max: int
    outgoing: Stream | None = None
    dialling: bool = False
    retry_s: float = RETRY_S
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class Peer:
    """One other member."""

    id: int
    urls: tuple[str, ...]
    links: dict[str, Link] = field(
        default_factory=lambda: {
            URGENT: Link(URGENT, URGENT_BUFFER_BYTES_MAX),
            BULK: Link(BULK, BULK_BUFFER_BYTES_MAX),
        }
    )
    next_url: int = 0
    complaints: set[str] = field(default_factory=set)  # why dialling failed since it last succeeded; in the log already
    active_since: float | None = None  # messages of both kinds get there since then
    sent_bytes: int = 0  # on connections that are gone
    sent_failures: int = 0
    received_bytes: int = 0
    disconnects: int = 0


class Peers:
    """Streams to and from every other member of `membership()`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: PeerSettings,
        membership: Membership,
        on_messages: Callable[[list[PeerMessage]], None],
        on_removed: Callable[[], None],
        receive_snapshot: SnapshotReceiver,
    ) -> None:
        self.peers: dict[int, Peer] = {}
        self.has_leader = False
        self.on_replace: ReplaceAnswer = lambda _request, _call_in_loop: b""
        self.answer: Callable[[Request, bytes], bytes] = lambda request, _: answer(
            request, self._membership, self.has_leader, seen_index=0
        )  # to what opens no stream; called in a thread
        self._answering = threading.BoundedSemaphore(HANDSHAKES_MAX)
        self._loop = loop
        self._settings = settings
        self._membership = membership
        self._on_messages = on_messages
        self._on_removed = on_removed
        self._receive_snapshot = receive_snapshot
        self._incoming: dict[tuple[int, str], Stream] = {}
        self._listeners: list[socket.socket] = []
        self._dirty: set[Stream] = set()
        self._refusals = Refusals(log, "rejected connection on peer endpoint")
        self._closed = False

    # --- the driver's side ---

    def start(self, listeners: list[tuple[socket.socket, bool]]) -> None:
        """Serves the peer port, with TLS where told so, and connects to the members."""
        for listener, is_encrypted in listeners:
            self._listeners.append(listener)
            self._loop.add_reader(listener, self._accept, listener, is_encrypted)
        self.update(self._membership)

    def update(self, membership: Membership) -> None:
        """Connects to new members, disconnects from members that are gone. A new address is for the next connection:
        the member has still to be started there."""
        self._membership = membership
        for number in list(self.peers):
            member = membership.members.get(number)
            if member is None or not member.peer_urls:
                self._forget(self.peers.pop(number))
            elif member.peer_urls != self.peers[number].urls:
                self._move(self.peers[number], member.peer_urls)
        for key, incoming in list(self._incoming.items()):
            if key[0] in membership.removed:
                incoming.close("the member was removed")
        for number, member in membership.members.items():
            if number != self._settings.member_id and number not in self.peers and member.peer_urls:
                peer = self.peers[number] = Peer(number, member.peer_urls)
                for link in peer.links.values():
                    self._dial(peer, link)

    def send(self, message: PeerMessage) -> None:
        """Queues `message` for its member; it leaves with `flush`, or is dropped if it cannot."""
        peer = self.peers.get(message.to_id)
        kind = BULK if isinstance(message, _BULKY) else URGENT
        outgoing = peer.links[kind].outgoing if peer is not None else None
        if outgoing is None:
            outgoing = self._incoming.get((message.to_id, kind))
        if outgoing is None or not outgoing.send(encode(self._membership.cluster_id, message)):
            if peer is not None:
                peer.sent_failures += 1
            return
        self._dirty.add(outgoing)

    def flush(self) -> None:
        """Gives everything queued to the network."""
        if self._dirty:
            dirty, self._dirty = self._dirty, set()
            for outgoing in dirty:
                outgoing.flush()

    def active_since(self, number: int) -> float | None:
        """Since when (monotonic) the member is connected; None if it is not."""
        peer = self.peers.get(number)
        return peer.active_since if peer is not None else None

    def sent_bytes(self, number: int) -> int:
        """To a member, since this process began."""
        return self.peers[number].sent_bytes + sum(stream.sent_bytes for stream in self._streams(number))

    def received_bytes(self, number: int) -> int:
        """From a member, since this process began."""
        return self.peers[number].received_bytes + sum(stream.received_bytes for stream in self._streams(number))

    def round_trips_s(self, number: int) -> list[float]:
        """What the kernel has measured on the connections with a member, in seconds."""
        return [seconds for stream in self._streams(number) if (seconds := stream.round_trip_s()) is not None]

    def close(self) -> None:
        """Ends every connection."""
        self._closed = True
        for listener in self._listeners:
            self._loop.remove_reader(listener)
            listener.close()
        for peer in self.peers.values():
            self._forget(peer)
        self.peers.clear()
        for incoming in list(self._incoming.values()):
            incoming.close()

    # --- dialling ---

    def _dial(self, peer: Peer, link: Link) -> None:
        if self._closed or link.dialling or self.peers.get(peer.id) is not peer:
            return
        link.dialling = True
        link.timer = None
        settings = self._settings
        hello = Hello(link.kind, self._membership.cluster_id, settings.member_id, peer.id)
        url = peer.urls[peer.next_url % len(peer.urls)]
        arguments = (peer, link, url, hello)
        threading.Thread(target=self._dial_in_thread, args=arguments, name="dial", daemon=True).start()

    def _dial_in_thread(self, peer: Peer, link: Link, url: str, hello: Hello) -> None:
        outcome: socket.socket | Exception
        try:
            outcome = self._settings.dial(url, hello)
        except (OSError, ValueError, BadRequest, Refused, PeerRefused) as error:
            outcome = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(self._dialled, peer, link, url, outcome)

    def _dialled(self, peer: Peer, link: Link, url: str, outcome: socket.socket | Exception) -> None:
        link.dialling = False
        gone = self._closed or self.peers.get(peer.id) is not peer
        if isinstance(outcome, socket.socket):
            if gone:
                outcome.close()
            else:
                self._connected(peer, link, outcome)
            return
        if gone:
            return
        if isinstance(outcome, Refused) and outcome.status is HTTPStatus.GONE:
            self._on_removed()
        self._complain(peer, url, explain(outcome))
        peer.next_url += 1
        self._retry(peer, link)

    def _complain(self, peer: Peer, url: str, reason: str) -> None:
        """Once for each reason, however many streams and attempts have it."""
        complaint = f"{url}: {reason}"
        if complaint in peer.complaints:
            return
        if len(peer.complaints) == COMPLAINTS_MAX:
            peer.complaints.clear()
        peer.complaints.add(complaint)
        log.warn("failed to dial peer", remote_peer_id=f"{peer.id:x}", url=url, error=reason)

    def _retry(self, peer: Peer, link: Link) -> None:
        link.timer = self._loop.call_later(link.retry_s, self._dial, peer, link)
        link.retry_s = min(link.retry_s * 2, RETRY_S_MAX)

    def _connected(self, peer: Peer, link: Link, connection: socket.socket) -> None:
        tune(connection, self._settings.silence_ms)
        link.retry_s = RETRY_S
        decoder = Decoder(self._membership.cluster_id, peer.id, self._settings.member_id)
        on_close = partial(self._lost, peer, link)
        link.outgoing = Stream(self._loop, connection, decoder, link.buffer_bytes_max, self._on_messages, on_close)
        if all(each.outgoing for each in peer.links.values()):
            peer.complaints.clear()
        self._look_active(peer)

    def _lost(self, peer: Peer, link: Link, stream: Stream, _reason: str) -> None:
        link.outgoing = None
        self._count(peer, stream)
        if not self._closed and self.peers.get(peer.id) is peer:
            self._retry(peer, link)

    def _count(self, peer: Peer, stream: Stream) -> None:
        """A stream with a member is gone."""
        self._dirty.discard(stream)
        peer.sent_bytes += stream.sent_bytes
        peer.received_bytes += stream.received_bytes
        self._look_active(peer)

    def _look_active(self, peer: Peer) -> None:
        is_active = all(link.outgoing or (peer.id, link.kind) in self._incoming for link in peer.links.values())
        if is_active and peer.active_since is None:
            peer.active_since = time.monotonic()
            log.info("peer became active", peer_id=f"{peer.id:x}")
        elif not is_active and peer.active_since is not None:
            peer.active_since = None
            peer.disconnects += 1
            log.warn("peer became inactive", peer_id=f"{peer.id:x}")

    def _streams(self, number: int) -> list[Stream]:
        """All open ones with a member."""
        links = self.peers[number].links.values()
        dialled = [link.outgoing for link in links if link.outgoing is not None]
        return dialled + [stream for key, stream in self._incoming.items() if key[0] == number]

    def _move(self, peer: Peer, urls: tuple[str, ...]) -> None:
        peer.urls = urls
        peer.next_url = 0
        for link in peer.links.values():
            link.retry_s = RETRY_S
            if link.timer is not None:
                link.timer.cancel()
                self._dial(peer, link)

    def _forget(self, peer: Peer) -> None:
        for link in peer.links.values():
            if link.timer is not None:
                link.timer.cancel()
            if link.outgoing is not None:
                link.outgoing.flush()
                link.outgoing.close()

    # --- answering ---

    def _accept(self, listener: socket.socket, is_encrypted: bool) -> None:
        while True:
            try:
                connection, address = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:  # out of descriptors, for example: the peer dials again
                log.warn("failed to accept a peer", error=str(error))
                return
            if not self._answering.acquire(blocking=False):
                connection.close()  # the peer dials again
                continue
            where = f"[{address[0]}]:{address[1]}" if len(address) > 2 else ":".join(map(str, address))
            threading.Thread(
                target=self._greet, args=(connection, where, is_encrypted), name="answer", daemon=True
            ).start()

    def _greet(self, connection: socket.socket, address: str, is_encrypted: bool) -> None:
        """In a thread: reads the request, answers it, and hands a stream to the loop."""
        try:
            connection.settimeout(HANDSHAKE_TIMEOUT_S)
            if is_encrypted:
                assert self._settings.server_context is not None
                encrypted = shake_hands(connection, self._settings.server_context)
                connection = encrypted
                self._settings.judge(encrypted, address.rpartition(":")[0].strip("[]"))
            deadline = time.monotonic() + HANDSHAKE_TIMEOUT_S
            request = parse_request(read_head(connection, deadline))
            hello = parse_hello(request)
            membership = self._membership
            if hello is None:
                if request.path == REPLACE_PATH:
                    connection.settimeout(None)
                    connection.sendall(self.on_replace(request, self._loop.call_soon_threadsafe))
                else:
                    body = read_body(connection, request.headers.get("content-length", ""), deadline)
                    connection.sendall(self.answer(request, body))
                connection.close()
                return
            status, reason = judge_hello(hello, membership, self._settings.member_id)
            text = f"{reason}\n".encode() if reason else b""
            connection.sendall(pack_response(status, text, "text/plain; charset=utf-8", membership.cluster_id))
            if status is not HTTPStatus.SWITCHING_PROTOCOLS:
                self._refusals.tell(address, f"member {hello.from_id:x}: {reason}")
                connection.close()
                return
            tune(connection, self._settings.silence_ms)
            if hello.kind == SNAPSHOT:
                self._receive_snapshot(connection, hello)
            else:
                self._loop.call_soon_threadsafe(self._welcome, connection, hello)
        except RuntimeError:  # the loop has ended meanwhile
            connection.close()
        except (OSError, BadRequest, PeerRefused) as error:
            connection.close()
            self._refusals.tell(address, explain(error))
        finally:
            self._answering.release()

    def _welcome(self, connection: socket.socket, hello: Hello) -> None:
        if self._closed:
            connection.close()
            return
        key = (hello.from_id, hello.kind)
        if (previous := self._incoming.pop(key, None)) is not None:
            previous.close("replaced by a newer connection")
        decoder = Decoder(hello.cluster_id, hello.from_id, hello.to_id)
        bytes_max = BULK_BUFFER_BYTES_MAX if hello.kind == BULK else URGENT_BUFFER_BYTES_MAX
        on_close = partial(self._ended, key)
        self._incoming[key] = Stream(self._loop, connection, decoder, bytes_max, self._on_messages, on_close)
        if (peer := self.peers.get(hello.from_id)) is not None:
            self._look_active(peer)

    def _ended(self, key: tuple[int, str], stream: Stream, reason: str) -> None:
        if self._incoming.get(key) is stream:
            del self._incoming[key]
        self._dirty.discard(stream)
        peer = self.peers.get(key[0])
        if peer is not None:
            self._count(peer, stream)
        if reason and not self._closed:
            log.info("lost a stream", remote_peer_id=f"{key[0]:x}", stream=key[1], reason=reason)
