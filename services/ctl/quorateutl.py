"""`quorateutl`: the commands that work on files, and the import from another cluster."""

from __future__ import annotations

import click

from quorate.ctl.backup import hashkv, snapshot, version
from quorate.ctl.certificates import cert
from quorate.ctl.completion import offline_completion
from quorate.ctl.import_command import import_command
from quorate.ctl.offline import defrag, migrate


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-w", "--write-out", default="simple", show_default=True, help="simple, json, fields or table.")
@click.pass_context
def main(context: click.Context, write_out: str) -> None:
    """Administrative commands that work on files, and the way from another cluster into this one."""
    context.obj = {"write_out": write_out}


main.add_command(cert)
main.add_command(offline_completion)
main.add_command(defrag)
main.add_command(hashkv)
main.add_command(import_command)
main.add_command(migrate)
main.add_command(snapshot)
main.add_command(version)

if __name__ == "__main__":
    main()
