"""The command `quorate` with real supervisor, and stand-ins for the services."""

import json
import os
import queue
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quorate.node import launch, run_directory
from quorate.node.config import Config
from quorate.node.launch import BBOLT_MARK
from quorate.node.lifecycle import OperatorError

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS_MAX = 20.0


class Running:
    """One `quorate` process and the lines it has written."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.passed: list[dict[str, Any]] = []
        self.text: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        if process.stderr is not None:
            threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._queue.put(line)
        self._queue.put(None)

    def line(self, message: str, **facts: object) -> dict[str, Any]:
        """Wait for a line with this message and these fields that was not waited for before."""

        def fits(line: dict[str, Any]) -> bool:
            return bool(line["msg"] == message and facts.items() <= line.items())

        for number, passed in enumerate(self.passed):
            if fits(passed):
                return self.passed.pop(number)
        deadline = time.monotonic() + SECONDS_MAX
        while (text := self._queue.get(timeout=max(deadline - time.monotonic(), 0.01))) is not None:
            self.text.append(text)
            if text.startswith("{"):
                line: dict[str, Any] = json.loads(text)
                if fits(line):
                    return line
                self.passed.append(line)
        raise AssertionError(f"{message} was not logged:\n" + "".join(self.text))

    def end(self) -> int:
        """Wait for the end; the exit status as the shell of Python has it."""
        status = self.process.wait(SECONDS_MAX)
        while (text := self._queue.get(timeout=SECONDS_MAX)) is not None:
            self.text.append(text)
        return status


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start `quorate` in a directory of its own with free ports; what still runs at the end is ended."""
    started: list[Running] = []
    supervisor_file = tmp_path / "supervisord.conf"
    standin = Path(__file__).parent / "standin.py"
    text = (ROOT / "supervisord.conf").read_text()
    supervisor_file.write_text(re.sub(r"-P -m quorate\.(\w+)", rf"{standin} \1", text))

    def run(*arguments: str, stderr: int = subprocess.PIPE, **environment: str) -> Running:
        client, peer = free_url(), free_url()
        command = [sys.executable, "-m", "quorate.node.launch", f"--data-dir={tmp_path}/data"]
        command += [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
        command += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", *arguments]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ETCD_")}
        inherited["PYTHONPATH"] = str(ROOT / "build" / "typing")
        inherited["QUORATE_SUPERVISORD_CONF"] = str(supervisor_file)
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=inherited | environment,
            stderr=stderr,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(Running(process))
        return started[-1]

    try:
        yield run
    finally:
        for running in started:
            if running.process.poll() is None:
                running.process.terminate()
                try:
                    running.process.wait(SECONDS_MAX)
                finally:
                    running.process.kill()


def free_url() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def is_gone(pid: int) -> bool:
    try:
        return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True


def test_node_starts_four_services_and_stops_them_in_order_on_sigterm(start: Start, tmp_path: Path) -> None:
    node = start("--name=infra1")
    node.line("ready to serve client requests", name="infra1")
    for service in ("api", "consensus", "storage", "watch"):
        node.line("up", service=service)
    node.process.terminate()
    assert node.end() == -signal.SIGTERM
    closed = [json.loads(text)["service"] for text in node.text if '"msg":"closed ' in text]
    assert closed == ["api", "consensus", "storage", "watch", "node"]


