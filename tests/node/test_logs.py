"""Log lines as etcd's scripts read them."""

import errno
import fcntl
import gzip
import json
import logging
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from quorate.node import logs
from quorate.node.config import Config


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    for handler in set(root.handlers) - set(before[0]):
        handler.close()
    root.handlers[:] = before[0]
    root.setLevel(before[1])


def test_line_is_one_json_object_with_etcds_keys(capsys: pytest.CaptureFixture[str]) -> None:
    logs.start(Config(), "storage")
    logs.named("raft").info("elected leader", member_id="8e9e05c52164694d", term=2)
    line = json.loads(capsys.readouterr().err)
    assert list(line)[:5] == ["level", "ts", "logger", "caller", "msg"]
    assert (line["level"], line["logger"], line["msg"], line["term"]) == ("info", "raft", "elected leader", 2)
    assert line["caller"].startswith("node/test_logs.py:")


def test_lines_below_the_level_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    logs.start(Config(log_level="error"), "storage")
    logs.named().warn("quiet")
    logs.named().error("loud")
    assert json.loads(capsys.readouterr().err)["msg"] == "loud"


def test_stack_trace_comes_with_a_panic_only(capsys: pytest.CaptureFixture[str]) -> None:
    logs.start(Config(), "storage")
    try:
        raise ValueError("boom")
    except ValueError as error:
        logs.named().panic("storage failed", error)
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["error"]) == ("panic", "boom")
    assert "Traceback" in line["stacktrace"]


def test_console_format_is_tab_separated(capsys: pytest.CaptureFixture[str]) -> None:
    logs.start(Config(log_format="console"), "storage")
    logs.named("raft").warn("slow", took="1s")
    columns = capsys.readouterr().err.rstrip().split("\t")
    assert columns[1:3] == ["warn", "raft"]
    assert columns[4:] == ["slow", '{"took": "1s"}']


def test_after_a_hundred_equal_lines_one_of_a_hundred_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    sampler = logs.Sampler()
    record = logging.LogRecord("quorate", logging.INFO, "x.py", 1, "same", None, None)
    assert sum(sampler.filter(record) for _ in range(300)) == 102


def test_full_file_is_rotated_and_the_oldest_dropped(tmp_path: Path) -> None:
    path = tmp_path / "etcd.log"
    handlers = [logs.SharedFile(str(path), bytes_max=50, backups_max=2) for _ in range(2)]
    for number in range(20):
        record = logging.LogRecord("quorate", logging.INFO, "x.py", 1, f"line {number:04} " + "x" * 30, None, None)
        handlers[number % 2].emit(record)
    for handler in handlers:
        handler.close()
    assert len(list(tmp_path.glob("etcd-*.log"))) == 2
    assert "line 0019" in path.read_text()


def test_rotated_files_are_compressed_and_still_counted(tmp_path: Path) -> None:
    handler = logs.SharedFile(str(tmp_path / "etcd.log"), bytes_max=50, backups_max=2, compress=True)
    for number in range(20):
        line = f"line {number:04} " + "x" * 30
        handler.emit(logging.LogRecord("quorate", logging.INFO, "x.py", 1, line, None, None))
        for thread in threading.enumerate():
            if thread.name == "compress":
                thread.join()
    handler.close()
    packed = sorted(tmp_path.glob("etcd-*.log.gz"))
    assert len(packed) in (2, 3)  # the newest may have been packed after the old ones were counted
    assert "line 00" in gzip.decompress(packed[-1].read_bytes()).decode()
    assert not [left for left in tmp_path.iterdir() if left.name.startswith(".")]


def test_a_file_that_cannot_be_written_is_told_once_and_costs_nobody_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "logs" / "etcd.log"
    path.parent.mkdir()
    handler = logs.SharedFile(str(path))

    def say(text: str) -> None:
        handler.emit(logging.LogRecord("quorate", logging.INFO, "x.py", 1, text, None, None))

    for _ in range(2):
        shutil.rmtree(path.parent)
        say("lost")
        say("lost too")
        told = capsys.readouterr().err
        assert told == f"quorate: cannot write to {path} (--log-outputs): no such file or directory\n"
        path.parent.mkdir()
        say("written")
        assert path.read_text() == "written\n"
    handler.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_shows_no_stack_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "etcd.log").symlink_to("/dev/full")
    handler = logs.SharedFile(str(tmp_path / "etcd.log"))
    for _ in range(2):
        handler.emit(logging.LogRecord("quorate", logging.INFO, "x.py", 1, "lost", None, None))
    told = capsys.readouterr().err
    assert told == f"quorate: cannot write to {tmp_path}/etcd.log (--log-outputs): no space left on device\n"


def test_a_rotation_that_fails_makes_nobody_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "etcd.log"
    handler = logs.SharedFile(str(path), bytes_max=1)

    def refused(_path: Path, _target: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "rename", refused)
    for _ in range(2):
        handler.emit(logging.LogRecord("quorate", logging.INFO, "x.py", 1, "line", None, None))
    with path.open("a") as another:
        fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as the next process that finds it full
    handler.close()


def test_only_its_own_old_files_are_dropped(tmp_path: Path) -> None:
    others = ["etcd-Today.log", "etcd-2-2026-01-01T00-00-00.000.log", "etcd-TLS.log.gz"]
    for name in others:
        (tmp_path / name).touch()
    handler = logs.SharedFile(str(tmp_path / "etcd.log"), bytes_max=1, backups_max=1)
    for _ in range(4):
        handler.emit(logging.LogRecord("quorate", logging.INFO, "x.py", 1, "line", None, None))
    handler.close()
    assert set(others) < {entry.name for entry in tmp_path.iterdir()}


def test_a_file_that_cannot_be_compressed_stays(tmp_path: Path) -> None:
    logs.compress(tmp_path / "gone.log")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (["default"], [2]),
        (["stdout"], [1]),
        (["stdout", "stderr"], [1, 2]),
        (["/tmp/x"], []),
        (["/tmp/x", "stdout"], [1]),
        (["systemd/journal"], [2]),
    ],
)
def test_each_output_has_its_stream(outputs: list[str], expected: list[int]) -> None:
    assert logs.streams(outputs) == expected
