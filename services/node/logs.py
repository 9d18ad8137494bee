"""Log lines as etcd writes them: one JSON object a line, or tab separated columns with --log-format console.

Call sites say what happened and give the facts as fields:

    log = logs.named("raft")
    log.info("elected leader", member_id=f"{leader:x}", term=term)

A service writes to stderr; the supervisor forwards it to the node's own and keeps the last part for `supervisorctl
tail`. Nothing is logged per request.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import logging
import os
import re
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from typing import Protocol

    class Stream(Protocol):
        """Where a handler writes."""

        def write(self, text: str, /) -> object: ...
        def flush(self) -> object: ...

    class Config(Protocol):
        """What of the settings concerns the log."""

        @property
        def log_format(self) -> str: ...
        @property
        def log_level(self) -> str: ...
        @property
        def log_outputs(self) -> list[str]: ...
        @property
        def enable_log_rotation(self) -> bool: ...
        @property
        def log_rotation_config_json(self) -> str: ...


DPANIC: Final = 45
PANIC: Final = 47
FATAL: Final = logging.CRITICAL

LEVELS: Final = {  # zap's names, as --log-level takes them
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "dpanic": DPANIC,
    "panic": PANIC,
    "fatal": FATAL,
}
_NAMES: Final = {number: name for name, number in LEVELS.items()}

STREAMS: Final = ("default", "stderr", "stdout", "systemd/journal")  # outputs that are not files

NODE: Final = "node"  # the service whose standard streams are the node's own
COMPRESSED: Final = ".gz"
_MOMENT: Final = r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}"  # in the name of an old file
ROTATION_MEGABYTES_DEFAULT: Final = 100  # in place of a maxsize of 0, as etcd's library for it has it
SAMPLE_FIRST: Final = 100  # equal lines written in full each second; zap's production setting, as etcd uses it
SAMPLE_THEREAFTER: Final = 100  # then one of so many


class Log:
    """A named logger whose keyword arguments become fields of the line."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def debug(self, message: str, **fields: object) -> None:
        self._write(logging.DEBUG, message, fields)

    def info(self, message: str, **fields: object) -> None:
        self._write(logging.INFO, message, fields)

    def warn(self, message: str, **fields: object) -> None:
        self._write(logging.WARNING, message, fields)

    def error(self, message: str, **fields: object) -> None:
        self._write(logging.ERROR, message, fields)

    def panic(self, message: str, error: BaseException, **fields: object) -> None:
        """Our own bug, with its stack trace; the caller ends the process."""
        self._write(PANIC, message, {"error": str(error) or type(error).__name__, **fields}, error)

    def fault(self, message: str, error: BaseException, **fields: object) -> None:
        """Our own bug, with its stack trace, where it cost one request and the process goes on."""
        self._write(logging.ERROR, message, {"error": str(error) or type(error).__name__, **fields}, error)

    def fatal(self, message: str, **fields: object) -> None:
        """The last line of a process that cannot go on; the caller ends it."""
        self._write(FATAL, message, fields)

    def _write(self, level: int, message: str, fields: dict[str, object], error: BaseException | None = None) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, message, exc_info=error, extra={"fields": fields}, stacklevel=3)


def named(name: str = "") -> Log:
    """The log of one part of a service; the name appears as `logger` in its lines."""
    return Log(logging.getLogger(f"quorate.{name}" if name else "quorate"))


