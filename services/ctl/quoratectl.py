"""`quoratectl`: the commands for a running cluster, with etcdctl's names, flags, outputs and exit statuses."""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import Final

import click

from quorate.ctl import failures
from quorate.ctl.commands import PROGRAM, LazyGroup
from quorate.ctl.failures import Failure
from quorate.ctl.settings import QUIET

COMMANDS: Final = {
    "alarm": ("quorate.ctl.alarm:alarm", "Alarm related commands"),
    "auth": ("quorate.ctl.auth:auth", "Enable or disable authentication"),
    "check": ("quorate.ctl.check:check", "Checking the performance and memory usage of a cluster"),
    "compaction": ("quorate.ctl.maintenance:compaction", "Forgets the history before a revision"),
    "completion": ("quorate.ctl.completion:completion", "Writes a script that completes commands in a shell"),
    "defrag": ("quorate.ctl.maintenance:defrag", "Gives free space of the members' databases back"),
    "del": ("quorate.ctl.kv:delete", "Removes a key or a range of keys"),
    "downgrade": ("quorate.ctl.maintenance:downgrade", "Prepares the cluster for an older version"),
    "elect": ("quorate.ctl.lock:elect", "Takes part in a leader election or observes it"),
    "endpoint": ("quorate.ctl.endpoint:endpoint", "Endpoint related commands"),
    "get": ("quorate.ctl.kv:get", "Reads a key or a range of keys"),
    "lease": ("quorate.ctl.lease:lease", "Lease related commands"),
    "lock": ("quorate.ctl.lock:lock", "Takes a named lock"),
    "make-mirror": ("quorate.ctl.mirror:make_mirror", "Copies keys to another cluster and keeps the copy up to date"),
    "member": ("quorate.ctl.member:member", "Membership related commands"),
    "move-leader": ("quorate.ctl.maintenance:move_leader", "Hands leadership to another member"),
    "options": ("quorate.ctl.options:options", "Lists the global flags"),
    "put": ("quorate.ctl.kv:put", "Stores a key"),
    "role": ("quorate.ctl.role:role", "Role related commands"),
    "snapshot": ("quorate.ctl.snapshot:snapshot", "Saves an image of a member's database"),
    "txn": ("quorate.ctl.txn:txn", "Does several requests in one transaction"),
    "user": ("quorate.ctl.user:user", "User related commands"),
    "version": ("quorate.ctl.version:version", "Prints the version of quoratectl"),
    "watch": ("quorate.ctl.watch:watch", "Tells what happens to keys"),
}

cli = LazyGroup(PROGRAM, lazy=COMMANDS, help="A command line client for Quorate and etcd.")


def main() -> None:
    """Run the command of the arguments and exit with its status."""
    os.environ.setdefault(*QUIET)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # keys and values are bytes, whatever the locale says
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interrupted command dies of the signal, as etcdctl does
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit status of a command; what failed is on standard error."""
    try:
        status = cli.main(arguments, prog_name=PROGRAM, standalone_mode=False)
    except Failure as failure:
        for note in getattr(failure.__cause__, "__notes__", ()):  # why there was no connection
            print(note, file=sys.stderr)
        if failure.text:
            print(f"Error: {failure.text}", file=sys.stderr)
        return failure.status
    except click.ClickException as wrong:
        print(f"Error: {_pflag_words(wrong)}", file=sys.stderr)
        if isinstance(wrong, click.UsageError) and wrong.ctx is not None:
            print(f"Run '{wrong.ctx.command_path} --help' for usage.", file=sys.stderr)
        return failures.ERROR
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return failures.ERROR
    return status if isinstance(status, int) else 0


def _pflag_words(wrong: click.ClickException) -> str:
    if isinstance(wrong, click.NoSuchOption):
        name = wrong.option_name
        return f"unknown flag: {name}" if name.startswith("--") else f"unknown shorthand flag: '{name[1:]}'"
    if isinstance(wrong, click.BadOptionUsage):
        return f"flag needs an argument: {wrong.option_name}"
    return wrong.format_message()


if __name__ == "__main__":
    main()
