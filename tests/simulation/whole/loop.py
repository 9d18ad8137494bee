"""The event loop of a process, with the methods of asyncio's that the services use, on the clock of its machine."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from tests.simulation.whole.bus import buses
from tests.simulation.whole.world import Process, current

RESOLUTION = 2e-6  # seconds; as asyncio, which calls what is due within the clock's resolution


class Handle:
    """Something that will be called."""

    __slots__ = ("arguments", "callback", "is_cancelled")

    def __init__(self, callback: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self.callback = callback
        self.arguments = arguments
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Future:
    """What the driver needs of one."""

    def __init__(self) -> None:
        self._done = False
        self.error: BaseException | None = None

    def done(self) -> bool:
        return self._done

    def set_result(self, _result: None) -> None:
        self._done = True

    def set_exception(self, error: BaseException) -> None:
        self._done, self.error = True, error

    def exception(self) -> BaseException | None:
        return self.error


class Loop:
    """One life of one process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._life = process.life
        self._timers: list[tuple[float, int, Handle]] = []
        self._order = 0
        self._armed = 0  # the true time of the next wake-up, 0 for none

    def time(self) -> float:
        return self._process.time()

    def create_future(self) -> Future:
        return Future()

    def call_soon(self, callback: Callable[..., object], *arguments: Any) -> Handle:
        handle = Handle(callback, arguments)
        self._process.soon(1, self._call, handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: Any) -> Handle:
        return self.call_at(self.time() + delay, callback, *arguments)

    def call_at(self, when: float, callback: Callable[..., object], *arguments: Any) -> Handle:
        handle = Handle(callback, arguments)
        self._order += 1
        heappush(self._timers, (when, self._order, handle))
        self.arm()
        return handle

    def add_reader(self, descriptor: int, callback: Callable[[], None]) -> None:
        inbox = buses[0].by_descriptor[descriptor]
        process = self._process
        is_told = False

        def told() -> None:
            nonlocal is_told
            if not is_told:
                is_told = True
                process.at(process.world.now, read)

        def read() -> None:
            nonlocal is_told
            is_told = False
            callback()

        inbox.notify = told

    def remove_reader(self, descriptor: int) -> None:
        buses[0].by_descriptor[descriptor].notify = lambda: None

    def arm(self) -> None:
        """Has the next timer go off when its time has come; called again when the clock was changed."""
        process = self._process
        if not self._timers or process.life != self._life:
            return
        at = process.clock.true_time(self._timers[0][0])
        if not self._armed or at < self._armed:
            self._armed = max(at, process.world.now)
            process.at(self._armed, self._ring, self._armed)

    def _ring(self, armed: int) -> None:
        if armed != self._armed:
            return
        self._armed = 0
        now = self.time() + RESOLUTION
        timers = self._timers
        while timers and timers[0][0] <= now:
            self._call(heappop(timers)[2])
        self.arm()

    @staticmethod
    def _call(handle: Handle) -> None:
        if not handle.is_cancelled:
            handle.callback(*handle.arguments)


class Asyncio:
    """What the services ask of `asyncio`."""

    @staticmethod
    def get_running_loop() -> Loop:
        loop = loops[current()]
        assert loop is not None
        return loop


loops: dict[Process, Loop] = {}


def new_loop(process: Process) -> Loop:
    """The loop of a new life."""
    loop = loops[process] = Loop(process)
    return loop
