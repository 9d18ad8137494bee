"""Kinds of flags as Go reads their values, and the flags that every command has."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from quorate.ctl import go_text
from quorate.ctl.failures import Failure

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # generic only in newer versions

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
        super().__init__(
            [*names[:-1], f"{long}/{switched_off(long)}"], default=default, help=help, is_flag=True, **rest
        )

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        return ", ".join(self.opts), self.help or ""


def switched_off(name: str) -> str:
    """The form in which click knows `--x=false`."""
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
