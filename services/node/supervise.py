"""The foreground process of a node: supervisor with supervisord.conf, and what the node as a whole adds to it.

- What the services log goes to the node's own stderr (or stdout, when --log-outputs says so).
- A service that left a sentence in the run directory ends the node: exit 1, the sentence last.
- A service that does not stay up ends the node too; whoever runs nodes (systemd, Docker) decides about another try.
- SIGTERM and SIGINT stop the services in order; then the process ends by that signal, as etcd does (0 as process 1).
- However it ends by itself, the run directory is gone afterwards.

The launcher replaces itself by this process, which reads no YAML and knows no settings but the log's, to stay small.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from supervisor import events
from supervisor.medusa import asyncore_25 as asyncore
from supervisor.options import ServerOptions, decode_wait_status
from supervisor.states import SupervisorStates
from supervisor.supervisord import Supervisor

from quorate.node import logs, run_directory
from quorate.node.outlet import Outlet
from quorate.node.places import CONFIG_VARIABLE, FATAL_FILE, RUN_LOCK_VARIABLE, SUPERVISOR_PID_VARIABLE

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
EXIT_FATAL: Final = 1
STOPPING_POLL_S: Final = 0.02  # a group without processes wakes nobody; supervisor looks at one group a turn
FLUSH_AGAIN_S: Final = 0.1  # while somebody does not read what the node says
DRAIN_S: Final = 1.0  # for the last lines, before the process ends without them
ERROR_OUTPUT: Final = 2
LINE_BYTES_MAX: Final = 64 * 1024  # of a line without an end that is kept back


class WakingPoller:
    """Supervisor's poller, which a signal wakes: otherwise a stop or the end of a service waits for up to a second.
    Each turn it also writes what the node's streams had no room for."""

    def __init__(self, poller: Any, outlets: list[Outlet]) -> None:
        self.timeout_s_max = 1.0
        self._outlets = outlets
        self._poller = poller
        self._wake, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        poller.register_readable(self._wake)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poller, name)

    def poll(self, timeout: float) -> tuple[list[int], list[int]]:
        for outlet in self._outlets:
            outlet.flush()
            if outlet.is_waiting:
                timeout = min(timeout, FLUSH_AGAIN_S)
        readable, writable = self._poller.poll(min(timeout, self.timeout_s_max))
        if self._wake in readable:
            readable.remove(self._wake)
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 4096)
        return readable, writable


class Node(Supervisor):  # type: ignore[misc]  # supervisor has no types
    """The services of one node and how they end together."""

    options: Any
    process_groups: dict[str, Any]

    def __init__(self, options: Any, run_path: Path, outlets: list[Outlet]) -> None:
        super().__init__(options)
        self.stopped_by: signal.Signals | None = None
        self.sentence: str | None = None
        self._sentence_path = run_path / FATAL_FILE
        self._outlets = outlets
        self._unfinished: dict[int, bytes] = {}  # the begun last line of each service, by pid
        self._ending = ""  # how the process ended that was waited for last
        self._wait_for_any = options.waitpid
        options.waitpid = self._waitpid
        self._log = logs.named()

    def runforever(self) -> None:
        events.subscribe(events.ProcessLogEvent, self._forward)
        events.subscribe(events.ProcessStateExitedEvent, self._exited)
        events.subscribe(events.ProcessStateBackoffEvent, self._exited)
        events.subscribe(events.ProcessStateFatalEvent, self._given_up)
        for group in sorted(self.process_groups.values()):
            group.transition()
        super().runforever()

    def handle_signal(self) -> None:
        number = self.options.get_signal()
        if number in STOP_SIGNALS and self.stopped_by is None:
            self.stopped_by = signal.Signals(number)
            self.options.poller.timeout_s_max = STOPPING_POLL_S
            self._log.info("received signal; shutting down", signal=self.stopped_by.name)
            self.options.mood = SupervisorStates.SHUTDOWN

    def _forward(self, event: Any) -> None:
        """Pass on what a service wrote, whole lines at a time so that services do not write into each other's."""
        data = event.data if isinstance(event.data, bytes) else event.data.encode()
        lines, newline, rest = (self._unfinished.pop(event.pid, b"") + data).rpartition(b"\n")
        if len(rest) > LINE_BYTES_MAX:
            lines, rest = lines + newline + rest, b""
        if rest:
            self._unfinished[event.pid] = rest
        self._write(lines + newline)

    def _waitpid(self) -> tuple[int | None, int | None]:
        pid, status = self._wait_for_any()
        if pid:
            self._ending = decode_wait_status(status)[1]
        return pid, status

    def _write(self, data: bytes) -> None:
        for outlet in self._outlets:
            outlet.pass_on(data)

    def _exited(self, event: Any) -> None:
        if rest := self._unfinished.pop(getattr(event, "pid", 0), b""):
            self._write(rest + b"\n")
        if self._sentence_path.exists():
            self._end(self._sentence_path.read_text())
            return
        if self.options.mood == SupervisorStates.RUNNING:
            name = event.process.config.name
            self._log.warn("service ended; starting it again", service=name, ending=self._ending)

    def _given_up(self, event: Any) -> None:
        if self.options.mood == SupervisorStates.RUNNING:
            self._end(f"service {event.process.config.name} does not stay up")

    def _end(self, sentence: str) -> None:
        self.sentence = self.sentence or sentence
        self.options.poller.timeout_s_max = STOPPING_POLL_S
        self.options.mood = SupervisorStates.SHUTDOWN


def main() -> None:
    """Run the node whose settings the environment names, with the supervisor file given as the only argument."""
    os.environ[SUPERVISOR_PID_VARIABLE] = str(os.getpid())
    config = SimpleNamespace(**json.loads(Path(os.environ[CONFIG_VARIABLE]).read_bytes()))
    run_path = Path(config.run_dir)
    outlets = {number: Outlet(number) for number in (*logs.streams(config.log_outputs), ERROR_OUTPUT)}
    logs.start(config, "node", outlets)
    try:
        node = _run(config, run_path, outlets)
    finally:
        run_directory.leave(run_path, int(os.environ[RUN_LOCK_VARIABLE]))
    if node.sentence is not None:
        outlets[ERROR_OUTPUT].write(f"quorate: {node.sentence}\n")
    else:
        logs.named().info("closed etcd server", name=config.name)
    for outlet in outlets.values():
        outlet.drain(DRAIN_S)
    if node.sentence is not None:
        sys.exit(EXIT_FATAL)
    if node.stopped_by is not None and os.getpid() != 1:
        signal.signal(node.stopped_by, signal.SIG_DFL)
        signal.raise_signal(node.stopped_by)


def _run(config: SimpleNamespace, run_path: Path, outlets: dict[int, Outlet]) -> Node:
    """The node after its end."""
    options = ServerOptions()
    options.realize(["-n", "-s", "-c", sys.argv[1]], doc=__doc__)
    options.first = True
    options.test = False
    options.poller = WakingPoller(options.poller, list(outlets.values()))
    named = [outlets[number] for number in logs.streams(config.log_outputs) or [ERROR_OUTPUT]]
    node = Node(options, run_path, named)
    with contextlib.suppress(asyncore.ExitNow):
        node.main()
    if options.mood == SupervisorStates.RESTARTING:
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - itself again, as supervisorctl reload asks
    return node


if __name__ == "__main__":
    main()
