"""`completion`: scripts that complete commands and flags in a shell."""

from typing import Final

import click

from quorate.ctl.commands import PROGRAM, Group, command
from quorate.ctl.printers import line
from quorate.ctl.settings import Settings

POWERSHELL = """Register-ArgumentCompleter -Native -CommandName {program} -ScriptBlock {{
    param($word, $tree, $position)
    $env:_{variable}_COMPLETE = "bash_complete"
    $env:COMP_WORDS = $tree.ToString()
    $env:COMP_CWORD = $tree.CommandElements.Count - [int]($word -ne "")
    {program} | ForEach-Object {{ $_.Split(",")[-1] }} | ForEach-Object {{
        [System.Management.Automation.CompletionResult]::new($_, $_, "ParameterValue", $_)
    }}
    Remove-Item Env:_{variable}_COMPLETE
}}"""


SHELLS: Final = ("bash", "zsh", "fish", "powershell")


def script(shell: str, cli: click.Command, program: str) -> str:
    """What a user sources to have the words of `program` completed."""
    variable = program.upper()
    if shell == "powershell":
        return POWERSHELL.format(program=program, variable=variable)
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None, "the shell is one of click's"
    return kind(cli, {}, program, f"_{variable}_COMPLETE").source()


@click.group(cls=Group)
def completion() -> None:
    """Write a script that completes commands in a shell; source it."""


def _for(shell: str) -> click.Command:
    def write(settings: Settings, words: tuple[str, ...]) -> None:
        from quorate.ctl.quoratectl import cli

        line(script(shell, cli, PROGRAM))

    write.__doc__ = f"For {shell}."
    return command("", name=shell)(write)


for shell in SHELLS:
    completion.add_command(_for(shell))


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def offline_completion(context: click.Context, shell: str) -> None:
    """Write a script that completes commands in a shell; source it."""
    root = context.find_root()
    click.echo(script(shell, root.command, "quorateutl"))
