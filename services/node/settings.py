"""Where settings come from: the command line, before ETCD_* variables, before defaults; or a file, before everything.

The rules and texts are etcd's. Nothing is logged here, as the log's own settings are not known yet: what is to be
said is collected as notes, which the launcher writes.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from quorate.node import flags
from quorate.node.config import (
    DEFAULT_CLIENT_URL,
    DEFAULT_PEER_URL,
    DURATION,
    URLS,
    WORDS,
    Config,
)
from quorate.node.flags import EXPERIMENTAL_GATES, FLAGS, CommandLine
from quorate.node.validation import Invalid

ENVIRONMENT_PREFIX: Final = "ETCD_"

CONFLICT: Final = (
    "conflicting environment variable is shadowed by corresponding command-line flag "
    "(either unset environment variable or disable flag))"
)

SECRET: Final = re.compile(r"PASS|SECRET|TOKEN|KEY|CREDENTIAL")  # in names that images of etcd give to variables

PEER_TIMEOUT_MS_MIN: Final = 5_000


class Conflict(Exception):  # noqa: N818 - a fatal line of its own, not a failed verification
    """A variable is set for a flag that is also on the command line."""

    def __init__(self, variable: str) -> None:
        super().__init__(CONFLICT)
        self.variable = variable


@dataclass
class Note:
    """A line for the log: its level, its message and its fields."""

    level: str
    message: str
    fields: dict[str, object] = field(default_factory=dict)


@dataclass
class Settings:
    """What was found: values by attribute, what was set explicitly, and what the log should say about it."""

    values: dict[str, Any] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    def note(self, level: str, message: str, **fields: object) -> None:
        self.notes.append(Note(level, message, fields))

    def config(self) -> Config:
        """The finished settings; Invalid when a value is out of its bounds."""
        for flag in FLAGS.values():
            if flag.kind == "int" and (excess := flag.excess(self.values.get(flag.attribute, flag.default))):
                raise Invalid(f"invalid value {self.values[flag.attribute]} for {flag.name}: {excess}")
        try:
            return Config(**self.values)
        except ValidationError as error:
            first = error.errors()[0]
            name = "".join(f"{part}: " for part in first["loc"]).replace("_", "-")
            raise Invalid(f"{name}{first['msg'].removeprefix('Value error, ').lower()}") from None
        except ValueError as error:  # a NUL in what becomes a path
            raise Invalid(str(error)) from None


def gather(line: CommandLine, environment: Mapping[str, str]) -> Settings:
    """The settings of a node started with this command line and environment.

    Raises Invalid or Conflict with etcd's texts.
    """
    path = line.values.get("config-file") or environment.get("ETCD_CONFIG_FILE", "")
    if path:
        settings = _from_file(Path(path))
        settings.note(
            "info",
            "loaded server configuration, other configuration command line flags and environment variables "
            "will be ignored if provided",
            path=path,
        )
    else:
        settings = _from_flags(line, environment)
    _raise_peer_timeouts(settings)
    _advertise_default_host(settings)
    return settings


def _from_flags(line: CommandLine, environment: Mapping[str, str]) -> Settings:
    settings = Settings()
    texts = dict(line.values)
    _add_environment(texts, environment, settings)
    _take_texts(texts, settings)
    if "listen_client_urls" in settings.values and "advertise_client_urls" not in settings.values:
        settings.values["advertise_client_urls"] = []
    return settings


def _add_environment(texts: dict[str, str], environment: Mapping[str, str], settings: Settings) -> None:
    """Put the variables among the flags' texts; the command line must not name the same setting."""
    names = {ENVIRONMENT_PREFIX + name.upper().replace("-", "_"): name for name in _all_names()}
    used = set()
    given = {name for name in texts if name not in flags.OWN_FLAGS or name == "config-file"}
    for variable, name in names.items():
        value = environment.get(variable, "")
        if not value or name in given:
            continue
        if name == "version":
            settings.note("warn", "cannot set special environment variable", key=variable, value=value)
            used.add(variable)
            continue
        try:
            flags.check_text(name, value)
        except flags.UsageError as error:
            reason = str(error).rpartition(": ")[2]
            raise Invalid(f'invalid value "{value}" for {variable}: {reason}') from None
        texts[name] = value
        used.add(variable)
        settings.note(
            "info",
            "recognized and used environment variable",
            **{"variable-name": variable, "variable-value": flags.shown(name, value)},
        )
    for variable, value in environment.items():
        if variable in used or not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        if names.get(variable) in given:
            raise Conflict(variable)
        if variable not in ("ETCD_UNSUPPORTED_ARCH", "ETCD_VERSION"):
            settings.note(
                "warn",
                "unrecognized environment variable",
                **{"environment-variable": f"{variable}={flags.HIDDEN if SECRET.search(variable) else value}"},
            )


