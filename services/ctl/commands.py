"""etcdctl's way of reading a command line, built on click.

Global flags stand before or after the command, a command may be shortened as long as it stays unambiguous, and a
boolean flag takes a value only after `=`. Command modules are imported when their command is run.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import click

from quorate.ctl import go_text
from quorate.ctl.failures import Failure
from quorate.ctl.flags import GLOBAL, Switch, switched_off
from quorate.ctl.settings import Settings

PROGRAM: Final = "quoratectl"
SHORT_WITH_VALUE: Final = re.compile(r"-[wd]=.")
HELP: Final = {"help_option_names": ["-h", "--help"]}


class Command(click.Command):
    """A command with the global flags and any number of words, which it counts itself."""

    def __init__(self, name: str, usage: str, parameters: Sequence[click.Parameter], **rest: Any) -> None:
        words = click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)
        super().__init__(name, params=[*parameters, *GLOBAL, words], context_settings=HELP, **rest)
        self._usage = usage

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[flags]", self._usage] if self._usage else ["[flags]"]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _switches_spelled_out(self, args))

    def read(self, tokens: Sequence[str]) -> dict[str, Any]:
        """What the flags and words mean, without running anything."""
        return self.make_context(str(self.name), list(tokens)).params


def command(
    usage: str, *parameters: click.Parameter, name: str | None = None, keeps_dashes: bool = False
) -> Callable[[Callable[..., None]], Command]:
    """Make a command of a function (settings, words, **flags); `usage` is what follows its flags.

    With `keeps_dashes` everything from a `--` on stays in the words, the `--` included.
    """

    def wrap(function: Callable[..., None]) -> Command:
        def callback(words: tuple[str, ...], **flags: Any) -> None:
            function(Settings.gather(click.get_current_context().ensure_object(dict)), words, **flags)

        kind = _DashKeeper if keeps_dashes else Command
        shown = name or function.__name__.strip("_").replace("_", "-")
        return kind(shown, usage, parameters, callback=callback, help=function.__doc__)

    return wrap


class _DashKeeper(Command):
    """A command whose words after `--` are another command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        cut = args.index("--") if "--" in args else len(args)
        rest = super().parse_args(ctx, args[:cut])
        ctx.params["words"] = (*ctx.params["words"], *args[cut:])
        return rest


class Group(click.Group):
    """Commands under a name; each is found by any unambiguous beginning."""

    def __init__(self, *args: Any, **rest: Any) -> None:
        super().__init__(*args, context_settings=HELP, **rest)
        self.params = [*self.params, *GLOBAL]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _switches_spelled_out(self, args))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        matches = [name for name in self.list_commands(ctx) if name.startswith(args[0])]
        chosen = args[0] if args[0] in matches else matches[0] if len(matches) == 1 else None
        found = self.get_command(ctx, chosen) if chosen else None
        if found is None:
            path = ctx.command_path
            raise Failure(f'unknown command "{args[0]}" for "{path}"\nRun \'{path} --help\' for usage.')
        return found.name, found, args[1:]


class LazyGroup(Group):
    """Commands that are imported when they are needed: name -> (`module:attribute`, one line about it)."""

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]], **rest: Any) -> None:
        super().__init__(*args, **rest)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lazy:
            return None
        module, _, attribute = self._lazy[cmd_name][0].partition(":")
        found: click.Command = getattr(importlib.import_module(module), attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._lazy[name][1]) for name in self.list_commands(ctx)])


def _switches_spelled_out(owner: click.Command, args: list[str]) -> list[str]:
    """`--x=true` and `--x=false` of boolean flags, and `-x=value`, in the forms click knows."""
    switches = {max(one.opts, key=len) for one in owner.params if isinstance(one, Switch)}
    spelled: list[str] = []
    for position, word in enumerate(args):
        if word == "--":
            return spelled + args[position:]
        name, equals, value = word.partition("=")
        if equals and name in switches:
            try:
                word = name if go_text.parse_bool(value) else switched_off(name)
            except ValueError as error:
                raise Failure(f'invalid argument "{value}" for "{name}" flag: {error}') from None
        if SHORT_WITH_VALUE.match(word):
            word = word[:2] + word[3:]
        spelled.append(word)
    return spelled
