"""`quorateutl defrag` and `migrate`: on the data directory of a member that is not running."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import click

from quorate.ctl import etcd_file, go_text
from quorate.ctl.backup import STORAGE_VERSION, say
from quorate.node import run_directory
from quorate.node.config import Config
from quorate.node.places import RUN_LINK
from quorate.storage import schema, snapshot
from quorate.storage.schema import DamagedDatabase

LOG_LOCK: Final = "lock"


@contextmanager
def held(config: Config) -> Iterator[Path]:
    """The database of a data directory that no node runs with; waits for one that does. ClickException when there is
    none of ours."""
    database = config.database_path
    if not database.exists():
        raise click.ClickException(f"open {database}: no such file or directory")
    if etcd_file.is_etcd_file(database):
        raise click.ClickException(f"{database} is etcd's: `quorateutl snapshot restore --skip-hash-check` takes it")
    link = Path(config.data_dir) / RUN_LINK
    run = Path(config.data_dir, link.readlink()) if link.is_symlink() else config.run_path
    with ExitStack() as locks:
        _own(run, config, locks)
        with suppress(FileNotFoundError):
            log = os.open(config.member_path / "wal" / LOG_LOCK, os.O_RDWR | os.O_CLOEXEC)
            locks.callback(os.close, log)
            _wait_for(log, config)
        try:
            yield database
        except (DamagedDatabase, sqlite3.DatabaseError, OSError) as error:
            raise click.ClickException(str(error)) from error


def _own(run: Path, config: Config, locks: ExitStack) -> None:
    """Own the run directory as a node would, so that none starts; one that cannot be made has no node to come."""
    with suppress(OSError):
        lock = run_directory.take(run, lambda _found: None, lambda: _say_waiting(config))
        locks.callback(run_directory.leave, run, lock)
        if os.geteuid() == 0:  # for a member of another user: should this process be killed, a node can still go in
            owner = Path(config.data_dir).stat()
            for place in (run, lock):
                os.chown(place, owner.st_uid, owner.st_gid)


def _wait_for(lock: int, config: Config) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _say_waiting(config)
        fcntl.flock(lock, fcntl.LOCK_EX)


def _say_waiting(config: Config) -> None:
    say("waiting for the node that runs with this data directory to end", data_dir=config.data_dir)


@click.command("defrag", short_help="Give free space of a database file back.")
@click.option("--data-dir", required=True, help="Of a member that is not running.")
def defrag(data_dir: str) -> None:
    """Write a member's database anew, without the space that compaction left free."""
    with held(Config(data_dir=data_dir)) as database:
        before, after = snapshot.rebuild(database)
    say(
        "finished defragmenting",
        data_dir=data_dir,
        before=go_text.human_bytes(before),
        after=go_text.human_bytes(after),
    )


@click.command("migrate")
@click.option("--data-dir", required=True, help="Of a member that is not running.")
@click.option("--target-version", required=True, metavar="X.Y", help="Storage version to migrate to.")
@click.option("--force", is_flag=True, help="Accepted for etcdutl's sake: there is nothing to force.")
def migrate(data_dir: str, target_version: str, force: bool) -> None:
    """Tell whether a member's data have a storage version. There is one version, so nothing is ever changed."""
    with held(Config(data_dir=data_dir)) as database:
        schema.check(database)
    if target_version.removesuffix(".0") != STORAGE_VERSION.removesuffix(".0"):
        raise click.ClickException(f"cannot migrate from storage version {STORAGE_VERSION} to {target_version}")
    say("storage version up-to-date", storage_version=STORAGE_VERSION)
