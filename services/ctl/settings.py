"""The global flags, completed from the environment, and the client they describe."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from quorate.ctl import failures, go_text
from quorate.ctl.failures import Failure
from quorate.ctl.flags import GLOBAL_NAMES, Given

if TYPE_CHECKING:
    from quorate.client.aio import AsyncClient
    from quorate.client.endpoints import ChannelOptions
    from quorate.client.tls import TlsFiles
    from quorate.ctl.printers import Printer

T = TypeVar("T")
PREFIX: Final = "ETCDCTL_"
# Read elsewhere, or once common and without meaning since: nothing to warn of.
KNOWN: Final = frozenset({"ETCDCTL_API", "ETCDCTL_WATCH_KEY", "ETCDCTL_WATCH_RANGE_END"})
DURATIONS: Final = frozenset({"dial_timeout", "command_timeout", "keepalive_time", "keepalive_timeout"})
SWITCHES: Final = frozenset({"hex", "insecure_transport", "insecure_skip_tls_verify", "insecure_discovery", "debug"})
NUMBERS: Final = frozenset({"max_request_bytes", "max_recv_bytes"})
COMMAND_TIMEOUT_S: Final = 5.0
HIDDEN: Final = "***"
QUIET: Final = ("GRPC_VERBOSITY", "NONE")  # what gRPC would say on stderr, the last error of a command says too


@dataclass(frozen=True, slots=True)
class Settings:
    """What every command knows. Times are in seconds; `command_timeout` is None unless it was given."""

    endpoints: tuple[str, ...] = ("127.0.0.1:2379",)
    write_out: str = "simple"
    hex: bool = False
    dial_timeout: float = 2.0
    command_timeout: float | None = None
    keepalive_time: float = 2.0
    keepalive_timeout: float = 6.0
    max_request_bytes: int = 0
    max_recv_bytes: int = 0
    insecure_transport: bool = True
    insecure_skip_tls_verify: bool = False
    cert: str = ""
    key: str = ""
    cacert: str = ""
    user: str = ""
    password: str = ""
    discovery_srv: str = ""
    discovery_srv_name: str = ""
    insecure_discovery: bool = True
    debug: bool = False
    prompt: str = "Password: "  # no flag: which password is asked for

    @classmethod
    def gather(cls, given: Given, environ: Mapping[str, str] = os.environ) -> Settings:
        """From flags and environment; Failure when both say something, a warning for a variable nobody reads."""
        found: dict[str, Any] = dict(given)
        for variable, value in environ.items():
            name = variable.removeprefix(PREFIX).lower()
            if not variable.startswith(PREFIX) or variable in KNOWN:
                continue
            if name not in GLOBAL_NAMES or (not value and name not in given):
                _log("warn", "unrecognized environment variable", f"{variable}={value}")
            elif name in given:
                _log(
                    "fatal",
                    "conflicting environment variable is shadowed by corresponding command-line flag "
                    "(either unset environment variable or disable flag)",
                    variable,
                )
                raise Failure("", failures.ERROR)
            else:
                found[name] = _parsed(name, value)
        if "endpoints" in found:
            found["endpoints"] = tuple(one for text in found["endpoints"] for one in text.split(",") if text)
        settings = cls(**found)
        if settings.debug:
            for name in sorted(GLOBAL_NAMES):
                print(f"{PREFIX}{name.upper()}={_shown(name, getattr(settings, name))}", file=sys.stderr)
        return settings

    def printer(self) -> Printer:
        """What writes the answers in the wanted format."""
        from quorate.ctl.formats import choose

        return choose(self.write_out, self.hex)

    def all_endpoints(self) -> Sequence[str]:
        """The endpoints, looked up in DNS when that is wanted."""
        if not self.discovery_srv:
            return self.endpoints
        from quorate.ctl.discovery import discovered

        return discovered(self.discovery_srv, self.discovery_srv_name, self.insecure_discovery)

    def tls(self) -> TlsFiles | None:
        """The TLS files, None when TLS is wanted only where an endpoint says https."""
        from quorate.client.tls import TlsFiles

        domain = "" if self.insecure_discovery else self.discovery_srv
        files = TlsFiles(
            self.cacert or None,
            self.cert or None,
            self.key or None,
            skip_verify=self.insecure_skip_tls_verify,
            server_name=domain or None,
        )
        if domain or self.cacert or self.cert or self.key or not self.insecure_transport:
            return files
        named = any(endpoint.startswith("https://") for endpoint in self.endpoints)
        return files if self.insecure_skip_tls_verify and named else None

    def channel(self) -> ChannelOptions:
        """How connections behave."""
        from quorate.client.endpoints import RECEIVE_BYTES_MAX, SEND_BYTES_MAX, ChannelOptions

        return ChannelOptions(
            dial_timeout_s=self.dial_timeout,
            keepalive_time_s=self.keepalive_time,
            keepalive_timeout_s=self.keepalive_timeout,
            send_bytes_max=self.max_request_bytes or SEND_BYTES_MAX,
            receive_bytes_max=self.max_recv_bytes or RECEIVE_BYTES_MAX,
        )

    def client(self, endpoints: Sequence[str] | None = None, unlimited: bool = False) -> AsyncClient:
        """A client of these endpoints; `unlimited` calls end only with a --command-timeout that was given."""
        from quorate.client.aio import AsyncClient

        user, password = credentials(self.user, self.password, self.prompt)
        limit_s = self.command_timeout or (None if unlimited else COMMAND_TIMEOUT_S)
        return AsyncClient(
            endpoints if endpoints is not None else self.all_endpoints(),
            user=user,
            password=password,
            tls=self.tls(),
            timeout_s=limit_s,
            channel=self.channel(),
        )

    def run(
        self,
        work: Callable[[AsyncClient], Awaitable[T]],
        endpoints: Sequence[str] | None = None,
        unlimited: bool = False,
    ) -> T:
        """The result of some work with a client; whatever the cluster refuses becomes a Failure."""

        async def connected() -> T:
            async with self.client(endpoints, unlimited) as client:
                await signed_in(client, self.dial_timeout + COMMAND_TIMEOUT_S)
                return await work(client)

        return complete(connected())


async def signed_in(client: AsyncClient, within_s: float = COMMAND_TIMEOUT_S) -> None:
    """Sign the user in before the first call, because failing at that has its own exit status and its own limit."""
    from quorate.client.errors import EtcdError

    try:
        await client.connection.sign_in(time.monotonic() + within_s)
    except EtcdError as error:
        raise Failure(error.text, failures.BAD_CONNECTION) from error


def complete(work: Awaitable[T]) -> T:
    """Run to the end; an error of the cluster becomes a Failure."""
    from quorate.client.errors import EtcdError, NoEndpointsError

    async def whole() -> T:
        return await work

    try:
        return asyncio.run(whole())
    except NoEndpointsError as error:
        raise Failure(error.text, failures.BAD_CONNECTION) from error
    except EtcdError as error:
        raise Failure(error.text) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise Failure(f"open {error.filename}: {reason[:1].lower()}{reason[1:]}", failures.ERROR) from error


@cache  # a command that asks several endpoints asks the user once
def credentials(user: str, password: str, prompt: str = "Password: ") -> tuple[str | None, str | None]:
    """Name and password of `name[:password]`; a missing password is asked for."""
    if not user:
        return None, None
    if password:
        return user, password
    name, colon, inline = user.partition(":")
    return name, inline if colon else ask_password(prompt)


def ask_password(prompt: str) -> str:
    """A password from the terminal, or a line of standard input where there is no terminal."""
    if sys.stdin.isatty():
        return getpass.getpass(prompt)
    print(prompt, end="", flush=True)
    return sys.stdin.readline().rstrip("\n")


def _parsed(name: str, value: str) -> object:
    try:
        if name in DURATIONS:
            return go_text.parse_duration(value)
        if name in SWITCHES:
            return go_text.parse_bool(value)
        if name in NUMBERS:
            return go_text.parse_int(value, 0, signed=False)
    except ValueError as error:
        raise Failure(f'invalid value "{value}" for {PREFIX}{name.upper()}: {error}', failures.BAD_ARGUMENTS) from None
    return (value,) if name == "endpoints" else value


def _shown(name: str, value: object) -> str:
    if name == "password" and value:
        return HIDDEN
    if name == "user":
        user, colon, password = str(value).partition(":")
        return user + colon + HIDDEN * bool(password)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return go_text.duration(value)
    return f"[{','.join(value)}]" if isinstance(value, tuple) else str(value)


def _log(level: str, message: str, variable: str) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    line = {"level": level, "ts": now, "msg": message, "environment-variable": variable}
    print(json.dumps(line, separators=(",", ":")), file=sys.stderr)
