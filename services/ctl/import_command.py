"""`quorateutl import`: a running etcd into another cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from quorate.ctl.failures import Failure
from quorate.ctl.settings import QUIET, Settings, complete, credentials

CALL_S: Final = 30.0  # for one answer of either side, with all repetitions
OPERATIONS_MAX: Final = 128  # what members take in a transaction unless they are told otherwise
SEND_BYTES_MAX: Final = 64 << 20

F = TypeVar("F", bound=Callable[..., Any])


def side_options(prefix: str, which: str) -> Callable[[F], F]:
    """Flags of one of the two clusters: how to be trusted and as whom to come."""

    def add(function: F) -> F:
        for name, text in (
            ("password", "password, if the user has none beside it"),
            ("user", "name[:password]; a missing password is asked for"),
            ("key", "key of that certificate, PEM"),
            ("cert", "certificate to show, PEM"),
            ("cacert", "authorities to trust, PEM"),
        ):
            function = click.option(f"--{prefix}{name}", default="", help=f"{which}: {text}.")(function)
        skip = f"--{prefix}insecure-skip-tls-verify"
        return click.option(skip, is_flag=True, help=f"{which}: trust whatever certificate it shows.")(function)

    return add


@click.command("import", short_help="Copy a running etcd into another cluster.")
@click.option("--endpoints", required=True, help="Source: client URLs, joined by commas.")
@side_options("", "Source")
@click.option("--to", required=True, help="Destination: client URLs, joined by commas.")
@side_options("to-", "Destination")
@click.option("--follow", is_flag=True, help="Go on with every change until SIGINT or SIGTERM, then finish.")
@click.option("--overwrite", is_flag=True, help="Take a destination that has keys; what the source has not is deleted.")
@click.option("--users/--no-users", default=True, show_default=True, help="Import users and roles.")
@click.option("--passwords", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Lines name:password.")
@click.option("--ask-passwords", is_flag=True, help="Ask for passwords the file does not have; empty: none.")
@click.option("--remaining-ttl", is_flag=True, help="Grant leases what is left of them, not their whole TTL.")
@click.option("--max-txn-ops", default=OPERATIONS_MAX, type=click.IntRange(2), show_default=True, help="As there.")
def import_command(
    endpoints: str,
    to: str,
    follow: bool,
    overwrite: bool,
    users: bool,
    passwords: Path | None,
    ask_passwords: bool,
    remaining_ttl: bool,
    max_txn_ops: int,
    **sides: Any,
) -> None:
    """Copy a running etcd (or Quorate) into another cluster: keys, leases, users and roles.

    All keys are read as of one revision, then every change after it. Killed at any point and started again, the
    command goes on where it was. Revisions begin anew; passwords cannot be read (see --passwords).
    """
    os.environ.setdefault(*QUIET)
    from quorate.ctl import import_live, import_users  # they need gRPC, which takes its time

    try:
        given = import_users.read_passwords(passwords) if passwords else {}
        wishes = import_live.Wishes(follow, overwrite, users, given, ask_passwords, remaining_ttl, max_txn_ops)
        theirs = {name.removeprefix("to_"): value for name, value in sides.items() if name.startswith("to_")}
        ours = {name: value for name, value in sides.items() if not name.startswith("to_")}
        complete(import_live.run(_settings(endpoints, ours, "source"), _settings(to, theirs, "destination"), wishes))
    except Failure as failure:
        for note in getattr(failure.__cause__, "__notes__", ()):  # why there was no connection
            click.echo(note, err=True)
        raise click.ClickException(failure.text) from failure


def _settings(endpoints: str, flags: Mapping[str, Any], name: str) -> Settings:
    settings = Settings(
        endpoints=tuple(one for one in endpoints.split(",") if one),
        command_timeout=CALL_S,
        max_request_bytes=SEND_BYTES_MAX,
        **flags,
    )
    user, password = credentials(settings.user, settings.password, f"Password of {settings.user} at the {name}: ")
    return replace(settings, user=user or "", password=password or "")
