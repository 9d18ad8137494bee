"""`quorateutl`: the commands that need no running node."""

from __future__ import annotations

import click

from quorate.ctl.certificates import cert


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Administrative commands that work on files, not on a running node."""


main.add_command(cert)

if __name__ == "__main__":
    main()
