"""Which errors are the operator's, and the words to the init system."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from quorate.node import lifecycle, logs
from quorate.node.check import health
from quorate.node.lifecycle import OperatorError
from quorate.node.places import FATAL_FILE


def test_sentence_is_found_inside_a_task_groups_error() -> None:
    error = ExceptionGroup("tasks", [ValueError("x"), ExceptionGroup("inner", [OperatorError("the disk is full")])])
    assert lifecycle.operator_sentence(error) == "the disk is full"


def test_bug_has_no_sentence() -> None:
    assert lifecycle.operator_sentence(ExceptionGroup("tasks", [ValueError("x")])) is None


def test_first_sentence_stays(tmp_path: Path) -> None:
    lifecycle.leave_sentence(tmp_path, "the log is damaged")
    lifecycle.leave_sentence(tmp_path, "consensus has gone")
    assert (tmp_path / FATAL_FILE).read_text() == "the log is damaged"


def test_init_system_may_listen_on_an_abstract_address() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as init:
        init.bind("")  # the kernel chooses an abstract address
        init.settimeout(5)
        lifecycle.notify("@" + init.getsockname()[1:].decode(), "READY=1")
        assert init.recv(100) == b"READY=1"


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_check_says_what_the_node_answers(status: int, healthy: bool) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(self.path.encode())

        def log_message(self, *_: object) -> None:
            """Nothing: the test's output is not the place."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert health(f"http://127.0.0.1:{server.server_port}/health") == (healthy, "/health")
        finally:
            server.shutdown()
            thread.join()


def test_check_says_that_nobody_answers() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        healthy, answer = health(f"http://127.0.0.1:{unused.getsockname()[1]}/health")
    assert not healthy
    assert "refused" in answer


def test_check_names_a_file_of_tls_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    for name, reason in (("none.pem", "No such file or directory"), ("ca.pem", "[X509: NO_CERTIFICATE_OR_CRL_FOUND]")):
        command = [sys.executable, "-m", "quorate.node.check", "--cacert", str(tmp_path / name), "https://127.0.0.1:1"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (ran.returncode, ran.stdout) == (1, "")
        assert ran.stderr.startswith(f"the files for TLS cannot be used: {tmp_path}/{name}: {reason}")
        assert ran.stderr.count("\n") == 1


def test_memory_is_locked_or_the_log_says_why_not() -> None:
    program = (
        "from quorate.node import lifecycle, logs; from quorate.node.config import Config; "
        "logs.start(Config(), 'storage'); lifecycle._lock_memory(); "
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmLck')).split()[1])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert int(ran.stdout) > 0 or "cannot lock memory (--memory-mlock)" in ran.stderr


def test_a_signal_in_the_middle_of_a_line_is_told_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    told = threading.Event()

    class Handler(logging.Handler):
        """A line takes its time, and cannot be begun within another."""

        is_writing = False

        def emit(self, record: logging.LogRecord) -> None:
            assert not self.is_writing, "reentrant"
            self.is_writing = True
            if not lines:
                os.kill(os.getpid(), signal.SIGTERM)
            lines.append(f"{record.filename}: {record.getMessage()}")
            self.is_writing = False
            if len(lines) == 2:
                told.set()

    stopped: list[bool] = []
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    handler, logger = Handler(), logging.getLogger("quorate")
    monkeypatch.setattr(logger, "level", logging.INFO)
    logger.addHandler(handler)
    try:
        lifecycle.on_stop(lambda: stopped.append(True))
        logs.named().info("a line")
        assert told.wait(10)
    finally:
        logger.removeHandler(handler)
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
    expected = ["test_lifecycle.py: a line", "lifecycle.py: received signal; shutting down"]
    assert (lines, stopped) == (expected, [True])
