"""`quorateutl snapshot status|restore`, `hashkv` and `version`: backups and database files, ours and etcd's."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from importlib import metadata
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import google_crc32c

from quorate.ctl import etcd_file, go_text
from quorate.ctl.bbolt import BboltError, BboltFile
from quorate.ctl.print_table import box
from quorate.ctl.restore import Wishes, restore
from quorate.node.config import Config
from quorate.node.lifecycle import OperatorError
from quorate.storage import restoring
from quorate.storage.schema import DamagedDatabase
from quorate.wire import errors

BAD_ARGUMENTS: Final = 128  # etcdutl's exit status
BAD_FEATURE: Final = 4
API_VERSION: Final = "3.6"
STORAGE_VERSION: Final = "3.6.0"
FORMATS: Final = ("simple", "json", "fields", "table")
_BLOCK_BYTES: Final = 1 << 20

F = TypeVar("F", bound=Callable[..., None])


class BadArguments(click.ClickException):
    """Arguments that etcdutl refuses."""

    exit_code = BAD_ARGUMENTS


class BadFormat(click.ClickException):
    """An output format that is not known."""

    exit_code = BAD_FEATURE


@dataclass(frozen=True, slots=True)
class Status:
    """What `snapshot status` shows."""

    hash: int
    revision: int
    total_key: int
    total_size: int
    version: str


def file_command(function: F) -> F:
    """One file as argument, a format, and every finding about the file as one line."""

    @wraps(function)
    def run(files: tuple[str, ...], write_out: str | None, **options: Any) -> None:
        context = click.get_current_context()
        if len(files) != 1:
            raise BadArguments(f"{_words(context)} requires exactly one argument")
        chosen = write_out or (context.obj or {}).get("write_out") or "simple"
        if chosen not in FORMATS:
            raise BadFormat(f"unsupported output format {chosen}")
        try:
            function(Path(files[0]), chosen, **options)
        except (OperatorError, DamagedDatabase, BboltError, sqlite3.DatabaseError) as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            raise click.ClickException(f"open {files[0]}: {(error.strerror or str(error)).lower()}") from error

    decorated = click.option("-w", "--write-out", help="simple, json, fields or table.")(run)
    return click.argument("files", nargs=-1, metavar="<file>")(decorated)  # type: ignore[return-value]


def _words(context: click.Context) -> str:
    """The command without the program's name."""
    above = context.parent
    own = context.info_name or ""
    return f"{_words(above)} {own}".strip() if above and above.parent else own


@click.group()
def snapshot() -> None:
    """Look at a backup, and make data directories from it."""


@snapshot.command("status")
@file_command
def status(file: Path, write_out: str) -> None:
    """Show what is in a backup or database file."""
    found = status_of(file)
    row = (
        f"{found.hash:x}",
        str(found.revision),
        str(found.total_key),
        go_text.human_bytes(found.total_size),
        found.version,
    )
    fields = {
        "hash": found.hash,
        "revision": found.revision,
        "totalKey": found.total_key,
        "totalSize": found.total_size,
        "version": found.version,
    }
    names = ("Hash", "Revision", "Keys", "Size", "Version")
    show(write_out, ("hash", "revision", "total keys", "total size", "version"), row, fields, names)


def status_of(file: Path) -> Status:
    """Check a file and count what is in it."""
    if etcd_file.is_etcd_file(file):
        theirs = etcd_file.contents(file)
        return Status(theirs.hash, theirs.revision, theirs.live_keys, theirs.size_bytes, theirs.version)
    found = restoring.digests(file)
    if found.stated and found.stated != found.actual:
        raise click.ClickException("snapshot file integrity check failed. 1 errors found.")
    ours = restoring.contents(file)
    crc, left = 0, found.content_bytes
    with file.open("rb") as opened:
        while left and (block := opened.read(min(left, _BLOCK_BYTES))):
            crc = int(google_crc32c.extend(crc, block))
            left -= len(block)
    return Status(crc, ours.revision, ours.live_keys, found.content_bytes, STORAGE_VERSION)


