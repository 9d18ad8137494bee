"""Threads and waits of the storage process: work on a thread is done a little later, or when somebody waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.simulation.whole.world import MS, Process, current


class Work:
    """What `submit` returns."""

    def __init__(self, process: Process, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._process = process
        self._function = function
        self._arguments = arguments
        self._is_done = False
        self._value: Any = None
        self._error: Exception | None = None
        self._callbacks: list[Callable[[Work], None]] = []

    def finish(self) -> None:
        if self._is_done:
            return
        self._is_done = True
        try:
            self._value = self._function(*self._arguments)
        except Exception as error:  # handed to whoever asks for the result
            self._error = error
        for callback in self._callbacks:
            callback(self)

    def done(self) -> bool:
        return self._is_done

    def exception(self) -> Exception | None:
        self.finish()
        return self._error

    def result(self) -> Any:
        self.finish()
        if self._error is not None:
            raise self._error
        return self._value

    def add_done_callback(self, callback: Callable[[Work], None]) -> None:
        if self._is_done:
            callback(self)
        else:
            self._callbacks.append(callback)


class Executor:
    """What storage asks of ThreadPoolExecutor."""

    def __init__(self, workers: int, name: str) -> None:
        self._works: list[Work] = []

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Work:
        process = current()
        work = Work(process, function, arguments)
        process.soon(process.rng.randint(1, 30) * MS // 4, work.finish)
        return work

    def shutdown(self, wait: bool = True, cancel_futures: bool = False) -> None:
        return


class StorageOs:
    """What the storage loop asks of `os`: a descriptor that wakes it up."""

    EFD_NONBLOCK = EFD_CLOEXEC = 0

    def eventfd(self, _initial: int, _flags: int) -> int:
        return -2

    def eventfd_write(self, _descriptor: int, _value: int) -> None:
        wake_ups[current()]()

    def eventfd_read(self, _descriptor: int) -> int:
        return 1

    def close(self, _descriptor: int) -> None:
        return


class Poll:
    """Says that nothing came if this turn is the one after the wait; else that something did, and how long to wait."""

    def __init__(self) -> None:
        self._process = current()

    def register(self, _descriptor: int, _events: int) -> None:
        return

    def poll(self, timeout_ms: int) -> list[tuple[int, int]]:
        process = self._process
        if timeout_ms > process.waits_ms:
            process.waits_ms = timeout_ms
        return [] if process.is_quiet else [(-1, 1)]


class Select:
    """What storage and the local sockets ask of `select`."""

    POLLIN = 1
    poll = Poll


wake_ups: dict[Process, Callable[[], None]] = {}
