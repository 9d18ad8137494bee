"""Gateways and gRPC proxies as processes of their own, ended by pid."""

import os
import queue
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import servers
from bench.ports import free_port

STARTS_WITHIN_S = 30.0
ENDS_WITHIN_S = 20.0
READY = ("ready to proxy client requests", "started gRPC proxy")


@dataclass
class Proxy:
    """A running proxy and what it logged."""

    process: subprocess.Popen[str]
    endpoint: str
    lines: list[str] = field(default_factory=list)
    queue: "queue.SimpleQueue[str]" = field(default_factory=queue.SimpleQueue)

    def read(self) -> None:
        """Take the log's lines as they come, in a thread."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            self.queue.put(line)
        self.queue.put("")

    def wait_line(self, *wanted: str) -> str:
        """The next line with one of these texts; AssertionError with everything logged when it does not come."""
        deadline = time.monotonic() + STARTS_WITHIN_S
        while True:
            try:
                line = self.queue.get(timeout=max(deadline - time.monotonic(), 0.01))
            except queue.Empty:
                raise AssertionError(f"none of {wanted} in {''.join(self.lines)}") from None
            assert line, f"ended: {''.join(self.lines)}"
            if any(text in line for text in wanted):
                return line


def command(*arguments: str) -> tuple[list[str], dict[str, str]]:
    """How `quorate` is started with these arguments, and its environment."""
    product = servers.quorate()
    return [*product.command, *arguments], os.environ | product.environment


@contextmanager
def proxy(directory: Path, *arguments: str, **environment: str) -> Iterator[Proxy]:
    """`quorate ARGUMENTS --listen-addr FREE`, once it is ready."""
    endpoint = f"127.0.0.1:{free_port()}"
    words, inherited = command(*arguments, "--listen-addr", endpoint)
    process = subprocess.Popen(
        words, cwd=directory, env=inherited | environment, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    started = Proxy(process, endpoint)
    reader = threading.Thread(target=started.read, daemon=True)
    reader.start()
    try:
        started.wait_line(*READY)
        yield started
    finally:
        process.terminate()
        try:
            process.wait(ENDS_WITHIN_S)
        finally:
            process.kill()
            reader.join()
