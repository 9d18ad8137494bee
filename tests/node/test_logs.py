"""Log lines as etcd's scripts read them."""

import json
import logging
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
