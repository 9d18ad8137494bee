"""The links between the processes of one node: what the services take for ZeroMQ.

A frame waits with its sender until it arrives in the inbox that is bound to the path. When the receiver ends, what had
arrived is lost; what was on its way may be lost or reach the successor. When the sender ends, a prefix of what was on
its way arrives. Order is kept. Both ends hold a bounded number of frames.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from tests.simulation.whole.world import MS, Process, below, current

HOP_MIN, HOPS = 5, 56  # microseconds from process to process: the least, and how many different times there are
POLLIN = EVENTS = 1  # two of ZeroMQ's numbers


class Again(Exception):  # noqa: N818 - ZeroMQ's word
    """Not now."""


class Inbox:
    """A bound PULL socket."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.life = process.life
        self.frames: deque[bytes] = deque()
        self.path = ""
        self.senders: list[Outbox] = []
        self.notify: Callable[[], None] = lambda: None
        self.descriptor = 0

    @property
    def is_alive(self) -> bool:
        return self.process.life == self.life

    def set(self, option: int, value: int) -> None:
        return

    def get(self, option: int) -> int:
        if option == EVENTS:
            return POLLIN if self.frames else 0
        return self.descriptor

    def bind(self, path: str) -> None:
        bus = buses[0]
        self.path = path
        bus.bound[path] = self
        bus.next_descriptor += 1
        self.descriptor = bus.next_descriptor
        bus.by_descriptor[self.descriptor] = self

    def recv(self, _flags: int) -> bytes:
        if not self.frames:
            raise Again
        frame = self.frames.popleft()
        if self.senders:
            waiting, self.senders = self.senders, []
            for sender in waiting:
                sender.pump(0)
        return frame

    def close(self, _linger: int) -> None:
        buses[0].bound.pop(self.path, None)


class Outbox:
    """A PUSH socket."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.life = process.life
        self.frames: deque[bytes] = deque()
        self.path = ""
        self.met: Inbox | None = None
        self._is_pumping = False
        self._is_closed = False

    def set(self, option: int, value: int) -> None:
        return

    def connect(self, path: str) -> None:
        self.path = path

    def send(self, frame: bytes, _flags: int) -> None:
        if len(self.frames) >= buses[0].frames_max:
            raise Again
        self.process.step()
        self.frames.append(frame)
        self.pump((HOP_MIN + below(self.process.rng, HOPS)) * buses[0].slowness)

    def pump(self, delay: int) -> None:
        if not self._is_pumping and self.frames:
            self._is_pumping = True
            self.process.world.at(self.process.true_now + delay, self._deliver)

    def close(self, _linger: int) -> None:
        self._is_closed = True
        self.frames.clear()

    def get_monitor_socket(self, _events: int) -> Monitor:
        return Monitor(self)

    def disable_monitor(self) -> None:
        return

    def _deliver(self) -> None:
        self._is_pumping = False
        rng = self.process.rng
        if self.process.life != self.life and not self._is_closed:
            self._is_closed = True  # the sender ended: what had left it arrives
            while self.frames and rng.random() < 0.3:
                self.frames.pop()
        if not self.frames:
            return
        inbox = buses[0].bound.get(self.path)
        if inbox is None or not inbox.is_alive:
            if self.met is not None and not self.met.is_alive and rng.random() < 0.5:
                self.frames.popleft()  # it was in the pipe
            if self.process.life == self.life:
                self.pump(rng.randint(10, 100) * MS)
            return
        if len(inbox.frames) >= buses[0].frames_max:
            if self not in inbox.senders:
                inbox.senders.append(self)
            return
        self.met = inbox
        inbox.frames.append(self.frames.popleft())
        inbox.notify()
        self.pump(buses[0].gap)


class Monitor:
    """Tells when the other side has ended."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def get(self, _option: int) -> int:
        met = self._outbox.met
        return int(met is not None and not met.is_alive)


class Context:
    def __init__(self, io_threads: int = 1) -> None:
        return

    def socket(self, kind: int) -> Inbox | Outbox:
        return Inbox(current()) if kind == Zmq.PULL else Outbox(current())

    def term(self) -> None:
        return


class Zmq:
    """What the services ask of `zmq`."""

    PUSH, PULL = 1, 2
    SNDHWM = RCVHWM = LINGER = RECONNECT_IVL = RECONNECT_IVL_MAX = FD = EVENT_DISCONNECTED = 0
    NOBLOCK, POLLIN, EVENTS = 1, POLLIN, EVENTS
    Again = Again
    Context = Context


class Bus:
    """All links of all nodes."""

    def __init__(self) -> None:
        self.bound: dict[str, Inbox] = {}
        self.by_descriptor: dict[int, Inbox] = {}
        self.next_descriptor = 0
        self.slowness = 1
        self.frames_max = 16  # at each end of a link
        self.gap = 1  # between two frames that follow one another


buses: list[Bus] = [Bus()]