def test_directories_are_the_users_own(start: Start, tmp_path: Path) -> None:
    start().line("ready to serve client requests")
    run_path = (tmp_path / "data" / "run").resolve()
    for path in (tmp_path / "data", tmp_path / "data" / "member", tmp_path / "data" / "member" / "snap", run_path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_services_answer_supervisorctl_and_more_api_workers_run_when_asked(start: Start, tmp_path: Path) -> None:
    node = start("--api-workers=2")
    node.line("up", service="api", worker=1)
    status = supervisorctl(tmp_path, "status")
    assert {line.split()[0] for line in status.splitlines()} == {
        "api",
        "api-more:api-1",
        "consensus",
        "storage",
        "watch",
    }


def supervisorctl(tmp_path: Path, *words: str) -> str:
    command = [sys.executable, "-m", "supervisor.supervisorctl", "-s", f"unix://{tmp_path}/data/run/supervisor.sock"]
    return subprocess.run([*command, *words], capture_output=True, text=True, timeout=SECONDS_MAX, check=False).stdout


def test_what_a_killed_supervisor_left_behind_does_not_keep_the_next_one_waiting(start: Start) -> None:
    killed = start()
    killed.line("ready to serve client requests")
    killed.process.kill()
    killed.end()
    again = start()
    again.line("ready to serve client requests")
    again.process.terminate()
    again.end()
    assert "stale socket" not in "".join(again.text)


def test_killed_service_is_started_again(start: Start) -> None:
    node = start()
    first = node.line("up", service="storage")["pid"]
    node.line("ready to serve client requests")
    os.kill(first, signal.SIGKILL)
    assert "SIGKILL" in node.line("service ended; starting it again", service="storage")["ending"]
    assert first != node.line("up", service="storage")["pid"]


def test_service_that_fails_by_a_bug_is_started_again_with_its_trace_logged(start: Start, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "storage.does").write_text("crash once")
    node = start()
    assert "RuntimeError: a bug" in node.line("storage failed")["stacktrace"]
    node.line("up", service="storage")


def test_service_that_cannot_go_on_ends_the_node_with_its_sentence_last(start: Start, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "consensus.does").write_text("refuse")
    node = start()
    assert node.end() == 1
    assert node.text[-1] == "quorate: the log is damaged at byte 7\n"
    assert "Traceback" not in "".join(node.text)


def test_services_die_with_the_node(start: Start) -> None:
    node = start()
    pids = [node.line("up", service=service)["pid"] for service in ("api", "consensus", "storage", "watch")]
    node.process.kill()
    node.process.wait(SECONDS_MAX)
    deadline = time.monotonic() + SECONDS_MAX
    while not all(map(is_gone, pids)):
        assert time.monotonic() < deadline


def test_second_node_on_the_same_data_is_refused(start: Start) -> None:
    start().line("ready to serve client requests")
    second = start()
    assert second.end() == 1
    assert re.fullmatch(r"quorate: another node is running with /\S+ \(--data-dir\)\n", second.text[-1])


def test_port_in_use_is_named_with_its_flag(start: Start) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        url = f"http://127.0.0.1:{other.getsockname()[1]}"
        node = start(f"--listen-peer-urls={url}")
        assert node.end() == 1
    assert node.text[-1] == f"quorate: cannot listen on {url} (--listen-peer-urls): address already in use\n"


def test_a_supervisor_file_that_is_not_there_is_named(start: Start, tmp_path: Path) -> None:
    node = start(QUORATE_SUPERVISORD_CONF=f"{tmp_path}/none.conf")
    assert node.end() == 1
    assert node.text[-1] == f"quorate: there is no file {tmp_path}/none.conf (QUORATE_SUPERVISORD_CONF)\n"


def test_data_directory_that_cannot_be_made_is_named(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    node = start(f"--data-dir={tmp_path}/file/data")
    assert node.end() == 1
    assert node.text[-1] == f"quorate: cannot write to {tmp_path}/file/data (--data-dir): not a directory\n"


@pytest.mark.parametrize("name", ["member/snap/db", "member/wal/meta.a", "member/snap", "member/wal"])
def test_data_that_cannot_be_written_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    config = Config(data_dir=str(tmp_path))
    for file in ("member/snap/db", "member/wal/meta.a"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch(mode=0o600)
    launch.prepare_data_directory(config)
    monkeypatch.setattr("os.access", lambda path, _mode: path != tmp_path / name)  # the tests may run as root
    with pytest.raises(
        OperatorError, match=rf"^cannot write to {tmp_path / name} \(--\w+-dir\): permission denied; it "
    ):
        launch.prepare_data_directory(config)


def test_a_data_directory_of_etcd_is_left_alone(start: Start, tmp_path: Path) -> None:
    database = tmp_path / "data" / "member" / "snap" / "db"
    database.parent.mkdir(parents=True)
    database.write_bytes(bytes(16) + BBOLT_MARK + bytes(12))
    node = start(
        f"--data-dir={tmp_path}/data", "--initial-cluster=default=http://localhost:2380,b=http://10.0.0.2:2380"
    )
    assert node.end() == 1
    assert "holds the data of an etcd; `quorateutl snapshot restore" in node.text[-1]
    assert database.read_bytes()[16:20] == BBOLT_MARK
    assert list((tmp_path / "data" / "member" / "wal").iterdir()) == []


def test_a_data_directory_that_others_can_enter_is_warned_of(start: Start, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o750)
    start(f"--data-dir={tmp_path}/data").line(
        "the data directory is open to other users; its mode should be 0700", mode="0750"
    )


def test_certificate_that_cannot_be_read_is_named(start: Start, tmp_path: Path) -> None:
    node = start(f"--cert-file={tmp_path}/none.pem", f"--key-file={tmp_path}/none-key.pem")
    assert node.end() == 1
    assert node.text[-1] == f"quorate: cannot read {tmp_path}/none.pem (--cert-file): no such file or directory\n"


def test_a_log_file_that_cannot_be_opened_is_named(start: Start, tmp_path: Path) -> None:
    node = start(f"--log-outputs={tmp_path}/none/etcd.log")
    assert node.end() == 1
    sentence = f"cannot write to {tmp_path}/none/etcd.log (--log-outputs): no such file or directory"
    assert json.loads(node.text[0])["msg"] == sentence
    assert node.text[1:] == [f"quorate: {sentence}\n"]


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose name leaves room for the name of a socket."""
    with tempfile.TemporaryDirectory(prefix="q") as name:
        yield Path(name)


def test_run_directory_open_to_others_is_refused(start: Start, short_path: Path) -> None:
    (short_path / "run").mkdir(mode=0o755)
    node = start(f"--run-dir={short_path}/run")
    assert node.end() == 1
    assert "is open to other users" in node.text[-1]


def test_run_directory_without_room_for_sockets_is_refused(start: Start, short_path: Path) -> None:
    longest = short_path / ("r" * (run_directory.BYTES_MAX - len(f"{short_path}/")))
    refused = start(f"--run-dir={longest}x")
    assert refused.end() == 1
    assert refused.text[-1].endswith("of sockets; name one of at most 83 bytes with --run-dir\n")
    assert list(short_path.iterdir()) == []
    start(f"--run-dir={longest}").line("ready to serve client requests")


def test_nothing_stays_of_the_run_directory_when_a_node_ends(start: Start, tmp_path: Path, short_path: Path) -> None:
    place = short_path / "1"
    place.mkdir()
    node = start(XDG_RUNTIME_DIR=str(place))
    node.line("ready to serve client requests")
    assert ((tmp_path / "data" / "run").resolve() / "supervisor.sock").is_socket()
    second = start(XDG_RUNTIME_DIR=str(place))
    assert (second.end(), "another node is running" in second.text[-1]) == (1, True)
    node.process.terminate()
    node.end()
    assert list(place.iterdir()) == []
    unreadable = start(
        f"--cert-file={tmp_path}/none.pem", f"--key-file={tmp_path}/none.pem", XDG_RUNTIME_DIR=str(place)
    )
    assert unreadable.end() == 1
    assert list(place.iterdir()) == []


def test_what_a_killed_node_left_is_owned_by_the_next_and_gone_after_it(start: Start, short_path: Path) -> None:
    first_place, second_place = short_path / "1", short_path / "2"
    for place in (first_place, second_place):
        place.mkdir()
    for place in (first_place, first_place, second_place):
        node = start(XDG_RUNTIME_DIR=str(place))
        node.line("ready to serve client requests")
        node.process.kill()
        node.end()
    assert list(first_place.iterdir()) == []
    node = start(XDG_RUNTIME_DIR=str(second_place))
    node.line("ready to serve client requests")
    node.process.terminate()
    node.end()
    assert list(second_place.iterdir()) == []


def test_unknown_flag_prints_the_usage_and_exits_with_2(start: Start) -> None:
    node = start("--nope")
    assert node.end() == 2
    assert node.text[0] == "flag provided but not defined: -nope\n"
    assert node.text[1] == "Usage:\n"


@pytest.mark.parametrize(
    ("arguments", "environment", "message", "error"),
    [
        (["member"], {}, "failed to verify flags", '"member" is not a valid flag'),
        (["--election-timeout=1"], {}, "failed to verify flags", "should be at least as 5 times"),
        ([], {"ETCD_DATA_DIR": "x"}, "conflicting environment variable is shadowed", ""),
    ],
)
def test_wrong_settings_are_logged_in_etcds_words_and_exit_with_1(
    start: Start, arguments: list[str], environment: dict[str, str], message: str, error: str
) -> None:
    node = start(*arguments, **environment)
    assert node.end() == 1
    line = json.loads(node.text[-1])
    assert line["msg"].startswith(message)
    assert error in line.get("error", "")


def test_help_and_version_go_to_stdout(start: Start) -> None:
    for flag, expected in (("--help", "Usage:"), ("--version", "etcd Version: 3.6")):
        node = start(flag)
        assert node.end() == 0
        assert node.process.stdout is not None
        assert node.process.stdout.read().startswith(expected)


def test_help_into_a_pipe_that_nobody_reads_leaves_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-P", "-m", "quorate.node.launch", "--help"]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=SECONDS_MAX, check=False)
    os.close(writer)
    assert ended.returncode == -signal.SIGPIPE
    assert ended.stderr == b""


def test_a_log_that_nobody_reads_stops_neither_the_services_nor_the_end(start: Start, tmp_path: Path) -> None:
    """etcd #22214: reads hung while the log pipe was full."""
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "storage.does").write_text("talk")
    reader, writer = os.pipe()
    node = start(stderr=writer)
    os.close(writer)
    deadline = time.monotonic() + SECONDS_MAX
    while not (tmp_path / "data" / "storage.talked").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    node.process.terminate()
    assert node.process.wait(SECONDS_MAX) == -signal.SIGTERM
    with os.fdopen(reader) as log:
        first = json.loads(log.readline())
    assert first["msg"] == "starting"


def test_init_system_is_told_when_clients_are_served(start: Start, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as init:
        address = tmp_path / "notify"
        init.bind(str(address))
        init.settimeout(SECONDS_MAX)
        start(NOTIFY_SOCKET=str(address))
        assert init.recv(100) == b"READY=1"


def test_the_log_goes_to_both_streams_when_both_are_named(start: Start) -> None:
    node = start("--log-outputs=stdout,stderr")
    node.line("ready to serve client requests")
    node.process.terminate()
    node.end()
    assert node.process.stdout is not None
    printed = node.process.stdout.read()
    for message in ("starting", "ready to serve client requests", "closed etcd server"):
        assert f'"msg":"{message}"' in printed
