"""The command `quorate`: settings in, checks, then this process becomes the node's supervisor."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, NoReturn

from quorate.node import config as configuration
from quorate.node import flags, idle, logs, run_directory, settings, validation
from quorate.node.config import Config
from quorate.node.lifecycle import OperatorError
from quorate.node.places import (
    API_MORE_VARIABLE,
    CONFIG_VARIABLE,
    FATAL_FILE,
    PYTHON_VARIABLE,
    RENDERED_FILE,
    RUN_DIR_VARIABLE,
    RUN_LINK,
    RUN_LOCK_VARIABLE,
    SUPERVISOR_FILE_VARIABLE,
    SUPERVISOR_SOCKET,
)

EXIT_ERROR: Final = 1
EXIT_USAGE: Final = 2

CERTIFICATE_FLAGS: Final = (
    *("cert-file", "key-file", "client-cert-file", "client-key-file", "trusted-ca-file", "client-crl-file"),
    *("peer-cert-file", "peer-key-file", "peer-client-cert-file", "peer-client-key-file"),
    *("peer-trusted-ca-file", "peer-crl-file"),
)
PROXIES: Final = ("gateway", "grpc-proxy")  # commands that stand between clients and a cluster

BBOLT_MARK: Final = (0xED0CDAED).to_bytes(4, sys.byteorder)  # behind the page's header
BBOLT_MARK_AT: Final = 16

SUPERVISOR_FILE: Final = Path(__file__).parent / "supervisord.conf"


def main() -> None:
    """Start a node with the arguments and the environment of this process; does not return."""
    if sys.argv[1:2] and sys.argv[1] in PROXIES:
        _exec("quorate.proxy", sys.argv[1:], dict(os.environ))
    line = _command_line(sys.argv[1:])
    os.umask(0o077)
    logs.start(Config(), "node")
    config = _settings(line)
    try:
        prepare_data_directory(config)
        lock = _prepare_run_directory(config)
        try:
            _check_ports(config)
            _check_certificates(config)
            if not _supervisor_file(os.environ).is_file():
                raise OperatorError(f"there is no file {_supervisor_file(os.environ)} ({SUPERVISOR_FILE_VARIABLE})")
        except OperatorError:
            run_directory.leave(config.run_path, lock)
            raise
    except OperatorError as error:
        _refuse(str(error))
    _become_supervisor(config, lock)


def _refuse(sentence: str) -> NoReturn:
    logs.named().fatal(sentence)
    sys.stderr.write(f"quorate: {sentence}\n")
    sys.exit(EXIT_ERROR)


def release() -> str:
    """Quorate's own version."""
    try:
        return version("quorate")
    except PackageNotFoundError:
        return "unreleased"


def _command_line(arguments: list[str]) -> flags.CommandLine:
    try:
        line = flags.parse_arguments(arguments)
    except flags.HelpAsked:
        _say(flags.help_text())
    except flags.UsageError as error:
        sys.stderr.write(f"{error}\n{flags.USAGE}")
        sys.exit(EXIT_USAGE)
    if line.positional is None and line.values.get("version") in ("true", "1", "t", "T", "TRUE", "True"):
        _say(flags.version_text(release()))
    return line


def _say(text: str) -> NoReturn:
    """Print and end; quietly, as other programs do, when the reader has gone (`quorate --help | head`)."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    print(text, flush=True)
    sys.exit(0)


def _settings(line: flags.CommandLine) -> Config:
    """The verified settings; ends the process with etcd's log line when they are wrong."""
    log = logs.named()
    try:
        if line.positional is not None:
            raise validation.Invalid(f'"{line.positional}" is not a valid flag')
        found = settings.gather(line, os.environ)
        config = found.config()
        validation.check(config)
    except settings.Conflict as conflict:
        log.fatal(str(conflict), **{"environment-variable": conflict.variable})
        sys.exit(EXIT_ERROR)
    except validation.Invalid as error:
        log.warn("failed to verify flags", error=str(error))
        sys.exit(EXIT_ERROR)
    try:
        logs.start(config, "node")
    except OSError as error:
        _refuse(logs.unwritable(error.filename, error))
    log.info("starting", args=flags.shown_arguments(sys.argv), version=release())
    for note in found.notes:
        getattr(log, note.level)(note.message, **note.fields)
    for warning in [*validation.warnings(config), *idle.sentences(config)]:
        log.warn(warning)
    for sentence, name, url in validation.ignored_certificates(config):
        log.warn(sentence, **{name: url})
    return config


