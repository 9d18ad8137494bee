"""Requests and profiles in cfssl's JSON, so that the files of existing guides serve as they are.

A request names a subject (`CN`, `hosts`, `names`, `key`), a signing configuration says for how long and for what a
profile is good. Only what decides a certificate is read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from quorate.node.certificates import Purpose, Subject
from quorate.node.flags import duration_ns


@dataclass(frozen=True, slots=True)
class Request:
    """A certificate signing request as cfssl writes it."""

    subject: Subject
    expiry: timedelta | None  # of a CA; None where the request leaves it open


@dataclass(frozen=True, slots=True)
class Profile:
    """How a signing profile signs."""

    purpose: Purpose
    expiry: timedelta


class _Document(BaseModel):
    """A part of a file; what is not named here is not read."""

    model_config = ConfigDict(coerce_numbers_to_str=True)


class _Key(_Document):
    algo: str = "ecdsa"
    size: int = 256


class _Authority(_Document):
    expiry: str = ""


class _Request(_Document):
    CN: str = ""
    hosts: list[str] | None = None
    names: list[dict[str, str | None]] | None = None
    key: _Key | None = None
    ca: _Authority | None = None


class _Constraint(_Document):
    is_ca: bool = False


class _Profile(_Document):
    usages: list[str] | None = None
    expiry: str = ""
    ca_constraint: _Constraint | None = None


class _Signing(_Document):
    default: _Profile | None = None
    profiles: dict[str, _Profile | None] | None = None


class _Configuration(_Document):
    signing: _Signing | None = None


D = TypeVar("D", bound=_Document)


def read_request(path: Path) -> Request:
    """A request from a file; ValueError names the field that cannot be used."""
    found = _document(path, _Request)
    names = {short: value for group in found.names or () for short, value in group.items() if value}
    unknown = set(names) - {"C", "ST", "L", "O", "OU"}
    if unknown:
        raise ValueError(f"{path}: names has the unknown attribute {sorted(unknown)[0]}: use C, ST, L, O or OU")
    key = found.key or _Key()
    hosts = tuple(host for host in found.hosts or () if host)
    subject = Subject(common_name=found.CN, hosts=hosts, names=names, algorithm=key.algo, key_bits=key.size)
    expiry = found.ca.expiry if found.ca else ""
    return Request(subject, _expiry(path, expiry) if expiry else None)


def read_profile(path: Path, name: str) -> Profile:
    """A profile of a signing configuration, `default` for the default; ValueError when there is none of that name."""
    signing = _document(path, _Configuration).signing or _Signing()
    profiles = signing.profiles or {}
    if name not in profiles and name != "default":
        raise ValueError(f"{path} has no profile {name}: it has {', '.join(sorted(profiles)) or 'none'}")
    default = signing.default or _Profile()
    chosen = profiles.get(name) or default
    return Profile(_purpose(chosen), _expiry(path, chosen.expiry or default.expiry or "8760h"))


def _purpose(profile: _Profile) -> Purpose:
    if profile.ca_constraint and profile.ca_constraint.is_ca:
        return Purpose.CA
    usages = profile.usages or ()
    serves, dials = "server auth" in usages, "client auth" in usages
    if serves and not dials:
        return Purpose.SERVER
    if dials and not serves:
        return Purpose.CLIENT
    return Purpose.PEER


def _expiry(path: Path, text: str) -> timedelta:
    try:
        return timedelta(microseconds=duration_ns(text) // 1000)
    except (ValueError, OverflowError):
        raise ValueError(f'{path}: expiry "{text}" is not a duration such as 8760h') from None


def _document(path: Path, kind: type[D]) -> D:
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from None
