"""Batching links between the processes of one node: the only module that imports zmq.

Every process binds one inbox (a PULL socket on ``ipc://<run directory>/<part>.<number>.sock``) and holds one channel
per neighbour (a PUSH socket to the neighbour's inbox). Whatever a process says to a neighbour during one turn of its
loop leaves as ONE frame when it calls `flush`: an idle node answers at once, a busy node batches by itself.

Handshake. A process draws a random incarnation at its start. A channel opens when both sides have said hello *to this
incarnation of the other*; frames that arrive on a channel that is not open, or that were meant for an earlier
incarnation, are dropped by the receiver and counted. So a restarted process never acts on what was said to its
predecessor, and the neighbour learns of the restart from the hello and decides what to say again. Within a pair of
incarnations nothing is lost and order is kept; a gap in the sequence numbers would be our own bug and is asserted.

Bounds. ZeroMQ holds at most `FRAMES_MAX` frames a direction; beyond that a channel keeps its messages itself (they
merge into larger frames) and says `full` above `backlog_bytes_max`. The caller decides what full means: refuse, stop
reading, or fall back to history.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from pathlib import Path
from struct import Struct
from typing import NamedTuple

import zmq

from quorate.wire.messages import Part

FRAMES_MAX = 16  # per direction and socket: enough to overlap two processes, small enough that load turns into batches
BACKLOG_BYTES_MAX = 64 * 1024 * 1024
IPC_PATH_BYTES_MAX = 107  # sun_path of Linux' sockaddr_un, less the terminating zero

_READABLE = int(zmq.POLLIN)
_MAGIC = 0x51
_HELLO = 0
_DATA = 1
_FRAME = Struct("<BBBxHxxIIQ")  # magic, kind, part, number, incarnation of sender, of receiver, sequence number
_MESSAGE = Struct("<BI")  # type, body length

Message = tuple[int, bytes]


class Address(NamedTuple):
    """A process of this node: `number` tells api workers apart and is 0 for the other parts."""

    part: Part
    number: int = 0

    def __str__(self) -> str:
        return f"{self.part.name.lower()}.{self.number}"


def socket_path(run_directory: Path, address: Address) -> Path:
    """Where the inbox of `address` is bound; ValueError when the path is longer than a socket address may be."""
    path = run_directory / f"{address}.sock"
    if len(os.fsencode(path)) > IPC_PATH_BYTES_MAX:
        raise ValueError(f"run directory {run_directory} is too long for a socket: use a shorter --run-dir")
    return path


class Channel:
    """One neighbour: what is said to it, and whether it is known to listen."""

    def __init__(self, endpoint: Endpoint, peer: Address, hello: Callable[[], bytes]) -> None:
        self.peer = peer
        self.peer_incarnation = 0  # 0 until the neighbour's first hello
        self.opened = False
        self.backlog_bytes = 0
        self.backlog_bytes_max = BACKLOG_BYTES_MAX
        self._endpoint = endpoint
        self._hello = hello
        self._parts: list[bytes] = []
        self._sequence = 0
        self._received = 0
        self._monitor: zmq.Socket[bytes] | None = None
        self._is_watched = False
        self._is_gone = False
        self._socket = self._connect()

    @property
    def full(self) -> bool:
        """More is waiting than the neighbour takes: hold back until this is false again."""
        return self.backlog_bytes > self.backlog_bytes_max

    def send(self, kind: int, *parts: bytes) -> None:
        """Queue one message; it leaves with the next flush. Messages to a channel that never opened are dropped
        when it opens, as the hello is then the only common ground."""
        length = 0
        for part in parts:
            length += len(part)
        queued = self._parts
        queued.append(_MESSAGE.pack(kind, length))
        queued += parts
        self.backlog_bytes += length + 5

    def flush(self) -> bool:
        """Send what is queued as one frame; False when the neighbour takes no more now (call again soon)."""
        if not self._parts:
            return True
        if not self.opened:
            return True
        endpoint = self._endpoint
        header = _FRAME.pack(
            _MAGIC,
            _DATA,
            endpoint.address.part,
            endpoint.address.number,
            endpoint.incarnation,
            self.peer_incarnation,
            self._sequence,
        )
        try:
            self._socket.send(b"".join([header, *self._parts]), zmq.NOBLOCK)
        except zmq.Again:
            return False
        self._sequence += 1
        self._parts = []
        self.backlog_bytes = 0
        return True

    def watch_for_loss(self) -> None:
        """Have `gone` notice the end of the neighbour before its successor says hello."""
        self._is_watched = True
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)

    def gone(self) -> bool:
        """The neighbour of this incarnation has ended: what is sent now would be lost. Needs `watch_for_loss`."""
        if not self._is_gone and self._monitor is not None and int(self._monitor.get(zmq.EVENTS)) & zmq.POLLIN:
            self._is_gone = True
        return self._is_gone

    def close(self) -> None:
        self._disconnect()

    def _disconnect(self) -> None:
        if self._monitor is not None:
            self._socket.disable_monitor()
            self._monitor = None
        self._socket.close(0)

    def _connect(self) -> zmq.Socket[bytes]:
        socket = self._endpoint.context.socket(zmq.PUSH)
        socket.set(zmq.SNDHWM, FRAMES_MAX)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.RECONNECT_IVL, 10)
        socket.set(zmq.RECONNECT_IVL_MAX, 100)
        socket.connect(f"ipc://{socket_path(self._endpoint.run_directory, self.peer)}")
        return socket

    def _say_hello(self) -> None:
        endpoint = self._endpoint
        header = _FRAME.pack(
            _MAGIC,
            _HELLO,
            endpoint.address.part,
            endpoint.address.number,
            endpoint.incarnation,
            self.peer_incarnation,
            0,
        )
        self._socket.send(header + self._hello(), zmq.NOBLOCK)

    def _meet(self, incarnation: int) -> None:
        """A neighbour we had not met in this incarnation: forget what was meant for its predecessor."""
        self._disconnect()
        self._socket = self._connect()
        self._is_gone = False
        if self._is_watched:
            self.watch_for_loss()
        self.peer_incarnation = incarnation
        self.opened = False
        self._parts = []
        self.backlog_bytes = 0
        self._sequence = 0
        self._received = 0


class Endpoint:
    """This process on the node's ring: one inbox and the channels to its neighbours.

    `on_open(channel, hello)` is called when a channel opens for an incarnation of a neighbour (so again after each
    restart of that neighbour) with the bytes of the neighbour's hello; from then on messages flow both ways.
    """

    def __init__(self, run_directory: Path, address: Address) -> None:
        self.run_directory = run_directory
        self.address = address
        self.incarnation = int.from_bytes(os.urandom(4), "little") | 1
        self.context = zmq.Context(io_threads=1)
        self.channels: dict[Address, Channel] = {}
        self._senders: dict[int, Channel] = {}  # the same by `_sender_of`, found without making an address
        self.dropped_frames = 0
        self._accept: Callable[[Address], Callable[[], bytes] | None] = lambda _address: None
        self._on_open: Callable[[Channel, bytes], None] = lambda _channel, _hello: None
        path = socket_path(run_directory, address)
        self._path = path
        self._inbox = self.context.socket(zmq.PULL)
        self._inbox.set(zmq.RCVHWM, FRAMES_MAX)
        self._inbox.set(zmq.LINGER, 0)
        mask = os.umask(0o177)
        try:
            path.unlink(missing_ok=True)
            self._inbox.bind(f"ipc://{path}")
        finally:
            os.umask(mask)
        self._sleeper = select.poll()
        self._sleeper.register(self.fileno(), select.POLLIN)

    def when_opened(self, on_open: Callable[[Channel, bytes], None]) -> None:
        self._on_open = on_open

    def accept(self, hello_for: Callable[[Address], Callable[[], bytes] | None]) -> None:
        """Let neighbours that were not named beforehand (api workers) introduce themselves: `hello_for(address)`
        returns the maker of our hello to them, or None to ignore them."""
        self._accept = hello_for

    def connect(self, peer: Address, hello: Callable[[], bytes] = bytes) -> Channel:
        """Open a channel to `peer`; `hello()` is asked for our greeting whenever one is due."""
        channel = Channel(self, peer, hello)
        self.channels[peer] = self._senders[_sender_of(*peer)] = channel
        channel._say_hello()
        return channel

    def fileno(self) -> int:
        """A descriptor that becomes readable when frames MAY be there; edge-triggered: after it fires, call
        `receive` until it returns nothing."""
        return int(self._inbox.get(zmq.FD))

    def wait(self, timeout_ms: int) -> bool:
        """Block until a frame is there or the time is over; False may come earlier when a neighbour came or went."""
        inbox = self._inbox
        if int(inbox.get(zmq.EVENTS)) & _READABLE:
            return True
        if not timeout_ms:
            return False
        self._sleeper.poll(timeout_ms)
        return bool(int(inbox.get(zmq.EVENTS)) & _READABLE)

    def receive(self, frames_max: int = 64) -> list[tuple[Channel, list[Message]]]:
        """Take up to `frames_max` frames without blocking: a list of (channel, messages in order)."""
        batches: list[tuple[Channel, list[Message]]] = []
        inbox = self._inbox
        for _ in range(frames_max):
            if not int(inbox.get(zmq.EVENTS)) & _READABLE:  # cheaper than the exception that says the same
                break
            frame = inbox.recv(zmq.NOBLOCK)
            magic, kind, part, number, sender, receiver, sequence = _FRAME.unpack_from(frame)
            assert magic == _MAGIC, "a frame of another protocol on a local socket"
            if kind == _HELLO:
                self._greet(Address(Part(part), number), sender, receiver, frame[_FRAME.size :])
                continue
            channel = self._senders.get(_sender_of(part, number))
            if channel is None or receiver != self.incarnation or sender != channel.peer_incarnation:
                self.dropped_frames += 1
                continue
            assert sequence == channel._received, f"frame {sequence} from {channel.peer}, not {channel._received}"
            channel._received += 1
            batches.append((channel, _messages(frame)))
        return batches

    def flush(self) -> bool:
        """Flush every channel; False while one of them could not take its frame."""
        flushed = True
        for channel in self.channels.values():
            if channel._parts and not channel.flush():
                flushed = False
        return flushed

    def close(self) -> None:
        for channel in self.channels.values():
            channel.close()
        self._inbox.close(0)
        self._path.unlink(missing_ok=True)
        self.context.term()

    def _greet(self, address: Address, sender: int, receiver: int, hello: bytes) -> None:
        channel = self.channels.get(address)
        if channel is None:
            make_hello = self._accept(address)
            if make_hello is None:
                self.dropped_frames += 1
                return
            channel = self.channels[address] = Channel(self, address, make_hello)
            self._senders[_sender_of(*address)] = channel
        if sender != channel.peer_incarnation:
            channel._meet(sender)
            channel._say_hello()
        elif receiver != self.incarnation:
            channel._say_hello()
        if receiver == self.incarnation and not channel.opened:
            channel.opened = True
            channel._parts = []
            channel.backlog_bytes = 0
            self._on_open(channel, hello)


def _sender_of(part: int, number: int) -> int:
    """One number for a process: hashing an address of an enum costs as much as the rest of a small frame."""
    return part << 16 | number


def _messages(frame: bytes) -> list[Message]:
    messages: list[Message] = []
    position = _FRAME.size
    end = len(frame)
    unpack = _MESSAGE.unpack_from
    while position < end:
        kind, length = unpack(frame, position)
        position += 5
        messages.append((kind, frame[position : position + length]))
        position += length
    assert position == end, "a frame is the sum of its messages"
    return messages