def prepare_data_directory(config: Config) -> None:
    """Make what is missing of it; OperatorError where it cannot be written or holds the data of an etcd."""
    for flag, path in (("--data-dir", Path(config.data_dir)), ("--wal-dir", config.wal_path)):
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError as error:
            raise OperatorError(f"cannot write to {path} ({flag}): {_reason(error)}") from None
    snap = config.member_path / "snap"
    try:
        snap.mkdir(mode=0o700, parents=True, exist_ok=True)
        for flag, directory in (("--data-dir", snap), ("--wal-dir", config.wal_path)):
            _check_access(directory, flag)
    except OSError as error:
        raise OperatorError(f"cannot write to {error.filename} (--data-dir): {_reason(error)}") from None
    if is_etcds_database(snap / "db"):
        raise OperatorError(
            f"{config.data_dir} (--data-dir) holds the data of an etcd; `quorateutl snapshot restore {snap}/db "
            "--skip-hash-check --data-dir DIRECTORY` makes a data directory of it"
        )
    mode = Path(config.data_dir).stat().st_mode
    if mode & 0o077:
        logs.named().warn(
            "the data directory is open to other users; its mode should be 0700",
            path=config.data_dir,
            mode=f"{mode & 0o777:04o}",
        )


def _check_access(directory: Path, flag: str) -> None:
    """OperatorError for what the services could not write, as after a start by another user; OSError likewise."""
    kinds = [(directory, os.R_OK | os.W_OK | os.X_OK)]
    kinds += [(path, os.R_OK | os.W_OK) for path in directory.iterdir() if path.is_file()]
    for path, wanted in kinds:
        if not os.access(path, wanted) and path.exists():
            state = path.stat()
            owner = (
                "another user" if state.st_uid != os.getuid() else f"this user, with mode {state.st_mode & 0o777:04o}"
            )
            raise OperatorError(f"cannot write to {path} ({flag}): permission denied; it belongs to {owner}")


def is_etcds_database(path: Path) -> bool:
    """Whether the file is one of bbolt, which etcd keeps its data in: its first page has bbolt's mark."""
    try:
        with path.open("rb") as file:
            return file.read(len(BBOLT_MARK) + BBOLT_MARK_AT)[BBOLT_MARK_AT:] == BBOLT_MARK
    except OSError:
        return False


def _prepare_run_directory(config: Config) -> int:
    """Own the run directory until the node ends, and link it into the data directory; the descriptor of the lock."""
    run_path = config.run_path
    if len(os.fsencode(run_path)) > run_directory.BYTES_MAX:
        raise OperatorError(
            f"{run_path} is too long a name for the directory of sockets; "
            f"name one of at most {run_directory.BYTES_MAX} bytes with --run-dir"
        )

    def check(found: os.stat_result) -> None:
        if found.st_uid != os.getuid():
            raise OperatorError(f"{run_path} (--run-dir) belongs to another user")
        if found.st_mode & 0o077:
            raise OperatorError(f"{run_path} (--run-dir) is open to other users; its mode has to be 0700")

    try:
        lock = run_directory.take(run_path, check)
    except run_directory.Taken:
        raise OperatorError(f"another node is running with {config.data_dir} (--data-dir)") from None
    except OSError as error:
        raise OperatorError(f"cannot use {run_path} (--run-dir): {_reason(error)}") from None
    os.set_inheritable(lock, True)
    (run_path / FATAL_FILE).unlink(missing_ok=True)
    (run_path / SUPERVISOR_SOCKET).unlink(missing_ok=True)  # of one that was killed; supervisor would wait and ask it
    link = Path(config.data_dir) / RUN_LINK
    if link.is_symlink() or not link.exists():
        if link.is_symlink() and (before := link.readlink()) != run_path:
            run_directory.leave_abandoned(before)
        link.unlink(missing_ok=True)
        link.symlink_to(run_path)
    return lock


