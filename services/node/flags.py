"""The command line of `quorate`: Go's flag syntax, one flag per setting of `config.Config`, and the words of --help.

What a flag is called, its kind, its default and its sentence come from the model; nothing is written down twice.
"""

from __future__ import annotations

import inspect
import math
import platform
import re
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from typing import Any, Final, get_args, get_type_hints

from quorate.node.config import DURATION, TEXT, URLS, WORDS, Bounds, Config

ETCD_VERSION: Final = "3.6.14"  # the release whose API, flags and texts are followed

EXPERIMENTAL_GATES: Final = {  # 3.5's flag -> the feature gate that took its place
    "experimental-initial-corrupt-check": "InitialCorruptCheck",
    "experimental-compact-hash-check-enabled": "CompactHashCheck",
    "experimental-enable-lease-checkpoint": "LeaseCheckpoint",
    "experimental-enable-lease-checkpoint-persist": "LeaseCheckpointPersist",
    "experimental-txn-mode-write-with-shared-buffer": "TxnModeWriteWithSharedBuffer",
    "experimental-stop-grpc-service-on-defrag": "StopGRPCServiceOnDefrag",
}

EXPERIMENTAL_NAMES: Final = (  # flags that 3.5 and 3.6 also know as --experimental-<name>
    "warning-apply-duration",
    "warning-unary-request-duration",
    "corrupt-check-time",
    "compact-hash-check-time",
    "compaction-batch-limit",
    "compaction-sleep-interval",
    "watch-progress-notify-interval",
    "downgrade-check-time",
    "max-learners",
    "memory-mlock",
    "bootstrap-defrag-threshold-megabytes",
    "enable-distributed-tracing",
    "distributed-tracing-address",
    "distributed-tracing-service-name",
    "distributed-tracing-instance-id",
    "distributed-tracing-sampling-rate",
    "snapshot-catchup-entries",
    "peer-skip-client-san-verification",
)

IGNORED: Final = frozenset(  # etcd takes these names of its first years and does nothing with them
    [
        "cluster-active-size",
        "cluster-remove-delay",
        "cluster-sync-interval",
        "config",
        "force",
        "max-result-buffer",
        "max-retry-attempts",
        "peer-heartbeat-interval",
        "peer-election-timeout",
        "retry-interval",
        "snapshot",
        "v",
        "vv",
    ]
)

HARMLESS: Final = {  # flags of older releases in the one form that asks for nothing: name -> accepted values
    "enable-v2": ("false", "f", "0"),
    "proxy": ("off",),
}

HIDDEN: Final = "***"  # in place of a password

OWN_FLAGS: Final = {  # flags that are no setting: name -> kind and sentence
    "config-file": (
        "str",
        "YAML or JSON file with the settings; all other flags and the environment are then ignored.",
    ),
    "version": ("bool", "Print the version and exit."),
}


class UsageError(Exception):
    """The command line cannot be parsed; exit 2 after the usage."""


class HelpAsked(Exception):  # noqa: N818 - it is no error
    """-h or --help was given."""


@dataclass(frozen=True)
class Flag:
    """One flag: its name, the attribute it fills, and how its text becomes a value."""

    name: str
    attribute: str
    kind: str  # str, int, bool, or one of config's DURATION, URLS, WORDS
    default: Any
    text: str
    heading: str
    bounds: Bounds | None

    def excess(self, value: int) -> str:
        """What is wrong with a number that is out of the bounds, in Go's words; empty when it is within."""
        if self.bounds is None:
            return ""
        if value < self.bounds.lowest:
            return "parse error" if value < 0 else "value out of range"
        return "value out of range" if value > (self.bounds.highest or value) else ""


def _default(setting: Field[Any]) -> Any:
    return setting.default if setting.default_factory is MISSING else setting.default_factory()


def _flags() -> dict[str, Flag]:
    headings = {
        attribute: group.__name__
        for group in reversed(Config.__mro__)
        if is_dataclass(group) and group is not Config
        for attribute in inspect.get_annotations(group)
    }
    types = get_type_hints(Config, include_extras=True)
    flags = {}
    for one in fields(Config):
        base, *notes = get_args(types[one.name]) or (types[one.name],)
        kind = next((note for note in notes if isinstance(note, str)), base.__name__)
        bounds = next((note for note in notes if isinstance(note, Bounds)), None)
        name = one.name.replace("_", "-")
        flags[name] = Flag(name, one.name, kind, _default(one), one.metadata[TEXT], headings[one.name], bounds)
    return flags


FLAGS: Final = _flags()


@dataclass
class CommandLine:
    """What stands on the command line: the text of each flag, the last one winning, and the first positional word."""

    values: dict[str, str] = field(default_factory=dict)
    positional: str | None = None


