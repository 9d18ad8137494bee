"""etcdctl's way of reading a command line, built on click.

Global flags stand before or after the command, a command may be shortened as long as it stays unambiguous, and a
boolean flag takes a value only after `=`. Command modules are imported when their command is run.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from quorate.ctl import go_text
from quorate.ctl.failures import Failure

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # generic only in newer versions

PROGRAM: Final = "quoratectl"
Given = dict[str, Any]  # global flags that stood on the command line


class _Converted(_ParamType):
    """A value that Go would parse; a wrong one is refused in pflag's words."""

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> object:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            shown = max(param.opts, key=len) if param else ""
            raise Failure(f'invalid argument "{value}" for "{shown}" flag: {error}') from None


INT: Final = _Converted("int", lambda text: go_text.parse_int(text, 0))
UINT: Final = _Converted("uint", lambda text: go_text.parse_int(text, 0, signed=False))
DURATION: Final = _Converted("duration", go_text.parse_duration)


class Switch(click.Option):
    """A boolean flag: `--x`, or `--x=true` and `--x=false`."""

    def __init__(self, *names: str, default: bool = False, help: str = "", **rest: Any) -> None:  # noqa: A002 - as click has it
        long = max(names, key=len)
        super().__init__([*names[:-1], f"{long}/{_off(long)}"], default=default, help=help, is_flag=True, **rest)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        return ", ".join(self.opts), self.help or ""


def _off(name: str) -> str:
    return f"--not-{name.lstrip('-')}"


def text(*names: str, default: str = "", help: str = "") -> click.Option:  # noqa: A002 - as click has it
    """A flag with a text."""
    return click.Option(names, default=default, help=help)


def number(*names: str, default: int = 0, help: str = "") -> click.Option:  # noqa: A002 - as click has it
    """A flag with an integer."""
    return click.Option(names, default=default, type=INT, help=help)


def _keep(ctx: click.Context, param: click.Parameter, value: object) -> None:
    if ctx.get_parameter_source(str(param.name)) is click.core.ParameterSource.COMMANDLINE:
        ctx.ensure_object(dict)[param.name] = value


def _global_parameters() -> list[click.Parameter]:
    kept: Given = {"expose_value": False, "callback": _keep}

    def option(*names: str, **rest: Any) -> click.Option:
        return click.Option(names, **kept, **rest)

    return [
        option("--endpoints", multiple=True, help="gRPC endpoints [127.0.0.1:2379]"),
        option("-w", "--write-out", help="output format: fields, json, protobuf, simple, table [simple]"),
        Switch("--hex", help="print byte strings as hex encoded strings", **kept),
        option("--dial-timeout", type=DURATION, help="time to make a connection [2s]"),
        option("--command-timeout", type=DURATION, help="time for a short command, without the connection [5s]"),
        option("--keepalive-time", type=DURATION, help="time between pings of an idle connection [2s]"),
        option("--keepalive-timeout", type=DURATION, help="time to wait for the answer to a ping [6s]"),
        option("--max-request-bytes", type=UINT, help="most bytes to send in a request [0: 2 MiB]"),
        option("--max-recv-bytes", type=UINT, help="most bytes to receive in an answer [0: 2 GiB]"),
        Switch("--insecure-transport", default=True, help="no TLS unless an endpoint says https [true]", **kept),
        Switch("--insecure-skip-tls-verify", help="trust whatever certificate the server shows (tests only)", **kept),
        option("--cert", help="certificate of this client, PEM"),
        option("--key", help="key of this client's certificate, PEM"),
        option("--cacert", help="authorities to trust, PEM"),
        option("--user", help="name[:password]; a missing password is asked for"),
        option("--password", help="password, if --user has none"),
        option("-d", "--discovery-srv", help="domain whose SRV records name the endpoints"),
        option("--discovery-srv-name", help="service name in the SRV records"),
        Switch("--insecure-discovery", default=True, help="accept SRV records without TLS [true]", **kept),
        Switch("--debug", help="say what is done on standard error", **kept),
    ]


GLOBAL: Final = tuple(_global_parameters())
GLOBAL_NAMES: Final = tuple(str(parameter.name) for parameter in GLOBAL)


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


HELP: Final = {"help_option_names": ["-h", "--help"]}


def command(
    usage: str, *parameters: click.Parameter, name: str | None = None, keeps_dashes: bool = False
) -> Callable[[Callable[..., None]], Command]:
    """Make a command of a function (settings, words, **flags); `usage` is what follows its flags.

    With `keeps_dashes` everything from a `--` on stays in the words, the `--` included.
    """

    def wrap(function: Callable[..., None]) -> Command:
        def callback(words: tuple[str, ...], **flags: Any) -> None:
            from quorate.ctl.settings import Settings

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
    """`--x=true` and `--x=false` of boolean flags in the two forms click knows."""
    switches = {max(one.opts, key=len) for one in owner.params if isinstance(one, Switch)}
    spelled: list[str] = []
    for position, word in enumerate(args):
        if word == "--":
            return spelled + args[position:]
        name, equals, value = word.partition("=")
        if equals and name in switches:
            try:
                word = name if go_text.parse_bool(value) else _off(name)
            except ValueError as error:
                raise Failure(f'invalid argument "{value}" for "{name}" flag: {error}') from None
        spelled.append(word)
    return spelled