@snapshot.command("restore")
@click.option("--data-dir", default="", help="Where the member's data go; default is <name>.etcd.")
@click.option("--wal-dir", default="", help="Where the member's log goes; default is inside the data directory.")
@click.option("--name", default="default", show_default=True, help="Name of the member.")
@click.option("--initial-cluster", default="default=http://localhost:2380", show_default=True, help="All new members.")
@click.option("--initial-cluster-token", default="etcd-cluster", show_default=True, help="Tells clusters apart.")
@click.option("--initial-advertise-peer-urls", default="http://localhost:2380", show_default=True, help="Of this one.")
@click.option("--skip-hash-check", is_flag=True, help="Take files without a digest, as copied from a data directory.")
@click.option("--bump-revision", default=0, type=click.IntRange(0), help="Raise the revision by so much.")
@click.option("--mark-compacted", is_flag=True, help="Compact everything up to the raised revision.")
@click.option("--initial-memory-map-size", default=0, hidden=True)
@file_command
def restore_command(
    file: Path,
    _write_out: str,
    *,
    skip_hash_check: bool,
    bump_revision: int,
    mark_compacted: bool,
    initial_memory_map_size: int,
    **settings: str,
) -> None:
    """Make the data directory of one member of a new cluster."""
    if bool(bump_revision) != mark_compacted:
        raise BadArguments("--mark-compacted required if --revision-bump > 0")
    try:
        urls = settings.pop("initial_advertise_peer_urls").split(",")
        config = Config(initial_advertise_peer_urls=urls, **settings)  # type: ignore[arg-type]
        _ = config.initial_members
    except ValueError as error:
        raise BadArguments(str(error)) from error
    say("restoring snapshot", path=str(file), data_dir=config.data_dir)
    meta = restore(file, config, Wishes(skip_hash_check, bump_revision, mark_compacted))
    for member in meta.membership.ordered():
        peer_urls = list(member.peer_urls)
        say("added member", cluster_id=f"{meta.membership.cluster_id:x}", id=f"{member.id:x}", peer_urls=peer_urls)
    say("restored snapshot", path=str(file), data_dir=config.data_dir)


@click.command("hashkv", short_help="Show the hash of what is in a file.")
@click.option("--rev", default=0, help="Hash the keys as of this revision; default is the newest.")
@file_command
def hashkv(file: Path, write_out: str, *, rev: int) -> None:
    """Show the hash that a member with this file answers to HashKV."""
    theirs = etcd_file.is_etcd_file(file)
    if theirs:
        with BboltFile(file) as opened:
            compact_revision = etcd_file.compactions(opened).scheduled_compact
        revision = etcd_file.contents(file).revision
    else:
        ours = restoring.contents(file)
        revision, compact_revision = ours.revision, ours.compact_revision
    if rev > revision:
        raise click.ClickException(errors.FUTURE_REV.text.replace("etcdserver: ", ""))
    if 0 < rev < compact_revision:
        raise click.ClickException(errors.COMPACTED.text.replace("etcdserver: ", ""))
    hash_of = etcd_file.hash_kv if theirs else restoring.hash_of
    value = hash_of(file, rev or revision, compact_revision)
    row = (str(value), str(rev or revision), str(compact_revision))
    fields = {"hash": value, "hashRevision": rev or revision, "compactRevision": compact_revision}
    names = ("Hash", "HashRevision", "CompactRevision")
    show(write_out, ("hash", "hash revision", "compact revision"), row, fields, names)


@click.command("version")
def version() -> None:
    """Show the version of this program."""
    try:
        own = metadata.version("quorate")
    except metadata.PackageNotFoundError:
        own = "unknown"
    click.echo(f"quorateutl version: {own}\nAPI version: {API_VERSION}")


# --- showing ---


def show(
    write_out: str, header: Sequence[str], row: Sequence[str], fields: dict[str, Any], names: Sequence[str]
) -> None:
    """One line in a format of etcdutl."""
    match write_out:
        case "json":
            click.echo(json.dumps(fields, separators=(",", ":")))
        case "fields":
            for name, value in zip(names, fields.values(), strict=True):
                click.echo(f'"{name}" : {json.dumps(value)}')
        case "table":
            box(header, [row])
        case _:
            click.echo(", ".join(row))


def say(message: str, **fields: Any) -> None:
    """A line of progress as zap's console writes it."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    shown = json.dumps({name.replace("_", "-"): value for name, value in fields.items()})
    print(now, "info", message, shown, sep="\t", file=sys.stderr)