def _all_names() -> list[str]:
    old = [f"experimental-{name}" for name in flags.EXPERIMENTAL_NAMES]
    return [*FLAGS, *flags.OWN_FLAGS, *old, *EXPERIMENTAL_GATES, *flags.HARMLESS]


def _take_texts(texts: Mapping[str, str], settings: Settings) -> None:
    for name, text in texts.items():
        if name in FLAGS:
            settings.values[FLAGS[name].attribute] = flags.read_value(FLAGS[name].kind, text)
        elif name in EXPERIMENTAL_GATES:
            _take_gate(name, str(flags.read_value("bool", text)).lower(), texts.get("feature-gates", ""), settings)
        elif (flag := flags.target(name)) is not None:
            _take_old_name(name, flag, flags.read_value(flag.kind, text), flag.name in texts, settings)


def _take_old_name(name: str, flag: flags.Flag, value: object, also_new: bool, settings: Settings) -> None:
    if also_new:
        raise Invalid(f"both --{name} and --{flag.name} flags are set. Use only --{flag.name}")
    settings.values[flag.attribute] = value
    settings.note(
        "warn",
        f"--{name} is deprecated in 3.6 and will be decommissioned in 3.7. Use '--{flag.name}' instead.",
    )


def _take_gate(name: str, value: str, gates: str, settings: Settings) -> None:
    gate = EXPERIMENTAL_GATES[name]
    if f"{gate}=" in gates:
        raise Invalid(
            f"cannot specify both flags: --{name}=(true|false) and --feature-gates={gate}=(true|false) "
            f"at the same time, please just use --feature-gates={gate}=(true|false)"
        )
    together = filter(None, [settings.values.get("feature_gates", "") or gates, f"{gate}={value}"])
    settings.values["feature_gates"] = ",".join(together)
    settings.note(
        "warn",
        f"--{name} is deprecated in 3.6 and will be decommissioned in 3.7. "
        f"Use '--feature-gates={gate}={value}' instead.",
    )


_SECURITY_SECTIONS: Final = {  # section of the file -> prefix of the flags it stands for
    "client-transport-security": "",
    "peer-transport-security": "peer-",
}
_SECURITY_KEYS: Final = (
    "cert-file",
    "key-file",
    "client-cert-file",
    "client-key-file",
    "client-cert-auth",
    "trusted-ca-file",
    "auto-tls",
    "skip-client-san-verification",
)