def known(name: str) -> bool:
    return name in FLAGS or name in OWN_FLAGS or name in IGNORED or name in HARMLESS or target(name) is not None


def shown(name: str, text: str) -> str:
    """The text of a flag as a log may have it: without passwords."""
    if name == "discovery-user":
        user, colon, password = text.partition(":")
        return user + colon + HIDDEN * bool(password)
    return HIDDEN if name == "discovery-password" and text else text


def shown_arguments(arguments: list[str]) -> list[str]:
    """A command line as a log may have it: without passwords."""
    found, before = [], ""
    for argument in arguments:
        name, equals, text = argument.lstrip("-").partition("=")
        is_flag = argument.startswith("-") and bool(equals)
        found.append(argument.removesuffix(text) + shown(name, text) if is_flag else shown(before, argument))
        before = "" if equals or not argument.startswith("-") else name
    return found


def target(name: str) -> Flag | None:
    """The flag that `--experimental-...` is the old name of, None when it is none."""
    base = name.removeprefix("experimental-")
    return FLAGS[base] if base != name and base in EXPERIMENTAL_NAMES else None


def kind_of(name: str) -> str:
    """How the text of the flag `name` is read."""
    if name in FLAGS:
        return FLAGS[name].kind
    if name in OWN_FLAGS:
        return OWN_FLAGS[name][0]
    if name in EXPERIMENTAL_GATES or name in ("enable-v2", "force", "v", "vv", "snapshot"):
        return "bool"
    flag = target(name)
    return flag.kind if flag else "str"


def parse_arguments(arguments: list[str]) -> CommandLine:
    """Go's flag package: -x or --x, =value or the next word, booleans alone; ends at the first word without a dash."""
    line = CommandLine()
    rest = iter(arguments)
    for word in rest:
        if len(word) < 2 or not word.startswith("-"):
            line.positional = word
            break
        if word == "--":
            line.positional = next(rest, None)
            break
        name, separator, value = word.lstrip("-").partition("=") if word[:3] != "---" else ("", "", "")
        if not name or name.startswith("-") or word.startswith(("-=", "--=")):
            raise UsageError(f"bad flag syntax: {word}")
        if name in ("h", "help"):
            raise HelpAsked
        if not (known(name) or name in EXPERIMENTAL_GATES):
            raise UsageError(f"flag provided but not defined: -{name}")
        if not separator and kind_of(name) == "bool":
            value = "true"
        elif not separator:
            following = next(rest, None)
            if following is None:
                raise UsageError(f"flag needs an argument: -{name}")
            value = following
        check_text(name, value)
        line.values[name] = value
    return line


def check_text(name: str, value: str) -> None:
    """UsageError when `value` cannot be read as what the flag `name` takes."""
    kind = kind_of(name)
    try:
        if name in HARMLESS and value.lower() not in HARMLESS[name]:
            raise ValueError(f"only {HARMLESS[name][0]} is supported")
        read_value(kind, value, may_be_empty=name not in ("listen-peer-urls", "listen-client-urls"))
        if name == "initial-cluster-state" and value not in ("new", "existing"):
            raise ValueError("invalid value")
        if name in FLAGS and FLAGS[name].kind == "int" and (excess := FLAGS[name].excess(int(value, 0))):
            raise ValueError(excess)
    except ValueError as error:
        if kind == "bool":
            raise UsageError(f'invalid boolean value "{value}" for -{name}: {error}') from None
        raise UsageError(f'invalid value "{value}" for flag -{name}: {error}') from None


_BOOLEANS: Final = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}


def read_value(kind: str, text: str, *, may_be_empty: bool = True) -> Any:
    """The value that `text` means for a flag of this kind; ValueError with Go's words."""
    if kind == "bool":
        if text not in _BOOLEANS:
            raise ValueError("parse error")
        return _BOOLEANS[text]
    if kind == "int":
        try:
            return int(text, 0)
        except ValueError:
            raise ValueError("parse error") from None
    if kind == DURATION:
        return duration_ms(text)
    if kind == URLS:
        return read_urls(text, may_be_empty=may_be_empty)
    if kind == WORDS:
        return [word.strip() for word in text.split(",") if word.strip()]
    return text


_DURATION_PART: Final = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_UNIT_NS: Final = {"ns": 1, "us": 1e3, "µs": 1e3, "μs": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9}


def duration_ns(text: str) -> int:
    """Nanoseconds of a Go duration such as 1h2m3.5s; ValueError on anything else."""
    sign = -1 if text.startswith("-") else 1
    unsigned = text.removeprefix("-") if sign < 0 else text.removeprefix("+")
    if unsigned == "0":
        return 0
    parts = _DURATION_PART.findall(unsigned)
    if not parts or "".join(number + unit for number, unit in parts) != unsigned:
        raise ValueError("parse error")
    total_ns = sum(float(number) * _UNIT_NS[unit] for number, unit in parts)
    if total_ns >= 1 << 63:  # Go's durations are signed numbers of 64 bits
        raise ValueError("parse error")
    return sign * round(total_ns)


