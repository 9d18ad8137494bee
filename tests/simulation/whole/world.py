"""Time and order: one heap of events, one process at a time, and a checksum over everything that happened.

Every event belongs to a process or to nobody. While a process runs, `current()` names it; what the services believe to
be the operating system asks it for the time, for random bytes and for the disk. An event of a process that is busy or
stopped waits; an event of a process that is gone is void. What a process does takes time only where it waits for a
disk: then its clock goes on within the event, and what it sends after that arrives later.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any
from zlib import crc32

SECOND = 1_000_000  # microseconds, the unit of all times here
MS = 1_000
EVENTS_MAX = 3_000_000  # of one run; the longest lawful ones have a tenth of it


class Died(BaseException):
    """A process ends in the middle of what it does. Not an Exception: nothing may catch and survive it."""


class Violation(AssertionError):  # noqa: N818 - it names the finding
    """Something that must always hold did not."""


# When, in which order, in which life of which process if any, and what is called.
Planned = tuple[int, int, "Process | None", int, Callable[..., None], tuple[Any, ...]]


class World:
    """Events in their order. `rng` is for what belongs to nobody else."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now = 0
        self.events = 0
        self.trace = 0  # of the label and time of every event so far
        self.rng = random.Random(seed)
        self.process: Process | None = None
        self._heap: list[Planned] = []
        self._order = 0

    def at(self, time: int, callback: Callable[..., None], *arguments: Any) -> None:
        """Calls `callback` at a time, which is now if it has passed."""
        self.plan(time, None, 0, callback, arguments)

    def after(self, delay: int, callback: Callable[..., None], *arguments: Any) -> None:
        self.plan(self.now + delay, None, 0, callback, arguments)

    def plan(
        self, time: int, process: Process | None, life: int, callback: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        """As `at`, in this life of a process if there is one."""
        self._order += 1
        now = self.now
        heappush(self._heap, (time if time > now else now, self._order, process, life, callback, arguments))

    def run(self, end: int, done: Callable[[], bool] | None = None) -> bool:
        """Lets events happen until `end`, or until `done`; True in the second case."""
        heap = self._heap
        looked = self.now
        while heap and heap[0][0] <= end:
            time, _, process, life, callback, arguments = heappop(heap)
            self.now = time
            if process is None:
                callback(*arguments)
            else:
                process.fire(life, callback, arguments)
            if self.events > EVENTS_MAX:
                raise Violation("too many events: something goes on and on")
            if done is not None and time - looked >= 50 * MS:
                looked = time
                if done():
                    return True
        self.now = max(self.now, end)
        return done is not None and done()

    def clear(self) -> None:
        """Nothing more happens."""
        self._heap.clear()


class Clock:
    """The monotonic clock of one machine: it drifts and it jumps forward, but never back."""

    def __init__(self, world: World, offset: int) -> None:
        self._world = world
        self.since = 0  # the true time when it showed
        self.base = offset  # so many microseconds
        self.rate = 1.0

    def read(self) -> float:
        """Seconds."""
        return (self.base + (self._world.now - self.since) * self.rate) / SECOND

    def true_time(self, seconds: float) -> int:
        """When this clock will show `seconds`."""
        return self.since + int((seconds * SECOND - self.base) / self.rate) + 1

    def change(self, rate: float, jump: int = 0) -> None:
        """From now on it goes at `rate`, after a jump of so many microseconds."""
        now = self._world.now
        self.base += int((now - self.since) * self.rate) + jump
        self.since = now
        self.rate = rate


class Process:
    """One process of one node: what it runs on. `boot` and what it starts are in `services`."""

    def __init__(self, world: World, name: str, clock: Clock) -> None:
        self.world = world
        self.name = name
        self.clock = clock
        self.label = name.encode()
        self.rng = random.Random(f"{world.seed} {name}")
        self.life = 0
        self.is_up = False
        self.paused_until = 0
        self.ahead = 0  # how far its doings have gone beyond the world's time within this event
        self.waits_ms = 0  # how long it said it would wait, when it last did
        self.is_quiet = False  # this turn follows on a wait in which nothing came
        self.steps_left = -1  # it dies at the last of so many steps; negative: it does not
        self.on_end: Callable[[BaseException | None], None] = lambda _why: None
        self.after_event: Callable[[], None] = lambda: None
        self._busy_until = 0

    def time(self) -> float:
        """Its clock now."""
        clock = self.clock
        return (clock.base + (self.world.now + self.ahead - clock.since) * clock.rate) / SECOND

    @property
    def true_now(self) -> int:
        """The world's time, where what it does now takes place."""
        return self.world.now + self.ahead

    def spend(self, duration: int) -> None:
        """It waits for so long."""
        self.ahead += duration

    def step(self) -> None:
        """Before everything that others can see: a chance to die."""
        if self.steps_left > 0:
            self.steps_left -= 1
            if self.steps_left == 0:
                raise Died

    def begin(self, boot: Callable[[], None]) -> None:
        """A new life."""
        assert not self.is_up
        self.life += 1
        self.is_up = True
        self.steps_left = -1
        self._busy_until = self.world.now
        self.fire(self.life, boot, ())

    def end(self, why: BaseException | None = None) -> None:
        """The process is gone, with everything that was to happen in it."""
        if self.is_up:
            self.is_up = False
            self.life += 1
            self.on_end(why)

    def soon(self, delay: int, callback: Callable[..., None], *arguments: Any) -> None:
        """Calls `callback` in this process after `delay`, unless it is gone by then."""
        world = self.world
        world.plan(world.now + self.ahead + delay, self, self.life, callback, arguments)

    def at(self, time: int, callback: Callable[..., None], *arguments: Any) -> None:
        self.world.plan(time, self, self.life, callback, arguments)

    def now(self, callback: Callable[..., None], *arguments: Any) -> None:
        """Calls `callback` in this process now, or as soon as it is free. Not from within another process."""
        self.fire(self.life, callback, arguments)

    def fire(self, life: int, callback: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        """An event: what was planned in this life of the process happens, unless it has to wait."""
        world = self.world
        now = world.now
        if life != self.life:
            return
        if self._busy_until > now or self.paused_until > now:
            world.plan(max(self._busy_until, self.paused_until), self, life, callback, arguments)
            return
        world.events += 1
        world.trace = crc32(self.label, world.trace ^ now & 0xFFFFFFFF)
        world.process = self
        self.ahead = 0
        try:
            callback(*arguments)
            self.after_event()
        except Violation:
            raise
        except (Died, Exception) as error:  # whatever ends a process: `on_end` judges it
            self.end(error)
        finally:
            self._busy_until = now + self.ahead
            self.ahead = 0
            world.process = None


def below(rng: random.Random, stop: int) -> int:
    """The number that `rng.randrange(stop)` draws, without its looks at what it was given."""
    bits = stop.bit_length()
    number = rng.getrandbits(bits)
    while number >= stop:
        number = rng.getrandbits(bits)
    return number


_worlds: list[World] = []


def enter(world: World) -> None:
    """What the services take for the operating system is this world from now on."""
    _worlds[:] = [world]


def current() -> Process:
    """The process that runs now."""
    process = _worlds[0].process
    assert process is not None, "no process is running"
    return process
