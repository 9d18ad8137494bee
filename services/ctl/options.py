"""`options`: the flags every command takes."""

import click

from quorate.ctl.commands import command
from quorate.ctl.flags import GLOBAL
from quorate.ctl.printers import line
from quorate.ctl.settings import Settings


@command("")
def options(settings: Settings, words: tuple[str, ...]) -> None:
    """List the global flags; each is also read from ETCDCTL_ and its name in capitals."""
    context = click.get_current_context()
    formatter = context.make_formatter()
    with formatter.section("Global flags"):
        formatter.write_dl([record for flag in GLOBAL if (record := flag.get_help_record(context))])
    line(formatter.getvalue().rstrip())
