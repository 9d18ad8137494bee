"""How a process of the node begins and ends: settings, log, signals, readiness, and the one place errors are logged.

A service's `__main__` is `lifecycle.run("storage", main)`. Its process ends in one of three ways:

- `main` returns: exit 0. After SIGTERM or SIGINT that is what it has to do.
- `OperatorError`: one sentence for the person who runs the node, no stack trace, exit 1. The sentence is also left in
  the run directory, where it tells the supervisor to stop the whole node: starting again would not help.
- any other exception is our own bug: logged with its stack trace, exit 2, and supervisor starts the service again.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import inspect
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Final

from quorate.node import config as configuration
from quorate.node import logs
from quorate.node.config import Config
from quorate.node.places import FATAL_FILE, SUPERVISOR_PID_VARIABLE, WORKER_VARIABLE

if TYPE_CHECKING:  # storage and watch have loops of their own, and the import is a third of what they would need
    import asyncio

EXIT_OPERATOR_ERROR: Final = 1
EXIT_BUG: Final = 2  # as Go's panic

LOCKED: Final = ("storage",)  # services whose memory --memory-mlock keeps: the keys and the database's pages

Main = Callable[[Config], None] | Callable[[Config], Coroutine[None, None, None]]


class OperatorError(Exception):
    """The world is not as the service needs it and only the operator can change that. One sentence, without a stop."""


class StartAgain(Exception):  # noqa: N818 - it names what is to happen
    """This process cannot go on, and the next one knows what to do. One sentence, without a stop."""


def run(service: str, main: Main) -> None:
    """Be the process `service`: prepare, run `main` (a function or a coroutine function), and end; never returns."""
    _end_with_parent()
    config = configuration.load()
    logs.start(config, service)
    _tune_garbage_collection()
    _raise_descriptor_limit()
    if config.memory_mlock and service in LOCKED:
        _lock_memory()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    log = logs.named()
    try:
        if inspect.iscoroutinefunction(main):
            _run_loop(main(config))
        else:
            main(config)
    except KeyboardInterrupt:
        sys.exit(0)
    except StartAgain as reason:
        log.error(str(reason))
        sys.exit(EXIT_BUG)
    except Exception as error:  # whatever it is, it has to be logged before the process ends
        if (sentence := operator_sentence(error)) is None:
            log.panic(f"{service} failed", error)
            sys.exit(EXIT_BUG)
        log.fatal(sentence)
        leave_sentence(config.run_path, sentence)
        sys.exit(EXIT_OPERATOR_ERROR)
    log.info(f"closed {service}")
    sys.exit(0)


def operator_sentence(error: BaseException) -> str | None:
    """What an OperatorError says, also when a task group wrapped it; None when the error is a bug of ours."""
    if isinstance(error, OperatorError):
        return str(error)
    if isinstance(error, BaseExceptionGroup):
        sentences = filter(None, map(operator_sentence, error.exceptions))
        return next(sentences, None)
    return None


def on_stop(callback: Callable[[], None]) -> None:
    """Have `callback` called when the process is asked to stop, between two instructions of the main thread.

    For loops of their own; it should do no more than set a flag or write to a pipe. Asyncio programs use `stop_event`.
    """

    def asked(number: int, _frame: object) -> None:
        def tell() -> None:
            logs.named().info("received signal; shutting down", signal=signal.Signals(number).name)

        # In a thread: the signal may have come in the middle of a line, and the stream cannot be entered twice.
        threading.Thread(target=tell).start()
        callback()

    signal.signal(signal.SIGTERM, asked)
    signal.signal(signal.SIGINT, asked)


def worker_number() -> int:
    """Which of several equal processes this one is; 0 is the first and often the only one."""
    return int(os.environ.get(WORKER_VARIABLE, "0"))


def stop_event() -> asyncio.Event:
    """An event that is set when the process is asked to stop; needs a running loop."""
    import asyncio

    loop = asyncio.get_running_loop()
    event = asyncio.Event()

    def asked(number: int) -> None:
        logs.named().info("received signal; shutting down", signal=signal.Signals(number).name)
        event.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked, number)
    return event


def ready_to_serve(config: Config) -> None:
    """Announce that clients are served from now on: the log line scripts wait for, and READY=1 to the init system."""
    log = logs.named()
    log.info("ready to serve client requests", urls=config.listen_client_urls, name=config.name)
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    log.info("notifying init daemon")
    try:
        notify(address, "READY=1")
    except OSError as error:
        log.warn("failed to notify init daemon", error=str(error))
    else:
        log.info("successfully notified init daemon")


def notify(address: str, state: str) -> None:
    """Send `state` to the init system's datagram socket; a leading @ means an abstract address."""
    path = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as datagrams:
        datagrams.connect(path)
        datagrams.sendall(state.encode())


def leave_sentence(run_path: Path, sentence: str) -> None:
    """Tell the supervisor that the node has to stop, and why. The first sentence wins, the rest follow from it."""
    with contextlib.suppress(FileExistsError), (run_path / FATAL_FILE).open("x") as file:
        file.write(sentence)


def _run_loop(program: Coroutine[None, None, None]) -> None:
    import uvloop

    uvloop.run(program)


def _tune_garbage_collection() -> None:
    """Most objects die by their reference count; full collections over a large heap would only add pauses."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)


def _raise_descriptor_limit() -> None:
    """Take all the descriptors the system lets this user have; connections are what they go to."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _lock_memory() -> None:
    """Have nothing of this process swapped out, now and later; a warning when the system does not permit it."""
    everything = 1 | 2  # MCL_CURRENT | MCL_FUTURE of sys/mman.h
    if ctypes.CDLL(None, use_errno=True).mlockall(everything):
        logs.named().warn("cannot lock memory (--memory-mlock)", error=os.strerror(ctypes.get_errno()))
    else:
        logs.named().info("locked memory")


def _end_with_parent() -> None:
    """Have the kernel kill this service when the supervisor dies, so that a new node never meets an old one's parts.

    Killing is safe at any instruction, and at once: two writers of one data directory are not.
    """
    if "SUPERVISOR_ENABLED" not in os.environ or not sys.platform.startswith("linux"):
        return
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of linux/prctl.h
    supervisor = int(os.environ.get(SUPERVISOR_PID_VARIABLE, "0"))
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if supervisor and os.getppid() != supervisor:
        os.kill(os.getpid(), signal.SIGKILL)
