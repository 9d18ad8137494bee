"""Runs programs that use other people's client libraries, and talks with them line by line in JSON.

A program is called with a scenario and the endpoints; its last line of output is what the scenario saw.
"""

import json
import os
import queue
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

ANSWER_S: Final = 40.0
_ENDED: Final = object()


@dataclass(slots=True)
class Program:
    """A running program; what it printed is read by a thread, so that waiting for it can have a deadline."""

    process: subprocess.Popen[str]
    printed: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)

    def next(self, within_s: float = ANSWER_S) -> Any:
        """The next thing it says; AssertionError when it ended or stays silent."""
        try:
            said = self.printed.get(timeout=within_s)
        except queue.Empty:
            raise AssertionError(f"nothing printed within {within_s} s by {self.process.args!r}") from None
        assert said is not _ENDED, f"ended without an answer: {self.process.args!r}"
        return said

    def tell(self, line: str) -> None:
        """A line into its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def hang_up(self) -> None:
        """The end of its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def read(self) -> None:
        """Collect what it prints until it ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed.put(json.loads(line))
        self.printed.put(_ENDED)


@contextmanager
def running(arguments: Sequence[str], environment: Mapping[str, str]) -> Iterator[Program]:
    """A program that is killed afterwards if it still runs; its errors go where the test's errors go."""
    process = subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | environment
    )
    program = Program(process)
    reader = threading.Thread(target=program.read)
    reader.start()
    try:
        yield program
    finally:
        process.kill()
        reader.join()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