class Sampler(logging.Filter):
    """Of equal lines in one second the first hundred pass, then one of a hundred, whatever their level below panic."""

    def __init__(self) -> None:
        super().__init__()
        self._second = 0
        self._seen: dict[tuple[int, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= PANIC:
            return True
        second = int(record.created)
        if second != self._second:
            self._second = second
            self._seen.clear()
        key = (record.levelno, str(record.msg))
        count = self._seen[key] = self._seen.get(key, 0) + 1
        return count <= SAMPLE_FIRST or (count - SAMPLE_FIRST) % SAMPLE_THEREAFTER == 0


def _timestamp(created: float) -> str:
    text = datetime.fromtimestamp(created).astimezone().strftime("%Y-%m-%dT%H:%M:%S.%f%z")
    return text.removesuffix("+0000") + "Z" if text.endswith("+0000") else text


def _caller(record: logging.LogRecord) -> str:
    return f"{Path(record.pathname).parent.name}/{record.filename}:{record.lineno}"


def _logger_name(record: logging.LogRecord) -> str:
    return record.name.removeprefix("quorate").removeprefix(".")


class JsonFormatter(logging.Formatter):
    """One object a line with level, ts, logger, caller, msg, the fields, and stacktrace where there is one."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "level": _NAMES.get(record.levelno, "info"),
            "ts": _timestamp(record.created),
        }
        if name := _logger_name(record):
            line["logger"] = name
        line["caller"] = _caller(record)
        line["msg"] = record.getMessage()
        line["service"] = self._service
        line.update(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[1]:
            line["stacktrace"] = "".join(traceback.format_exception(record.exc_info[1]))
        return json.dumps(line, default=str, ensure_ascii=False, separators=(",", ":"))


class ConsoleFormatter(logging.Formatter):
    """The same facts in tab separated columns, for people."""

    def format(self, record: logging.LogRecord) -> str:
        columns = [_timestamp(record.created), _NAMES.get(record.levelno, "info"), _logger_name(record)]
        columns += [_caller(record), record.getMessage()]
        if fields := getattr(record, "fields", {}):
            columns.append(json.dumps(fields, default=str, ensure_ascii=False))
        text = "\t".join(filter(None, columns))
        if record.exc_info and record.exc_info[1]:
            text += "\n" + "".join(traceback.format_exception(record.exc_info[1])).rstrip()
        return text


class SharedFile(WatchedFileHandler):
    """A log file that all processes of the node append to, rotated by whichever finds it full.

    `bytes_max` 0 means no rotation. Old files are named with the time, UTC or `local_time`, as etcd's are, and end in
    .gz with `compress`. Lines that cannot be written are lost, which stderr is told once until the next that can.
    """

    def __init__(
        self,
        path: str,
        bytes_max: int = 0,
        backups_max: int = 0,
        age_days_max: int = 0,
        compress: bool = False,
        local_time: bool = False,
    ) -> None:
        super().__init__(path, encoding="utf-8", delay=False)
        self._bytes_max = bytes_max
        self._backups_max = backups_max
        self._age_days_max = age_days_max
        self._compress = compress
        self._timezone = None if local_time else UTC
        self._failed = self._told = False

    def emit(self, record: logging.LogRecord) -> None:
        self._failed = False
        try:
            if self._bytes_max and self.stream and self.stream.tell() >= self._bytes_max:
                self._rotate()
            super().emit(record)
        except OSError:  # of a file that cannot be opened again; one of a write is handled already
            self.handleError(record)
        self._told = self._told and self._failed

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        error = sys.exception()
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self._failed = True
        if not self._told:
            self._told = True
            with contextlib.suppress(OSError):
                sys.stderr.write(f"quorate: {unwritable(self.baseFilename, error)}\n")
                sys.stderr.flush()

    def _rotate(self) -> None:
        path = Path(self.baseFilename)
        stream = self.stream
        assert stream is not None
        fcntl.flock(stream, fcntl.LOCK_EX)
        try:
            mine = os.fstat(stream.fileno())
            if path.exists() and path.stat().st_ino == mine.st_ino:
                moment = datetime.now(self._timezone).strftime("%Y-%m-%dT%H-%M-%S.%f")[:-3]
                old = path.with_name(f"{path.stem}-{moment}{path.suffix}")
                path.rename(old)
                if self._compress:
                    threading.Thread(target=compress, args=(old,), name="compress", daemon=True).start()
                self._drop_old(path)
        finally:  # else the next process that finds the file full waits for ever
            fcntl.flock(stream, fcntl.LOCK_UN)
        self.reopenIfNeeded()

    def _drop_old(self, path: Path) -> None:
        ours = re.compile(
            rf"{re.escape(path.stem)}-{_MOMENT}{re.escape(path.suffix)}({re.escape(COMPRESSED)})?", re.ASCII
        )
        old = sorted((entry for entry in path.parent.iterdir() if ours.fullmatch(entry.name)), reverse=True)
        oldest = time.time() - self._age_days_max * 86_400
        rotations: set[str] = set()  # one may be there both packed and not, while it is being packed
        for backup in old:
            rotations.add(backup.name.removesuffix(COMPRESSED))
            too_many = self._backups_max and len(rotations) > self._backups_max
            with contextlib.suppress(FileNotFoundError):  # packed meanwhile
                if too_many or (self._age_days_max and backup.stat().st_mtime < oldest):
                    backup.unlink()


def compress(path: Path) -> None:
    """Put `path.gz` in the place of `path`; a file that is gone or a full disk leaves things as they are."""
    draft = path.with_name(f".{path.name}{COMPRESSED}")
    try:
        with path.open("rb") as plain, gzip.open(draft, "wb") as packed:
            shutil.copyfileobj(plain, packed)
        draft.rename(path.with_name(f"{path.name}{COMPRESSED}"))
        path.unlink()
    except OSError:
        draft.unlink(missing_ok=True)


def unwritable(path: str | os.PathLike[str], error: OSError) -> str:
    """One sentence about a log file."""
    return f"cannot write to {path} (--log-outputs): {(error.strerror or str(error)).lower()}"


def start(config: Config, service: str, outlets: Mapping[int, Stream] | None = None) -> None:
    """Send this process's log where `config` says, through `outlets` in place of the standard streams if there are
    some; call once, before the first line. OSError for a file that cannot be opened, with its name."""
    logging.addLevelName(DPANIC, "DPANIC")
    logging.addLevelName(PANIC, "PANIC")
    formatter = ConsoleFormatter() if config.log_format == "console" else JsonFormatter(service)
    root = logging.getLogger()
    handlers = _handlers(config, service, outlets or {1: sys.stdout, 2: sys.stderr})
    root.handlers.clear()
    for handler in handlers:
        handler.setFormatter(formatter)
        handler.addFilter(Sampler())
        root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("quorate").setLevel(LEVELS[config.log_level])


def streams(outputs: Sequence[str]) -> list[int]:
    """The standard streams, by descriptor, that a node's log goes to."""
    named = [output for output in outputs if output in STREAMS]
    found = [1] if "stdout" in named else []
    return [*found, 2] if set(named) - {"stdout"} else found


def _handlers(config: Config, service: str, outlets: Mapping[int, Stream]) -> list[logging.Handler]:
    handlers: list[logging.Handler] = []
    wanted = streams(config.log_outputs)
    if service == NODE:
        handlers += [logging.StreamHandler(outlets[number]) for number in wanted]
    elif wanted:  # what a service says there, the supervisor passes on
        handlers.append(logging.StreamHandler(sys.stderr))
    rotates = config.enable_log_rotation
    rotation = json.loads(config.log_rotation_config_json) if rotates else {}
    bytes_max = (rotation.get("maxsize") or ROTATION_MEGABYTES_DEFAULT) * 1024 * 1024
    backups, days = (rotation.get(name) or 0 for name in ("maxbackups", "maxage"))
    packed, local = (bool(rotation.get(name)) for name in ("compress", "localtime"))
    for path in config.log_outputs:
        if path not in STREAMS:
            handlers.append(SharedFile(path, bytes_max if rotates else 0, backups, days, packed, local))
    return handlers
