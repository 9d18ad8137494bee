"""Flags as Go's programs read them: durations such as 1m30s, and booleans that stand alone or with a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from quorate.node import flags
from quorate.node.config import DURATION, WORDS

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # generic only in newer versions

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


class _Kind(_ParamType):
    """A kind of value that the server's flags have too."""

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return flags.read_value(self._kind, value)
        except ValueError as error:
            return self.fail(f'invalid value "{value}": {error}', param, ctx)


_DURATION = _Kind("duration", DURATION)
_BOOLEAN = _Kind("boolean", "bool")
_WORDS = _Kind("list", WORDS)


def text(name: str, default: str, help_text: str) -> Decorator:
    """A flag with a text."""
    return click.option(name, default=default, show_default=bool(default), help=help_text)


def number(name: str, default: int, help_text: str) -> Decorator:
    """A flag with an integer."""
    return click.option(name, default=default, type=int, show_default=True, help=help_text)


def duration(name: str, default: str, help_text: str) -> Decorator:
    """A flag with a time; the command gets whole milliseconds."""
    return click.option(name, default=default, type=_DURATION, show_default=True, help=help_text)


def switch(name: str, help_text: str, *, default: bool = False) -> Decorator:
    """A flag that is on when it stands alone."""
    return click.option(
        name, default=str(default).lower(), type=_BOOLEAN, is_flag=False, flag_value="true", help=help_text
    )


def words(name: str, default: str, help_text: str) -> Decorator:
    """A flag with texts separated by commas."""
    return click.option(name, default=default, type=_WORDS, show_default=True, help=help_text)


def every(*decorators: Decorator) -> Decorator:
    """Several flags at once, listed in --help in this order."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


DISCOVERY = every(
    text("--discovery-srv", "", "Domain whose SRV records name the endpoints."),
    text("--discovery-srv-name", "", "Service name in the SRV records."),
    switch("--insecure-discovery", "Take endpoints from SRV records without verifying their certificates."),
)
