"""`quorateutl snapshot restore`: from one backup the data directory of one member of a new cluster.

Everything is built in a directory beside its place and appears under its name as the last step, so that a restore that
was cut short leaves nothing a node would start from.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from quorate.consensus import restoring as log
from quorate.consensus.membership import Meta
from quorate.consensus.segments import write_durably
from quorate.ctl import etcd_file
from quorate.node.config import Config
from quorate.node.directories import sync_directory
from quorate.storage import restoring as database

DRAFT: Final = "restoring"
LOG_BEGUN: Final = "restoring-wal-dir"  # there is one whose log, outside the data directory, is not whole
DIRECTORY_MODE: Final = 0o700


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the flags say besides where and who."""

    skip_hash_check: bool = False
    bump_revision: int = 0
    mark_compacted: bool = False


def restore(backup: Path, config: Config, wishes: Wishes) -> Meta:
    """Make the data directory that `config` names; the membership it begins with. ClickException, OperatorError,
    DamagedDatabase or BboltError when that cannot be."""
    directory = Path(config.data_dir)
    if directory.exists() and not _is_free(directory):
        raise click.ClickException(f'data-dir "{directory}" not empty or could not be read')
    begun = directory / LOG_BEGUN
    if config.wal_dir and config.wal_path.exists() and not _is_begun(begun, config.wal_path):
        raise click.ClickException(f'wal-dir "{config.wal_path}" exists')
    meta = log.beginning(config)
    found = database.digests(backup)
    if not wishes.skip_hash_check:
        check_digest(found)
    draft = directory / DRAFT
    shutil.rmtree(draft, ignore_errors=True)
    directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    try:
        target = draft / config.database_path.relative_to(config.member_path)
        _write_database(backup, found.content_bytes, target)
        database.renew(target, meta.snapshot_index, log.FIRST_TERM, wishes.bump_revision, wishes.mark_compacted)
        if config.wal_dir:
            _begin(begun, config.wal_path)
        log.write_log(config.wal_path if config.wal_dir else draft / "wal", meta)
        for made in (draft, config.wal_path.parent) if config.wal_dir else (draft,):
            sync_directory(made)
        draft.rename(config.member_path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    sync_directory(directory)
    begun.unlink(missing_ok=True)
    sync_directory(directory.parent)
    return meta


def check_digest(found: database.Digests) -> None:
    """ClickException unless the file ends with the SHA-256 of the rest."""
    if not found.stated:
        raise click.ClickException("snapshot missing hash but --skip-hash-check=false")
    if found.stated != found.actual:
        stated, actual = (_as_go(digest) for digest in (found.stated, found.actual))
        raise click.ClickException(f"expected sha256 {stated}, got {actual}")


def _as_go(digest: bytes) -> str:
    return "[" + " ".join(map(str, digest)) + "]"


def _is_free(directory: Path) -> bool:
    try:
        return {path.name for path in directory.iterdir()} <= {DRAFT, LOG_BEGUN, f"{LOG_BEGUN}.tmp"}
    except OSError:
        return False


def _is_begun(note: Path, log_directory: Path) -> bool:
    """Whether a restore that was cut short made this directory."""
    return note.exists() and note.read_text() == str(log_directory.absolute())


def _begin(note: Path, log_directory: Path) -> None:
    if _is_begun(note, log_directory):
        shutil.rmtree(log_directory, ignore_errors=True)
    write_durably(note, str(log_directory.absolute()).encode())


def _write_database(backup: Path, content_bytes: int, target: Path) -> None:
    target.parent.mkdir(mode=DIRECTORY_MODE, parents=True)
    if etcd_file.is_etcd_file(backup):
        etcd_file.convert(backup, target)
    else:
        shutil.copyfile(backup, target)
        os.truncate(target, content_bytes)
        target.chmod(0o600)
        database.contents(target)
