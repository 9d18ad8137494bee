"""`completion`: scripts that complete commands and flags in a shell."""

import click

from quorate.ctl.failures import Failure
from quorate.ctl.flags import PROGRAM, Group, command
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


@click.group(cls=Group)
def completion() -> None:
    """Write a script that completes commands in a shell; source it."""


def _script(shell: str) -> str:
    from click.shell_completion import get_completion_class

    from quorate.ctl.quoratectl import cli

    kind = get_completion_class(shell)
    if kind is None:
        raise Failure(f"unknown shell {shell}")
    return kind(cli, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE").source()


@command("")
def bash(settings: Settings, words: tuple[str, ...]) -> None:
    """For bash."""
    line(_script("bash"))


@command("")
def zsh(settings: Settings, words: tuple[str, ...]) -> None:
    """For zsh."""
    line(_script("zsh"))


@command("")
def fish(settings: Settings, words: tuple[str, ...]) -> None:
    """For fish."""
    line(_script("fish"))


@command("")
def powershell(settings: Settings, words: tuple[str, ...]) -> None:
    """For PowerShell."""
    line(POWERSHELL.format(program=PROGRAM, variable=PROGRAM.upper()))


for one in (bash, zsh, fish, powershell):
    completion.add_command(one)