def _check_ports(config: Config) -> None:
    """Find a port that is taken now, before four processes have been started."""
    for flag, urls in (
        ("--listen-client-urls", config.listen_client_urls),
        ("--listen-peer-urls", config.listen_peer_urls),
        ("--listen-client-http-urls", config.listen_client_http_urls),
        ("--listen-metrics-urls", config.listen_metrics_urls),
    ):
        for url in urls:
            if url.startswith("unix"):
                continue
            with contextlib.ExitStack() as opened:
                try:
                    for family, address in _addresses(url):
                        listener = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
                        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        if family == socket.AF_INET6:
                            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                        listener.bind(address)
                except OSError as error:
                    raise OperatorError(f"cannot listen on {url} ({flag}): {_reason(error)}") from None


def _check_certificates(config: Config) -> None:
    """Find files that are missing or no certificates, and make those of auto-TLS, before there are services."""
    files = {name: path for name in CERTIFICATE_FLAGS if (path := getattr(config, name.replace("-", "_")))}
    for name, path in files.items():
        try:
            Path(path).open("rb").close()
        except OSError as error:
            raise OperatorError(f"cannot read {path} (--{name}): {_reason(error)}") from None
    encrypted = any(flags.is_encrypted(url) for url in [*config.listen_client_urls, *config.listen_peer_urls])
    if not any([files, encrypted, config.auto_tls, config.peer_auto_tls]):
        return
    from quorate.node import tls  # only now: it takes as long to import as everything else together

    try:
        tls.check_settings(config)
    except ValueError as error:
        raise OperatorError(str(error)) from None
    except OSError as error:
        raise OperatorError(f"cannot write the certificates of auto-TLS: {_reason(error)}") from None


def _addresses(url: str) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    host = flags.host_of(url)
    if host == "localhost":
        host = "127.0.0.1"
    found = socket.getaddrinfo(host or None, flags.port_of(url), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return [(family, address) for family, _kind, _protocol, _name, address in found]


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "address already in use"
    return (error.strerror or str(error)).lower()


def _become_supervisor(config: Config, lock: int) -> NoReturn:
    rendered = config.run_path / RENDERED_FILE
    configuration.render(config, rendered)
    environment = os.environ | {
        CONFIG_VARIABLE: str(rendered),
        RUN_DIR_VARIABLE: config.run_dir,
        RUN_LOCK_VARIABLE: str(lock),
        PYTHON_VARIABLE: sys.executable,
        API_MORE_VARIABLE: str(config.api_workers - 1),
    }
    if config.discovery or config.discovery_endpoints or config.discovery_srv:
        _exec("quorate.discovery", [], environment)
    exec_supervisor(environment)


def exec_supervisor(environment: dict[str, str]) -> NoReturn:
    """Become the supervisor of the node whose settings the environment names."""
    _exec("quorate.node.supervise", [str(_supervisor_file(environment))], environment)


def _supervisor_file(environment: Mapping[str, str]) -> Path:
    return Path(environment.get(SUPERVISOR_FILE_VARIABLE, SUPERVISOR_FILE)).resolve()


def _exec(module: str, arguments: list[str], environment: dict[str, str]) -> NoReturn:
    sys.stdout.flush()
    command = [sys.executable, "-P", "-m", module, *arguments]
    os.execve(sys.executable, command, environment)  # noqa: S606 - no shell, and nothing of the user's in it


if __name__ == "__main__":
    main()