def duration_ms(text: str) -> int:
    """Whole milliseconds of a Go duration; what is shorter counts as one."""
    return math.ceil(duration_ns(text) / 1e6)


def duration_text(milliseconds: int) -> str:
    """Milliseconds as Go prints a duration."""
    if milliseconds % 1000:
        return f"{milliseconds}ms" if milliseconds < 1000 else f"{milliseconds / 1000:g}s"
    seconds = milliseconds // 1000
    hours, minutes, seconds = seconds // 3600, seconds // 60 % 60, seconds % 60
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{seconds}s"


PORT_MAX: Final = 65535
_URL: Final = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[^/?#]*)(?P<path>[^?#]*)", re.IGNORECASE)
_HOST_PORT: Final = re.compile(r"(\[[0-9a-fA-F:.%\w]+\]|[^:\[\]]*):(\d*)")


def read_urls(text: str, *, may_be_empty: bool = True) -> list[str]:
    """The URLs of a comma list, sorted and each once as etcd keeps them; ValueError with etcd's words."""
    urls = [url.strip() for url in text.split(",") if url.strip()]
    if not urls and not may_be_empty:
        raise ValueError("no valid URLs given")
    for url in urls:
        match = _URL.fullmatch(url)
        if match is None or match["scheme"] not in ("http", "https", "unix", "unixs"):
            raise ValueError(f"URL scheme must be http, https, unix, or unixs: {url}")
        if match["scheme"] in ("unix", "unixs"):
            continue
        if not _HOST_PORT.fullmatch(match["host"]):
            raise ValueError(f'URL address does not have the form "host:port": {url}')
        if match["path"]:
            raise ValueError(f"URL must not contain a path: {url}")
        if port_of(url) > PORT_MAX:
            raise ValueError(f"port of a URL must be at most {PORT_MAX}: {url}")
    return sorted(set(urls))


def is_encrypted(url: str) -> bool:
    """The URL asks for TLS."""
    return url.startswith(("https://", "unixs://"))


def host_of(url: str) -> str:
    """The host of a URL that `read_urls` accepted, without the brackets of an IPv6 address."""
    host = url.partition("://")[2].rpartition(":")[0]
    return host.removeprefix("[").removesuffix("]")


def port_of(url: str) -> int:
    """The port of a URL that `read_urls` accepted; 0 when it is empty."""
    return int(url.rpartition(":")[2] or "0")


USAGE: Final = """Usage:

  quorate [flags]
    Start a node.

  quorate --version
    Show the version.

  quorate -h | --help
    Show all flags.

  quorate --config-file FILE
    Take the settings from a YAML or JSON file; other flags and the environment are then ignored.

  quorate gateway start [flags]
    Pass TCP connections on to members that answer.

  quorate grpc-proxy start [flags]
    Pass gRPC calls on to members that answer, below a prefix of keys if wanted.
"""


def help_text() -> str:
    """Usage and every flag, sorted under its heading, with its default."""
    lines = [USAGE, "Every flag is also an environment variable: --max-txn-ops is ETCD_MAX_TXN_OPS.", ""]
    headings = dict.fromkeys(flag.heading for flag in FLAGS.values())
    for heading in headings:
        lines.append(f"{heading}:")
        for flag in sorted((flag for flag in FLAGS.values() if flag.heading == heading), key=lambda flag: flag.name):
            lines += _help_lines(flag.name, _default_text(flag), flag.text)
        lines.append("")
    lines.append("Other:")
    for name, (_kind_name, text) in sorted(OWN_FLAGS.items()):
        lines += _help_lines(name, "", text)
    return "\n".join(lines)


def _help_lines(name: str, default: str, text: str) -> list[str]:
    return [f"  --{name} {default}".rstrip(), f"    {text}"]


def _default_text(flag: Flag) -> str:
    value = flag.default
    if flag.kind == DURATION:
        return f"'{duration_text(value)}'"
    if isinstance(value, bool):
        return f"'{str(value).lower()}'"
    if isinstance(value, list):
        return f"'{','.join(value)}'"
    return f"'{value}'"


def version_text(release: str) -> str:
    """The four lines of --version, in etcd's form."""
    system, machine = platform.system().lower(), platform.machine()
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
    return "\n".join(
        [
            f"etcd Version: {ETCD_VERSION}",
            f"Git SHA: quorate-{release}",
            f"Go Version: none, Python {platform.python_version()}",
            f"Go OS/Arch: {system}/{architecture}",
        ]
    )