def _from_file(path: Path) -> Settings:
    settings = Settings()
    try:
        document = yaml.safe_load(path.read_bytes()) or {}
    except FileNotFoundError:
        raise Invalid(f"open {path}: no such file or directory") from None
    except OSError as error:
        raise Invalid(f"open {path}: {(error.strerror or str(error)).lower()}") from None
    except (LookupError, AttributeError):  # PyYAML reads `!!bool x` and `!!float` of nothing without a look
        raise Invalid("error converting YAML to JSON: yaml: a value is not what its tag says") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # its numbers and dates are not all its own
        raise Invalid(f"error converting YAML to JSON: yaml: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise Invalid("error unmarshaling JSON: json: cannot unmarshal the document into a map of settings")
    given = {str(key): value for key, value in document.items() if value is not None}
    for name, value in given.items():
        if name in FLAGS:
            settings.values[FLAGS[name].attribute] = _file_value(name, FLAGS[name].kind, value)
        elif name in EXPERIMENTAL_GATES:
            text = str(_file_value(name, "bool", value)).lower()
            _take_gate(name, text, str(given.get("feature-gates", "")), settings)
        elif (flag := flags.target(name)) is not None:
            _take_old_name(name, flag, _file_value(name, flag.kind, value), flag.name in given, settings)
        elif name in _SECURITY_SECTIONS:
            _take_security(name, value, settings)
        elif name == "discovery-config":
            _take_discovery(value, settings)
        elif not flags.known(name):
            settings.note("warn", "unknown key in the configuration file", key=name)
    return settings


def _take_security(section: str, value: object, settings: Settings) -> None:
    if not isinstance(value, dict):
        raise Invalid(f"invalid {section}")
    prefix = _SECURITY_SECTIONS[section]
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if key in _SECURITY_KEYS and name in FLAGS:
            settings.values[FLAGS[name].attribute] = _file_value(name, FLAGS[name].kind, inner)
        elif key in ("allowed-cn", "allowed-hostname"):
            name = f"{prefix or 'client-'}cert-{key}"
            if name in FLAGS:
                settings.values[FLAGS[name].attribute] = _file_value(name, WORDS, inner)
        else:
            settings.note("warn", "unknown key in the configuration file", key=f"{section}: {key}")


_DISCOVERY_KEYS: Final = {  # place below discovery-config -> the flag it stands for
    ("token",): "discovery-token",
    ("client", "endpoints"): "discovery-endpoints",
    ("client", "dial-timeout"): "discovery-dial-timeout",
    ("client", "request-timeout"): "discovery-request-timeout",
    ("client", "keepalive-time"): "discovery-keepalive-time",
    ("client", "keepalive-timeout"): "discovery-keepalive-timeout",
    ("client", "secure", "cert"): "discovery-cert",
    ("client", "secure", "key"): "discovery-key",
    ("client", "secure", "cacert"): "discovery-cacert",
    ("client", "secure", "insecure-transport"): "discovery-insecure-transport",
    ("client", "secure", "insecure-skip-tls-verify"): "discovery-insecure-skip-tls-verify",
    ("client", "auth", "username"): "discovery-user",
    ("client", "auth", "password"): "discovery-password",
}


def _take_discovery(section: object, settings: Settings) -> None:
    if not isinstance(section, dict):
        raise Invalid("invalid discovery-config")
    for place, name in _DISCOVERY_KEYS.items():
        value: object = section
        for key in place:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            settings.values[FLAGS[name].attribute] = _file_value(name, FLAGS[name].kind, value)


_GO_TYPES: Final = {"str": "string", "int": "int", "bool": "bool", DURATION: "time.Duration", URLS: "string"}


def _file_value(name: str, kind: str, value: Any) -> Any:
    """A value of the file as its setting wants it. Durations are whole nanoseconds there, URL lists comma strings."""
    if kind == WORDS:
        return [str(word) for word in value] if isinstance(value, list) else _comma_words(name, value)
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind in ("int", DURATION) and isinstance(value, int) and not isinstance(value, bool):
        return value if kind == "int" else -(-value // 1_000_000)
    if kind in ("str", URLS) and isinstance(value, str | int | float | bool):
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if kind == "str":
            return text
        try:
            return flags.read_urls(text)
        except ValueError as error:
            raise Invalid(f"unexpected error setting up {name}: {error}") from None
    found = _go_type_of(value)
    raise Invalid(
        "error unmarshaling JSON: while decoding JSON: json: "
        f"cannot unmarshal {found} into Go struct field configYAML.{name} of type {_GO_TYPES[kind]}"
    )


def _comma_words(name: str, value: object) -> list[str]:
    if isinstance(value, str) and name in ("cors", "host-whitelist", "discovery-endpoints"):
        return [word.strip() for word in value.split(",") if word.strip()]
    raise Invalid(
        "error unmarshaling JSON: while decoding JSON: json: "
        f"cannot unmarshal {_go_type_of(value)} into Go struct field configYAML.{name} of type []string"
    )


def _go_type_of(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number " + json.dumps(value) if isinstance(value, float) else "number"
    return {"str": "string", "list": "array"}.get(type(value).__name__, "object")


def _raise_peer_timeouts(settings: Settings) -> None:
    for attribute in ("raft_read_timeout", "raft_write_timeout"):
        if settings.values.get(attribute, PEER_TIMEOUT_MS_MIN) < PEER_TIMEOUT_MS_MIN:
            settings.values[attribute] = PEER_TIMEOUT_MS_MIN
            settings.note("info", f"{attribute.replace('_', '-')} increased to minimum value: 5s")


def _advertise_default_host(settings: Settings) -> None:
    """A member that listens everywhere and does not say where it is advertises the address of the default route."""
    pairs = [
        ("listen_peer_urls", "initial_advertise_peer_urls", DEFAULT_PEER_URL),
        ("listen_client_urls", "advertise_client_urls", DEFAULT_CLIENT_URL),
    ]
    for listen, advertise, default in pairs:
        listening = settings.values.get(listen, [])
        unspecified = [url for url in listening if flags.host_of(url) == "0.0.0.0"]  # noqa: S104 - nothing is bound here
        if not unspecified or settings.values.get(advertise, [default]) != [default]:
            continue
        host = default_route_address()
        if host:
            settings.values[advertise] = [f"http://{host}:{flags.port_of(unspecified[0])}"]
            settings.note("info", "advertising the address of the default route", host=host)


def default_route_address() -> str | None:
    """This machine's address on its default route, None when it has none. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address reserved for documentation: only the route is looked up
        except OSError:
            return None
        address: str = probe.getsockname()[0]
        return address
